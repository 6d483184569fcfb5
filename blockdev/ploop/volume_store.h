// Image_store over an open file of the cluster.
#pragma once

#include <functional>
#include <memory>

#include "blockdev/ploop/image_store.h"

namespace pstorage::ploop {

/// Changes the size of a file at the MDS; answers when that is committed.
using Resize = std::function<void(std::uint64_t size_bytes, Done done)>;

/// client::Volume promises what Image_store does, so every call is handed on as it is: no copy, no
/// state but the size. Thread: the volume's loop.
class Volume_store final : public Image_store {
 public:
  /// `resize` answers like the volume: on its loop, never from inside the call, and not after this
  /// store is gone. Smaller sizes must be allowed.
  Volume_store(std::shared_ptr<client::Volume> volume, Resize resize)
      : volume_(std::move(volume)), resize_(std::move(resize)), size_(volume_->size_bytes()) {}

  std::uint64_t size_bytes() const override { return size_; }
  void read(std::uint64_t offset, std::uint64_t length, Read_done done) override {
    volume_->read(offset, length, std::move(done));
  }
  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) override {
    volume_->write(offset, std::move(data), fua, std::move(done));
  }
  void punch(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
             Done done) override {
    volume_->zero(offset, length, only_whole_blocks, fua, std::move(done));
  }
  void flush(Done done) override { volume_->flush(std::move(done)); }
  void extend(std::uint64_t size_bytes, Done done) override { resize(size_bytes, std::move(done)); }
  /// What is cut off is zeroed durably first: the chunk that the new end lies in stays, and its
  /// rest must read as zeros when the file grows again.
  void truncate(std::uint64_t size_bytes, Done done) override {
    if (size_bytes >= size_) return resize(size_bytes, std::move(done));
    volume_->zero(size_bytes, size_ - size_bytes, false, true,
                  [this, size_bytes, done = std::move(done)](Result<void> const& zeroed) mutable {
                    if (!zeroed) return done(zeroed);
                    resize(size_bytes, std::move(done));
                  });
  }
  void close(Done done) override { volume_->close(std::move(done)); }

 private:
  void resize(std::uint64_t size_bytes, Done done) {
    resize_(size_bytes, [this, size_bytes, done = std::move(done)](Result<void> const& result) {
      if (result) volume_->set_size(size_ = size_bytes);
      done(result);
    });
  }

  std::shared_ptr<client::Volume> volume_;
  Resize resize_;
  std::uint64_t size_;
};

}  // namespace pstorage::ploop
