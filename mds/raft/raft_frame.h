// Frames of the durable Raft log. Layout: mds/format.md.
#pragma once

#include "mds/raft/raft_types.h"

namespace pstorage::mds::raft {

/// One write and one sync: the hard state as it is then, and what happened to the log.
struct Raft_frame {
  std::uint64_t sequence = 0;  // from 1, without gaps: a missing one was damaged
  Member_id member{};          // whose log this is
  Hard_state hard;
  std::uint64_t last_index = 0;   // of the log, once this frame is in force
  std::uint64_t first_index = 0;  // entries from here on are void, then `entries` follow; 0: none
  std::vector<Log_entry> entries{};
  std::optional<Snapshot> base{};  // what is before this frame
  bool is_reset = false;           // a snapshot was installed: the log is empty behind `base`
  bool is_after_damage = false;    // damage before this frame is known: `hard` tells of it
};

inline constexpr std::size_t raft_frame_header_bytes = 104;

/// Bytes of the payload that an entry takes.
std::size_t payload_of(Log_entry const& entry);
std::size_t payload_of(Snapshot const& base);
/// Bytes that a frame with this payload takes on disk, padding included.
std::uint64_t raft_frame_bytes(std::uint64_t payload_bytes);

/// raft_frame_bytes() long.
std::vector<std::byte> encode_raft_frame(std::uint64_t salt, Raft_frame const& frame);
/// Decodes the frame at the start of `bytes`; `length`: what it takes on disk. Errors: corrupt (no
/// frame of this log, or damaged).
Result<Raft_frame> decode_raft_frame(std::uint64_t salt, Bytes bytes, std::uint64_t& length);

}  // namespace pstorage::mds::raft
