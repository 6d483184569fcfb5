// Writes the inputs that ploop_fuzz begins with: ploop_corpus DIRECTORY.
#include <cstdio>
#include <fstream>
#include <string>

#include "blockdev/ploop/descriptor.h"
#include "blockdev/ploop/format.h"

namespace {

using namespace pstorage;
using namespace pstorage::ploop;

void write(std::string const& path, char kind, char more, std::string const& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << kind << more << bytes;
}

std::string image(Version version, std::uint32_t cluster_bytes, std::uint32_t in_use) {
  auto header = make_header(version, cluster_bytes, 8 * cluster_bytes).value();
  header.in_use = in_use;
  header.flags = 0;
  std::string bytes(header_bytes + std::size_t{header.entries} * 4, '\0');
  Mutable_bytes const raw(reinterpret_cast<std::byte*>(bytes.data()), bytes.size());
  encode_header(header, raw);
  store_le(raw.data() + header_bytes, header.encode_entry(2));
  store_le(raw.data() + header_bytes + 12, header.encode_entry(1));
  return bytes;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: ploop_corpus DIRECTORY\n");
    return 2;
  }
  std::string const directory = std::string(arguments[1]) + "/";
  auto disk = Descriptor::make(65536, 2048, "root.hds", false, true);
  write(directory + "one_delta", '\0', '\0', disk.text());
  disk.push_top("{22222222-2222-3333-4444-555555555555}", "root.hds.1");
  disk.push_top("{33333333-2222-3333-4444-555555555555}", "root.hds.2");
  write(directory + "chain", '\0', '\0', disk.text());
  disk.replace_top("{22222222-2222-3333-4444-555555555555}", "root.hds.3");
  write(directory + "branch", '\0', '\0', disk.text());
  write(directory + "v2", '\1', '\7', image(Version::v2, cluster_bytes_min, in_use_none));
  write(directory + "v2_open", '\1', '\7', image(Version::v2, cluster_bytes_min, in_use_open));
  write(directory + "v1", '\1', '\7', image(Version::v1, cluster_bytes_min, in_use_none));
  write(directory + "v1_64k", '\1', '\20', image(Version::v1, 65536, in_use_extension));
  return 0;
}
