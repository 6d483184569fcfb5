#include "core/cli/discover.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "core/auth/salt.h"
#include "core/cli/output.h"
#include "core/config/dns.h"
#include "core/config/etc.h"
#include "core/config/mdns.h"
#include "core/runtime/real_clock.h"

namespace pstorage::cli {
namespace {

constexpr Duration probe_timeout = std::chrono::seconds(2);

/// One way to find a cluster: what came of it.
struct Way {
  std::string name;
  Outcome<std::vector<Address>> servers;
  Duration took{};
};

struct Found {
  std::string cluster;
  std::string way;  // of the servers that a command would use; empty: none
  std::vector<Address> servers;
  std::size_t answering = 0;
  bool has_key = false;
};

/// Explains each step when asked to.
class Narrator {
 public:
  explicit Narrator(bool is_on) : is_on_(is_on) {}
  void say(std::string const& text) const {
    if (is_on_) std::printf("%s\n", text.c_str());
  }

 private:
  bool is_on_;
};

std::string count_text(std::size_t count, std::string const& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

std::string ms_text(Duration took) {
  return std::to_string(took / std::chrono::milliseconds(1)) + " ms";
}

/// In the order in which every command tries them; the first that works is the one.
std::vector<Way> ways_of(std::string const& cluster, std::string const& given) {
  Real_clock const clock;
  std::vector<Way> ways;
  auto const add = [&](std::string name, auto const& find) {
    auto const began = clock.now();
    auto servers = find();
    ways.push_back({std::move(name), std::move(servers), clock.now() - began});
  };
  if (!given.empty()) add("-b", [&] { return bootstrap_list(cluster, given); });
  auto const path = cluster_directory(cluster) + "/bs.list";
  add("bs.list", [&] { return load_server_list(path); });
  add("DNS", [&] { return servers_in_dns(cluster); });
  add("mDNS", [&] { return servers_by_mdns(cluster); });
  return ways;
}

/// How many of the servers answer, and are of this cluster.
std::size_t probe(std::string const& cluster, std::vector<Address> const& servers,
                  Narrator const& narrator) {
  std::size_t answering = 0;
  Real_clock const clock;
  for (auto const& server : servers) {
    auto const began = clock.now();
    auto const answer = fetch_salt(server, probe_timeout);
    auto const took = ", " + ms_text(clock.now() - began);
    bool const is_right = answer.has_value() && answer.value().cluster == cluster;
    answering += is_right ? 1 : 0;
    narrator.say("    " + server.text() + ": " +
                 (is_right             ? "answers"
                  : answer.has_value() ? "belongs to cluster '" + answer.value().cluster + "'"
                                       : answer.error().text) +
                 took);
  }
  return answering;
}

Found look_for(std::string const& cluster, std::string const& given, Narrator const& narrator) {
  Found found;
  found.cluster = cluster;
  found.has_key = ::access(key_path(cluster).c_str(), F_OK) == 0;
  narrator.say("Cluster '" + cluster + "':");
  for (auto const& way : ways_of(cluster, given)) {
    bool const works = way.servers.has_value();
    bool const is_used = works && found.way.empty();
    narrator.say("  " + way.name + ": " +
                 (works ? count_text(way.servers.value().size(), "metadata server") +
                              (is_used ? "" : ", not used: an earlier way has worked")
                        : way.servers.error().text) +
                 ", " + ms_text(way.took));
    if (!is_used) continue;
    found.way = way.name;
    found.servers = way.servers.value();
    found.answering = probe(cluster, found.servers, narrator);
  }
  narrator.say(found.has_key ? "  key: this host has it"
                             : "  key: none here; run 'pstorage -c " + cluster + " auth-node'");
  return found;
}

/// The cluster of -c, or all that this host, DNS or the network knows by name.
std::vector<std::string> names_to_look_for(std::string const& given, Narrator const& narrator) {
  if (!given.empty()) return {given};
  auto names = known_clusters();
  narrator.say("In " + etc_root() + "/clusters: " + count_text(names.size(), "cluster"));
  auto const told = find_cluster_names();
  narrator.say("DNS, TXT records of pstorage_clusters: " +
               (told.has_value() ? count_text(told.value().size(), "cluster") : told.error().text));
  auto const heard = find_clusters_by_mdns();
  narrator.say("mDNS: " + (heard.has_value() ? count_text(heard.value().size(), "cluster")
                                             : heard.error().text));
  for (auto const* const some : {&told, &heard}) {
    if (!some->has_value()) continue;
    for (auto const& name : some->value()) {
      if (cluster_name(name).has_error())
        narrator.say("  '" + name + "' is no name of a cluster: skipped");
      else if (std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(name);
    }
  }
  return names;
}

nlohmann::json json_of(Found const& found) {
  auto servers = nlohmann::json::array();
  for (auto const& server : found.servers) servers.push_back(server.text());
  return {{"cluster", found.cluster},
          {"way", found.way},
          {"servers", servers},
          {"answering", found.answering},
          {"has_key", found.has_key}};
}

Outcome<void> discover(Cli& cli, bool is_verbose) {
  std::string name = cli.options().cluster;
  if (auto const checked = cluster_name(name); checked.has_value())
    name = checked.value();
  else if (!name.empty())
    return checked.error();
  Narrator const narrator(is_verbose && !cli.is_json());
  std::vector<Found> all;
  for (auto const& cluster : names_to_look_for(name, narrator))
    all.push_back(look_for(cluster, cli.options().bootstrap, narrator));
  std::vector<std::vector<std::string>> rows;
  auto list = nlohmann::json::array();
  bool any = false;
  for (auto const& found : all) {
    any = any || found.answering != 0;
    list.push_back(json_of(found));
    rows.push_back({found.cluster, found.way.empty() ? "not found" : found.way,
                    std::to_string(found.answering) + " of " + std::to_string(found.servers.size()),
                    found.has_key ? "yes" : "no"});
  }
  if (cli.is_json()) {
    print_json({{"clusters", list}});
  } else {
    narrator.say("");
    print_table({"CLUSTER", "FOUND BY", "MDS ANSWER", "KEY"}, rows);
  }
  if (any) return success();
  return failure(Errc::not_found, is_verbose
                                      ? "no cluster can be reached: see above"
                                      : "no cluster can be reached: 'pstorage discover -v' tells "
                                        "what was tried");
}

}  // namespace

void add_discover(Cli& cli) {
  auto const verbose = std::make_shared<bool>(false);
  auto* const command =
      cli.add_command("discover", "Shows which clusters this host can find, and how",
                      [&cli, verbose] { return discover(cli, *verbose); });
  // -v of the top is --version; below a command it is this.
  command->add_flag("-v,--verbose", *verbose, "Explain each step: order, time, failure");
  cli.add_json(command);
}

}  // namespace pstorage::cli
