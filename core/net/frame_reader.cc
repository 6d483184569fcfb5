#include "core/net/frame_reader.h"

namespace pstorage {

Frame_reader::Next Frame_reader::found(Framed_header const& framed, Slice meta, Slice data,
                                       Message& message) {
  message.header = framed.header;
  message.meta = std::move(meta);
  message.data = {};
  if (framed.is_shared) {
    reference_ = decode_reference(data.data());
    return Next::shared;
  }
  message.data = std::move(data);
  return Next::message;
}

Frame_reader::Next Frame_reader::next(Message& message) {
  if (buffer_.in_large()) {
    if (!buffer_.large_is_complete()) return Next::more;
    auto const payload = buffer_.take_large();
    return found(large_header_, payload.part(0, large_header_.meta_bytes),
                 payload.part(large_header_.meta_bytes, large_header_.data_bytes), message);
  }
  auto const view = buffer_.view();
  if (view.size() < header_bytes) {
    buffer_.want(header_bytes);
    return Next::more;
  }
  auto const framed = decode_header(view.data());
  if (!framed) return Next::malformed;
  std::size_t const meta = framed.value().meta_bytes;
  std::size_t const data = framed.value().data_bytes;
  std::size_t const total = header_bytes + meta + data;
  if (view.size() >= total) {
    auto const next = found(framed.value(), buffer_.part(header_bytes, meta),
                            buffer_.part(header_bytes + meta, data), message);
    buffer_.skip(total);
    return next;
  }
  if (meta + data >= large_payload_bytes) {
    large_header_ = framed.value();
    buffer_.skip(header_bytes);
    buffer_.begin_large(meta + data);
  } else {
    buffer_.want(total);
  }
  return Next::more;
}

}  // namespace pstorage
