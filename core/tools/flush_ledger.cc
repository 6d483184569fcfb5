#include "core/tools/flush_ledger.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace pstorage::tools {
namespace {

/// The first word of `text`, which then begins behind it.
std::string_view take_word(std::string_view& text) {
  auto const end = std::min(text.find(' '), text.size());
  auto const word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

bool take_number(std::string_view& text, std::uint64_t& number) {
  auto const word = take_word(text);
  auto const parsed = std::from_chars(word.data(), word.data() + word.size(), number);
  return !word.empty() && parsed.ec == std::errc() && parsed.ptr == word.data() + word.size();
}

/// What a peer sent may be printed: it must not steer the terminal.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, 500));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return out;
}

std::uint64_t sum_of(std::vector<std::uint64_t> const& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::uint64_t{0});
}

Flush_ledger::Answer refuse(std::string const& text) { return {"error " + text, {}, true}; }

}  // namespace

Flush_ledger::Answer Flush_ledger::hello(Session session, std::string_view words) {
  auto const name = printable(take_word(words));
  std::string const shape(words);
  std::uint64_t block_bytes = 0, blocks = 0, writers = 0;
  if (name.empty() || !take_number(words, block_bytes) || !take_number(words, blocks) ||
      !take_number(words, writers) || writers == 0 || writers > writers_max) {
    return refuse("bad hello");
  }
  if (clients_.size() >= clients_max && !clients_.contains(name)) return refuse("too many clients");
  auto& client = clients_[name];
  bool const is_new = client.last.empty();
  if (client.is_connected) return refuse(name + " is connected already");
  if (!is_new && client.shape != shape) {
    return refuse("restart the client with the same -b, -n and -t, or the server to begin anew");
  }
  client.shape = shape;
  client.last.resize(writers);
  client.is_connected = true;
  sessions_[session] = name;
  std::string reply = "last";
  for (auto const last : client.last) reply += " " + std::to_string(last);
  return {reply, is_new ? name + ": connected" : name + ": is back", false};
}

Flush_ledger::Answer Flush_ledger::done(std::string const& name, Client& client,
                                        std::string_view words) {
  std::uint64_t writer = 0, write = 0;
  if (!take_number(words, writer) || !take_number(words, write) || writer >= client.last.size()) {
    return refuse("bad line");
  }
  if (write > client.last[writer]) client.last[writer] = write;
  auto const writes = sum_of(client.last);
  auto const next = std::max<std::uint64_t>(client.told * 10, 100);
  if (writes < next) return {};
  client.told = next;
  return {{}, name + ": " + std::to_string(next) + " durable writes", false};
}

Flush_ledger::Answer Flush_ledger::on_line(Session session, std::string_view line) {
  auto const verb = take_word(line);
  auto const known = sessions_.find(session);
  if (verb == "hello" && known == sessions_.end()) return hello(session, line);
  if (known == sessions_.end()) return refuse("say hello first");
  auto const& name = known->second;
  auto& client = clients_[name];
  if (verb == "done") return done(name, client, line);
  if (verb == "kept") {
    auto const writes = sum_of(client.last);
    return {{},
            writes == 0 ? "" : name + ": kept all, " + std::to_string(writes) + " writes so far"};
  }
  if (verb == "lost") {
    has_lies_ = true;
    return {{}, name + ": cache error detected! " + printable(line)};
  }
  return refuse("bad line");
}

Flush_ledger::Answer Flush_ledger::on_closed(Session session) {
  auto const known = sessions_.find(session);
  if (known == sessions_.end()) return {};
  auto& client = clients_[known->second];
  client.is_connected = false;
  auto const writes = sum_of(client.last);
  Answer const answer{{},
                      known->second + ": gone after " + std::to_string(writes) + " durable writes"};
  sessions_.erase(known);
  return answer;
}

}  // namespace pstorage::tools
