// Load on a LUN over libiscsi: reads, writes, or stamped blocks that are read back at the end.
//   iscsi_load URL read|write|stamp BYTES DEPTH SECONDS [SPAN_MB [sequential]]
// In any order unless sequential. Prints one line of JSON. Unit attentions, BUSY and NOT READY are
// sent again, as kernels do.
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/iscsi/initiator.h"

namespace pstorage::iscsi {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::uint64_t sector = 512;

struct Options {
  std::string url, mode;
  std::uint32_t bytes = 4096;
  int depth = 1;
  double seconds = 1;
  std::uint64_t span_bytes = 64u << 20;
  bool is_sequential = false;
};

class Load;

struct Command {
  Load* load;
  std::uint64_t block = 0;
  bool is_busy = false;
  Clock::time_point begin;
  std::vector<unsigned char> data;
};

class Load {
 public:
  explicit Load(Options options)
      : options_(std::move(options)),
        session_("iqn.2026-11.test:load", options_.url),
        versions_(options_.span_bytes / options_.bytes),
        in_use_(versions_.size()) {
    for (int i = 0; i < options_.depth; ++i) {
      commands_.push_back(std::make_unique<Command>());
      commands_.back()->load = this;
      commands_.back()->data.resize(options_.bytes);
    }
  }

  int run() {
    auto const begin = Clock::now();
    auto const end = begin + std::chrono::duration<double>(options_.seconds);
    for (auto const& command : commands_) start(*command);
    while (Clock::now() < end) session_.turn(20);
    stopping_ = true;
    auto const spent = std::chrono::duration<double>(Clock::now() - begin).count();
    while (busy() > 0) session_.turn(20);
    if (options_.mode == "stamp") read_back();
    report(spent);
    return errors_ == 0 && wrong_ == 0 ? 0 : 1;
  }

 private:
  std::size_t busy() const {
    return static_cast<std::size_t>(std::count_if(commands_.begin(), commands_.end(),
                                                  [](auto const& one) { return one->is_busy; }));
  }

  void stamp(Command& command, std::uint64_t version) const {
    std::uint64_t seed = command.block * 0x9e3779b97f4a7c15u + version;
    for (std::size_t at = 0; at + 8 <= command.data.size(); at += 8) {
      std::memcpy(command.data.data() + at, &seed, 8);
      seed = seed * 6364136223846793005u + 1442695040888963407u;
    }
  }

  void start(Command& command) {
    do {
      command.block = (options_.is_sequential ? next_++ : random_()) % versions_.size();
    } while (in_use_[command.block]);
    in_use_[command.block] = command.is_busy = true;
    command.begin = Clock::now();
    if (options_.mode == "stamp") stamp(command, ++versions_[command.block]);
    send(command);
  }

  void send(Command& command) {
    auto const lba = command.block * (options_.bytes / sector);
    bool const reads = options_.mode == "read" || reading_back_;
    auto* const task =
        reads ? iscsi_read16_task(session_.context(), session_.lun(), lba, options_.bytes, sector,
                                  0, 0, 0, 0, 0, &Load::on_done, &command)
              : iscsi_write16_task(session_.context(), session_.lun(), lba, command.data.data(),
                                   options_.bytes, sector, 0, 0, 0, 0, 0, &Load::on_done, &command);
    if (task == nullptr) give_up("cannot send a command");
  }

  static void on_done(iscsi_context* /*context*/, int /*status*/, void* data, void* self) {
    auto& command = *static_cast<Command*>(self);
    auto* const task = static_cast<scsi_task*>(data);
    command.load->done(command, *task);
    scsi_free_scsi_task(task);
  }

  void done(Command& command, scsi_task const& task) {
    if (is_worth_repeating(task)) {
      ++repeated_;
      return send(command);
    }
    if (task.status != SCSI_STATUS_GOOD) {
      if (errors_++ == 0) std::fprintf(stderr, "first error: %s\n", describe(task).c_str());
    } else if (reading_back_) {
      stamp(command, versions_[command.block]);
      bool const same = task.datain.size == static_cast<int>(options_.bytes) &&
                        std::memcmp(task.datain.data, command.data.data(), options_.bytes) == 0;
      wrong_ += same ? 0 : 1;
    }
    auto const took = std::chrono::duration<double, std::micro>(Clock::now() - command.begin);
    if (!reading_back_) latencies_.push_back(took.count());
    in_use_[command.block] = command.is_busy = false;
    if (!stopping_) start(command);
  }

  void read_back() {
    reading_back_ = true;
    auto& command = *commands_.front();
    for (std::uint64_t block = 0; block < versions_.size(); ++block) {
      if (versions_[block] == 0) continue;
      ++checked_;
      command.block = block;
      command.is_busy = true;
      send(command);
      while (command.is_busy) session_.turn(1000);
    }
  }

  void report(double seconds) {
    std::sort(latencies_.begin(), latencies_.end());
    auto const at = [&](double part) {
      return latencies_.empty() ? 0.0
                                : latencies_[static_cast<std::size_t>(
                                      part * static_cast<double>(latencies_.size() - 1))];
    };
    auto const count = static_cast<double>(latencies_.size());
    std::printf(
        "{\"commands\": %zu, \"errors\": %llu, \"wrong\": %llu, \"checked\": %llu, "
        "\"repeated\": %llu, \"iops\": %.0f, \"mbps\": %.0f, \"p50_us\": %.0f, \"p99_us\": %.0f, "
        "\"longest_ms\": %.0f}\n",
        latencies_.size(), errors_, wrong_, checked_, repeated_, count / seconds,
        count / seconds * options_.bytes / 1e6, at(0.5), at(0.99), at(1) / 1000);
  }

  Options options_;
  Initiator session_;
  std::vector<std::uint64_t> versions_;  // of each block: its last write
  std::vector<bool> in_use_;             // one command a block at a time
  std::vector<std::unique_ptr<Command>> commands_;
  std::mt19937_64 random_{1};
  std::uint64_t next_ = 0;  // block, when sequential
  std::vector<double> latencies_;
  unsigned long long errors_ = 0, wrong_ = 0, repeated_ = 0, checked_ = 0;
  bool stopping_ = false;
  bool reading_back_ = false;
};

int main_of(int argc, char** argv) {
  if (argc < 6)
    give_up("usage: iscsi_load URL read|write|stamp BYTES DEPTH SECONDS [SPAN_MB [sequential]]");
  Options options{.url = argv[1], .mode = argv[2]};
  options.bytes = static_cast<std::uint32_t>(std::stoul(argv[3]));
  options.depth = std::stoi(argv[4]);
  options.seconds = std::stod(argv[5]);
  if (argc > 6) options.span_bytes = std::stoull(argv[6]) << 20;
  options.is_sequential = argc > 7 && std::string(argv[7]) == "sequential";
  if (options.bytes % sector != 0 || options.bytes == 0 ||
      options.span_bytes / options.bytes < static_cast<std::uint64_t>(options.depth)) {
    give_up("BYTES is a multiple of 512, and SPAN_MB has room for DEPTH of them");
  }
  return Load(options).run();
}

}  // namespace
}  // namespace pstorage::iscsi

int main(int argc, char** argv) { return pstorage::iscsi::main_of(argc, argv); }
