// Going into the background without losing the first error line.
#pragma once

#include "core/disk/file_descriptor.h"
#include "core/result.h"

namespace pstorage {

/// Use: `PS_TRY(auto background, Background::enter())` first of all, before any thread or Runtime;
/// errors still go to the terminal; `background.ready()` when the service works. The process that
/// the user started waits for that and ends with status 0, or with 1 when the daemon ended before.
class Background {
 public:
  /// In the foreground: ready() does nothing.
  Background() = default;
  /// Forks; returns only in the child, in a session of its own.
  static Outcome<Background> enter();
  /// Tells the waiting parent and lets go of the terminal.
  void ready();

 private:
  explicit Background(File_descriptor tell) : tell_(std::move(tell)) {}
  File_descriptor tell_;
};

}  // namespace pstorage
