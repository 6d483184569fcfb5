// The one message of all internal connections: a fixed 64-byte header, then two optional parts.
// Layout, byte by byte, and hex examples: core/format.md "Message".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "core/errc.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage {

/// What a message asks for. A reply carries the same operation with is_reply set.
enum class Operation : std::uint16_t {
  control = 1,  // meta = Protobuf; which one follows from the roles at the two ends
  write = 2,    // client -> CS. meta = u32 CRC32C a block, data = whole blocks
  read = 3,     // client -> CS. reply: meta = u32 CRC32C a block, data = whole blocks
  zero = 4,     // client -> CS. whole blocks become holes (discard, write zeroes)
  flush = 5,   // client -> CS. all acknowledged writes of the file (header.chunk = file id) durable
  repair = 6,  // client -> CS. meta = a Block_record a block, data = whole blocks: heal, reconcile
  table = 7,   // client/CS -> CS. reply: meta = a Block_record a block of the asked range
  pull = 8,    // CS -> CS. like read, reply: meta = a Block_record a block, data = whole blocks
  // Between the two ends of a unix socket, never seen by a role: core/net/shared_memory.h.
  share = 9,       // request_id = size of the memory whose descriptor comes with it
  give_back = 10,  // request_id = ticket of a reference that is not used any more
};

/// State of one block of one replica, as table, pull and repair carry it. 16 bytes, little endian.
struct Block_record {
  std::uint64_t stamp = 0;  // last write; 0 = never written
  std::uint32_t crc = 0;    // CRC32C of the 4096 bytes
  std::uint32_t flags = 0;  // Block_flag
};
static_assert(sizeof(Block_record) == 16);

enum Block_flag : std::uint32_t {
  block_hole = 1,     // reads as zeros and takes no space
  block_corrupt = 2,  // this replica knows that it does not hold valid data for the block
  // With block_corrupt: a power failure tore a write that nobody had flushed, and `crc` is that of
  // what is there now. Only such a block may be accepted as it is where no replica has a valid one;
  // rot never.
  block_torn = 4,
};

/// Has the block bytes of its own that its checksum fits: is it neither a hole nor rotten?
constexpr bool has_data(Block_record const& record) {
  return (record.flags & block_hole) == 0 &&
         (record.flags & (block_corrupt | block_torn)) != block_corrupt;
}

/// The fields of a message's header that its users see.
struct Header {
  Operation operation = Operation::control;
  bool is_reply = false;
  std::uint64_t request_id = 0;  // chosen by the asker, echoed in the reply
  Chunk_id chunk;                // flush: the file's id
  Stamp stamp;                   // write, zero: the write's stamp; else epoch << 32
  std::uint32_t offset = 0;      // bytes in the chunk; multiple of 4096
  std::uint32_t length = 0;      // bytes; multiple of 4096
  Version version;               // of the chunk's replica set, as the asker knows it
  Errc status = Errc::ok;        // replies only
  Incarnation incarnation;       // replies of a CS: its process
};

/// Header and payload. Both parts are contiguous; received ones lie in a receive block.
struct Message {
  Header header;
  Slice meta;
  Slice data;
};

inline constexpr std::size_t header_bytes = 64;
inline constexpr std::uint32_t message_magic = 0x31545350;  // "PST1"
inline constexpr std::uint32_t meta_bytes_max = 64u << 20;  // a map of a 1 PiB file and more
inline constexpr std::uint32_t data_bytes_max = 4u << 20;   // one data operation
/// Largest message from a peer that has not yet proved the key.
inline constexpr std::uint32_t unauthenticated_bytes_max = 16u << 10;

/// What stands for the data part of a message whose data lies in shared memory.
struct Shared_reference {
  std::uint64_t offset = 0;  // in the sender's memory
  std::uint32_t size = 0;    // bytes
  std::uint32_t ticket = 0;  // given back when the receiver needs the bytes no more
};
inline constexpr std::size_t shared_reference_bytes = 16;

/// What decode_header finds: the header and the sizes of the parts that follow it on the wire.
struct Framed_header {
  Header header;
  std::uint32_t meta_bytes = 0;
  std::uint32_t data_bytes = 0;
  bool is_shared = false;  // the data part is a Shared_reference
};

using Header_bytes = std::array<std::byte, header_bytes>;

/// Encodes `header` for parts of the given sizes, with its CRC.
void encode_header(Header const& header, std::uint32_t meta_size, std::uint32_t data_size,
                   std::byte* to, bool is_shared = false);
void encode_reference(Shared_reference const& reference, std::byte* to);
Shared_reference decode_reference(std::byte const* from);

/// Decodes 64 bytes. Errors: bad_request (magic, CRC, unknown operation or flag, sizes over the
/// limits, offset or length not in whole blocks). Source: core/format.md.
Result<Framed_header> decode_header(std::byte const* from);

}  // namespace pstorage
