#include "core/cli/tar.h"

#include <cstdio>
#include <cstring>

#include "core/assert.h"

namespace pstorage::cli {
namespace {

constexpr std::size_t record = 512;

/// IEEE 1003.1, "ustar Interchange Format": texts and octal numbers, each with a zero behind.
struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char modified[12];
  char checksum[8];
  char type;
  char link[100];
  char magic[6];
  char version[2];
  char rest[247];
};
static_assert(sizeof(Header) == record);

}  // namespace

void Tar::add(std::string const& name, std::string const& content, std::uint64_t modified_s) {
  PS_ASSERT(name.size() <= name_max);
  Header header{};
  std::memcpy(header.name, name.data(), name.size());
  std::snprintf(header.mode, sizeof header.mode, "%07o", 0600u);
  std::snprintf(header.uid, sizeof header.uid, "%07o", 0u);
  std::snprintf(header.gid, sizeof header.gid, "%07o", 0u);
  std::snprintf(header.size, sizeof header.size, "%011llo",
                static_cast<unsigned long long>(content.size()));
  std::snprintf(header.modified, sizeof header.modified, "%011llo",
                static_cast<unsigned long long>(modified_s));
  header.type = '0';
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  std::memset(header.checksum, ' ', sizeof header.checksum);
  unsigned sum = 0;
  auto const* const bytes = reinterpret_cast<unsigned char const*>(&header);
  for (std::size_t i = 0; i < record; ++i) sum += bytes[i];
  std::snprintf(header.checksum, sizeof header.checksum - 1, "%06o", sum);
  bytes_.append(reinterpret_cast<char const*>(&header), record);
  bytes_ += content;
  bytes_.append((record - content.size() % record) % record, '\0');
}

std::string Tar::finish() {
  bytes_.append(2 * record, '\0');
  return std::move(bytes_);
}

}  // namespace pstorage::cli
