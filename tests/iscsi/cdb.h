// CDBs for tests.
#pragma once

#include <array>
#include <cstdint>

#include "iscsi/big_endian.h"
#include "iscsi/scsi.h"

namespace pstorage::iscsi {

using Cdb = std::array<std::uint8_t, 16>;

inline Cdb cdb_6(std::uint8_t code, std::uint32_t lba, std::uint8_t blocks) {
  Cdb cdb{};
  put_be<4>(cdb, 0, lba);
  cdb[0] = code;
  cdb[4] = blocks;
  return cdb;
}
inline Cdb cdb_10(std::uint8_t code, std::uint32_t lba, std::uint16_t blocks,
                  std::uint8_t flags = 0) {
  Cdb cdb{code, flags};
  put_be<4>(cdb, 2, lba);
  put_be<2>(cdb, 7, blocks);
  return cdb;
}
inline Cdb cdb_16(std::uint8_t code, std::uint64_t lba, std::uint32_t blocks,
                  std::uint8_t flags = 0) {
  Cdb cdb{code, flags};
  put_be<8>(cdb, 2, lba);
  put_be<4>(cdb, 10, blocks);
  return cdb;
}

}  // namespace pstorage::iscsi
