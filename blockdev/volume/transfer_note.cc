#include "blockdev/volume/transfer_note.h"

#include <nlohmann/json.hpp>

namespace pstorage::volume {

std::string Transfer_note::text() const {
  return nlohmann::json{{"source", source},
                        {"format", format},
                        {"size", size_bytes},
                        {"modified_ns", modified_ns},
                        {"done", done_bytes}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Outcome<Transfer_note> parse_note(std::string const& text) {
  auto const json = nlohmann::json::parse(text, nullptr, false);
  auto const number = [&](char const* key) {
    return json.contains(key) && json[key].is_number_integer();
  };
  auto const words = [&](char const* key) { return json.contains(key) && json[key].is_string(); };
  if (!json.is_object() || !words("source") || !words("format") || !number("size") ||
      !number("modified_ns") || !number("done"))
    return failure(Errc::corrupt, "the note of the unfinished transfer cannot be read");
  Transfer_note note{json["source"], json["format"], json["size"], json["modified_ns"],
                     json["done"]};
  if (note.done_bytes > note.size_bytes)
    return failure(Errc::corrupt, "the note of the unfinished transfer makes no sense");
  return note;
}

Outcome<void> check_same_source(Transfer_note const& before, Transfer_note const& now) {
  if (before.source != now.source)
    return failure(Errc::refused, "it was begun from " + before.source);
  if (before.format != now.format)
    return failure(Errc::refused,
                   "it was begun with format " + before.format + ", not " + now.format);
  if (before.size_bytes != now.size_bytes)
    return failure(Errc::refused, now.source + " has " + std::to_string(now.size_bytes) +
                                      " bytes now and had " + std::to_string(before.size_bytes));
  if (before.modified_ns != now.modified_ns)
    return failure(Errc::refused, now.source + " was changed since");
  return success();
}

}  // namespace pstorage::volume
