#include "core/tools/flush_file.h"

#include <algorithm>

#include "core/assert.h"
#include "core/crc32c.h"

namespace pstorage::tools {
namespace {

constexpr std::uint64_t magic = 0x6b63656863736c66;  // "flscheck"

struct Head {
  std::uint64_t magic;
  std::uint64_t write;
  std::uint32_t writer;
  std::uint32_t crc;  // of what is behind the head
};
static_assert(sizeof(Head) == 24);

void fill(Mutable_bytes block, std::uint32_t writer, std::uint64_t write) {
  // Differs from write to write everywhere: an old half is noticed.
  for (std::size_t at = sizeof(Head); at + 8 <= block.size(); at += 8) {
    store_le(block.data() + at, write * 0x9e3779b97f4a7c15ull + at);
  }
  Head const head{magic, write, writer, crc32c(block.subspan(sizeof(Head)))};
  store_le(block.data(), head);
}

/// Number of the write that the block holds whole; 0: none.
std::uint64_t write_in(Bytes block, std::uint32_t writer) {
  auto const head = load_le<Head>(block.data());
  bool const is_whole = head.magic == magic && head.writer == writer &&
                        head.crc == crc32c(block.subspan(sizeof(Head)));
  return is_whole ? head.write : 0;
}

Failure trouble(std::string const& what, std::string const& name, std::error_code error) {
  return failure(error, "cannot " + what + " " + name + ": " + error.message());
}

}  // namespace

std::uint64_t newest_write_in(std::uint32_t block, std::uint32_t blocks, std::uint64_t last) {
  if (last < block + 1ull) return 0;
  return last - (last - block - 1) % blocks;
}

Flush_file::Flush_file(std::unique_ptr<File> file, std::string name, Flush_file_shape shape)
    : file_(std::move(file)), name_(std::move(name)), shape_(shape), block_(shape.block_bytes) {}

Outcome<Flush_file> Flush_file::open(Disk& disk, std::string const& name, Flush_file_shape shape) {
  PS_ASSERT(shape.block_bytes >= flush_block_min && shape.block_bytes % 8 == 0 && shape.blocks > 1);
  auto file = disk.open(name, {.create = true});
  if (!file.has_value()) return trouble("open", name, file.error());
  auto const bytes = std::uint64_t{shape.block_bytes} * shape.blocks;
  // The size is part of what must be there before the first write can be durable.
  if (auto const grown = file.value()->truncate(bytes); !grown.has_value()) {
    return trouble("make room for", name, grown.error());
  }
  auto synced = file.value()->sync();
  if (synced.has_value()) synced = disk.sync_directory("");
  if (!synced.has_value()) return trouble("sync", name, synced.error());
  return Flush_file(std::move(file).value(), name, shape);
}

Outcome<std::vector<std::uint64_t>> Flush_file::writes_found() {
  std::vector<std::uint64_t> found(shape_.blocks);
  for (std::uint32_t block = 0; block < shape_.blocks; ++block) {
    auto const read = file_->read(std::uint64_t{block} * shape_.block_bytes, block_);
    if (!read.has_value()) return trouble("read", name_, read.error());
    found[block] = write_in(block_, shape_.writer);
  }
  return found;
}

Outcome<std::string> Flush_file::verify(std::uint64_t last) {
  PS_TRY(auto const found, writes_found());
  // Writes behind `last` may have been durable, too, before the power failed and anybody heard of
  // it; the one behind the newest may have torn the block that it replaces.
  auto const newest = std::max(last, *std::max_element(found.begin(), found.end()));
  std::uint64_t lost = 0;
  std::string first;
  for (std::uint32_t block = 0; block < shape_.blocks; ++block) {
    auto const wanted = newest_write_in(block, shape_.blocks, last);
    if (found[block] >= wanted || block == newest % shape_.blocks || lost++ != 0) continue;
    auto const has =
        found[block] == 0 ? std::string("nothing") : "write " + std::to_string(found[block]);
    first = name_ + ": block " + std::to_string(block) + " has " + has + " instead of write " +
            std::to_string(wanted) + ", which the disk had called durable";
  }
  if (lost > 1) first += "; " + std::to_string(lost) + " blocks are like that";
  return first;
}

Outcome<std::uint64_t> Flush_file::write_next() {
  auto const write = written_ + 1;
  fill(block_, shape_.writer, write);
  auto const block = (write - 1) % shape_.blocks;
  auto done = file_->write(block * shape_.block_bytes, Bytes(block_));
  if (done.has_value()) done = file_->sync();
  if (!done.has_value()) return trouble("write", name_, done.error());
  written_ = write;
  return write;
}

}  // namespace pstorage::tools
