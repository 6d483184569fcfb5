#include "core/crc32c.h"

#include <isa-l/crc.h>

namespace pstorage {

std::uint32_t crc32c(Bytes bytes, std::uint32_t previous) {
  // isa-l takes the raw register and neither inverts before nor after; it does not write.
  auto* data = const_cast<unsigned char*>(reinterpret_cast<unsigned char const*>(bytes.data()));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~previous);
}

}  // namespace pstorage
