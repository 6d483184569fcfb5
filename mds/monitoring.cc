#include "mds/monitoring.h"

namespace pstorage::mds {
namespace {

using Number = std::uint64_t (*)(proto::Service const&);

void add_of_servers(Metrics_text& text, proto::Status_reply const& status, Number value) {
  for (auto const& one : status.services()) {
    if (one.kind() == "CS")
      text.add({{"cs", std::to_string(one.id())}, {"host", one.host_name()}}, value(one));
  }
}

void collect_servers(Metrics_text& text, proto::Status_reply const& status) {
  struct Family {
    char const* name;
    char const* help;
    Number value;
  };
  static constexpr Family families[] = {
      {"pstorage_cluster_cs_up", "1: the chunk server is active.",
       [](proto::Service const& one) { return std::uint64_t{one.state() == "active"}; }},
      {"pstorage_cluster_cs_total_bytes", "Size of its disk.",
       [](proto::Service const& one) { return one.total_bytes(); }},
      {"pstorage_cluster_cs_free_bytes", "Free on its disk.",
       [](proto::Service const& one) { return one.free_bytes(); }},
      {"pstorage_cluster_cs_replicas", "Replicas of chunks there.",
       [](proto::Service const& one) { return std::uint64_t{one.replicas()}; }},
      {"pstorage_cluster_cs_unique", "Chunks whose only good replica is there.",
       [](proto::Service const& one) { return std::uint64_t{one.unique()}; }},
      {"pstorage_cluster_cs_slow", "1: far slower than its peers.",
       [](proto::Service const& one) { return std::uint64_t{one.slow()}; }}};
  for (auto const& family : families) {
    text.gauge(family.name, family.help);
    add_of_servers(text, status, family.value);
  }
  text.gauge("pstorage_cluster_cs_state", "1: the chunk server is in this state.");
  for (auto const& one : status.services()) {
    if (one.kind() == "CS") text.add({{"cs", std::to_string(one.id())}, {"state", one.state()}}, 1);
  }
}

void collect_cluster(Metrics_text& text, proto::Status_reply const& status) {
  text.gauge("pstorage_cluster_health", "1: the cluster is in this state.");
  for (std::string const state : {"healthy", "degraded", "failure", "unknown"})
    text.add({{"state", state}}, status.health() == state ? 1 : 0);
  text.one_gauge("pstorage_cluster_total_bytes", "Size of all disks.", status.total_bytes());
  text.one_gauge("pstorage_cluster_free_bytes", "Free on all disks.", status.free_bytes());
  text.one_gauge("pstorage_cluster_allocatable_bytes", "What new data can take.",
                 status.allocatable_bytes());
  text.gauge("pstorage_cluster_chunks", "Chunks in each state.");
  for (auto const& [state, count] : status.chunks()) text.add({{"state", state}}, count);
  text.one_gauge("pstorage_cluster_files", "Files.", status.files());
  text.one_gauge("pstorage_cluster_repair_replicas", "Replicas to be made or moved.",
                 status.repair_replicas());
  text.one_counter("pstorage_cluster_scrub_errors", "Bad blocks that scrubbing found.",
                   status.scrub_errors());
  std::uint64_t available = 0;
  std::uint64_t clients = 0;
  for (auto const& one : status.services()) {
    available += one.kind() == "MDS" && one.state() == "avail" ? 1 : 0;
    clients += one.kind() == "CLIENT" ? 1 : 0;
  }
  text.one_gauge("pstorage_cluster_mds_available", "Metadata servers that take part.", available);
  text.one_gauge("pstorage_cluster_clients", "Clients with a session.", clients);
  collect_servers(text, status);
}

}  // namespace

void collect(Metrics_text& text, Replicated_log const& entries,
             Latency_histogram const& commit_times, proto::Status_reply const* status) {
  text.one_gauge("pstorage_mds_is_master", "1: this metadata server is the master.",
                 status != nullptr ? 1 : 0);
  text.one_gauge("pstorage_mds_term", "Of the log; grows with each election.", entries.term());
  text.one_gauge("pstorage_mds_committed_index", "Of the log.", entries.committed());
  text.one_counter("pstorage_mds_commits", "Commits of the log: write and sync.",
                   entries.commits());
  text.histogram("pstorage_mds_log_commit_duration_seconds",
                 "A commit of the log: write and sync.");
  text.add({}, commit_times);
  if (status != nullptr) collect_cluster(text, *status);
}

}  // namespace pstorage::mds
