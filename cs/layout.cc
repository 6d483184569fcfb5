#include "cs/layout.h"

#include <bit>
#include <cstdio>
#include <cstring>

#include "core/crc32c.h"

namespace pstorage::cs {
namespace {

constexpr std::uint32_t chunk_magic = 0x4b435350;   // "PSCK"
constexpr std::uint32_t record_magic = 0x524a5350;  // "PSJR"
constexpr std::uint32_t super_magic = 0x534a5350;   // "PSJS"
constexpr std::uint32_t format_version = 1;
constexpr std::uint32_t journal_version = 2;  // 1 had no `synced` records
constexpr std::uint64_t data_alignment = 64u << 10;
// Present in every stored table entry, so that none of them is all zeros.
constexpr std::uint32_t entry_present = 1u << 31;
constexpr std::uint32_t known_flags = block_hole | block_corrupt | block_torn;

enum Chunk_flag : std::uint32_t { chunk_unclean = 1, chunk_syncing = 2 };

constexpr std::size_t at_stored_pages = 128;
constexpr std::size_t at_chunk_crc = chunk_header_bytes - 4;
constexpr std::size_t at_record_crc = record_header_bytes - 4;
constexpr std::size_t at_super_crc = 56;

std::uint32_t record_crc(std::byte const* header, Bytes body, std::uint64_t salt) {
  std::uint32_t const seed = crc32c({reinterpret_cast<std::byte const*>(&salt), sizeof salt});
  std::uint32_t const crc = crc32c({header, at_record_crc}, seed);
  return body.empty() ? crc : crc32c(body, crc);
}

bool known(std::uint16_t type) {
  return type >= static_cast<std::uint16_t>(Record_type::write) &&
         type <= static_cast<std::uint16_t>(Record_type::synced);
}

}  // namespace

bool is_chunk_size(std::uint32_t size) {
  return size >= chunk_size_min && size <= chunk_size_max && std::has_single_bit(size);
}

std::uint32_t pages_of(std::uint32_t chunk_size) {
  return (chunk_size + page_span_bytes - 1) / page_span_bytes;
}

std::uint64_t data_offset(std::uint32_t chunk_size) {
  std::uint64_t const end = table_offset + std::uint64_t{pages_of(chunk_size)} * page_bytes;
  return (end + data_alignment - 1) / data_alignment * data_alignment;
}

std::string chunk_directory(Chunk_id chunk) {
  char name[16];
  std::snprintf(name, sizeof name, "chunks/%02x", static_cast<unsigned>(chunk.value & 0xff));
  return name;
}

std::string chunk_name(Chunk_id chunk) {
  char name[32];
  std::snprintf(name, sizeof name, "/%016llx", static_cast<unsigned long long>(chunk.value));
  return chunk_directory(chunk) + name;
}

Chunk_id chunk_of_name(std::string const& name) {
  if (name.size() != 16) return {};
  std::uint64_t id = 0;
  for (char const c : name) {
    bool const digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return {};
    id = id << 4 | static_cast<std::uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return {id};
}

void encode_chunk_header(Chunk_header const& header, std::byte* to) {
  std::memset(to, 0, chunk_header_bytes);
  store_le(to, chunk_magic);
  store_le(to + 4, format_version);
  store_le(to + 8, header.chunk.value);
  store_le(to + 16, header.file.value);
  store_le(to + 24, header.chunk_size);
  store_le(to + 28, header.version.value);
  store_le(to + 32, header.last_stamp.value);
  store_le(to + 40, (header.unclean ? std::uint32_t{chunk_unclean} : 0) |
                        (header.syncing ? std::uint32_t{chunk_syncing} : 0));
  store_le(to + 44, header.damage_seen);
  store_le(to + 48, header.created_lsn);
  for (std::size_t i = 0; i < pages_max; ++i) {
    if (header.stored_pages[i]) to[at_stored_pages + i / 8] |= std::byte{1} << (i % 8);
  }
  store_le(to + at_chunk_crc, crc32c({to, at_chunk_crc}));
}

Result<Chunk_header> decode_chunk_header(std::byte const* from) {
  if (load_le<std::uint32_t>(from) != chunk_magic ||
      load_le<std::uint32_t>(from + 4) != format_version ||
      load_le<std::uint32_t>(from + at_chunk_crc) != crc32c({from, at_chunk_crc})) {
    return Errc::corrupt;
  }
  Chunk_header header;
  header.chunk = {load_le<std::uint64_t>(from + 8)};
  header.file = {load_le<std::uint64_t>(from + 16)};
  header.chunk_size = load_le<std::uint32_t>(from + 24);
  header.version = {load_le<std::uint32_t>(from + 28)};
  header.last_stamp = {load_le<std::uint64_t>(from + 32)};
  auto const flags = load_le<std::uint32_t>(from + 40);
  header.unclean = (flags & chunk_unclean) != 0;
  header.syncing = (flags & chunk_syncing) != 0;
  header.damage_seen = load_le<std::uint32_t>(from + 44);
  header.created_lsn = load_le<std::uint64_t>(from + 48);
  for (std::size_t i = 0; i < pages_max; ++i) {
    header.stored_pages[i] =
        (from[at_stored_pages + i / 8] >> (i % 8) & std::byte{1}) != std::byte{0};
  }
  if (!is_chunk_size(header.chunk_size)) return Errc::corrupt;
  return header;
}

std::uint32_t mixed_crc(Block_record const& record, Chunk_id chunk, std::uint32_t block) {
  std::uint64_t mix = chunk.value * 0x9e3779b97f4a7c15ULL;
  mix ^= (record.stamp + 0x7f4a7c15) * 0xc2b2ae3d27d4eb4fULL;
  mix = (mix ^ (mix >> 29)) * 0xff51afd7ed558ccdULL;
  mix ^= (std::uint64_t{block} << 32 | record.flags) * 0x9fb21c651e98df25ULL;
  mix ^= mix >> 32;
  return record.crc ^ static_cast<std::uint32_t>(mix);
}

void encode_table(Table const& table, Chunk_id chunk, std::uint32_t page, std::byte* to) {
  for (std::uint32_t i = 0; i < page_blocks; ++i) {
    Block_record entry = table[i];
    entry.crc = mixed_crc(entry, chunk, page * page_blocks + i);
    entry.flags |= entry_present;
    store_le(to + i * sizeof entry, entry);
  }
}

void decode_table(std::byte const* from, Chunk_id chunk, std::uint32_t page, bool stored,
                  Table& table) {
  for (std::uint32_t i = 0; i < page_blocks; ++i) {
    auto entry = load_le<Block_record>(from + i * sizeof(Block_record));
    if (entry.stamp == 0 && entry.crc == 0 && entry.flags == 0) {
      table[i] = never_written;
      if (stored) table[i].flags = block_corrupt;
      continue;
    }
    bool const valid =
        (entry.flags & entry_present) != 0 && (entry.flags & ~(entry_present | known_flags)) == 0;
    entry.flags &= known_flags;
    entry.crc = mixed_crc(entry, chunk, page * page_blocks + i);  // the mix is its own inverse
    bool const hole = (entry.flags & block_hole) != 0;
    if (!valid || (hole && entry.crc != never_written.crc)) entry.flags = block_corrupt;
    table[i] = entry;
  }
}

std::uint64_t Record_header::total_bytes() const {
  if (record.type == Record_type::pad) return record.length;
  std::uint64_t const bytes = std::uint64_t{record_header_bytes} + body_bytes + data_bytes;
  return (bytes + record_alignment - 1) / record_alignment * record_alignment;
}

void encode_record(Record_header const& header, Bytes body, std::uint64_t salt, std::byte* to) {
  Record const& record = header.record;
  store_le(to, record_magic);
  store_le(to + 4, static_cast<std::uint16_t>(record.type));
  store_le(to + 6, record.flags);
  store_le(to + 8, header.lsn);
  store_le(to + 16, header.durable);
  store_le(to + 24, record.chunk.value);
  store_le(to + 32, record.file.value);
  store_le(to + 40, record.stamp.value);
  store_le(to + 48, record.offset);
  store_le(to + 52, record.length);
  store_le(to + 56, record.version.value);
  store_le(to + 60, header.body_bytes);
  store_le(to + 64, header.data_bytes);
  store_le(to + 68, std::uint64_t{0});
  store_le(to + at_record_crc, record_crc(to, body, salt));
}

Result<Record_header> decode_record(std::byte const* from) {
  if (load_le<std::uint32_t>(from) != record_magic) return Errc::corrupt;
  auto const type = load_le<std::uint16_t>(from + 4);
  if (!known(type)) return Errc::corrupt;
  Record_header header;
  Record& record = header.record;
  record.type = static_cast<Record_type>(type);
  record.flags = load_le<std::uint16_t>(from + 6);
  header.lsn = load_le<std::uint64_t>(from + 8);
  header.durable = load_le<std::uint64_t>(from + 16);
  record.chunk = {load_le<std::uint64_t>(from + 24)};
  record.file = {load_le<std::uint64_t>(from + 32)};
  record.stamp = {load_le<std::uint64_t>(from + 40)};
  record.offset = load_le<std::uint32_t>(from + 48);
  record.length = load_le<std::uint32_t>(from + 52);
  record.version = {load_le<std::uint32_t>(from + 56)};
  header.body_bytes = load_le<std::uint32_t>(from + 60);
  header.data_bytes = load_le<std::uint32_t>(from + 64);
  if (header.body_bytes > body_bytes_max || header.data_bytes > inline_bytes_max) {
    return Errc::corrupt;
  }
  if (record.type == Record_type::pad &&
      (record.length < record_header_bytes || record.length % record_alignment != 0)) {
    return Errc::corrupt;
  }
  return header;
}

bool verify_record(std::byte const* from, Bytes body, std::uint64_t salt) {
  return load_le<std::uint32_t>(from + at_record_crc) == record_crc(from, body, salt);
}

void encode_super(Journal_super const& super, std::byte* to) {
  std::memset(to, 0, super_bytes);
  store_le(to, super_magic);
  store_le(to + 4, journal_version);
  store_le(to + 8, super.salt);
  store_le(to + 16, super.ring_bytes);
  store_le(to + 24, super.generation);
  store_le(to + 32, super.tail);
  store_le(to + 40, std::uint32_t{super.clean ? 1u : 0u});
  store_le(to + 44, super.damage);
  store_le(to + at_super_crc, crc32c({to, at_super_crc}));
}

Result<Journal_super> decode_super(std::byte const* from) {
  auto const version = load_le<std::uint32_t>(from + 4);
  if (load_le<std::uint32_t>(from) != super_magic || version == 0 || version > journal_version ||
      load_le<std::uint32_t>(from + at_super_crc) != crc32c({from, at_super_crc})) {
    return Errc::corrupt;
  }
  Journal_super super;
  super.salt = load_le<std::uint64_t>(from + 8);
  super.ring_bytes = load_le<std::uint64_t>(from + 16);
  super.generation = load_le<std::uint64_t>(from + 24);
  super.tail = load_le<std::uint64_t>(from + 32);
  super.clean = load_le<std::uint32_t>(from + 40) != 0;
  super.damage = load_le<std::uint32_t>(from + 44);
  if (super.ring_bytes == 0 || super.ring_bytes % block_bytes != 0) return Errc::corrupt;
  return super;
}

}  // namespace pstorage::cs
