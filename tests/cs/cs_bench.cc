// CPU of a chunk server a request, without sockets: Chunk_server on a real disk, a network that
// swallows.
//   cs_bench DIR [requests]     DIR: where to make (and remove) a repository of about 700 MiB
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <mutex>

#include "core/crc32c.h"
#include "core/disk/posix_disk.h"
#include "core/runtime/real_clock.h"
#include "cs/chunk_server.h"
#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

constexpr std::uint32_t chunks = 4, chunk_size = 64u << 20, depth = 32;

class Null_network final : public Network {
 public:
  Connection_id connect(Address const&, Connection_handler&) override { return {1}; }
  Outcome<Address> listen(Address const& at, Connection_handler&) override { return at; }
  void send(Connection_id, Message message) override {
    ++sent;
    failed += message.header.status == Errc::ok ? 0 : 1;
  }
  void close(Connection_id) override {}
  std::size_t queued_bytes(Connection_id) const override { return 0; }
  void set_turn_hook(Turn_hook*) override {}
  std::uint64_t sent = 0, failed = 0;
};

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto const seconds = [](timeval time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class Bench {
 public:
  Bench(std::string const& directory, std::uint64_t requests)
      : requests_(requests),
        disk_(open_posix_disk(directory, pool_, [this](std::function<void()> work) {
                std::lock_guard const lock(mutex_);
                posted_.push_back(std::move(work));
              }).value()) {
    options_.identity.salt = test_salt;
    options_.identity.cs = {1025};
    options_.identity.uuid = "bench";
    EXPECT_TRUE(
        make_contents(*disk_, *disk_, "journal", options_.identity, 256u << 20, {}).has_value());
    server_ =
        std::make_unique<Chunk_server>(clock_, network_, *disk_, *disk_, random_, log_, options_);
    EXPECT_TRUE(server_->start().has_value());
    server_->on_connected({1}, Peer_info{});
    for (std::uint64_t id = 1; id <= chunks; ++id) open(id);
    turn();
    payload_ = Slice::allocate(4u << 20);
    for (std::size_t i = 0; i < payload_.size(); i += 8) {
      store_le(payload_.data() + i, random_.next());
    }
    crcs_ = Slice::allocate(payload_.size() / block_bytes * 4);
    for (std::size_t i = 0; i < payload_.size() / block_bytes; ++i) {
      store_le(crcs_.data() + i * 4, crc32c({payload_.data() + i * block_bytes, block_bytes}));
    }
  }

  void run() {
    measure("fill 1M", chunks * 64, 4, [this](std::uint64_t i) {
      write(1 + i / 64, static_cast<std::uint32_t>(i % 64) << 20, 256);
    });
    settle();
    measure("4K write, warm-up", requests_, depth, [this](std::uint64_t) { random_write(1); });
    measure("4K write", requests_, depth, [this](std::uint64_t) { random_write(1); });
    measure("4K write, depth 1", requests_ / 4, 1, [this](std::uint64_t) { random_write(1); });
    measure("4K read, some staged", requests_, depth, [this](std::uint64_t) { random_read(1); });
    settle();
    measure("4K read, warm-up", requests_, depth, [this](std::uint64_t) { random_read(1); });
    measure("4K read", requests_, depth, [this](std::uint64_t) { random_read(1); });
    measure("64K write", requests_ / 16, depth, [this](std::uint64_t) { random_write(16); });
    measure("1M write", 256, 4, [this](std::uint64_t) { random_write(256); });
    measure("1M read", 512, 4, [this](std::uint64_t) { random_read(256); });
    settle();
    EXPECT_EQ(network_.failed, 0u);
  }

 private:
  template <typename One>
  void measure(char const* name, std::uint64_t count, std::uint32_t at_once, One one) {
    double const before = cpu_seconds();
    Time_point const start = clock_.now();
    for (std::uint64_t i = 0; i < count;) {
      std::uint64_t const target = network_.sent + std::min<std::uint64_t>(at_once, count - i);
      for (std::uint32_t k = 0; k < at_once && i < count; ++k) one(i++);
      for (turn(); network_.sent < target; turn()) ::usleep(50);  // the disk is what is waited for
    }
    double const cpu = (cpu_seconds() - before) * 1e6 / static_cast<double>(count);
    double const wall =
        static_cast<double>((clock_.now() - start).count()) / 1e3 / static_cast<double>(count);
    std::printf("%-22s %8.2f us CPU %8.2f us a request\n", name, cpu, wall);
  }
  void settle() {
    Time_point const end = clock_.now() + std::chrono::seconds(5);
    while (clock_.now() < end && server_->store().journal().used_bytes() != 0) {
      turn();
      ::usleep(100);
    }
  }
  void turn() {
    std::vector<std::function<void()>> work;
    {
      std::lock_guard const lock(mutex_);
      work.swap(posted_);
    }
    for (auto& one : work) one();
    server_->on_turn_end();
    // Not every turn: reading the clock costs as much as a request on some machines.
    if (++turns_ % 32 == 0 && clock_.now() - last_tick_ >= tick_interval) {
      last_tick_ = clock_.now();
      server_->on_tick();
    }
  }
  void open(std::uint64_t id) {
    proto::Cs_request request;
    auto& open = *request.mutable_open_chunks();
    open.set_file(7);
    open.set_epoch(1);
    auto& one = *open.add_chunks();
    one.set_chunk(id);
    one.set_version(1);
    one.set_chunk_size(chunk_size);
    one.set_create(true);
    Message message;
    message.meta = Slice::allocate(request.ByteSizeLong());
    request.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
    server_->on_message({1}, message);
  }
  Message request(Operation operation, std::uint64_t id, std::uint32_t offset,
                  std::uint32_t blocks) const {
    Message message;
    message.header.operation = operation;
    message.header.chunk = {id};
    message.header.stamp = Stamp::of({1}, 0);
    message.header.version = {1};
    message.header.offset = offset;
    message.header.length = blocks * block_bytes;
    return message;
  }
  void write(std::uint64_t id, std::uint32_t offset, std::uint32_t blocks) {
    Message message = request(Operation::write, id, offset, blocks);
    message.header.stamp = Stamp::of({1}, ++sequence_);
    std::size_t const from = random_.below(payload_.size() / block_bytes - blocks + 1);
    message.data = payload_.part(from * block_bytes, std::size_t{blocks} * block_bytes);
    message.meta = crcs_.part(from * 4, std::size_t{blocks} * 4);
    server_->on_message({1}, message);
  }
  std::uint32_t place(std::uint32_t blocks) {
    return static_cast<std::uint32_t>(random_.below(chunk_size / block_bytes / blocks)) * blocks *
           block_bytes;
  }
  void random_write(std::uint32_t blocks) {
    write(1 + random_.below(chunks), place(blocks), blocks);
  }
  void random_read(std::uint32_t blocks) {
    Message message = request(Operation::read, 1 + random_.below(chunks), place(blocks), blocks);
    server_->on_message({1}, message);
  }

  std::uint64_t requests_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  Io_pool pool_;
  Real_clock clock_;
  Null_network network_;
  Seeded_random random_{1};
  Silent_log log_;
  Chunk_server_options options_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<Chunk_server> server_;
  Slice payload_, crcs_;
  std::uint32_t sequence_ = 0;
  Time_point last_tick_{};
  std::uint64_t turns_ = 0;
};

}  // namespace
}  // namespace pstorage::cs

int main(int argc, char** argv) {
  CLI::App app("CPU of a chunk server a request.", "cs_bench");
  std::string directory;
  std::uint64_t requests = 200'000;
  app.add_option("DIR", directory, "Where to make a repository")->required();
  app.add_option("REQUESTS", requests, "Small requests a line");
  CLI11_PARSE(app, argc, argv);
  directory += "/cs_bench." + std::to_string(::getpid());
  std::filesystem::create_directories(directory);
  {
    pstorage::cs::Bench bench(directory, requests);
    bench.run();
  }
  std::filesystem::remove_all(directory);
  return 0;
}
