#include "blockdev/mount/names.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

namespace pstorage::mount {
namespace {

constexpr std::size_t name_bytes_max = 255;
constexpr std::uint32_t preferred_bytes = 65536;
constexpr std::uint64_t sector = 512;
constexpr long ns_a_ms = 1'000'000;

constexpr std::array<std::string_view, 4> attribute_names = {"replicas", "tier", "failure-domain",
                                                             "chunk-size"};

/// Bytes of the UTF-8 character that begins with `lead`; 0: none does.
std::size_t character_bytes(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

bool parse(std::string_view text, std::uint32_t& value) {
  auto const [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && at == text.data() + text.size() && !text.empty();
}

Failure bad_value(std::string_view name, std::string const& value) {
  return failure(Errc::bad_request, "'" + value + "' is no value of " + std::string(name));
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    auto const lead = static_cast<unsigned char>(text[at]);
    auto const bytes = character_bytes(lead);
    if (bytes == 0 || bytes > text.size() - at) return false;
    for (std::size_t i = 1; i < bytes; ++i) {
      auto const next = static_cast<unsigned char>(text[at + i]);
      unsigned low = 0x80;
      unsigned high = 0xbf;
      // No longer form than needed, no surrogates, nothing above U+10FFFF.
      if (i == 1 && lead == 0xe0) low = 0xa0;
      if (i == 1 && lead == 0xed) high = 0x9f;
      if (i == 1 && lead == 0xf0) low = 0x90;
      if (i == 1 && lead == 0xf4) high = 0x8f;
      if (next < low || next > high) return false;
    }
    at += bytes;
  }
  return true;
}

int check_name(std::string_view name) {
  if (name.size() > name_bytes_max) return ENAMETOOLONG;
  bool const has_control = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (has_control || name.empty()) return EINVAL;
  return is_utf8(name) ? 0 : EILSEQ;
}

std::string path_of(std::uint64_t inode) { return "@" + std::to_string(inode); }

std::string path_in(std::uint64_t directory, std::string_view name) {
  return path_of(directory) + "/" + std::string(name);
}

mode_t type_bits(proto::File_type type) {
  if (type == proto::TYPE_DIRECTORY) return S_IFDIR;
  return type == proto::TYPE_SYMLINK ? S_IFLNK : S_IFREG;
}

struct stat stat_of(proto::File const& file, Defaults const& defaults) {
  struct stat result = {};
  bool const has_mode = file.mode() != 0;
  mode_t permissions = has_mode ? file.mode() & 07777 : defaults.mode;
  if (!has_mode && file.type() == proto::TYPE_FILE) permissions &= ~0111u;
  result.st_ino = file.id();
  result.st_mode = type_bits(file.type()) | permissions;
  // 1 for directories: how many there are below is not counted.
  result.st_nlink = file.type() == proto::TYPE_DIRECTORY ? 1 : file.links();
  result.st_uid = has_mode ? file.uid() : defaults.uid;
  result.st_gid = has_mode ? file.gid() : defaults.gid;
  result.st_blksize = preferred_bytes;
  result.st_mtim = {static_cast<time_t>(file.modified_ms() / 1000),
                    static_cast<long>(file.modified_ms() % 1000) * ns_a_ms +
                        static_cast<long>(file.modified_sub_ns())};
  result.st_atim = result.st_mtim;
  auto const changed = file.changed_ms() != 0 ? file.changed_ms() : file.modified_ms();
  result.st_ctim = {static_cast<time_t>(changed / 1000),
                    static_cast<long>(changed % 1000) * ns_a_ms};
  if (file.type() == proto::TYPE_SYMLINK) {
    result.st_size = static_cast<off_t>(file.target().size());
  } else if (file.type() == proto::TYPE_FILE) {
    result.st_size = static_cast<off_t>(file.size());
    auto const mapped = file.allocated_chunks() * file.attributes().chunk_size();
    result.st_blocks = static_cast<blkcnt_t>((std::min(file.size(), mapped) + sector - 1) / sector);
  }
  return result;
}

Validity validity_of(proto::File_type type, bool leased) {
  constexpr double seconds = 1.0;
  // A file is looked up at each open: it may have been replaced by another host.
  if (type == proto::TYPE_FILE) return {.entry = 0, .attributes = leased ? seconds : 0};
  return {.entry = seconds, .attributes = seconds};
}

Outcome<std::string> attribute_text(proto::Attributes const& attributes, std::string_view name) {
  if (name == "replicas") {
    return std::to_string(attributes.replicas_norm()) + ":" +
           std::to_string(attributes.replicas_min());
  }
  if (name == "tier") return std::to_string(attributes.tier());
  if (name == "failure-domain") return attributes.failure_domain();
  if (name == "chunk-size") return std::to_string(attributes.chunk_size());
  return failure(Errc::not_found, "no such attribute");
}

Outcome<proto::Attributes> attribute_change(std::string_view name, std::string const& value) {
  proto::Attributes change;
  std::uint32_t number = 0;
  if (name == "replicas") {
    auto const colon = value.find(':');
    if (!parse(value.substr(0, colon), number) || number == 0) return bad_value(name, value);
    change.set_replicas_norm(number);
    if (colon != std::string::npos) {
      if (!parse(value.substr(colon + 1), number) || number == 0) return bad_value(name, value);
      change.set_replicas_min(number);
    }
    return change;
  }
  if (name == "failure-domain") {
    if (value.empty()) return bad_value(name, value);
    change.set_failure_domain(value);
    return change;
  }
  if (name != "tier" && name != "chunk-size") {
    return failure(Errc::not_found, "no such attribute");
  }
  if (!parse(value, number)) return bad_value(name, value);
  if (name == "tier") {
    change.set_tier(number);
  } else {
    if (number == 0) return bad_value(name, value);
    change.set_chunk_size(number);
  }
  return change;
}

std::string attribute_list() {
  std::string list;
  for (auto const name : attribute_names) {
    list += attribute_prefix;
    list += name;
    list += '\0';
  }
  return list;
}

}  // namespace pstorage::mount
