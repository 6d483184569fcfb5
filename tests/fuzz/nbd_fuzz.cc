// The whole NBD server but its sockets: any bytes, in any pieces, against a volume in memory.
#include <cstdint>

#include "tests/blockdev/nbd_client.h"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace pstorage;
  if (size < 1) return 0;
  nbd::test::Client client;
  std::size_t const piece = 1 + data[0] * std::size_t{16};
  client.send({reinterpret_cast<std::byte const*>(data + 1), size - 1}, piece);
  client.loop.run();
  return 0;
}
