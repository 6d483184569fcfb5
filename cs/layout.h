// What the files of a repository look like, byte by byte (cs/format.md). The only place that
// encodes or decodes them.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string>

#include "core/bytes.h"
#include "core/ids.h"
#include "core/net/message.h"
#include "core/result.h"

namespace pstorage::cs {

/// Position in the journal since the repository was made; physical place = lsn % ring size.
using Lsn = std::uint64_t;

inline constexpr std::uint32_t page_blocks = 256;  // blocks a page of the block table describes
inline constexpr std::uint32_t page_bytes = page_blocks * sizeof(Block_record);
inline constexpr std::uint32_t page_span_bytes = page_blocks * block_bytes;  // of chunk data
inline constexpr std::uint32_t chunk_size_min = block_bytes;
inline constexpr std::uint32_t chunk_size_max = 1u << 30;
inline constexpr std::uint32_t pages_max = chunk_size_max / page_span_bytes;
static_assert(page_bytes == 4096);

// ------------------------------------------------------------------ chunk files

/// First sector of a chunk file. One sector, so that a torn write leaves the old or the new one.
struct Chunk_header {
  Chunk_id chunk;
  File_id file;
  std::uint32_t chunk_size = 0;
  Version version;
  Stamp last_stamp;      // highest accepted from a writer
  bool unclean = false;  // an earlier process may have lost unsynced writes
  bool syncing = false;
  std::uint32_t damage_seen = 0;        // of the journal, when the chunk was last reconciled
  Lsn created_lsn = 0;                  // of the record that made this file
  std::bitset<pages_max> stored_pages;  // durable: a zero entry in them is damage, not emptiness
};

inline constexpr std::uint32_t chunk_header_bytes = 512;
inline constexpr std::uint32_t table_offset = 4096;

/// Is this a size a chunk may have: a power of two between the limits?
bool is_chunk_size(std::uint32_t size);
std::uint32_t pages_of(std::uint32_t chunk_size);
/// Where block 0 begins.
std::uint64_t data_offset(std::uint32_t chunk_size);
/// "chunks/2a/000000000000012a": directory = last byte of the id.
std::string chunk_directory(Chunk_id chunk);
std::string chunk_name(Chunk_id chunk);
/// The id in the last part of a chunk file's name; none for other names.
Chunk_id chunk_of_name(std::string const& name);

void encode_chunk_header(Chunk_header const& header, std::byte* to);
/// Errors: corrupt.
Result<Chunk_header> decode_chunk_header(std::byte const* from);

using Table = std::array<Block_record, page_blocks>;

/// The checksum as stored: mixed with everything that says where it belongs, so that misdirected
/// data or a rotted stamp shows as corruption.
std::uint32_t mixed_crc(Block_record const& record, Chunk_id chunk, std::uint32_t block);
/// Table page `page` of `chunk` as on the disk.
void encode_table(Table const& table, Chunk_id chunk, std::uint32_t page, std::byte* to);
/// `stored`: the page is known to have been stored, so an empty entry is damage.
void decode_table(std::byte const* from, Chunk_id chunk, std::uint32_t page, bool stored,
                  Table& table);

/// A block nobody has written.
inline constexpr Block_record never_written{0, 0x98f94189, block_hole};

// ------------------------------------------------------------------ journal

enum class Record_type : std::uint16_t {
  write = 1,         // body: CRC32C a block; data inline
  large = 2,         // body: CRC32C a block; data in the chunk file, after this record is durable
  zero = 3,          // blocks become holes
  repair = 4,        // body: Block_record a block; data of the non-hole blocks inline
  open = 5,          // version (and syncing flag) of a chunk; with create: makes it
  seal = 6,          // chunk = file id, stamp = epoch << 32
  remove = 7,        // the chunk is gone
  pad = 8,           // skip
  large_repair = 9,  // as large; body: Block_record a block
  synced = 10,       // large writes up to LSN `stamp` are durable in the chunk file
};

struct Record {
  Record_type type = Record_type::pad;
  std::uint16_t flags = 0;  // Record_flag
  Chunk_id chunk;
  File_id file;  // open and seal
  Stamp stamp;
  std::uint32_t offset = 0;  // bytes in the chunk; pad: unused
  std::uint32_t length = 0;  // bytes in the chunk; open: chunk size; pad: bytes to skip
  Version version;
};
enum Record_flag : std::uint16_t {
  record_create = 1,
  record_syncing = 2,
  record_completes_sync = 8,  // open: `stamp` is the replica's last one now
  record_partial =
      4,  // more records of the same write follow; without the last one it does not count
};

struct Record_header {
  Record record;
  Lsn lsn = 0;
  Lsn durable = 0;  // everything below was durable when this was written
  std::uint32_t body_bytes = 0;
  std::uint32_t data_bytes = 0;

  /// Bytes in the ring, a multiple of record_alignment.
  std::uint64_t total_bytes() const;
};

inline constexpr std::uint32_t record_header_bytes = 80;
inline constexpr std::uint32_t record_alignment = 16;
inline constexpr std::uint32_t inline_bytes_max = 64u << 10;
inline constexpr std::uint32_t body_bytes_max = 16u << 10;

/// Encodes header and checksum (which covers `body` too) into record_header_bytes at `to`.
void encode_record(Record_header const& header, Bytes body, std::uint64_t salt, std::byte* to);
/// Decodes the header. Sizes are within the limits, the checksum is not yet verified
/// (verify_record). Errors: corrupt: not a record.
Result<Record_header> decode_record(std::byte const* from);
/// Does the checksum of the encoded header at `from` and of `body` match?
bool verify_record(std::byte const* from, Bytes body, std::uint64_t salt);

/// One of the two slots at the start of the journal file.
struct Journal_super {
  std::uint64_t salt = 0;  // random, of the repository: old or foreign records never parse
  std::uint64_t ring_bytes = 0;
  std::uint64_t generation = 0;  // the higher one of the two slots counts
  Lsn tail = 0;                  // recovery starts here
  bool clean = false;            // stopped in order: nothing behind the tail
  std::uint32_t damage = 0;      // how often a record was found damaged in the middle
};

inline constexpr std::uint32_t super_bytes = 4096;
inline constexpr std::uint64_t ring_offset = 2 * super_bytes;

void encode_super(Journal_super const& super, std::byte* to);
Result<Journal_super> decode_super(std::byte const* from);

}  // namespace pstorage::cs
