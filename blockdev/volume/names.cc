#include "blockdev/volume/names.h"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace pstorage::volume {
namespace {

constexpr std::size_t name_bytes_max = 200;

bool is_good_part(std::string const& part) {
  return !part.empty() && part.front() != '.' && part.size() <= name_bytes_max &&
         std::none_of(part.begin(), part.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7F || c == '@';
         });
}

}  // namespace

Outcome<Volume_name> parse_volume_name(std::string const& text) {
  auto const bad = failure(Errc::bad_request, "bad volume name '" + text +
                                                  "': give a name like 'vm1', 'group/vm1' or, for "
                                                  "a snapshot, 'vm1@monday'");
  Volume_name result;
  auto const at = text.find('@');
  result.name = text.substr(0, at);
  if (at != std::string::npos) {
    result.snapshot = text.substr(at + 1);
    if (result.snapshot.empty()) return bad;
  }
  for (std::size_t from = 0; from <= result.name.size();) {
    auto const to = std::min(result.name.find('/', from), result.name.size());
    if (!is_good_part(result.name.substr(from, to - from))) return bad;
    from = to + 1;
  }
  return result;
}

Outcome<Volume_name> parse_plain_name(std::string const& text) {
  PS_TRY(auto name, parse_volume_name(text));
  if (!name.snapshot.empty())
    return failure(Errc::bad_request,
                   "bad volume name '" + text + "': a snapshot is not possible here");
  return name;
}

std::pair<std::string, std::string> split_last(std::string const& path) {
  auto const slash = path.rfind('/');
  return {path.substr(0, slash), path.substr(slash + 1)};
}

std::string migration_in(std::string const& property, std::uint64_t wall_ms) {
  auto const space = property.find(' ');
  if (space == std::string::npos) return {};
  std::uint64_t until_ms = 0;
  std::from_chars(property.data() + space + 1, property.data() + property.size(), until_ms);
  return wall_ms < until_ms ? property.substr(0, space) : "";
}

std::string migration_text(std::string const& id, std::uint64_t until_ms) {
  return id + " " + std::to_string(until_ms);
}

std::string Merge_note::text() const {
  if (!why.empty()) return guid + " ! " + why;
  return guid + " " + std::to_string(done) + " " + std::to_string(all);
}

Merge_note merge_note(std::string const& text) {
  std::istringstream words(text);
  Merge_note note;
  std::string first;
  words >> note.guid >> first;
  if (first == "!") {
    std::getline(words >> std::ws, note.why);
    return note;
  }
  std::from_chars(first.data(), first.data() + first.size(), note.done);
  words >> note.all;
  return note;
}

}  // namespace pstorage::volume
