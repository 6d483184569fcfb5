// A volume that stores nothing and answers at the end of the loop turn: what is left is the cost of
// the NBD hop.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/volume_provider.h"
#include "core/runtime/runtime.h"

namespace pstorage::nbd::test {

class Null_volume final : public client::Volume {
 public:
  Null_volume(Runtime& runtime, std::string name, std::uint64_t size)
      : runtime_(runtime),
        name_(std::move(name)),
        size_(size),
        payload_(Slice::allocate(32u << 20)) {
    std::memset(payload_.data(), 0, payload_.size());
  }

  std::uint64_t size_bytes() const override { return size_; }
  std::string const& path() const override { return name_; }
  void read(std::uint64_t, std::uint64_t length, client::Read_done done) override {
    reads_.emplace_back(length, std::move(done));
    arm();
  }
  void write(std::uint64_t, std::vector<Slice>, bool, client::Done done) override {
    add(std::move(done));
  }
  void zero(std::uint64_t, std::uint64_t, bool, bool, client::Done done) override {
    add(std::move(done));
  }
  void flush(client::Done done) override { add(std::move(done)); }
  void extents(std::uint64_t, std::uint64_t length, std::size_t,
               client::Extents_done done) override {
    runtime_.post([length, done = std::move(done)] {
      done(std::vector<client::Extent>{{length, false}});
    });
  }
  void close(client::Done done) override { add(std::move(done)); }
  std::string waiting_reason() const override { return {}; }

 private:
  void add(client::Done done) {
    others_.push_back(std::move(done));
    arm();
  }
  // One closure a batch: this is not what is measured.
  void arm() {
    if (std::exchange(armed_, true)) return;
    runtime_.executor().defer([this] { answer(); });
  }
  void answer() {
    armed_ = false;
    auto const reads = std::exchange(reads_, {});
    auto const others = std::exchange(others_, {});
    for (auto const& [length, done] : reads) {
      std::vector<Slice> slices;
      slices.push_back(payload_.part(0, length));
      done(std::move(slices));
    }
    for (auto const& done : others) done(success());
  }

  Runtime& runtime_;
  std::string name_;
  std::uint64_t size_;
  Slice payload_;
  bool armed_ = false;
  std::vector<std::pair<std::uint64_t, client::Read_done>> reads_;
  std::vector<client::Done> others_;
};

class Null_provider final : public Volume_provider {
 public:
  explicit Null_provider(Runtime& runtime) : runtime_(runtime) {}
  void add(std::string const& name, std::uint64_t size) { sizes_[name] = size; }

  void list(List_done done) override {
    std::vector<Volume_description> all;
    for (auto const& [name, size] : sizes_) all.push_back({name, size});
    runtime_.post([done = std::move(done), all = std::move(all)]() mutable { done(all); });
  }
  void describe(std::string const& name, Describe_done done) override {
    auto const size = sizes_[name];
    runtime_.post([name, size, done = std::move(done)] { done(Volume_description{name, size}); });
  }
  void open(std::string const& name, Open_done done) override {
    runtime_.post([this, name, done = std::move(done)] {
      std::unique_ptr<client::Volume> volume =
          std::make_unique<Null_volume>(runtime_, name, sizes_[name]);
      done(std::move(volume));
    });
  }

 private:
  Runtime& runtime_;
  std::map<std::string, std::uint64_t> sizes_;
};

}  // namespace pstorage::nbd::test
