// stat, list-services, get-event.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <ctime>

#include "core/cli/commands.h"
#include "core/cli/daemon.h"
#include "core/cli/output.h"
#include "core/config/etc.h"
#include "core/size.h"

namespace pstorage::cli {
namespace {

constexpr int chunk_states_a_line = 3;

using Services = google::protobuf::RepeatedPtrField<proto::Service>;

std::vector<proto::Service> services_of(Services const& all, std::string const& kind) {
  std::vector<proto::Service> out;
  for (auto const& service : all) {
    if (service.kind() == kind) out.push_back(service);
  }
  return out;
}

void print_chunks(proto::Status_reply const& status) {
  static constexpr char const* order[] = {"healthy",       "degraded", "urgent",
                                          "blocked",       "offline",  "replicating",
                                          "overcommitted", "deleting", "void"};
  auto const total = status.chunk_count();
  auto const count = [&](char const* name) {
    auto const found = status.chunks().find(name);
    return found == status.chunks().end() ? 0 : found->second;
  };
  bool const is_ok = count("healthy") + count("overcommitted") + count("replicating") == total;
  std::string line = std::string("Chunks: [") + (is_ok ? "OK" : "WARN") + "] ";
  std::string const indent(13, ' ');  // as the manual's screen
  int in_line = 0;
  for (auto const* const name : order) {
    auto const number = count(name);
    // No chunks at all: everything there is is healthy.
    auto const percent = total == 0 ? (name == order[0] ? 100 : 0) : number * 100 / total;
    if (in_line == chunk_states_a_line) {
      std::printf("%s,\n", line.c_str());
      line = indent;
      in_line = 0;
    }
    if (in_line != 0) line += ",  ";
    line += std::to_string(number) + " (" + std::to_string(percent) + "%) " + name;
    ++in_line;
  }
  std::printf("%s\n", line.c_str());
}

void print_repair(proto::Status_reply const& status) {
  std::printf("Repair: %" PRIu64 " replicas to make", status.repair_replicas());
  if (status.repair_replicas() != 0) {
    std::printf(" (%s), %s/s", format_size(status.repair_bytes()).c_str(),
                format_size(status.repair_bytes_per_s()).c_str());
    if (status.repair_eta_s() != 0) {
      std::printf(", ready in about %s", duration_text(status.repair_eta_s() * 1000).c_str());
    }
  }
  std::printf("\nScrub:  %s read, %" PRIu64 " bad blocks found, %" PRIu64 " repaired\n",
              format_size(status.scrubbed_bytes()).c_str(), status.scrub_errors(),
              status.scrub_repaired());
}

void print_summary(proto::Status_reply const& status) {
  auto const servers = services_of(status.services(), "CS");
  std::uint64_t active = 0;
  std::uint64_t inactive = 0;
  std::uint64_t offline = 0;
  for (auto const& server : servers) {
    active += server.state() == "active" ? 1 : 0;
    inactive += server.state() == "inactive" ? 1 : 0;
    offline += server.state() == "offline" ? 1 : 0;
  }
  auto const& state = status.space_state();
  std::printf("Cluster '%s': %s%s\n", status.cluster().c_str(), status.health().c_str(),
              status.health_reason().empty() ? "" : (" (" + status.health_reason() + ")").c_str());
  std::printf("Space: [%s] allocatable %s of %s, free %s of %s\n",
              state == "ok"     ? "OK"
              : state == "full" ? "FULL"
                                : "WARN",
              format_size(status.allocatable_bytes()).c_str(),
              format_size(status.allocatable_total_bytes()).c_str(),
              format_size(status.free_bytes()).c_str(), format_size(status.total_bytes()).c_str());
  auto const all_mds = services_of(status.services(), "MDS");
  auto const avail = std::count_if(all_mds.begin(), all_mds.end(),
                                   [](auto const& mds) { return mds.state() == "avail"; });
  std::printf("MDS nodes: %td of %zu, epoch uptime: %s, epoch %" PRIu64 "\n", avail, all_mds.size(),
              duration_text(status.epoch_uptime_ms()).c_str(), status.epoch());
  std::printf("CS nodes:  %" PRIu64 " of %zu (%" PRIu64 " avail, %" PRIu64 " inactive, %" PRIu64
              " offline)\n",
              active, servers.size(), active, inactive, offline);
  std::printf("Replication:  %u norm,  %u limit\n", status.replication_norm(),
              status.replication_min());
  print_chunks(status);
  std::printf("FS:  %s in %" PRIu64 " files, %" PRIu64 " inodes, %" PRIu64 " file maps, %" PRIu64
              " chunks, %" PRIu64 " chunk replicas\n",
              format_size(status.file_bytes()).c_str(), status.files(), status.inodes(),
              status.file_maps(), status.chunk_count(), status.chunk_replicas());
  print_repair(status);
  std::uint64_t read_bytes = 0;
  std::uint64_t write_bytes = 0;
  std::uint64_t read_ops = 0;
  std::uint64_t write_ops = 0;
  for (auto const& client : services_of(status.services(), "CLIENT")) {
    read_bytes += client.read_bytes();
    write_bytes += client.write_bytes();
    read_ops += client.read_ops();
    write_ops += client.write_ops();
  }
  std::printf("IO total: read %8s (%5" PRIu64 "ops), write %8s (%5" PRIu64 "ops)\n",
              format_size(read_bytes).c_str(), read_ops, format_size(write_bytes).c_str(),
              write_ops);
}

std::string milliseconds_text(std::uint32_t microseconds) {
  return std::to_string((microseconds + 500) / 1000);
}

void print_services(proto::Status_reply const& status) {
  std::vector<std::vector<std::string>> rows;
  for (auto const& mds : services_of(status.services(), "MDS")) {
    // Only the master knows how it does itself; of the others it knows how far they are.
    auto const seconds = std::max<std::uint64_t>(mds.uptime_ms() / 1000, 1);
    auto const own = [&mds](std::string text) { return mds.is_master() ? std::move(text) : "-"; };
    rows.push_back({mds.is_master() ? "M" : "", std::to_string(mds.id()), mds.state(),
                    std::to_string(mds.lag()), own(std::to_string(mds.commits() / seconds) + "/s"),
                    own(format_size(mds.memory_bytes())), own(duration_text(mds.uptime_ms())),
                    mds.host_name() + " " + mds.address()});
  }
  std::printf("\n");
  print_table({" ", ">MDSID", "STATUS", ">LAG", ">COMMITS", ">MEM", ">UPTIME", "HOST"}, rows);
  rows.clear();
  for (auto const& cs : services_of(status.services(), "CS")) {
    rows.push_back(
        {std::to_string(cs.id()), cs.state(), format_size(cs.total_bytes()),
         format_size(cs.free_bytes()), std::to_string(cs.replicas()), std::to_string(cs.unique()),
         std::to_string(cs.io_wait_percent()) + "%",
         milliseconds_text(cs.io_latency_us()) + "/" + milliseconds_text(cs.io_latency_max_us()),
         std::to_string(cs.queue_depth()), cs.host_name(),
         cs.flags() + (cs.slow() ? " slow" : "")});
  }
  std::printf("\n");
  print_table({">CSID", "STATUS", ">SPACE", ">AVAIL", ">REPLICAS", ">UNIQUE", ">IOWAIT",
               ">IOLAT(ms)", ">QDEPTH", "HOST", "FLAGS"},
              rows);
  rows.clear();
  for (auto const& client : services_of(status.services(), "CLIENT")) {
    rows.push_back({hex_text(client.id()), std::to_string(client.leases()),
                    format_size(client.read_bytes()), format_size(client.write_bytes()),
                    std::to_string(client.read_ops()), std::to_string(client.write_ops()),
                    std::to_string(client.syncs()), client.name()});
  }
  if (rows.empty()) return;
  std::printf("\n");
  print_table({"CLID", ">LEASES", ">READ", ">WRITE", ">RD_OPS", ">WR_OPS", ">FSYNCS", "HOST"},
              rows);
}

Outcome<void> print_status(Cli& cli) {
  proto::Mds_request request;
  request.mutable_get_status();
  PS_TRY(auto const reply, cli.call(std::move(request)));
  if (cli.is_json()) {
    print_json(to_json(reply.cluster_status()));
    return success();
  }
  print_summary(reply.cluster_status());
  print_services(reply.cluster_status());
  return success();
}

Outcome<void> list_services(Cli& cli, bool all) {
  proto::Mds_request request;
  request.mutable_list_services();
  PS_TRY(auto const reply, cli.call(std::move(request)));
  PS_TRY(auto const host, host_id(true));
  auto list = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows;
  for (auto const& service : reply.services().services()) {
    // By name too: on a machine that plays several hosts (devcluster) all of them are "this one".
    bool const is_here = service.host_id() == host.value || service.host_name() == host_name();
    if (service.kind() == "CLIENT" || !(all || is_here)) continue;
    list.push_back(to_json(service));
    rows.push_back({service.kind(), std::to_string(service.id()),
                    service.state() + (service.is_master() ? " (master)" : ""), service.host_name(),
                    service.address()});
  }
  if (cli.is_json()) {
    print_json({{"services", list}});
  } else {
    print_table({"TYPE", ">ID", "STATUS", "HOST", "ADDRESS"}, rows);
  }
  return success();
}

Outcome<void> print_events(Cli& cli, std::uint64_t after) {
  auto list = nlohmann::json::array();
  bool is_first = true;
  while (true) {
    proto::Mds_request request;
    request.mutable_get_events()->set_after(after);
    PS_TRY(auto const reply, cli.call(std::move(request)));
    if (is_first && !cli.is_json())
      std::printf("%-17s %-4s %-4s %s\n", "TIME", "SYS", "SEV", "MESSAGE");
    is_first = false;
    if (reply.events().events().empty()) break;
    for (auto const& event : reply.events().events()) {
      after = event.number();
      if (cli.is_json()) {
        list.push_back(to_json(event));
        continue;
      }
      std::printf("%-17s %-4s %-4s %s\n", time_text(event.time_ms()).c_str(),
                  event.source().c_str(), event.severity().c_str(), event.text().c_str());
    }
  }
  if (cli.is_json()) print_json(list);
  return success();
}

}  // namespace

void add_status_commands(Cli& cli) {
  cli.add_json(cli.add_command("stat", "Shows the state of the cluster",
                               [&cli] { return print_status(cli); }));
  auto const all = std::make_shared<bool>(false);
  auto* const services = cli.add_command("list-services", "Lists the services of this host",
                                         [&cli, all] { return list_services(cli, *all); });
  services->add_flag("-a,--all", *all, "Of all hosts");
  cli.add_json(services);
  auto const after = std::make_shared<std::uint64_t>(0);
  auto* const events = cli.add_command("get-event", "Prints the event log",
                                       [&cli, after] { return print_events(cli, *after); });
  events->add_option("--after", *after, "Only events behind this number");
  cli.add_json(events);
}

}  // namespace pstorage::cli
