#include "core/cli/status_lines.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "core/cli/output.h"
#include "core/size.h"

namespace pstorage::cli {
namespace {

constexpr int chunk_states_a_line = 3;

__attribute__((format(printf, 1, 2))) std::string format(char const* pattern, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

struct Sums {
  std::uint64_t cs = 0, active = 0, inactive = 0, offline = 0;
  std::uint64_t mds = 0, avail = 0;
  proto::Service clients;  // rates and totals
  std::uint64_t pulled_bytes_per_s = 0, disk_syncs_per_s = 0;
};

void add(proto::Service& sum, proto::Service const& one) {
  sum.set_read_bytes(sum.read_bytes() + one.read_bytes());
  sum.set_write_bytes(sum.write_bytes() + one.write_bytes());
  sum.set_read_ops(sum.read_ops() + one.read_ops());
  sum.set_write_ops(sum.write_ops() + one.write_ops());
  sum.set_read_bytes_per_s(sum.read_bytes_per_s() + one.read_bytes_per_s());
  sum.set_write_bytes_per_s(sum.write_bytes_per_s() + one.write_bytes_per_s());
  sum.set_read_ops_per_s(sum.read_ops_per_s() + one.read_ops_per_s());
  sum.set_write_ops_per_s(sum.write_ops_per_s() + one.write_ops_per_s());
  sum.set_syncs_per_s(sum.syncs_per_s() + one.syncs_per_s());
}

Sums sums_of(proto::Status_reply const& status) {
  Sums sums;
  for (auto const& service : status.services()) {
    auto const& state = service.state();
    if (service.kind() == "MDS") {
      ++sums.mds;
      sums.avail += state == "avail" ? 1 : 0;
    } else if (service.kind() == "CS") {
      ++sums.cs;
      sums.active += state == "active" ? 1 : 0;
      sums.inactive += state == "inactive" ? 1 : 0;
      sums.offline += state == "offline" ? 1 : 0;
      sums.pulled_bytes_per_s += service.pulled_bytes_per_s();
      sums.disk_syncs_per_s += service.syncs_per_s();
    } else {
      add(sums.clients, service);
    }
  }
  return sums;
}

std::uint64_t chunks_in(proto::Status_reply const& status, char const* state) {
  auto const found = status.chunks().find(state);
  return found == status.chunks().end() ? 0 : found->second;
}

bool are_chunks_well(proto::Status_reply const& status) {
  return chunks_in(status, "healthy") + chunks_in(status, "overcommitted") +
             chunks_in(status, "replicating") ==
         status.chunk_count();
}

constexpr char const* chunk_states[] = {"healthy",       "degraded", "urgent",
                                        "blocked",       "offline",  "replicating",
                                        "overcommitted", "deleting", "void"};

std::string chunk_text(proto::Status_reply const& status, char const* state) {
  auto const total = status.chunk_count();
  auto const number = chunks_in(status, state);
  // No chunks at all: everything there is is healthy.
  auto const percent = total == 0 ? (state == chunk_states[0] ? 100 : 0) : number * 100 / total;
  return std::to_string(number) + " (" + std::to_string(percent) + "%) " + state;
}

std::string chunk_head(proto::Status_reply const& status) {
  return std::string("Chunks: [") + (are_chunks_well(status) ? "OK" : "WARN") + "] ";
}

Style chunk_style(proto::Status_reply const& status) {
  if (are_chunks_well(status)) return Style::good;
  return chunks_in(status, "blocked") + chunks_in(status, "offline") != 0 ? Style::bad
                                                                          : Style::warning;
}

void add_chunks(std::vector<Line>& lines, proto::Status_reply const& status) {
  auto line = chunk_head(status);
  std::string const indent(13, ' ');  // as the manual's screen
  int in_line = 0;
  for (auto const* const state : chunk_states) {
    if (in_line == chunk_states_a_line) {
      lines.push_back({line + ",", chunk_style(status)});
      line = indent;
      in_line = 0;
    }
    if (in_line != 0) line += ",  ";
    line += chunk_text(status, state);
    ++in_line;
  }
  lines.push_back({line, chunk_style(status)});
}

/// Only the states that some are in.
Line short_chunk_line(proto::Status_reply const& status) {
  std::string states;
  for (auto const* const state : chunk_states) {
    if (chunks_in(status, state) == 0) continue;
    states += (states.empty() ? "" : ",  ") + chunk_text(status, state);
  }
  return {chunk_head(status) + states, chunk_style(status)};
}

Line repair_line(proto::Status_reply const& status) {
  auto text = format("Repair: %" PRIu64 " replicas to make", status.repair_replicas());
  if (status.repair_replicas() == 0) return {text};
  text += " (" + format_size(status.repair_bytes()) + "), " +
          format_size(status.repair_bytes_per_s()) + "/s";
  if (status.repair_eta_s() != 0) {
    text += ", ready in about " + duration_text(status.repair_eta_s() * 1000);
  }
  return {text, Style::warning};
}

Style health_style(std::string const& health) {
  if (health == "healthy") return Style::good;
  return health == "failure" ? Style::bad : Style::warning;
}

std::string a_second(std::uint64_t bytes) { return format_size(bytes) + "/s"; }
std::string ops_a_second(std::uint64_t operations) {
  return format("%3" PRIu64 "ops/s", operations);
}

void add_state(std::vector<Line>& lines, proto::Status_reply const& status, Sums const& sums) {
  auto const& reason = status.health_reason();
  lines.push_back({"Cluster '" + status.cluster() + "': " + status.health() +
                       (reason.empty() ? "" : " (" + reason + ")"),
                   health_style(status.health())});
  auto const& space = status.space_state();
  lines.push_back({std::string("Space: [") +
                       (space == "ok"     ? "OK"
                        : space == "full" ? "FULL"
                                          : "WARN") +
                       "] allocatable " + format_size(status.allocatable_bytes()) + " of " +
                       format_size(status.allocatable_total_bytes()) + ", free " +
                       format_size(status.free_bytes()) + " of " +
                       format_size(status.total_bytes()),
                   space == "ok"     ? Style::plain
                   : space == "full" ? Style::bad
                                     : Style::warning});
  lines.push_back(
      {format("MDS nodes: %" PRIu64 " of %" PRIu64 ", epoch uptime: %s, epoch %" PRIu64, sums.avail,
              sums.mds, duration_text(status.epoch_uptime_ms()).c_str(), status.epoch()),
       sums.avail == sums.mds ? Style::plain : Style::warning});
  lines.push_back({format("CS nodes:  %" PRIu64 " of %" PRIu64 " (%" PRIu64 " avail, %" PRIu64
                          " inactive, %" PRIu64 " offline)",
                          sums.active, sums.cs, sums.active, sums.inactive, sums.offline),
                   sums.active == sums.cs ? Style::plain : Style::warning});
}

std::string io_text(char const* name, proto::Service const& clients) {
  return format(
      "%-9s read %8s (%s), write %8s (%s)", name, a_second(clients.read_bytes_per_s()).c_str(),
      ops_a_second(clients.read_ops_per_s()).c_str(), a_second(clients.write_bytes_per_s()).c_str(),
      ops_a_second(clients.write_ops_per_s()).c_str());
}

void add_totals(std::vector<Line>& lines, proto::Status_reply const& status, Sums const& sums) {
  lines.push_back(
      {format("IO total: read %8s (%5" PRIu64 "ops), write %8s (%5" PRIu64 "ops)",
              format_size(sums.clients.read_bytes()).c_str(), sums.clients.read_ops(),
              format_size(sums.clients.write_bytes()).c_str(), sums.clients.write_ops())});
  lines.push_back({format("Sync rate: %3" PRIu64 "ops/s, datasync rate: %3" PRIu64 "ops/s",
                          sums.clients.syncs_per_s(), sums.disk_syncs_per_s)});
  lines.push_back(
      {format("Scrub:  %s read, %" PRIu64 " bad blocks found, %" PRIu64 " repaired",
              format_size(status.scrubbed_bytes()).c_str(), status.scrub_errors(),
              status.scrub_repaired()),
       status.scrub_errors() == status.scrub_repaired() ? Style::plain : Style::warning});
}

}  // namespace

std::vector<Line> summary_lines(proto::Status_reply const& status, Summary_parts parts) {
  auto const sums = sums_of(status);
  std::vector<Line> lines;
  add_state(lines, status, sums);
  if (parts.data) {
    lines.push_back({format("Replication:  %u norm,  %u limit", status.replication_norm(),
                            status.replication_min())});
  }
  if (parts.data) {
    add_chunks(lines, status);
  } else if (!are_chunks_well(status)) {
    lines.push_back(short_chunk_line(status));
  }
  if (parts.data) {
    lines.push_back(
        {format("FS:  %s in %" PRIu64 " files, %" PRIu64 " inodes, %" PRIu64 " file maps, %" PRIu64
                " chunks, %" PRIu64 " chunk replicas",
                format_size(status.file_bytes()).c_str(), status.files(), status.inodes(),
                status.file_maps(), status.chunk_count(), status.chunk_replicas())});
  }
  lines.push_back({io_text("IO:", sums.clients)});
  // What one server pulls another one reads.
  auto const pulled = a_second(sums.pulled_bytes_per_s);
  lines.push_back({format("Repl IO:  read %8s, write: %8s", pulled.c_str(), pulled.c_str())});
  if (parts.totals || status.repair_replicas() != 0) lines.push_back(repair_line(status));
  if (parts.totals) add_totals(lines, status, sums);
  return lines;
}

std::vector<Line> event_lines(google::protobuf::RepeatedPtrField<proto::Event> const& events) {
  std::vector<Line> lines;
  lines.push_back({format("%-17s %-4s %-4s %s", "TIME", "SYS", "SEV", "MESSAGE"), Style::heading});
  for (auto const& event : events) {
    auto const style = event.severity() == "ERR"   ? Style::bad
                       : event.severity() == "WRN" ? Style::warning
                                                   : Style::plain;
    lines.push_back({format("%-17s %-4s %-4s ", time_text(event.time_ms()).c_str(),
                            event.source().c_str(), event.severity().c_str()) +
                         event.text(),
                     style});
  }
  return lines;
}

}  // namespace pstorage::cli
