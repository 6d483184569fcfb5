// The commands "pstorage volume ...". They are declared in core/cli/commands.h, which knows nothing
// of images; `pstorage` is linked with this library.
#pragma once

#include <memory>
#include <string>

#include "blockdev/volume/limit_options.h"
#include "blockdev/volume/snapshot_list.h"
#include "blockdev/volume/volume_work.h"
#include "core/cli/commands.h"
#include "core/cli/output.h"

namespace pstorage::volume {

/// What the options of all these commands say.
struct Volume_options {
  std::string name;
  std::string other;  // second name, file, or snapshot
  std::string size;
  std::string format = "ploop";
  std::string cluster;
  std::string replicas;
  std::string tier;
  std::string failure_domain;
  std::string chunk_size;
  std::string retention;
  std::string source_format;  // of what is outside
  std::string target_name;
  bool may_shrink = false;
  bool now = false;
  bool repairs = false;
  bool purges = false;
  bool is_read_only = false;
  Limit_options limits;
  std::string server;  // that serves an attached volume
  std::string allowed_for = "10m";
  std::uint64_t timeout_s = 10;
  std::uint64_t patience_s = 3600;
};

/// A session with the cluster, made when a command needs it.
class Volume_cli {
 public:
  explicit Volume_cli(cli::Cli& cli) : cli_(cli) {}
  cli::Cli& cli() { return cli_; }
  /// Runs a command; says "connected to MDS#N" when it went well and has not said anything.
  template <typename Action>
  Outcome<void> run(Action const& action) {
    PS_CHECK(action());
    cli_.greet();
    return success();
  }
  void print_json(nlohmann::json const& json);
  void print_line(std::string const& text);
  void print_table(std::vector<std::string> const& headers,
                   std::vector<std::vector<std::string>> const& rows);
  /// Errors: with what to do when no MDS answers.
  Outcome<Tool_session*> session();
  /// Clusters done of all, on standard error when that is a terminal.
  ploop::Progress progress(std::string what) const;
  bool has_progress() const;

 private:
  cli::Cli& cli_;
  std::unique_ptr<Tool_session> session_;
};

using Shared_cli = std::shared_ptr<Volume_cli>;
using Shared_options = std::shared_ptr<Volume_options>;
/// Adds its commands to `group`.
void add_basic_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);
void add_snapshot_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);
void add_limit_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);
void add_transfer_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);
void add_attach_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);
void add_migration_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);
void add_trash_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group);

}  // namespace pstorage::volume
