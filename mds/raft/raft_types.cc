#include "mds/raft/raft_types.h"

#include <algorithm>

namespace pstorage::mds::raft {
namespace {

constexpr std::uint32_t members_max = 64;
constexpr std::size_t address_bytes_max = 300;

void put(std::string& to, auto value) {
  std::byte bytes[sizeof value];
  store_le(bytes, value);
  to.append(as_text(bytes));
}

/// Takes a number off the front; false when there are too few bytes.
bool take(Bytes& from, auto& value) {
  if (from.size() < sizeof value) return false;
  value = load_le<std::remove_reference_t<decltype(value)>>(from.data());
  from = from.subspan(sizeof value);
  return true;
}

}  // namespace

Member const* Configuration::find(Member_id id) const {
  auto const found = std::find_if(members.begin(), members.end(),
                                  [id](Member const& member) { return member.id == id; });
  return found == members.end() ? nullptr : &*found;
}

bool Configuration::is_voter(Member_id id) const {
  auto const* member = find(id);
  return member != nullptr && member->kind == Member_kind::voter;
}

std::size_t Configuration::voters() const {
  return static_cast<std::size_t>(
      std::count_if(members.begin(), members.end(),
                    [](Member const& member) { return member.kind == Member_kind::voter; }));
}

void Configuration::add(Member member) {
  remove(member.id);
  auto const at = std::find_if(members.begin(), members.end(),
                               [&](Member const& other) { return member.id < other.id; });
  members.insert(at, std::move(member));
}

void Configuration::remove(Member_id id) {
  std::erase_if(members, [id](Member const& member) { return member.id == id; });
}

std::string encode_configuration(Configuration const& configuration) {
  std::string bytes;
  put(bytes, static_cast<std::uint32_t>(configuration.members.size()));
  for (auto const& member : configuration.members) {
    put(bytes, member.id.value);
    put(bytes, static_cast<std::uint8_t>(member.kind));
    put(bytes, static_cast<std::uint32_t>(member.address.size()));
    bytes += member.address;
  }
  return bytes;
}

Result<Configuration> decode_configuration(Bytes bytes) {
  Configuration configuration;
  std::uint32_t count = 0;
  if (!take(bytes, count) || count > members_max) return Errc::corrupt;
  for (std::uint32_t i = 0; i < count; ++i) {
    Member member;
    std::uint8_t kind = 0;
    std::uint32_t length = 0;
    if (!take(bytes, member.id.value) || !take(bytes, kind) || !take(bytes, length)) {
      return Errc::corrupt;
    }
    bool const is_known = kind == static_cast<std::uint8_t>(Member_kind::voter) ||
                          kind == static_cast<std::uint8_t>(Member_kind::learner);
    if (!is_known || length > address_bytes_max || length > bytes.size()) return Errc::corrupt;
    if (!member.id || configuration.find(member.id) != nullptr) return Errc::corrupt;
    member.kind = static_cast<Member_kind>(kind);
    member.address = std::string(as_text(bytes.first(length)));
    bytes = bytes.subspan(length);
    configuration.add(std::move(member));
  }
  if (!bytes.empty()) return Errc::corrupt;
  return configuration;
}

}  // namespace pstorage::mds::raft
