#include "core/config/dns.h"

#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

namespace pstorage {
namespace {

constexpr int answer_bytes_max = 65535;
constexpr int tries = 2;
constexpr int seconds_a_try = 2;
constexpr std::size_t records_max = 256;
constexpr char const* clusters_name = "pstorage_clusters";

/// A resolver of this call alone, as resolv.conf says.
class Resolver_state {
 public:
  Resolver_state() : is_ready_(::res_ninit(&state_) == 0) {
    state_.retrans = seconds_a_try;
    state_.retry = tries;
  }
  ~Resolver_state() {
    if (is_ready_) ::res_nclose(&state_);
  }
  Resolver_state(Resolver_state const&) = delete;
  Resolver_state& operator=(Resolver_state const&) = delete;

  Outcome<std::vector<unsigned char>> search(std::string const& name, ns_type type) {
    if (!is_ready_) return failure(Errc::unavailable, "DNS: /etc/resolv.conf cannot be used");
    std::vector<unsigned char> answer(answer_bytes_max);
    int const size = ::res_nsearch(&state_, name.c_str(), ns_c_in, type, answer.data(),
                                   static_cast<int>(answer.size()));
    if (size < 0) {
      bool const is_absent = state_.res_h_errno == HOST_NOT_FOUND || state_.res_h_errno == NO_DATA;
      return failure(
          is_absent ? Errc::not_found : Errc::unavailable,
          is_absent ? "DNS has no records of " + name
                    : "DNS does not answer for " + name + ": " + ::hstrerror(state_.res_h_errno));
    }
    answer.resize(static_cast<std::size_t>(std::min(size, answer_bytes_max)));
    return answer;
  }

 private:
  struct __res_state state_ {};
  bool is_ready_;
};

/// Calls `take` for each record of `type` in the answer; false when the answer is malformed.
bool for_each_record(std::vector<unsigned char> const& answer, ns_type type,
                     std::function<bool(ns_msg const&, ns_rr const&)> const& take) {
  ns_msg message;
  if (::ns_initparse(answer.data(), static_cast<int>(answer.size()), &message) != 0) return false;
  auto const count = std::min<std::size_t>(ns_msg_count(message, ns_s_an), records_max);
  for (std::size_t i = 0; i < count; ++i) {
    ns_rr record;
    if (::ns_parserr(&message, ns_s_an, static_cast<int>(i), &record) != 0) return false;
    if (ns_rr_type(record) == type && !take(message, record)) return false;
  }
  return true;
}

std::string trimmed(std::string const& text) {
  auto const first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

void split_names(std::string const& text, std::vector<std::string>& names) {
  for (std::size_t from = 0; from <= text.size();) {
    auto const to = std::min(text.find(',', from), text.size());
    auto name = trimmed(text.substr(from, to - from));
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
    from = to + 1;
  }
}

/// The strings of a TXT record: a length byte, then so many characters, again and again.
bool take_strings(ns_rr const& record, std::vector<std::string>& names) {
  auto const* const data = ns_rr_rdata(record);
  std::size_t const size = ns_rr_rdlen(record);
  for (std::size_t at = 0; at < size;) {
    std::size_t const length = data[at];
    if (length > size - at - 1) return false;
    split_names(std::string(reinterpret_cast<char const*>(data) + at + 1, length), names);
    at += 1 + length;
  }
  return true;
}

/// Nothing: the answer is malformed.
std::optional<std::vector<Dns_server>> take_srv(std::vector<unsigned char> const& answer) {
  struct Found {
    unsigned priority;
    unsigned weight;
    Dns_server server;
  };
  std::vector<Found> all;
  bool const is_whole =
      for_each_record(answer, ns_t_srv, [&all](ns_msg const& message, ns_rr const& record) {
        constexpr std::size_t fixed = 6;  // priority, weight, port
        if (ns_rr_rdlen(record) <= fixed) return false;
        auto const* const data = ns_rr_rdata(record);
        char host[NS_MAXDNAME];
        if (::ns_name_uncompress(ns_msg_base(message), ns_msg_end(message), data + fixed, host,
                                 sizeof host) < 0)
          return false;
        // "." says that there is no such service.
        if (host[0] == '\0' || (host[0] == '.' && host[1] == '\0')) return true;
        all.push_back({::ns_get16(data),
                       ::ns_get16(data + 2),
                       {host, static_cast<std::uint16_t>(::ns_get16(data + 4))}});
        return true;
      });
  if (!is_whole) return std::nullopt;
  std::stable_sort(all.begin(), all.end(), [](Found const& a, Found const& b) {
    return a.priority != b.priority ? a.priority < b.priority : a.weight > b.weight;
  });
  std::vector<Dns_server> servers;
  for (auto& found : all) servers.push_back(std::move(found.server));
  return servers;
}

std::optional<std::vector<std::string>> take_names(std::vector<unsigned char> const& answer) {
  std::vector<std::string> names;
  bool const is_whole = for_each_record(
      answer, ns_t_txt,
      [&names](ns_msg const&, ns_rr const& record) { return take_strings(record, names); });
  if (!is_whole) return std::nullopt;
  return names;
}

Failure malformed(std::string const& name) {
  return failure(Errc::corrupt, "DNS gives a malformed answer for " + name);
}

}  // namespace

std::string srv_name(std::string const& cluster) { return "_pstorage._tcp." + cluster; }

std::vector<Dns_server> srv_records(std::vector<unsigned char> const& answer) {
  return take_srv(answer).value_or(std::vector<Dns_server>());
}

std::vector<std::string> txt_names(std::vector<unsigned char> const& answer) {
  return take_names(answer).value_or(std::vector<std::string>());
}

Outcome<std::vector<Dns_server>> find_srv(std::string const& cluster) {
  auto const name = srv_name(cluster);
  Resolver_state resolver;
  PS_TRY(auto const answer, resolver.search(name, ns_t_srv));
  auto servers = take_srv(answer);
  if (!servers) return malformed(name);
  if (servers->empty()) return failure(Errc::not_found, "DNS has no records of " + name);
  return *std::move(servers);
}

Outcome<std::vector<std::string>> find_cluster_names() {
  Resolver_state resolver;
  PS_TRY(auto const answer, resolver.search(clusters_name, ns_t_txt));
  auto names = take_names(answer);
  if (!names) return malformed(clusters_name);
  return *std::move(names);
}

}  // namespace pstorage
