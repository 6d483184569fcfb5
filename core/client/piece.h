// A part of a request that lies in one chunk: what is sent to the replicas.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/buffer.h"
#include "core/client/cs_link.h"
#include "core/client/volume.h"
#include "core/env/clock.h"
#include "core/ids.h"

namespace pstorage::client {

enum class Request_kind : unsigned char { read, write, zero, extents };

/// What the user asked for; done when all its pieces are.
struct Request {
  Request_kind kind = Request_kind::read;
  std::uint64_t offset = 0, length = 0;  // bytes of the file, as asked for
  bool fua = false;
  std::uint32_t pieces_left = 0;
  bool has_done_piece = false;
  std::uint64_t losses = 0;  // of the file's writes, when its first piece was done
  Time_point submitted{};
  Errc error = Errc::ok;  // the first one
  Done done;              // write, zero
  Read_done read_done;
  std::vector<Slice> parts;  // read: the answer; extents: block records or empty
  std::function<void(Request&)> extents_done;
  struct {
    std::uint64_t number = 0;  // of the file's Fill_guard; 0: none
    std::uint64_t offset = 0, length = 0;
  } cached;
};

enum class Piece_kind : unsigned char {
  read,
  write,  // data and checksums are complete
  merge,  // a write or zero that does not fill its blocks: reads the edges, becomes a write
  zero,   // whole blocks
  table,  // a read of block records instead of data
};

inline constexpr std::uint32_t replicas_max = 15;

struct Piece : boost::intrusive::list_base_hook<> {
  Piece_kind kind = Piece_kind::read;
  std::uint64_t serial = 0;  // unlike its address never used again
  std::uint32_t offset = 0;  // bytes in the chunk, whole blocks
  std::uint32_t length = 0;
  class Chunk_io* owner = nullptr;  // once submitted
  Request* request = nullptr;       // null: the chunk's own (healing)
  std::uint32_t part = 0;           // read: index in request->parts
  std::uint32_t part_offset = 0;    // read: where in that part, when `into_part`
  bool into_part = false;           // a share of a read that had to be split
  // What of [offset, offset + length) the user asked for; differs at unaligned edges.
  std::uint32_t user_offset = 0;
  std::uint32_t user_length = 0;
  std::vector<Slice> user_data;  // merge: what to lay over the old content; empty: zeros

  Slice data;   // write: whole blocks
  Slice crcs;   // write: u32 a block
  Stamp stamp;  // write, zero: once sent

  bool in_flight = false;
  std::uint32_t waiting = 0;   // bit a replica (index in the chunk): sent or to be sent, no answer
  std::uint32_t sent = 0;      // bit a replica: sent on its present connection
  std::uint32_t no_space = 0;  // bit a replica: it has no room
  std::uint32_t gaps = 0;      // bit a replica: it had none, others did; it may have later changes
  Time_point not_before{};     // no replica had room: tried again then

  // Reads.
  std::uint32_t tried = 0;      // bit a replica: asked, did not deliver
  std::uint32_t corrupt = 0;    // bit a replica: its data failed the checksum
  std::uint32_t reads_out = 0;  // answers expected
  Time_point started{};
  Cs_op* ops[2] = {nullptr, nullptr};  // the read and its hedge
  bool hedged = false;
  Stamp held_behind;  // its answer waits for overlapping changes below this one; 0: it does not
};

using Piece_list = boost::intrusive::list<Piece>;

inline bool overlap(Piece const& a, Piece const& b) {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

/// Changes what is stored?
inline bool is_change(Piece const& piece) {
  return piece.kind != Piece_kind::read && piece.kind != Piece_kind::table;
}

}  // namespace pstorage::client
