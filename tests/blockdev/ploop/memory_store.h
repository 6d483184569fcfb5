// Image files in memory, sparse, for unit tests and the fuzzer.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "blockdev/ploop/blocking_store.h"
#include "blockdev/ploop/run_queue.h"
#include "blockdev/ploop/slices.h"

namespace pstorage::ploop::test {

/// What all openings of one file share.
struct Memory_file {
  static constexpr std::uint64_t page = 4096;
  std::uint64_t size = 0;
  std::map<std::uint64_t, std::array<std::byte, page>> pages;  // missing: zeros
  std::size_t writes = 0;
  std::size_t flushes = 0;
  std::size_t closes = 0;
  std::error_code fail_flushes;
  std::error_code fail_extensions;

  void put(std::uint64_t offset, Bytes bytes) {
    while (!bytes.empty()) {
      auto const within = offset % page;
      auto const take = std::min<std::uint64_t>(bytes.size(), page - within);
      auto& to = pages[offset / page];
      std::memcpy(to.data() + within, bytes.data(), take);
      offset += take;
      bytes = bytes.subspan(take);
    }
  }
  void get(std::uint64_t offset, Mutable_bytes to) const {
    while (!to.empty()) {
      auto const within = offset % page;
      auto const take = std::min<std::uint64_t>(to.size(), page - within);
      auto const found = pages.find(offset / page);
      if (found == pages.end())
        std::memset(to.data(), 0, take);
      else
        std::memcpy(to.data(), found->second.data() + within, take);
      offset += take;
      to = to.subspan(take);
    }
  }
  void clear(std::uint64_t offset, std::uint64_t length) {
    auto const end = offset + length;
    for (auto at = pages.lower_bound(offset / page); at != pages.end();) {
      auto const start = at->first * page;
      if (start >= end) break;
      auto const from = std::max(offset, start);
      auto const to = std::min(end, start + page);
      if (to - from == page) {
        at = pages.erase(at);
        continue;
      }
      std::memset(at->second.data() + (from - start), 0, to - from);
      ++at;
    }
  }
};

class Memory_store final : public Image_store {
 public:
  Memory_store(std::shared_ptr<Memory_file> file, Executor& executor)
      : file_(std::move(file)), executor_(executor) {}
  ~Memory_store() override { *alive_ = false; }

  std::uint64_t size_bytes() const override { return file_->size; }
  void read(std::uint64_t offset, std::uint64_t length, Read_done done) override {
    PS_ASSERT(in_bounds(offset, length, file_->size));
    auto slice = Slice::allocate(static_cast<std::size_t>(length));
    file_->get(offset, slice.mutable_bytes());
    executor_.defer([alive = alive_, slice = std::move(slice), done = std::move(done)] {
      if (*alive) done(std::vector<Slice>{slice});
    });
  }
  void write(std::uint64_t offset, std::vector<Slice> data, bool, Done done) override {
    PS_ASSERT(in_bounds(offset, total(data), file_->size));
    ++file_->writes;
    for (auto const& slice : data) {
      file_->put(offset, slice.bytes());
      offset += slice.size();
    }
    answer(std::move(done), {});
  }
  void punch(std::uint64_t offset, std::uint64_t length, bool, bool, Done done) override {
    PS_ASSERT(in_bounds(offset, length, file_->size));
    file_->clear(offset, length);
    answer(std::move(done), {});
  }
  void flush(Done done) override {
    ++file_->flushes;
    answer(std::move(done), file_->fail_flushes);
  }
  void extend(std::uint64_t size_bytes, Done done) override {
    PS_ASSERT(size_bytes >= file_->size);
    if (!file_->fail_extensions) file_->size = size_bytes;
    answer(std::move(done), file_->fail_extensions);
  }
  void truncate(std::uint64_t size_bytes, Done done) override {
    PS_ASSERT(size_bytes <= file_->size);
    file_->clear(size_bytes, file_->size - size_bytes);
    file_->size = size_bytes;
    answer(std::move(done), {});
  }
  void close(Done done) override {
    ++file_->closes;
    answer(std::move(done), {});
  }

 private:
  void answer(Done done, std::error_code code) {
    executor_.defer([alive = alive_, code, done = std::move(done)] {
      if (*alive) done(code ? Result<void>(code) : success());
    });
  }

  std::shared_ptr<Memory_file> file_;
  Executor& executor_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// A loop and a way to open files on it.
struct Memory_loop {
  Run_queue queue;
  std::unique_ptr<Image_store> open(std::shared_ptr<Memory_file> const& file) {
    return std::make_unique<Memory_store>(file, queue);
  }
  Turn turn() {
    return [this] {
      PS_ASSERT(queue.run_one());
      return true;
    };
  }
  Blocking_store blocking(std::shared_ptr<Memory_file> const& file) { return {open(file), turn()}; }
  void run() {
    while (queue.run_one()) {
    }
  }
};

}  // namespace pstorage::ploop::test
