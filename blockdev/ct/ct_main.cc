// pstorage-ct: containers on the volumes of a cluster.

#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "blockdev/ct/containers.h"
#include "core/cli/output.h"
#include "core/config/etc.h"
#include "core/size.h"

namespace pstorage::ct {
namespace {

struct Options {
  std::string cluster;
  std::string servers;
  std::string id;
  std::string other;
  std::string size;
  std::string template_path;
  std::string file_system = "ext4";
  std::string directory;
  std::string way;
  bool json = false;
  bool force = false;
  bool repair = false;
  bool read_only = false;
  bool linked = false;
  bool saves = false;
};

using Work = std::function<Outcome<void>(Containers&)>;

std::string root_of(Options const& options) {
  auto const name = options.other.empty() ? options.id : options.id + "@" + options.other;
  return options.directory.empty() ? "/vz/root/" + name : options.directory;
}

Outcome<Mount_options> mount_options(Options const& options) {
  Mount_options result{root_of(options), options.read_only, {}};
  PS_TRY(result.way, parse_way(options.way));
  return result;
}

nlohmann::json to_json(Container_state const& state) {
  auto snapshots = nlohmann::json::array();
  for (auto const& one : state.snapshots)
    snapshots.push_back({{"name", one.name}, {"device", one.device}, {"mounted", one.mounted}});
  return {{"id", state.id},
          {"size", state.size_bytes},
          {"saved_size", state.saved_size_bytes},
          {"device", state.device},
          {"mounted", state.mounted},
          {"dead", state.is_dead},
          {"holder", state.holder},
          {"snapshots", std::move(snapshots)}};
}

char const* state_word(Container_state const& state) {
  if (state.is_dead) return "dead";
  return state.mounted.empty() ? "unmounted" : "mounted";
}

Outcome<std::uint64_t> size_of(std::string const& text) {
  PS_TRY(auto const size, parse_size(text));
  constexpr std::uint64_t least = 16u << 20;
  constexpr std::uint64_t unit = 1u << 20;
  if (size < least || size % unit != 0)
    return failure(Errc::bad_request, "size '" + text + "': at least 16M, in whole MiB");
  return size;
}

void print_states(std::vector<Container_state> const& states, bool json) {
  if (json) {
    auto all = nlohmann::json::array();
    for (auto const& state : states) all.push_back(to_json(state));
    cli::print_json(all);
    return;
  }
  std::vector<std::vector<std::string>> rows;
  for (auto const& state : states)
    rows.push_back({state.id, format_size(state.size_bytes), state_word(state),
                    state.device.empty() ? "-" : state.device,
                    state.mounted.empty() ? "-" : state.mounted,
                    state.holder.empty() ? "-" : state.holder});
  cli::print_table({"CTID", ">SIZE", "STATE", "DEVICE", "ROOT", "IN USE BY"}, rows);
}

void print_repaired(Repaired const& repaired) {
  if (repaired.revived > 0) std::cout << "the mount works again\n";
  if (repaired.removed > 0) std::cout << "the dead mount is gone\n";
  if (repaired.revived + repaired.removed == 0) std::cout << "there is nothing to repair\n";
}

Outcome<void> show_status(Containers& containers, Options const& options) {
  if (options.repair) {
    PS_TRY(auto const repaired, containers.repair(options.id));
    if (!options.json) print_repaired(repaired);
  }
  PS_TRY(auto const state, containers.state(options.id));
  if (options.json)
    cli::print_json(to_json(state));
  else
    std::cout << "CTID " << state.id << " exist " << state_word(state) << "\n";
  return success();
}

Outcome<void> show_snapshots(Containers& containers, Options const& options) {
  PS_TRY(auto const descriptor, containers.snapshots(options.id));
  auto const* const top = descriptor.find(descriptor.top());
  auto all = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows;
  for (auto const& delta : descriptor.deltas()) {
    if (delta.guid == descriptor.top()) continue;
    bool const is_current = top != nullptr && top->parent == delta.guid;
    bool const is_base = delta.parent == ploop::no_guid;
    all.push_back({{"uuid", delta.guid},
                   {"parent", is_base ? "" : delta.parent},
                   {"current", is_current},
                   {"name", delta.name},
                   {"date", delta.created}});
    rows.push_back({is_base ? "" : delta.parent, is_current ? "*" : "", delta.guid, delta.created,
                    delta.name});
  }
  if (options.json)
    cli::print_json(all);
  else
    cli::print_table({"PARENT_UUID", "C", "UUID", "DATE", "NAME"}, rows);
  return success();
}

Outcome<void> compact(Containers& containers, Options const& options) {
  PS_TRY(auto const usage, containers.compact(options.id));
  auto const& [before, after] = usage;
  auto const returned = before > after ? before - after : 0;
  if (options.json)
    cli::print_json({{"before", before}, {"after", after}, {"returned", returned}});
  else
    std::cout << format_size(returned) << " came back, " << format_size(after) << " are in use\n";
  return success();
}

class Program {
 public:
  Program(CLI::App& app, Options& options) : app_(app), options_(options) {
    app_.require_subcommand(1);
    app_.add_option("-c,--cluster", options_.cluster, "Cluster name (or PSTORAGE_NAME)");
    app_.add_option("-b,--bootstrap", options_.servers, "Metadata servers, ADDR[:PORT],...");
    app_.add_flag("--json", options_.json, "Print JSON");
    app_.set_version_flag("-v,--version", std::string("pstorage-ct ") + PSTORAGE_VERSION);
    add_life();
    add_use();
    add_snapshots();
  }
  Work const& work() const { return work_; }

 private:
  CLI::App* add(std::string const& name, std::string const& what, bool with_id, Work work) {
    auto* const command = app_.add_subcommand(name, what)->fallthrough();
    if (with_id) command->add_option("CTID", options_.id, "Container")->required();
    command->callback([this, work = std::move(work)] { work_ = work; });
    return command;
  }

  void add_way(CLI::App* mount) {
    mount
        ->add_option(
            "--via", options_.way,
            "nbd: the kernel's client; fuse: pstorage-mount (default: nbd, where there is)")
        ->check(CLI::IsMember({"nbd", "fuse"}));
  }

  void add_life() {
    auto* const create =
        add("create", "Make a container", true, [this](Containers& all) -> Outcome<void> {
          New_container container{options_.id, 0, options_.template_path};
          PS_TRY(container.size_bytes, size_of(options_.size));
          return all.create(container);
        });
    create->add_option("-s,--size", options_.size, "Size: a number with M G T")->required();
    create->add_option("--template", options_.template_path, "Directory or tar archive to fill it");
    create->add_option("--fs", options_.file_system, "File system")->check(CLI::IsMember({"ext4"}));
    add("destroy", "Delete a container and its data", true,
        [this](Containers& all) { return all.destroy(options_.id); });
    add_names();
    auto* const clone =
        add("clone", "Copy a container", true, [this](Containers& all) -> Outcome<void> {
          PS_TRY(auto const copy, check_id(options_.other));
          return all.clone(options_.id, copy, options_.linked);
        });
    clone->add_option("NEW", options_.other, "Id of the copy")->required();
    clone->add_flag("--linked", options_.linked, "Share the data; only changes take space");
    add("list", "All containers", false, [this](Containers& all) -> Outcome<void> {
      PS_TRY(auto const states, all.list());
      print_states(states, options_.json);
      return success();
    });
  }

  void add_names() {
    auto* const enter = app_.add_subcommand("register", "Make a volume a container")->fallthrough();
    enter->add_option("VOLUME", options_.other, "Volume with an ext4 file system")->required();
    enter->add_option("CTID", options_.id, "Container")->required();
    enter->callback([this] {
      work_ = [this](Containers& all) -> Outcome<void> {
        PS_TRY(auto const name, volume::parse_plain_name(options_.other));
        return all.register_volume(name, options_.id);
      };
    });
    auto* const leave = add("unregister", "Make a container a volume again", true,
                            [this](Containers& all) -> Outcome<void> {
                              PS_TRY(auto const name, volume::parse_plain_name(options_.other));
                              return all.unregister(options_.id, name);
                            });
    leave->add_option("VOLUME", options_.other, "Name of the volume")->required();
  }

  void add_use() {
    auto* const mount = add("mount", "Mount a container's file system", true,
                            [this](Containers& all) -> Outcome<void> {
                              PS_TRY(auto const how, mount_options(options_));
                              return all.mount(options_.id, how);
                            });
    mount->add_option("-m,--mount-point", options_.directory, "Directory (/vz/root/CTID)");
    add_way(mount);
    mount->add_flag("-r,--read-only", options_.read_only, "Read-only");
    auto* const unmount = add("umount", "Unmount it", true, [this](Containers& all) {
      return all.unmount(options_.id, options_.force);
    });
    unmount->add_flag("-f,--force", options_.force, "Also what a dead mount has left");
    auto* const status = add("status", "Does it exist, is it mounted", true,
                             [this](Containers& all) { return show_status(all, options_); });
    status->add_flag("--repair", options_.repair, "Make a dead mount work again, or take it away");
    auto* const set =
        add("set", "Change a container", true, [this](Containers& all) -> Outcome<void> {
          PS_TRY(auto const size, size_of(options_.size));
          PS_CHECK(all.resize(options_.id, size));
          return options_.saves ? all.save_size(options_.id, size) : success();
        });
    set->add_option("--diskspace", options_.size, "New size")->required();
    set->add_flag("--save", options_.saves, "Every later mount brings it to this size");
    add("compact", "Give back what the file system does not use", true,
        [this](Containers& all) { return compact(all, options_); });
  }

  void add_snapshots() {
    auto* const take = add("snapshot", "Take a snapshot", true, [this](Containers& all) {
      return all.snapshot(options_.id, options_.other);
    });
    take->add_option("-n,--name", options_.other, "Its name")->required();
    add("snapshot-list", "Snapshots of a container", true,
        [this](Containers& all) { return show_snapshots(all, options_); });
    auto* const go = add("snapshot-switch", "Go back to a snapshot", true, [this](Containers& all) {
      return all.switch_to(options_.id, options_.other);
    });
    go->add_option("SNAPSHOT", options_.other, "Name or UUID")->required();
    auto* const remove = add("snapshot-delete", "Delete a snapshot", true, [this](Containers& all) {
      return all.remove_snapshot(options_.id, options_.other);
    });
    remove->add_option("SNAPSHOT", options_.other, "Name or UUID")->required();
    auto* const mount = add("snapshot-mount", "Mount a snapshot, read-only", true,
                            [this](Containers& all) -> Outcome<void> {
                              PS_TRY(auto const how, mount_options(options_));
                              return all.mount_snapshot(options_.id, options_.other, how);
                            });
    mount->add_option("SNAPSHOT", options_.other, "Name or UUID")->required();
    mount->add_option("-m,--mount-point", options_.directory, "Directory (/vz/root/CTID@SNAPSHOT)");
    add_way(mount);
    auto* const unmount = add("snapshot-umount", "Unmount it", true, [this](Containers& all) {
      return all.unmount_snapshot(options_.id, options_.other);
    });
    unmount->add_option("SNAPSHOT", options_.other, "As it was mounted")->required();
  }

  CLI::App& app_;
  Options& options_;
  Work work_;
};

Outcome<void> serve(Options& options, Work const& work) {
  PS_TRY(options.cluster, cluster_name(options.cluster));
  if (!options.id.empty()) PS_CHECK(check_id(options.id));
  PS_TRY(auto const session, volume::Tool_session::connect(options.cluster, options.servers));
  Containers containers(*session, options.cluster);
  return work(containers);
}

}  // namespace
}  // namespace pstorage::ct

int main(int count, char** arguments) {
  CLI::App app("Containers on the volumes of a pstorage cluster.");
  pstorage::ct::Options options;
  pstorage::ct::Program program(app, options);
  try {
    app.parse(count, arguments);
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "pstorage-ct: " << error.what() << "; try 'pstorage-ct --help'\n";
    return 2;
  }
  auto const done = pstorage::ct::serve(options, program.work());
  if (done.has_value()) return 0;
  std::cerr << "pstorage-ct: " << done.error().text << "\n";
  return 1;
}
