#include "blockdev/nbd_protocol.h"

namespace pstorage::nbd {
namespace {

/// Takes fields off the front of option data, bounds first.
class Decoder {
 public:
  explicit Decoder(Bytes data) : rest_(data) {}

  template <typename T>
  bool get(T& value) {
    if (rest_.size() < sizeof value) return false;
    value = load_be<T>(rest_.data());
    rest_ = rest_.subspan(sizeof value);
    return true;
  }
  bool get(std::string& text, std::uint32_t bytes) {
    if (bytes > rest_.size()) return false;
    text = as_text(rest_.first(bytes));
    rest_ = rest_.subspan(bytes);
    return true;
  }
  std::size_t left() const { return rest_.size(); }

 private:
  Bytes rest_;
};

}  // namespace

Result<Option_header> decode_option(std::byte const* from) {
  if (load_be<std::uint64_t>(from) != magic_option) return Errc::bad_request;
  return Option_header{.option = load_be<std::uint32_t>(from + 8),
                       .length = load_be<std::uint32_t>(from + 12)};
}

Result<Request_header> decode_request(std::byte const* from) {
  if (load_be<std::uint32_t>(from) != magic_request) return Errc::bad_request;
  return Request_header{.flags = load_be<std::uint16_t>(from + 4),
                        .command = load_be<std::uint16_t>(from + 6),
                        .cookie = load_be<std::uint64_t>(from + 8),
                        .offset = load_be<std::uint64_t>(from + 16),
                        .length = load_be<std::uint32_t>(from + 24)};
}

Result<Request_header> decode_extended_request(std::byte const* from) {
  if (load_be<std::uint32_t>(from) != magic_extended_request) return Errc::bad_request;
  return Request_header{.flags = load_be<std::uint16_t>(from + 4),
                        .command = load_be<std::uint16_t>(from + 6),
                        .cookie = load_be<std::uint64_t>(from + 8),
                        .offset = load_be<std::uint64_t>(from + 16),
                        .length = load_be<std::uint64_t>(from + 24)};
}

Result<Info_request> decode_info(Bytes data) {
  Decoder decoder(data);
  Info_request request;
  std::uint32_t name_bytes = 0;
  std::uint16_t count = 0;
  if (!decoder.get(name_bytes)) return Errc::bad_request;
  if (name_bytes > name_bytes_max && name_bytes <= decoder.left()) return Errc::too_large;
  if (!decoder.get(request.name, name_bytes) || !decoder.get(count)) return Errc::bad_request;
  if (decoder.left() != std::size_t{count} * 2) return Errc::bad_request;
  for (std::uint16_t info = 0; decoder.get(info);) request.infos.push_back(info);
  return request;
}

Result<Meta_request> decode_meta(Bytes data) {
  Decoder decoder(data);
  Meta_request request;
  std::uint32_t name_bytes = 0;
  std::uint32_t count = 0;
  if (!decoder.get(name_bytes)) return Errc::bad_request;
  if (name_bytes > name_bytes_max && name_bytes <= decoder.left()) return Errc::too_large;
  if (!decoder.get(request.name, name_bytes) || !decoder.get(count)) return Errc::bad_request;
  // Each query takes at least its length field, so a larger count is a lie.
  if (count > decoder.left() / 4) return Errc::bad_request;
  if (count > queries_max) return Errc::too_large;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t bytes = 0;
    std::string query;
    if (!decoder.get(bytes) || !decoder.get(query, bytes)) return Errc::bad_request;
    request.queries.push_back(std::move(query));
  }
  if (decoder.left() != 0) return Errc::bad_request;
  return request;
}

Error error_of(std::error_code const& code) {
  switch (errc_of(code)) {
    case Errc::ok:
      return Error::none;
    case Errc::no_space:
    case Errc::no_placement:
      return Error::no_space;
    case Errc::bad_request:
    case Errc::too_large:
      return Error::invalid;
    case Errc::stale_epoch:
    case Errc::session_expired:
    case Errc::closed:
      return Error::shutdown;
    default:
      return Error::io;
  }
}

}  // namespace pstorage::nbd
