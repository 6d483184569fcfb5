#include "mds/raft/snapshot.h"

#include <utility>

#include "core/assert.h"

namespace pstorage::mds::raft {

Result<std::unique_ptr<Snapshot_reader>> File_snapshot_reader::open(Disk& disk,
                                                                    std::string const& name,
                                                                    std::uint64_t index) {
  PS_TRY(auto file, disk.open(name, {}));
  PS_TRY(auto const size, file->size());
  return std::unique_ptr<Snapshot_reader>(new File_snapshot_reader(std::move(file), index, size));
}

void File_snapshot_reader::read(std::uint64_t offset, std::size_t length, Read_done done) {
  PS_ASSERT(in_bounds(offset, length, size_));
  auto piece = Slice::allocate(length);
  auto const to = piece.mutable_bytes();
  file_->read_async(offset, to,
                    [piece = std::move(piece), done = std::move(done)](Result<void> result) {
                      if (result.has_value()) {
                        done(piece);
                      } else {
                        done(result.error());
                      }
                    });
}

Result<void> File_snapshot_sink::begin() {
  abandon();
  PS_TRY(file_, disk_.open(name_ + ".new", {.create = true, .exclusive = false}));
  return file_->truncate(0);
}

Result<void> File_snapshot_sink::write(std::uint64_t offset, Bytes bytes) {
  PS_ASSERT(file_ != nullptr);
  return file_->write(offset, bytes);
}

void File_snapshot_sink::sync(Disk_completion done) {
  PS_ASSERT(file_ != nullptr);
  file_->sync_async(std::move(done));
}

Outcome<void> File_snapshot_sink::install(std::uint64_t) {
  hooks_.close_state();
  file_.reset();
  auto const replaced = replace();
  if (!replaced.has_value()) {
    return failure(replaced.error(), "cannot put the received metadata database in place: " +
                                         replaced.error().message());
  }
  return hooks_.open_state();
}

Result<void> File_snapshot_sink::replace() {
  // The old write-ahead log would be taken for the new file's: it must be gone, durably, first.
  for (auto const& leftover : leftovers_) {
    if (disk_.exists(leftover)) PS_CHECK(disk_.remove(leftover));
  }
  PS_CHECK(disk_.sync_directory(""));
  PS_CHECK(disk_.rename(name_ + ".new", name_));
  return disk_.sync_directory("");
}

void File_snapshot_sink::abandon() {
  file_.reset();
  auto const name = name_ + ".new";
  if (disk_.exists(name)) (void)disk_.remove(name);  // only takes space; the next begin() tries
}

}  // namespace pstorage::mds::raft
