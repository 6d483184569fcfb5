// auth-node.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "core/auth/salt.h"
#include "core/cli/commands.h"
#include "core/cli/discover.h"
#include "core/cli/password.h"
#include "core/config/etc.h"

namespace pstorage::cli {
namespace {

constexpr Duration salt_timeout = std::chrono::seconds(5);

/// Asks one metadata server after the other for the salt.
Outcome<Salt_answer> fetch_any_salt(std::string const& cluster,
                                    std::vector<Address> const& servers) {
  std::string reasons;
  for (auto const& server : servers) {
    auto answer = fetch_salt(server, salt_timeout);
    if (answer.has_value() && answer.value().cluster == cluster) return answer;
    auto const reason = answer.has_value() ? "belongs to cluster '" + answer.value().cluster + "'"
                                           : answer.error().text;
    reasons += (reasons.empty() ? "" : "; ") + server.text() + ": " + reason;
  }
  return failure(Errc::unavailable, "no MDS of cluster '" + cluster + "' answers: " + reasons);
}

Outcome<void> authorize_node(Cli& cli, bool from_stdin) {
  PS_TRY(auto const cluster, cli.cluster());
  PS_TRY(auto const servers, bootstrap_list(cluster, cli.options().bootstrap));
  PS_TRY(auto const answer, fetch_any_salt(cluster, servers));
  PS_TRY(auto const password, read_password(from_stdin, false));
  Mds_caller_options options;
  options.cluster = cluster;
  options.servers = servers;
  PS_TRY(options.key, derive_key(password, answer.salt));
  PS_TRY(options.host, host_id(true));
  auto const key = options.key;
  auto proved = Mds_caller::connect(std::move(options));
  if (!proved.has_value()) {
    auto const code = errc_of(proved.error().code);
    if (code != Errc::wrong_key) return std::move(proved).error();
    return failure(code, "wrong password for cluster '" + cluster + "': nothing was changed");
  }
  PS_CHECK(save_bootstrap_list(cluster, servers));
  PS_CHECK(save_key(key_path(cluster), key));
  if (!cli.options().is_quiet) {
    std::printf("This host may now use cluster '%s'.\n", cluster.c_str());
  }
  return success();
}

}  // namespace

void add_node_commands(Cli& cli) {
  auto const from_stdin = std::make_shared<bool>(false);
  auto* const auth =
      cli.add_command("auth-node", "Lets this host use the cluster",
                      [&cli, from_stdin] { return authorize_node(cli, *from_stdin); });
  auth->add_flag("-P", *from_stdin, "Read the password from standard input");
  add_discover(cli);
}

}  // namespace pstorage::cli
