// Measures a disk that nobody uses: writes and syncs one block of a file of its own each second.
// Otherwise a slow disk from which clients stay away would never be seen to be quick again.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/env/clock.h"
#include "core/env/disk.h"

namespace pstorage::cs {

/// Thread: the owner's loop.
class Disk_probe {
 public:
  /// `began` and `ended` tell of every write that is under way; ended(false): it failed.
  Disk_probe(Disk& disk, std::string name, std::function<void()> began,
             std::function<void(bool ok)> ended)
      : disk_(disk), name_(std::move(name)), began_(std::move(began)), ended_(std::move(ended)) {}

  /// Off: nothing begins any more, and the file goes.
  void set_on(bool on) { is_on_ = on; }
  void on_tick(Time_point now);

 private:
  void probe();

  Disk& disk_;
  std::string const name_;
  std::function<void()> const began_;
  std::function<void(bool)> const ended_;
  bool is_on_ = false;
  bool is_under_way_ = false;
  Time_point last_{};
  std::unique_ptr<File> file_;
};

}  // namespace pstorage::cs
