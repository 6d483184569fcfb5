// The composition root of `pstorage`: what a command gets and how it is added. The folders that own
// commands define the add_... functions; core/cli knows only these declarations.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/cli/mds_call.h"
#include "core/result.h"

namespace CLI {
class App;
}

namespace pstorage::cli {

inline constexpr int exit_failure = 1;
inline constexpr int exit_usage = 2;

/// Options before the command's name.
struct Global_options {
  std::string cluster;    // -c, else PSTORAGE_NAME
  std::string bootstrap;  // -b
  bool is_quiet = false;  // -q
};

/// What a command does; nothing, or why it failed (one line, exit status 1).
using Action = std::function<Outcome<void>()>;

class Cli {
 public:
  Cli();
  ~Cli();
  Cli(Cli const&) = delete;
  Cli& operator=(Cli const&) = delete;

  Global_options const& options() const { return options_; }
  /// Adds `name` below the top (or below `parent`); `action` runs when it was given.
  CLI::App* add_command(std::string const& name, std::string const& description, Action action,
                        CLI::App* parent = nullptr);
  /// A word that only groups commands ("volume").
  CLI::App* add_group(std::string const& name, std::string const& description);
  /// The parser, with all commands.
  CLI::App const& app() const { return *app_; }
  /// Adds --json to a command.
  void add_json(CLI::App* command);
  bool is_json() const { return is_json_; }

  /// What a command's own -b says.
  void set_bootstrap(std::string list) { options_.bootstrap = std::move(list); }
  /// The cluster's name, checked.
  Outcome<std::string> cluster() const;
  /// Sends one request to the cluster and waits. The first answer prints "connected to MDS#N"
  /// unless -q or --json.
  Outcome<proto::Mds_reply> call(proto::Mds_request request);
  /// The same, silently; greet() prints it before the command's own output, when all went well.
  Outcome<proto::Mds_reply> ask(proto::Mds_request request);
  void greet();

  /// Parses, runs, prints the error. Returns the exit status.
  int run(int argc, char const* const* argv);

 private:
  struct Command {
    CLI::App* app;
    Action action;
  };
  Outcome<void> connect();
  /// What an unknown command or option was probably to be; empty: no idea.
  std::string meant_by(std::string const& word) const;

  std::unique_ptr<CLI::App> app_;
  std::vector<Command> commands_;
  Global_options options_;
  bool is_json_ = false;
  bool has_said_connected_ = false;
  std::uint32_t mds_ = 0;  // who has answered
  std::unique_ptr<Mds_caller> caller_;
};

void add_attribute_commands(Cli& cli);
void add_lease_commands(Cli& cli);
void add_status_commands(Cli& cli);
void add_top_commands(Cli& cli);
void add_event_commands(Cli& cli);
void add_config_commands(Cli& cli);
void add_node_commands(Cli& cli);
void add_healing_commands(Cli& cli);
void add_support_commands(Cli& cli);
void add_advise_commands(Cli& cli);
void add_completion_commands(Cli& cli);
void add_mds_commands(Cli& cli);     // mds/
void add_cs_commands(Cli& cli);      // cs/
void add_volume_commands(Cli& cli);  // blockdev/
void add_check_commands(Cli& cli);   // likewise

}  // namespace pstorage::cli
