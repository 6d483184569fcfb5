// One durable Raft log on a simulated disk, for tests of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mds/raft/raft_log.h"
#include "mds/raft/segment.h"
#include "tests/mds/fakes.h"
#include "tests/sim/sim_disk.h"

namespace pstorage::mds::raft {

class Log_bench final : public Raft_log_listener {
 public:
  static constexpr std::uint64_t segment_bytes = 64u << 10;

  /// Starts, or starts again. False: see error.
  bool start(std::uint64_t applied = 0) {
    log = std::make_unique<Raft_log>(
        disk, random, quiet,
        Raft_log_options{
            .segment_bytes = segment_bytes, .reserve_bytes = 8u << 10, .first = three()});
    auto started = log->start(applied, *this);
    error = started.has_value() ? "" : started.error().text;
    state = started.has_value() ? std::move(started).value() : Core_state{};
    next_token_ = persisted = 0;
    if (error.empty()) log->flush();  // prepares the next segment
    return error.empty();
  }
  static Configuration three() {
    Configuration configuration;
    for (std::uint64_t id = 1; id <= 3; ++id) {
      configuration.add({Member_id{id}, Member_kind::voter, ""});
    }
    return configuration;
  }
  static Log_entry entry(std::uint64_t index, std::uint64_t term, std::size_t bytes = 100) {
    return {index, term, Entry_kind::command, Slice::copy_of(as_bytes(std::string(bytes, 'x')))};
  }
  /// Queues a Ready with entries [from, to] of `term`, void ones from `truncate_from` on.
  void write(std::uint64_t from, std::uint64_t to, std::uint64_t term,
             std::uint64_t truncate_from = 0, std::size_t bytes = 100) {
    Ready ready;
    ready.token = ++next_token_;
    ready.must_sync = true;
    ready.hard = {.term = term, .vote = Member_id{2}, .commit = from - 1};
    ready.truncate_from = truncate_from;
    for (auto index = from; index <= to; ++index)
      ready.entries.push_back(entry(index, term, bytes));
    log->write(ready);
    log->flush();
  }
  /// As write(), and everything is durable.
  void append(std::uint64_t from, std::uint64_t to, std::uint64_t term,
              std::uint64_t truncate_from = 0, std::size_t bytes = 100) {
    write(from, to, term, truncate_from, bytes);
    settle();
  }
  void install(Snapshot const& snapshot) {
    Ready ready;
    ready.token = ++next_token_;
    ready.must_sync = true;
    ready.hard = {.term = snapshot.term, .vote = {}, .commit = snapshot.index};
    ready.install = snapshot;
    log->write(ready);
    log->flush();
    settle();
  }
  void settle() { queue.run_until(queue.now() + std::chrono::seconds(1)); }
  void crash() {
    log.reset();
    disk.crash();
  }
  std::uint64_t last_index() const { return state.base.index + state.entries.size(); }
  /// Inverts a bit of the `number`th block of the `segment`th segment, of the header's checksum.
  void rot(std::uint64_t segment, std::uint64_t number) {
    disk.flip(name(segment), number * frame_alignment + 5, 1);
  }
  static std::string name(std::uint64_t segment) { return segment_name(segment); }

  void on_persisted(std::uint64_t token) override { persisted = token; }
  void on_raft_log_failed(Failure const& why) override { failures.push_back(why.text); }

  sim::Event_queue queue;
  Test_random random;
  Quiet_log quiet;
  sim::Sim_disk disk{queue, random};
  std::unique_ptr<Raft_log> log;
  Core_state state;  // as the last start found it
  std::string error;
  std::uint64_t persisted = 0;
  std::vector<std::string> failures;

 private:
  std::uint64_t next_token_ = 0;
};

}  // namespace pstorage::mds::raft
