#include "iscsi/lun_options.h"

#include <algorithm>
#include <charconv>

namespace pstorage::iscsi {
namespace {

constexpr std::uint64_t sector_bytes = 512;
constexpr std::uint64_t size_max = 1ull << 62;
constexpr std::uint64_t group_number_max = 0xffff;

Outcome<std::uint64_t> number(std::string_view name, std::string_view text) {
  std::uint64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return failure(Errc::bad_request,
                   "bad " + std::string(name) + " '" + std::string(text) + "': a number is needed");
  }
  return value;
}

Outcome<std::uint64_t> size_of(std::string_view text) {
  PS_TRY(auto const size, number("size", text));
  if (size == 0 || size % sector_bytes != 0 || size > size_max) {
    return failure(Errc::bad_request, "bad size " + std::string(text) +
                                          ": a positive multiple of 512 bytes is needed");
  }
  return size;
}

Outcome<std::uint16_t> group_number(std::string_view name, std::string_view text) {
  PS_TRY(auto const value, number(name, text));
  if (value > group_number_max) {
    return failure(Errc::bad_request, "bad " + std::string(name) + ": at most 65535");
  }
  return static_cast<std::uint16_t>(value);
}

Outcome<std::vector<std::uint16_t>> group_list(std::string_view text) {
  std::vector<std::uint16_t> groups;
  while (!text.empty()) {
    auto const one = text.substr(0, text.find('/'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    PS_TRY(auto const group, group_number("groups", one));
    if (group == 0 || groups.size() == port_groups_max ||
        (!groups.empty() && group <= groups.back())) {
      return failure(Errc::bad_request, "bad groups: give up to 16 numbers, ascending, from 1");
    }
    groups.push_back(group);
  }
  return groups;
}

Outcome<void> set(Lun_options& options, std::string_view name, std::string_view value) {
  if (name == "size") {
    PS_TRY(options.size_bytes, size_of(value));
  } else if (name == "uuid") {
    PS_TRY(options.uuid, parse_uuid(std::string(value)));
  } else if (name == "reservations") {
    options.reservations_path = value;
  } else if (name == "reservations-uri") {
    options.reservations_uri = value;
  } else if (name == "patience") {
    PS_TRY(auto const seconds, number(name, value));
    if (seconds == 0 || seconds > 3600) {
      return failure(Errc::bad_request, "bad patience: 1 to 3600 seconds");
    }
    options.patience_seconds = static_cast<std::uint32_t>(seconds);
  } else if (name == "readonly") {
    options.is_read_only = value == "1";
  } else if (name == "groups") {
    PS_TRY(options.groups.all, group_list(value));
  } else if (name == "group") {
    PS_TRY(options.groups.own, group_number(name, value));
  } else if (name == "active") {
    PS_TRY(options.groups.active, group_number(name, value));
  } else {
    return failure(Errc::bad_request,
                   "unknown option '" + std::string(name) +
                       "': there are size, uuid, reservations, reservations-uri, patience, "
                       "readonly, groups, group and active");
  }
  return success();
}

}  // namespace

Outcome<Lun_options> parse_lun_options(std::string_view text) {
  Lun_options options;
  bool has_uuid = false;
  while (!text.empty()) {
    auto const one = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    if (one.empty()) continue;
    auto const equals = one.find('=');
    auto const name = one.substr(0, equals);
    auto const value =
        equals == std::string_view::npos ? std::string_view{} : one.substr(equals + 1);
    PS_CHECK(set(options, name, value));
    has_uuid = has_uuid || name == "uuid";
  }
  if (options.size_bytes == 0) return failure(Errc::bad_request, "the option size= is missing");
  if (!options.reservations_path.empty() && !options.reservations_uri.empty()) {
    return failure(Errc::bad_request, "give reservations= or reservations-uri=, not both");
  }
  auto const& all = options.groups.all;
  if (!all.empty() && std::find(all.begin(), all.end(), options.groups.own) == all.end()) {
    return failure(Errc::bad_request, "group= is not one of groups=");
  }
  if (!has_uuid) return failure(Errc::bad_request, "the option uuid= is missing");
  return options;
}

Outcome<std::uint64_t> parse_size_parameter(std::string_view text) {
  if (!text.starts_with(size_parameter)) {
    return failure(Errc::bad_request, "not a size parameter");
  }
  return size_of(text.substr(size_parameter.size()));
}

}  // namespace pstorage::iscsi
