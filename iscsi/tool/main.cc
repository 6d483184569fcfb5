// pstorage-iscsi: targets and LUNs of a cluster, served by this host over iSCSI.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <vector>

#include "iscsi/tool/commands.h"

namespace pstorage::iscsi {
namespace {

constexpr int exit_failure = 1;
constexpr int exit_usage = 2;

class Program {
 public:
  Program() : commands_(options_), app_("Serves volumes of a pstorage cluster over iSCSI.") {
    app_.add_option("-c,--cluster", options_.cluster,
                    "Name of the cluster (default: PSTORAGE_NAME)");
    app_.add_option("-b,--bootstrap", options_.bootstrap, "Metadata servers ADDR[:PORT],...");
    app_.add_option("--nbd-socket", options_.nbd_socket,
                    "Unix socket of pstorage-nbd (default: /run/pstorage/CLUSTER/nbd.sock)");
    app_.add_option("--modules", options_.modules, "Directory that has only bs_pstorage.so");
    app_.set_version_flag("-v,--version", "pstorage-iscsi " PSTORAGE_VERSION);
    app_.require_subcommand(1);
    app_.fallthrough();
    add_target_verbs();
    add_portal_verbs();
    add_lun_verbs();
    add_login_verbs();
  }

  int run(int count, char** arguments) {
    try {
      app_.parse(count, arguments);
    } catch (CLI::ParseError const& error) {
      if (error.get_exit_code() == 0) return app_.exit(error);
      auto const unknown = app_.remaining(true);
      std::fprintf(stderr, "pstorage-iscsi: %s; try 'pstorage-iscsi --help'\n",
                   unknown.empty() ? error.what()
                                   : ("unknown command or option '" + unknown[0] + "'").c_str());
      return exit_usage;
    }
    for (auto const& verb : verbs_) {
      if (!verb.app->parsed()) continue;
      auto const done = verb.action();
      if (done.has_value()) return 0;
      std::fflush(stdout);
      std::fprintf(stderr, "pstorage-iscsi: %s\n", done.error().text.c_str());
      return exit_failure;
    }
    return exit_usage;
  }

 private:
  using Action = std::function<Outcome<void>()>;
  struct Verb {
    CLI::App* app;
    Action action;
  };

  CLI::App* add(CLI::App& parent, std::string const& name, std::string const& what, Action action) {
    auto* const verb = parent.add_subcommand(name, what);
    verb->fallthrough();
    verbs_.push_back({verb, std::move(action)});
    return verb;
  }
  CLI::App* add_with_target(CLI::App& parent, std::string const& name, std::string const& what,
                            Action action) {
    auto* const verb = add(parent, name, what, std::move(action));
    verb->add_option("-t,--target", options_.target, "IQN of the target, or its name")->required();
    return verb;
  }
  void add_moving(CLI::App* verb) {
    verb->add_option("--failover", options_.failover,
                     "on: another host's pstorage-iscsid may take it over (default: off)")
        ->check(CLI::IsMember({"on", "off"}));
    verb->add_option("--device", options_.device,
                     "Network device that gets the address with the target; none: no more");
  }
  void add_json(CLI::App* verb) { verb->add_flag("--json", options_.json, "Print JSON"); }

  void add_target_verbs() {
    auto* const create = add(app_, "create", "Makes a target, registered on this host",
                             [this] { return commands_.create(); });
    create->add_option("-n,--name", options_.name, "Name; its IQN ends with it")->required();
    create->add_option("-a,--address", options_.address, "ADDR[:PORT] it listens on")->required();
    add_moving(create);
    add_json(create);
    add_with_target(app_, "delete", "Deletes a stopped target without LUNs",
                    [this] { return commands_.remove(); });
    auto* const set = add_with_target(app_, "set", "Changes how a target is served",
                                      [this] { return commands_.set(); });
    set->add_option("-a,--address", options_.address, "ADDR[:PORT]; of a stopped target");
    add_moving(set);
    add_with_target(app_, "register", "Makes this the host of a target that is on none",
                    [this] { return commands_.register_here(); });
    add_with_target(app_, "unregister", "Gives a stopped target free for another host",
                    [this] { return commands_.unregister(); });
    add_with_target(app_, "start", "Serves a target", [this] {
      return commands_.start();
    })->add_flag("--standby", options_.standby, "Stand by while another host serves it");
    add_with_target(app_, "stop", "Ends serving a target", [this] { return commands_.stop(); });
    auto* const list = add(app_, "list", "Lists the targets of this host, or one in detail",
                           [this] { return commands_.list(); });
    list->add_option("-t,--target", options_.target, "Only this one, in detail");
    list->add_flag("-a,--all", options_.all, "Also those of other hosts");
    add_json(list);
  }

  void add_portal_verbs() {
    auto* const portal = app_.add_subcommand("portal", "Several gateways, one of them active");
    portal->require_subcommand(1);
    portal->fallthrough();
    add_with_target(*portal, "add", "Gives this host a portal of a stopped target",
                    [this] { return commands_.portal_add(); })
        ->add_option("-a,--address", options_.address, "ADDR[:PORT] of this host")
        ->required();
    add_with_target(*portal, "del", "Takes it away", [this] {
      return commands_.portal_del();
    })->add_option("--host", options_.host, "Host id (default: this one)");
  }

  void add_lun_verbs() {
    auto const add_lun = [this](std::string const& name, std::string const& what, Action action) {
      auto* const verb = add_with_target(app_, name, what, std::move(action));
      verb->add_option("-l,--lun", options_.lun, "Number, from 1")->required();
      return verb;
    };
    auto* const added = add_lun("lun-add", "Adds a LUN, also while running",
                                [this] { return commands_.lun_add(); });
    added->add_option("-s,--size", options_.size, "Size of a new volume: a number with K M G T P");
    added->add_option("--volume", options_.volume, "An existing volume instead");
    added->add_option("--format", options_.format, "Of a new volume: ploop (snapshots) or raw")
        ->check(CLI::IsMember({"ploop", "raw"}))
        ->capture_default_str();
    add_lun("lun-grow", "Makes a LUN larger, also while running",
            [this] { return commands_.lun_grow(); })
        ->add_option("-s,--size", options_.size, "New size")
        ->required();
    add_lun("lun-del", "Removes a LUN; a volume made by lun-add -s is deleted with it", [this] {
      return commands_.lun_del();
    })->add_flag("--keep", options_.keep, "Keep the volume");
    auto* const limit = add_lun("lun-limit", "Shows or sets how fast a LUN may be used, at once",
                                [this] { return commands_.lun_limit(); });
    volume::add_limit_options(limit, options_.limits);
    add_json(limit);
    auto* const create = add_lun("snapshot-create", "Keeps the present state, also while running",
                                 [this] { return commands_.snapshot_create(); });
    create->add_option("-n,--name", options_.name, "Name of the snapshot (default: the time)");
    add_json(create);
    add_json(add_lun("snapshot-list", "Lists the snapshots of a LUN",
                     [this] { return commands_.snapshot_list(); }));
    auto const add_snapshot = [this](CLI::App* verb) {
      verb->add_option("-u,--uuid", options_.snapshot, "UUID or name of the snapshot")->required();
    };
    add_snapshot(add_lun("snapshot-switch",
                         "Goes back to a snapshot, of a stopped target; what came later is lost",
                         [this] { return commands_.snapshot_switch(); }));
    add_snapshot(add_lun("snapshot-delete", "Removes a snapshot, of a stopped target",
                         [this] { return commands_.snapshot_delete(); }));
  }

  void add_login_verbs() {
    auto* const account = app_.add_subcommand("account", "CHAP accounts");
    account->require_subcommand(1);
    account->fallthrough();
    auto const add_user = [this](CLI::App* verb) {
      verb->add_option("-u,--user", options_.user, "User name")->required();
      return verb;
    };
    add_user(add(*account, "add", "Makes an account, or changes its secret (asked for)",
                 [this] { return commands_.account_add(); }))
        ->add_option("--secret-file", options_.secret_file,
                     "File whose first line is the secret; - is standard input");
    add_user(add(*account, "del", "Deletes an account that no target uses",
                 [this] { return commands_.account_del(); }));
    add_json(
        add(*account, "list", "Lists the accounts", [this] { return commands_.account_list(); }));
    for (bool const binds : {true, false}) {
      add_user(add_with_target(
                   *account, binds ? "bind" : "unbind",
                   binds ? "Asks initiators of a target for this account" : "The reverse of bind",
                   [this, binds] { return commands_.account_bind(binds); }))
          ->add_flag("--mutual", options_.mutual,
                     "The account that the target proves to initiators");
    }
    auto* const acl = app_.add_subcommand("acl", "Which initiators may log in (default: all)");
    acl->require_subcommand(1);
    acl->fallthrough();
    for (bool const allows : {true, false}) {
      add_with_target(
          *acl, allows ? "add" : "del",
          allows ? "Lets an initiator in; others no more unless added too" : "Takes an entry back",
          [this, allows] { return commands_.acl_change(allows); })
          ->add_option("-i,--initiator", options_.initiator, "Its name (iqn....) or its address")
          ->required();
    }
  }

  Command_options options_;
  Commands commands_;
  CLI::App app_;
  std::vector<Verb> verbs_;
};

}  // namespace
}  // namespace pstorage::iscsi

int main(int count, char** arguments) { return pstorage::iscsi::Program().run(count, arguments); }
