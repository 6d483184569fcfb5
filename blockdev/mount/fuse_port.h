// The kernel's side of a mount in our event loop: reads requests without blocking and hands them to
// libfuse, which calls the operations.
#pragma once

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/net/event_loop.h"
#include "core/result.h"

namespace pstorage::mount {

/// Thread: the loop's.
class Fuse_port final : private Event_handler {
 public:
  /// `on_end` is called once, when the file system has been unmounted.
  Fuse_port(Event_loop& loop, std::function<void()> on_end);
  ~Fuse_port() override;
  Fuse_port(Fuse_port const&) = delete;
  Fuse_port& operator=(Fuse_port const&) = delete;

  /// Mounts; requests arrive from the next turn on. `options`: of mount(8), comma-separated.
  /// Errors: one line that says what to do.
  Outcome<void> mount(fuse_lowlevel_ops const& operations, void* user,
                      std::string const& mount_point, std::string const& options);
  /// Takes the mount point away; requests that come nevertheless are refused by the kernel.
  void unmount();
  fuse_session* session() { return session_; }

 private:
  // One turn of the loop must not belong to one mount alone.
  static constexpr int requests_a_turn = 64;

  void on_ready(Readiness ready) override;
  void end();

  std::function<void()> on_end_;
  Watch watch_;
  fuse_session* session_ = nullptr;
  fuse_buf buffer_{};
  bool mounted_ = false;
};

}  // namespace pstorage::mount
