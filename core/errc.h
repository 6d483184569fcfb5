// Error codes shared by all roles. Their numbers travel on the wire (core/format.md): never
// renumber, only append.
#pragma once

#include <string>
#include <system_error>

namespace pstorage {

enum class Errc : unsigned short {
  ok = 0,
  stale_epoch = 1,       // a newer writer has sealed this file; never retry under the old epoch
  stale_version = 2,     // the replica set has changed; fetch the map, retry with its version
  not_open = 3,          // the CS does not serve this chunk under this epoch; open it first
  corrupt = 4,           // checksum differs; read another replica, heal this one
  no_space = 5,          // nothing was written; free space or add a CS
  read_only = 6,         // the repository has seen a failed write or sync and takes no more writes
  io_error = 7,          // the disk failed this request
  bad_request = 8,       // malformed or out of bounds; a bug or an attack
  not_found = 9,         // no such file, chunk, CS or session
  exists = 10,           // the name is taken
  busy = 11,             // leased by somebody else; the text names the holder
  not_leader = 12,       // ask the member named in the reply
  unavailable = 13,      // nobody who could answer is reachable now; retry
  timed_out = 14,        // no answer before the deadline; the outcome is unknown
  lost_writes = 15,      // unflushed writes were lost on every replica; FLUSH must fail once
  session_expired = 16,  // the session is gone, with its leases
  no_placement = 17,     // not enough CSs in distinct failure domains
  not_empty = 18,        // the directory has entries
  not_directory = 19,    // a file stands where a directory is meant
  is_directory = 20,     // a directory stands where a file is meant
  wrong_cluster = 21,    // the peer belongs to another cluster
  wrong_version = 22,    // the peer speaks another protocol version
  wrong_key = 23,        // the password (key) does not match
  refused = 24,          // not allowed in this state; the text says why
  too_large = 25,        // over a documented limit
  closed = 26,           // the object is shutting down
  would_block = 27,      // not in the page cache; ask again asynchronously
  dropped = 28,          // this chunk server was removed for ever (rm-cs)
};

std::error_category const& pstorage_category();

inline std::error_code make_error_code(Errc code) {
  return {static_cast<int>(code), pstorage_category()};
}

/// The Errc of `code`; io_error for codes of other categories (system errors).
Errc errc_of(std::error_code const& code);

/// One lower-case phrase: "stale epoch: a newer writer has taken over".
char const* message_of(Errc code);

}  // namespace pstorage

template <>
struct std::is_error_code_enum<pstorage::Errc> : std::true_type {};
