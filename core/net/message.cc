#include "core/net/message.h"

#include "core/crc32c.h"

namespace pstorage {
namespace {

constexpr std::uint16_t flag_reply = 1;
constexpr std::uint16_t flag_shared = 2;

// Offsets of core/format.md "Message".
constexpr std::size_t at_magic = 0, at_operation = 4, at_flags = 6, at_meta = 8, at_data = 12,
                      at_request = 16, at_chunk = 24, at_stamp = 32, at_offset = 40, at_length = 44,
                      at_version = 48, at_status = 52, at_reserved = 54, at_incarnation = 56,
                      at_crc = 60;

bool known(std::uint16_t operation) {
  return operation >= static_cast<std::uint16_t>(Operation::control) &&
         operation <= static_cast<std::uint16_t>(Operation::give_back);
}

}  // namespace

void encode_header(Header const& header, std::uint32_t meta_size, std::uint32_t data_size,
                   std::byte* to, bool is_shared) {
  auto const flags = static_cast<std::uint16_t>((header.is_reply ? flag_reply : 0) |
                                                (is_shared ? flag_shared : 0));
  store_le(to + at_magic, message_magic);
  store_le(to + at_operation, static_cast<std::uint16_t>(header.operation));
  store_le(to + at_flags, flags);
  store_le(to + at_meta, meta_size);
  store_le(to + at_data, data_size);
  store_le(to + at_request, header.request_id);
  store_le(to + at_chunk, header.chunk.value);
  store_le(to + at_stamp, header.stamp.value);
  store_le(to + at_offset, header.offset);
  store_le(to + at_length, header.length);
  store_le(to + at_version, header.version.value);
  store_le(to + at_status, static_cast<std::uint16_t>(header.status));
  store_le(to + at_reserved, std::uint16_t{0});
  store_le(to + at_incarnation, header.incarnation.value);
  store_le(to + at_crc, crc32c({to, at_crc}));
}

void encode_reference(Shared_reference const& reference, std::byte* to) {
  store_le(to, reference.offset);
  store_le(to + 8, reference.size);
  store_le(to + 12, reference.ticket);
}

Shared_reference decode_reference(std::byte const* from) {
  return {load_le<std::uint64_t>(from), load_le<std::uint32_t>(from + 8),
          load_le<std::uint32_t>(from + 12)};
}

Result<Framed_header> decode_header(std::byte const* from) {
  if (load_le<std::uint32_t>(from + at_magic) != message_magic) return Errc::bad_request;
  if (load_le<std::uint32_t>(from + at_crc) != crc32c({from, at_crc})) return Errc::bad_request;
  auto const operation = load_le<std::uint16_t>(from + at_operation);
  auto const flags = load_le<std::uint16_t>(from + at_flags);
  if (!known(operation) || flags > (flag_reply | flag_shared)) return Errc::bad_request;

  Framed_header framed;
  framed.meta_bytes = load_le<std::uint32_t>(from + at_meta);
  framed.data_bytes = load_le<std::uint32_t>(from + at_data);
  if (framed.meta_bytes > meta_bytes_max || framed.data_bytes > data_bytes_max)
    return Errc::bad_request;
  framed.is_shared = (flags & flag_shared) != 0;
  if (framed.is_shared && framed.data_bytes != shared_reference_bytes) return Errc::bad_request;

  Header& header = framed.header;
  header.operation = static_cast<Operation>(operation);
  header.is_reply = (flags & flag_reply) != 0;
  header.request_id = load_le<std::uint64_t>(from + at_request);
  header.chunk = {load_le<std::uint64_t>(from + at_chunk)};
  header.stamp = {load_le<std::uint64_t>(from + at_stamp)};
  header.offset = load_le<std::uint32_t>(from + at_offset);
  header.length = load_le<std::uint32_t>(from + at_length);
  header.version = {load_le<std::uint32_t>(from + at_version)};
  header.status = static_cast<Errc>(load_le<std::uint16_t>(from + at_status));
  header.incarnation = {load_le<std::uint32_t>(from + at_incarnation)};
  if (header.offset % block_bytes != 0 || header.length % block_bytes != 0)
    return Errc::bad_request;
  return framed;
}

}  // namespace pstorage
