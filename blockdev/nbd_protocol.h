// The NBD protocol on the wire: numbers, parser and encoder. Big endian. No sockets, no state.
// Source: NetworkBlockDevice/nbd doc/proto.md (fixed newstyle, structured replies, extended
// headers, base:allocation).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"
#include "core/result.h"

namespace pstorage::nbd {

inline constexpr std::uint64_t magic_server = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr std::uint64_t magic_option = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t magic_option_reply = 0x0003e889045565a9;
inline constexpr std::uint32_t magic_request = 0x25609513;
inline constexpr std::uint32_t magic_simple_reply = 0x67446698;
inline constexpr std::uint32_t magic_chunk = 0x668e33ef;
inline constexpr std::uint32_t magic_extended_request = 0x21e41c71;
inline constexpr std::uint32_t magic_extended_reply = 0x6e8a278c;

// Handshake flags, the same bits from server and client.
inline constexpr std::uint16_t flag_fixed_newstyle = 1;
inline constexpr std::uint16_t flag_no_zeroes = 2;

enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class Option_answer : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  err_unsupported = 0x80000001,
  err_policy = 0x80000002,
  err_invalid = 0x80000003,
  err_platform = 0x80000004,
  err_tls_required = 0x80000005,
  err_unknown = 0x80000006,
  err_shutdown = 0x80000007,
  err_too_big = 0x80000009,
  err_extended_headers = 0x8000000a,
};

enum class Info : std::uint16_t { export_size = 0, name = 1, description = 2, block_size = 3 };

// Transmission flags: what an export can do.
inline constexpr std::uint16_t can_has_flags = 1 << 0;
inline constexpr std::uint16_t can_read_only = 1 << 1;  // it is read-only
inline constexpr std::uint16_t can_flush = 1 << 2;
inline constexpr std::uint16_t can_fua = 1 << 3;
inline constexpr std::uint16_t can_trim = 1 << 5;
inline constexpr std::uint16_t can_write_zeroes = 1 << 6;
inline constexpr std::uint16_t can_df = 1 << 7;
inline constexpr std::uint16_t can_multi_conn = 1 << 8;
inline constexpr std::uint16_t can_cache = 1 << 10;
inline constexpr std::uint16_t can_fast_zero = 1 << 11;

enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

inline constexpr std::uint16_t command_fua = 1 << 0;
inline constexpr std::uint16_t command_no_hole = 1 << 1;
inline constexpr std::uint16_t command_df = 1 << 2;
inline constexpr std::uint16_t command_req_one = 1 << 3;
inline constexpr std::uint16_t command_fast_zero = 1 << 4;
inline constexpr std::uint16_t command_payload = 1 << 5;  // the length is that of data behind it

enum class Error : std::uint32_t {
  none = 0,
  perm = 1,
  io = 5,
  no_memory = 12,
  invalid = 22,
  no_space = 28,
  overflow = 75,
  unsupported = 95,
  shutdown = 108,
};

inline constexpr std::uint16_t chunk_done = 1;
enum class Chunk_type : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_extended = 6,
  error = 0x8001,
};

inline constexpr std::uint32_t allocation_context = 1;  // id of base:allocation in our replies
inline constexpr std::string_view allocation_name = "base:allocation";
inline constexpr std::uint32_t status_hole = 1;  // takes no space
inline constexpr std::uint32_t status_zero = 2;  // reads as zeros

// Limits. Ours, except the first, which the protocol sets.
inline constexpr std::uint32_t name_bytes_max = 4096;
inline constexpr std::uint32_t option_bytes_max = 64u << 10;
inline constexpr std::uint32_t options_max = 256;  // before transmission; more: the client is mad
inline constexpr std::uint32_t queries_max = 64;   // of meta contexts in one option
inline constexpr std::uint32_t payload_bytes_max = 32u << 20;
inline constexpr std::uint32_t preferred_bytes = 4096;

inline constexpr std::size_t client_flags_bytes = 4;
inline constexpr std::size_t option_header_bytes = 16;
inline constexpr std::size_t request_bytes = 28;
inline constexpr std::size_t extended_request_bytes = 32;

template <typename T>
constexpr T swap_bytes(T value) {
  static_assert(std::is_unsigned_v<T> && sizeof(T) >= 2);
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

/// Big-endian integers; the caller has checked the bounds.
template <typename T>
T load_be(std::byte const* from) {
  return swap_bytes(load_le<T>(from));
}
template <typename T>
void store_be(std::byte* to, T value) {
  store_le(to, swap_bytes(value));
}

/// Builds small messages.
template <std::size_t Capacity>
class Encoder {
 public:
  template <typename T>
  Encoder& put(T value) {
    static_assert(std::is_integral_v<T>);
    store_be(bytes_.data() + size_, value);
    size_ += sizeof value;
    return *this;
  }
  Bytes bytes() const { return {bytes_.data(), size_}; }

 private:
  std::array<std::byte, Capacity> bytes_;
  std::size_t size_ = 0;
};

struct Option_header {
  std::uint32_t option = 0;  // Option, or one we do not know
  std::uint32_t length = 0;  // bytes of data behind the header
};
/// Errors: bad_request (magic).
Result<Option_header> decode_option(std::byte const* from);

struct Request_header {
  std::uint16_t flags = 0;
  std::uint16_t command = 0;  // Command, or one we do not know
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};
/// Of request_bytes. Errors: bad_request (magic).
Result<Request_header> decode_request(std::byte const* from);
/// Of extended_request_bytes. Errors: bad_request (magic).
Result<Request_header> decode_extended_request(std::byte const* from);

/// Data of INFO and GO.
struct Info_request {
  std::string name;
  std::vector<std::uint16_t> infos;
};
/// Errors: bad_request; too_large (name).
Result<Info_request> decode_info(Bytes data);

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
struct Meta_request {
  std::string name;
  std::vector<std::string> queries;
};
/// Errors: bad_request; too_large (name, number of queries).
Result<Meta_request> decode_meta(Bytes data);

/// The error that tells a client what `code` means to it.
Error error_of(std::error_code const& code);

}  // namespace pstorage::nbd
