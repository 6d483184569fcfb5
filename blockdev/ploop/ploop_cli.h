// The command line pstorage-ploop: its commands, above Image_directory.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/ploop/exit_code.h"
#include "blockdev/ploop/local_disk.h"
#include "blockdev/ploop/virtual_disk.h"
#include "core/runtime/real_clock.h"

namespace pstorage::ploop {

class Ploop_cli {
 public:
  using Action = std::function<Outcome<void>()>;

  Ploop_cli();
  /// Parses and runs one command. Returns the exit code.
  int run(int argc, char const* const* argv);

  CLI::App* add(std::string const& name, std::string const& description, Action action);
  void add_json(CLI::App* command) { command->add_flag("--json", is_json_, "Print JSON"); }
  bool is_json() const { return is_json_; }
  Random& random() { return random_; }
  /// A line on standard error that overwrites itself, when that is a terminal.
  Progress progress(std::string const& what) const;

 private:
  CLI::App app_{"Works on ploop images: virtual disks with snapshots, at rest."};
  struct Command {
    CLI::App* app;
    Action action;
  };
  std::vector<Command> commands_;
  bool is_json_ = false;
  Real_random random_;
};

/// A disk and the directory it is in.
struct Opened_disk {
  std::unique_ptr<Local_directory> directory;
  std::string name;  // of the descriptor
  std::unique_ptr<Virtual_disk> disk;
};
/// Opens the disk of descriptor `path`, locked when it is to be changed.
Outcome<Opened_disk> open_disk(std::string const& path, bool to_change);

/// Bytes of "10G"; without a unit: sectors of 512 bytes, as ploop has it.
Outcome<std::uint64_t> parse_sectors(std::string const& text);

// Each adds its commands.
void add_image_commands(Ploop_cli& cli);     // init, grow, resize, convert, copy, compact, ...
void add_check_commands(Ploop_cli& cli);     // check, info, list
void add_snapshot_commands(Ploop_cli& cli);  // snapshot, snapshot-*

}  // namespace pstorage::ploop
