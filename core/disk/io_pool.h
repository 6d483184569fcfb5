// A few threads for what would block the loop: cold reads and syncs.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pstorage {

/// Runs jobs on at most `threads_max` threads, started when they are first needed.
class Io_pool {
 public:
  static constexpr std::size_t threads_max = 4;

  Io_pool() = default;
  /// Waits for the jobs under way; those not begun are dropped (their files are gone by then).
  ~Io_pool();
  Io_pool(Io_pool const&) = delete;
  Io_pool& operator=(Io_pool const&) = delete;

  /// Thread: any.
  void run(std::function<void()> job);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace pstorage
