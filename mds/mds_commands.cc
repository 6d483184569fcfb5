// make-mds.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "core/auth/key.h"
#include "core/cli/commands.h"
#include "core/cli/password.h"
#include "core/config/etc.h"
#include "mds/repository.h"

namespace pstorage::cli {
namespace {

struct Make_options {
  bool is_first = false;
  bool sets_password = false;
  bool from_stdin = false;
  std::string address;
  std::string directory;
};

Address client_address(Address address) {
  ++address.port;
  return address;
}

Outcome<void> make_mds(Cli& cli, Make_options const& options) {
  PS_TRY(auto const cluster, cli.cluster());
  if (!options.is_first || !(options.sets_password || options.from_stdin)) {
    return failure(Errc::bad_request,
                   "the first metadata server makes the cluster and sets its "
                   "password: give -I -p (a cluster has one so far)");
  }
  PS_TRY(auto const address, Address::parse(options.address, mds_port_default));
  if (address.is_unix() || address.port == 0 || address.port == 65535) {
    return failure(Errc::bad_request, "bad address '" + options.address +
                                          "': give ADDR[:PORT]; clients use the port above it");
  }
  std::error_code error;
  if (std::filesystem::exists(key_path(cluster), error)) {
    return failure(Errc::exists, "this host belongs to a cluster '" + cluster + "' already (" +
                                     key_path(cluster) + " exists): choose another name");
  }
  auto const directory = std::filesystem::absolute(options.directory, error).string();
  mds::Repository repository;
  repository.cluster = cluster;
  repository.cluster_uuid = mds::random_uuid();
  repository.member_uuid = mds::random_uuid();
  repository.address = address;
  PS_TRY(auto const password, read_password(options.from_stdin, true));
  PS_TRY(auto const key, derive_key(password, random_salt()));
  PS_CHECK(host_id(true));  // the first command on a host names it
  PS_CHECK(mds::make_repository(directory, repository));
  // The key comes last: with it the host belongs to the cluster.
  auto saved = save_bootstrap_list(cluster, {client_address(address)});
  if (saved.has_value()) saved = save_key(key_path(cluster), key);
  if (!saved.has_value()) {
    mds::unmake_repository(directory);
    std::filesystem::remove(cluster_directory(cluster) + "/bs.list", error);
    std::filesystem::remove(cluster_directory(cluster), error);
    return saved;
  }
  if (!cli.options().is_quiet) {
    std::printf("Cluster '%s' is made. Start its metadata server: mdsd -r %s\n", cluster.c_str(),
                directory.c_str());
  }
  return success();
}

}  // namespace

void add_mds_commands(Cli& cli) {
  auto const options = std::make_shared<Make_options>();
  auto* const make = cli.add_command("make-mds", "Makes the repository of a metadata server",
                                     [&cli, options] { return make_mds(cli, *options); });
  make->add_flag("-I", options->is_first, "First one: makes the cluster");
  make->add_flag("-p", options->sets_password, "Set the cluster's password");
  make->add_flag("-P", options->from_stdin, "Read the password from standard input");
  make->add_option("-a,--address", options->address, "ADDR[:PORT] of this server (port 2510)")
      ->required();
  make->add_option("-r,--repository", options->directory, "Directory of its own")->required();
}

}  // namespace pstorage::cli
