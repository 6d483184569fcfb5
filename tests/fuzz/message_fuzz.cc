// The framing of internal connections: any bytes, in any pieces. A message that comes out obeys the
// limits; nothing reads out of bounds (AddressSanitizer).
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/assert.h"
#include "core/net/frame_reader.h"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace pstorage;
  if (size < 2) return 0;
  std::size_t const piece = 1 + data[0] + data[1] * std::size_t{256};
  data += 2;
  size -= 2;
  Frame_reader reader;
  while (size > 0) {
    auto const buffers = reader.prepare();
    std::size_t const take = std::min({size, buffers.parts[0].size(), piece});
    std::memcpy(buffers.parts[0].data(), data, take);
    reader.commit(take);
    data += take;
    size -= take;
    Message message;
    for (;;) {
      auto const next = reader.next(message);
      if (next == Frame_reader::Next::malformed) return 0;
      if (next == Frame_reader::Next::more) break;
      PS_ASSERT(message.meta.size() <= meta_bytes_max && message.data.size() <= data_bytes_max);
      std::byte copy[header_bytes];
      encode_header(message.header, static_cast<std::uint32_t>(message.meta.size()),
                    static_cast<std::uint32_t>(message.data.size()), copy);
      PS_ASSERT(decode_header(copy).has_value());
    }
  }
  return 0;
}
