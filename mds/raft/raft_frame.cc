#include "mds/raft/raft_frame.h"

#include <algorithm>

#include "core/crc32c.h"
#include "mds/raft/segment.h"

namespace pstorage::mds::raft {
namespace {

constexpr std::uint32_t raft_frame_magic = 0x324d5246;  // "FRM2"
constexpr std::uint32_t flag_base = 1;
constexpr std::uint32_t flag_reset = 2;
constexpr std::uint32_t flag_after_damage = 4;
constexpr std::size_t entry_header_bytes = 4 + 1 + 8;
constexpr std::size_t base_header_bytes = 8 + 8 + 4;

class Writer {
 public:
  explicit Writer(std::byte* at) : at_(at) {}
  void put(auto value) {
    store_le(at_, value);
    at_ += sizeof value;
  }
  void put_bytes(Bytes bytes) { at_ = std::copy(bytes.begin(), bytes.end(), at_); }

 private:
  std::byte* at_;
};

/// Reads past the end give zeros and are remembered.
class Reader {
 public:
  explicit Reader(Bytes rest) : rest_(rest) {}
  template <typename T>
  T take() {
    auto const bytes = take_bytes(sizeof(T));
    return bytes.empty() ? T{} : load_le<T>(bytes.data());
  }
  Bytes take_bytes(std::size_t count) {
    if (count > rest_.size()) {
      is_short_ = true;
      return {};
    }
    auto const taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  bool is_short() const { return is_short_; }
  bool is_done() const { return rest_.empty() && !is_short_; }

 private:
  Bytes rest_;
  bool is_short_ = false;
};

Result<Snapshot> take_base(Reader& reader) {
  Snapshot base;
  base.index = reader.take<std::uint64_t>();
  base.term = reader.take<std::uint64_t>();
  auto const length = reader.take<std::uint32_t>();
  PS_TRY(base.configuration, decode_configuration(reader.take_bytes(length)));
  return base;
}

Result<Log_entry> take_entry(Reader& reader, std::uint64_t index) {
  Log_entry entry;
  entry.index = index;
  auto const length = reader.take<std::uint32_t>();
  auto const kind = reader.take<std::uint8_t>();
  entry.term = reader.take<std::uint64_t>();
  entry.bytes = Slice::copy_of(reader.take_bytes(length));
  if (reader.is_short() || kind < 1 || kind > 3) return Errc::corrupt;
  entry.kind = static_cast<Entry_kind>(kind);
  if (entry.kind == Entry_kind::configuration) {
    PS_CHECK(decode_configuration(entry.bytes.bytes()));
  }
  return entry;
}

}  // namespace

std::size_t payload_of(Log_entry const& entry) { return entry_header_bytes + entry.bytes.size(); }

std::size_t payload_of(Snapshot const& base) {
  return base_header_bytes + encode_configuration(base.configuration).size();
}

std::uint64_t raft_frame_bytes(std::uint64_t payload_bytes) {
  auto const bytes = raft_frame_header_bytes + payload_bytes;
  return (bytes + frame_alignment - 1) / frame_alignment * frame_alignment;
}

std::vector<std::byte> encode_raft_frame(std::uint64_t salt, Raft_frame const& frame) {
  std::size_t payload = frame.base ? payload_of(*frame.base) : 0;
  for (auto const& entry : frame.entries) payload += payload_of(entry);
  std::vector<std::byte> bytes(raft_frame_bytes(payload));
  Writer writer(bytes.data());
  writer.put(raft_frame_magic);
  writer.put(std::uint32_t{0});
  writer.put(salt);
  writer.put(frame.sequence);
  writer.put(frame.member.value);
  writer.put(frame.hard.term);
  writer.put(frame.hard.vote.value);
  writer.put(frame.hard.commit);
  writer.put(frame.hard.repair_until);
  writer.put(frame.hard.repair_term);
  writer.put(frame.last_index);
  writer.put(frame.first_index);
  writer.put(static_cast<std::uint32_t>(frame.entries.size()));
  writer.put(static_cast<std::uint32_t>(payload));
  writer.put((frame.base ? flag_base : 0) | (frame.is_reset ? flag_reset : 0) |
             (frame.is_after_damage ? flag_after_damage : 0));
  writer.put(std::uint32_t{0});
  if (frame.base) {
    auto const configuration = encode_configuration(frame.base->configuration);
    writer.put(frame.base->index);
    writer.put(frame.base->term);
    writer.put(static_cast<std::uint32_t>(configuration.size()));
    writer.put_bytes(as_bytes(configuration));
  }
  for (auto const& entry : frame.entries) {
    writer.put(static_cast<std::uint32_t>(entry.bytes.size()));
    writer.put(static_cast<std::uint8_t>(entry.kind));
    writer.put(entry.term);
    writer.put_bytes(entry.bytes.bytes());
  }
  store_le(bytes.data() + 4,
           crc32c(Bytes(bytes).subspan(8, raft_frame_header_bytes - 8 + payload)));
  return bytes;
}

Result<Raft_frame> decode_raft_frame(std::uint64_t salt, Bytes bytes, std::uint64_t& length) {
  if (bytes.size() < raft_frame_header_bytes) return Errc::corrupt;
  Reader header(bytes.first(raft_frame_header_bytes));
  auto const magic = header.take<std::uint32_t>();
  auto const crc = header.take<std::uint32_t>();
  auto const found_salt = header.take<std::uint64_t>();
  Raft_frame frame;
  frame.sequence = header.take<std::uint64_t>();
  frame.member = {header.take<std::uint64_t>()};
  frame.hard.term = header.take<std::uint64_t>();
  frame.hard.vote = {header.take<std::uint64_t>()};
  frame.hard.commit = header.take<std::uint64_t>();
  frame.hard.repair_until = header.take<std::uint64_t>();
  frame.hard.repair_term = header.take<std::uint64_t>();
  frame.last_index = header.take<std::uint64_t>();
  frame.first_index = header.take<std::uint64_t>();
  auto const count = header.take<std::uint32_t>();
  auto const payload = header.take<std::uint32_t>();
  auto const flags = header.take<std::uint32_t>();
  if (magic != raft_frame_magic || found_salt != salt ||
      payload > bytes.size() - raft_frame_header_bytes ||
      crc != crc32c(bytes.subspan(8, raft_frame_header_bytes - 8 + payload))) {
    return Errc::corrupt;
  }
  Reader reader(bytes.subspan(raft_frame_header_bytes, payload));
  frame.is_reset = (flags & flag_reset) != 0;
  frame.is_after_damage = (flags & flag_after_damage) != 0;
  if ((flags & flag_base) != 0) {
    PS_TRY(frame.base, take_base(reader));
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    PS_TRY(auto entry, take_entry(reader, frame.first_index + i));
    frame.entries.push_back(std::move(entry));
  }
  if (!reader.is_done() || (frame.is_reset && !frame.base)) return Errc::corrupt;
  length = raft_frame_bytes(payload);
  return frame;
}

}  // namespace pstorage::mds::raft
