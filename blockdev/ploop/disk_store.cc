#include "blockdev/ploop/disk_store.h"

#include <algorithm>
#include <array>

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t block_bytes = 4096;

class Disk_store final : public Image_store {
 public:
  Disk_store(std::unique_ptr<File> file, std::uint64_t size, Executor& executor)
      : file_(std::move(file)), size_(size), executor_(executor) {}
  ~Disk_store() override { *alive_ = false; }

  std::uint64_t size_bytes() const override { return size_; }

  void read(std::uint64_t offset, std::uint64_t length, Read_done done) override {
    auto slice = Slice::allocate(static_cast<std::size_t>(length));
    auto const result = file_->read(offset, slice.mutable_bytes());
    executor_.defer([alive = alive_, result, slice = std::move(slice), done = std::move(done)] {
      if (!*alive) return;
      if (!result) return done(result.error());
      done(std::vector<Slice>{slice});
    });
  }

  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) override {
    std::vector<Bytes> parts;
    for (auto const& slice : data) parts.push_back(slice.bytes());
    auto result = file_->write(offset, parts);
    if (result && fua) result = file_->sync();
    answer(std::move(done), result);
  }

  void punch(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
             Done done) override {
    auto const end = offset + length;
    auto const first = std::min((offset + block_bytes - 1) / block_bytes * block_bytes, end);
    auto const last = std::max(end / block_bytes * block_bytes, first);
    Result<void> result = success();
    if (last > first) result = file_->punch_hole(first, last - first);
    if (result && !only_whole_blocks) result = write_zeros(offset, first);
    if (result && !only_whole_blocks) result = write_zeros(last, end);
    if (result && fua) result = file_->sync();
    answer(std::move(done), result);
  }

  void flush(Done done) override { answer(std::move(done), file_->sync()); }

  void extend(std::uint64_t size_bytes, Done done) override {
    auto result = file_->truncate(size_bytes);
    if (result) result = file_->sync();
    if (result) size_ = size_bytes;
    answer(std::move(done), result);
  }

  void truncate(std::uint64_t size_bytes, Done done) override {
    auto const result = file_->truncate(size_bytes);
    if (result) size_ = size_bytes;
    answer(std::move(done), result);
  }

  void close(Done done) override { answer(std::move(done), success()); }

 private:
  /// Less than a block.
  Result<void> write_zeros(std::uint64_t from, std::uint64_t to) {
    static std::array<std::byte, block_bytes> const zeros{};
    if (from >= to) return success();
    return file_->write(from, Bytes(zeros).first(static_cast<std::size_t>(to - from)));
  }

  void answer(Done done, Result<void> const& result) {
    executor_.defer([alive = alive_, result, done = std::move(done)] {
      if (*alive) done(result);
    });
  }

  std::unique_ptr<File> file_;
  std::uint64_t size_;
  Executor& executor_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

Result<std::unique_ptr<Image_store>> open_disk_store(std::unique_ptr<File> file,
                                                     Executor& executor) {
  PS_TRY(auto const size, file->size());
  std::unique_ptr<Image_store> store =
      std::make_unique<Disk_store>(std::move(file), size, executor);
  return store;
}

}  // namespace pstorage::ploop
