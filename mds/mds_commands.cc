// make-mds, rm-mds.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "core/auth/key.h"
#include "core/cli/commands.h"
#include "core/cli/daemon.h"
#include "core/cli/password.h"
#include "core/cli/service_start.h"
#include "core/config/etc.h"
#include "mds/repository.h"

namespace pstorage::cli {
namespace {

constexpr int removal_polls = 150;
constexpr auto removal_pause = std::chrono::milliseconds(200);

struct Make_options {
  bool is_first = false;
  bool sets_password = false;
  bool from_stdin = false;
  bool starts = false;
  std::string address;
  std::string directory;
  std::string bootstrap;
};

Address client_address(Address address) {
  ++address.port;
  return address;
}

Outcome<Address> parse_address(std::string const& text) {
  PS_TRY(auto const address, Address::parse(text, mds_port_default));
  if (address.is_unix() || address.port == 0 || address.port == 65535) {
    return failure(Errc::bad_request,
                   "bad address '" + text + "': give ADDR[:PORT]; clients use the port above it");
  }
  return address;
}

/// Makes the cluster: this host belongs to it from now on.
Outcome<void> make_first(Cli& cli, Make_options const& options, mds::Repository repository,
                         std::string const& directory) {
  auto const& cluster = repository.cluster;
  std::error_code error;
  if (std::filesystem::exists(key_path(cluster), error)) {
    return failure(Errc::exists, "this host belongs to a cluster '" + cluster + "' already (" +
                                     key_path(cluster) + " exists): choose another name");
  }
  repository.cluster_uuid = mds::random_uuid();
  repository.is_first = true;
  PS_TRY(auto const password, read_password(options.from_stdin, true));
  PS_TRY(auto const key, derive_key(password, random_salt()));
  PS_CHECK(host_id(true));  // the first command on a host names it
  PS_CHECK(mds::make_repository(directory, repository));
  // The key comes last: with it the host belongs to the cluster.
  auto saved = save_bootstrap_list(cluster, {client_address(repository.address)});
  if (saved.has_value()) saved = note_repository(cluster, "mds", directory);
  if (saved.has_value()) saved = save_key(key_path(cluster), key);
  if (!saved.has_value()) {
    mds::unmake_repository(directory);
    std::filesystem::remove(cluster_directory(cluster) + "/bs.list", error);
    std::filesystem::remove(cluster_directory(cluster) + "/mds.list", error);
    std::filesystem::remove(cluster_directory(cluster), error);
    return saved;
  }
  if (!cli.options().is_quiet) {
    std::printf("Cluster '%s' is made. Start its metadata server: mdsd -r %s\n", cluster.c_str(),
                directory.c_str());
  }
  return success();
}

/// Adds a metadata server to the cluster. It counts once it runs and has caught up.
Outcome<void> make_further(Cli& cli, Make_options const& options, mds::Repository repository,
                           std::string const& directory) {
  std::error_code error;
  if (!std::filesystem::exists(key_path(repository.cluster), error)) {
    return failure(Errc::bad_request,
                   "this host does not belong to a cluster '" + repository.cluster +
                       "': give -I -p to make it, or run 'auth-node' to join it first");
  }
  PS_CHECK(mds::check_repository_place(directory));
  if (!options.bootstrap.empty()) cli.set_bootstrap(options.bootstrap);
  PS_TRY(auto const host, host_id(true));
  proto::Mds_request request;
  auto& create = *request.mutable_create_mds();
  create.set_member(mds::member_id(repository));
  create.set_address(repository.address.text());
  create.set_host_id(host.value);
  create.set_host_name(host_name());
  PS_TRY(auto const reply, cli.call(std::move(request)));
  repository.id = Mds_id{reply.created_mds().mds()};
  repository.cluster_uuid = reply.created_mds().cluster_uuid();
  auto made = mds::make_repository(directory, repository);
  if (!made.has_value()) {
    proto::Mds_request undo;
    undo.mutable_remove_mds()->set_mds(repository.id.value);
    (void)cli.call(std::move(undo));  // the error that counts is the first one
    return made;
  }
  PS_CHECK(save_bootstrap_list(repository.cluster, {client_address(repository.address)}));
  PS_CHECK(note_repository(repository.cluster, "mds", directory));
  if (!cli.options().is_quiet) {
    std::printf("MDS#%u is made. Start it: mdsd -r %s\n", repository.id.value, directory.c_str());
  }
  return success();
}

Outcome<void> make_mds(Cli& cli, Make_options const& options) {
  mds::Repository repository;
  PS_TRY(repository.cluster, cli.cluster());
  PS_TRY(repository.address, parse_address(options.address));
  repository.member_uuid = mds::random_uuid();
  std::error_code error;
  auto const directory = std::filesystem::absolute(options.directory, error).string();
  bool const has_password = options.sets_password || options.from_stdin;
  if (options.is_first && !has_password) {
    return failure(Errc::bad_request,
                   "the first metadata server makes the cluster and sets its password: give -I -p");
  }
  if (!options.is_first && has_password) {
    return failure(Errc::bad_request,
                   "-p sets the password of a new cluster: give -I -p for the first metadata "
                   "server, neither for the others (they need 'auth-node' on their host)");
  }
  PS_CHECK(options.is_first ? make_first(cli, options, std::move(repository), directory)
                            : make_further(cli, options, std::move(repository), directory));
  if (options.starts) return start_service("pstorage-mdsd");
  return success();
}

Outcome<proto::Services> services_of(Cli& cli) {
  proto::Mds_request request;
  request.mutable_list_services();
  PS_TRY(auto reply, cli.call(std::move(request)));
  return std::move(*reply.mutable_services());
}

Outcome<void> remove_mds(Cli& cli, std::uint32_t id) {
  PS_TRY(auto const before, services_of(cli));
  std::string address;
  for (auto const& service : before.services()) {
    if (service.kind() == "MDS" && service.id() == id) address = service.address();
  }
  proto::Mds_request request;
  request.mutable_remove_mds()->set_mds(id);
  PS_CHECK(cli.call(std::move(request)));
  if (!cli.options().is_quiet) std::printf("Removing MDS#%u ...\n", id);
  // The others have agreed to remove it; wait until none of them asks it any more.
  for (int polls = 1;; ++polls) {
    PS_TRY(auto const now, services_of(cli));
    bool const is_there =
        std::any_of(now.services().begin(), now.services().end(), [&](auto const& service) {
          return service.kind() == "MDS" && service.address() == address;
        });
    if (!is_there) break;
    if (polls == removal_polls) {
      return failure(Errc::timed_out, "MDS#" + std::to_string(id) +
                                          " is still leaving: 'list-services' shows when it is "
                                          "gone; keep it running until then");
    }
    std::this_thread::sleep_for(removal_pause);
  }
  if (!cli.options().is_quiet) std::printf("done. Its mdsd can be stopped now.\n");
  return success();
}

}  // namespace

void add_mds_commands(Cli& cli) {
  auto const options = std::make_shared<Make_options>();
  auto* const make = cli.add_command("make-mds", "Makes the repository of a metadata server",
                                     [&cli, options] { return make_mds(cli, *options); });
  make->add_flag("-I", options->is_first, "First one: makes the cluster");
  make->add_flag("-p", options->sets_password, "With -I: set the cluster's password");
  make->add_flag("-P", options->from_stdin, "Read the password from standard input");
  make->add_option("-a,--address", options->address, "ADDR[:PORT] of this server (port 2510)")
      ->required();
  make->add_option("-r,--repository", options->directory, "Directory of its own")->required();
  make->add_option("-b,--bootstrap", options->bootstrap,
                   "LIST of metadata servers to ask, ADDR[:PORT],... (default: the cluster's)");
  make->add_flag("--start", options->starts, "Start it: 'service pstorage-mdsd start'");
  auto const id = std::make_shared<std::uint32_t>(0);
  auto* const remove = cli.add_command("rm-mds", "Removes a metadata server from the cluster",
                                       [&cli, id] { return remove_mds(cli, *id); });
  remove->add_option("ID", *id, "MDSID as 'stat' shows it")->required();
}

}  // namespace pstorage::cli
