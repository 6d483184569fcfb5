// raft/installing: the snapshot that replaces the state machine. Layout: mds/format.md.
#include "core/crc32c.h"
#include "mds/raft/raft_node.h"

namespace pstorage::mds::raft {
namespace {

constexpr std::uint64_t installing_magic = 0x31534e4954535350;  // "PSSTINS1"
constexpr std::size_t header_size = 8 + 4 + 4 + 8 + 8;
constexpr std::uint64_t bytes_max = 64u << 10;
constexpr char const* name = "raft/installing";
constexpr char const* new_name = "raft/installing.new";

}  // namespace

Result<void> Raft_node::store_installing(Snapshot const& snapshot) {
  auto const configuration = encode_configuration(snapshot.configuration);
  std::byte header[header_size]{};
  store_le(header, installing_magic);
  store_le(header + 12, static_cast<std::uint32_t>(configuration.size()));
  store_le(header + 16, snapshot.index);
  store_le(header + 24, snapshot.term);
  auto const checked = std::string(as_text(Bytes(header).subspan(12))) + configuration;
  store_le(header + 8, crc32c(as_bytes(checked)));
  Bytes const parts[] = {header, as_bytes(configuration)};
  PS_TRY(auto const file, disk_.open(new_name, {.create = true, .exclusive = false}));
  PS_CHECK(file->truncate(0));
  PS_CHECK(file->write(0, parts));
  PS_CHECK(file->sync());
  PS_CHECK(disk_.rename(new_name, name));
  return disk_.sync_directory("raft");
}

Outcome<std::optional<Snapshot>> Raft_node::load_installing() {
  if (!disk_.exists(name)) return std::optional<Snapshot>();
  auto const damaged = failure(Errc::corrupt, std::string(name) + " in the repository is damaged");
  auto const file = disk_.open(name, {});
  if (!file.has_value()) return failure(file.error(), "cannot open " + std::string(name));
  auto const size = file.value()->size();
  if (!size.has_value() || size.value() < header_size || size.value() > bytes_max) return damaged;
  std::vector<std::byte> bytes(size.value());
  auto const read = file.value()->read(0, bytes);
  if (!read.has_value()) return failure(read.error(), "cannot read " + std::string(name));
  if (load_le<std::uint64_t>(bytes.data()) != installing_magic ||
      load_le<std::uint32_t>(bytes.data() + 8) != crc32c(Bytes(bytes).subspan(12)) ||
      load_le<std::uint32_t>(bytes.data() + 12) != bytes.size() - header_size) {
    return damaged;
  }
  auto configuration = decode_configuration(Bytes(bytes).subspan(header_size));
  if (!configuration.has_value()) return damaged;
  return std::optional<Snapshot>({load_le<std::uint64_t>(bytes.data() + 16),
                                  load_le<std::uint64_t>(bytes.data() + 24),
                                  std::move(configuration).value()});
}

}  // namespace pstorage::mds::raft
