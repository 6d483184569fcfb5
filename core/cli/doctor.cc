#include "core/cli/doctor.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "core/size.h"

namespace pstorage::cli {
namespace {

using proto::Service;
using Findings = std::vector<Finding>;

constexpr std::int64_t clock_warning_ms = 1000;
constexpr std::int64_t clock_fault_ms = 60'000;
constexpr std::uint64_t full_percent = 5;
// No head moves and no platter turns that fast.
constexpr double rotating_sync_ms_min = 1.0;

std::vector<Service const*> of_kind(proto::Status_reply const& status, char const* kind) {
  std::vector<Service const*> found;
  for (auto const& service : status.services()) {
    if (service.kind() == kind) found.push_back(&service);
  }
  return found;
}

std::string name_of(Service const& service) {
  return service.kind() + "#" + std::to_string(service.id()) + " on " + service.host_name();
}

void add_well(Findings& findings, std::size_t before, char const* check, std::string text) {
  if (findings.size() == before) findings.push_back({Verdict::well, check, std::move(text), {}});
}

void examine_health(proto::Status_reply const& status, Findings& findings) {
  auto const before = findings.size();
  if (status.health() == "failure") {
    findings.push_back({Verdict::fault, "health", "failure: " + status.health_reason(),
                        "bring the hosts back, or raise mds.wd.max_offline_cs_hosts: 'pstorage "
                        "list-services --all' shows who is away"});
  } else if (status.health() != "healthy") {
    findings.push_back({Verdict::warning, "health", status.health() + ": " + status.health_reason(),
                        "start what does not answer ('service pstorage-csd start' on its host), or "
                        "remove it: 'pstorage rm-cs'"});
  }
  for (auto const* const cs : of_kind(status, "CS")) {
    if (cs->state().starts_with("failed")) {
      findings.push_back({Verdict::fault, "health",
                          name_of(*cs) + " has failed: its disk gave errors",
                          "replace the disk: 'pstorage rm-cs " + std::to_string(cs->id()) +
                              "', then make-cs on the new one"});
    } else if (cs->slow()) {
      findings.push_back({Verdict::warning, "health",
                          name_of(*cs) + " is far slower than its peers",
                          "look at its disk and at what else uses it ('iostat -x 1', smartctl)"});
    }
  }
  add_well(findings, before, "health", "all services answer");
}

void examine_chunks(proto::Status_reply const& status, Findings& findings) {
  auto const before = findings.size();
  auto const count = [&status](char const* state) {
    auto const found = status.chunks().find(state);
    return found == status.chunks().end() ? 0 : found->second;
  };
  if (auto const stuck = count("blocked") + count("offline"); stuck != 0) {
    findings.push_back({Verdict::fault, "chunks",
                        std::to_string(stuck) + " chunks cannot be written",
                        "'pstorage why' tells of a file what it waits for"});
  }
  if (auto const thin = count("urgent") + count("degraded"); thin != 0) {
    findings.push_back(
        {Verdict::warning, "chunks",
         std::to_string(thin) + " chunks have fewer replicas than they shall have",
         status.repair_eta_s() != 0
             ? "wait: they are being made"
             : "'pstorage stat' shows the repair, 'pstorage why' what it waits for"});
  }
  if (status.scrub_errors() != status.scrub_repaired()) {
    findings.push_back(
        {Verdict::warning, "chunks",
         std::to_string(status.scrub_errors() - status.scrub_repaired()) +
             " damaged blocks were found and not repaired yet",
         "'pstorage get-event --severity WRN' tells where; 'pstorage check --repair'"});
  }
  add_well(findings, before, "chunks", "all have their replicas");
}

void examine_space(proto::Status_reply const& status, Findings& findings) {
  auto const before = findings.size();
  auto const left = format_size(status.allocatable_bytes()) + " of " +
                    format_size(status.allocatable_total_bytes()) + " can be allocated";
  if (status.space_state() == "full") {
    findings.push_back({Verdict::fault, "space", "the cluster is full: " + left,
                        "add chunk servers, delete, or trim ('fstrim' in the guests)"});
  } else if (status.space_state() == "low") {
    findings.push_back({Verdict::warning, "space", left, "add chunk servers soon, or delete"});
  }
  for (auto const* const cs : of_kind(status, "CS")) {
    if (cs->total_bytes() == 0 || cs->free_bytes() * 100 / cs->total_bytes() >= full_percent)
      continue;
    findings.push_back({Verdict::warning, "space",
                        name_of(*cs) + " is full: " + format_size(cs->free_bytes()) + " free",
                        "add a chunk server to its tier; the cluster then moves data by itself"});
  }
  add_well(findings, before, "space", left);
}

void examine_clocks(proto::Status_reply const& status, Findings& findings) {
  auto const before = findings.size();
  for (auto const* const cs : of_kind(status, "CS")) {
    auto const off = std::abs(cs->clock_offset_ms());
    if (off < clock_warning_ms) continue;
    findings.push_back({off < clock_fault_ms ? Verdict::warning : Verdict::fault, "clocks",
                        "the clock of " + name_of(*cs) + " is " + std::to_string(off / 1000) +
                            " s " + (cs->clock_offset_ms() > 0 ? "ahead of" : "behind") +
                            " the master's",
                        "run a time service on every host (chrony, systemd-timesyncd); data is "
                        "safe without, times "
                        "in events and logs are not comparable"});
  }
  add_well(findings, before, "clocks", "those of the chunk servers agree with the master's");
}

/// Where a server is, as far as the failure domain tells servers apart.
std::string domain_of(Service const& cs, std::string const& failure_domain) {
  if (failure_domain == "disk") return std::to_string(cs.id());
  if (failure_domain == "host") return std::to_string(cs.host_id());
  auto const& place = cs.location();  // room.row.rack
  auto const first = std::min(place.find('.'), place.size());
  auto const second = std::min(place.find('.', first + 1), place.size());
  if (failure_domain == "room") return place.substr(0, first);
  return failure_domain == "row" ? place.substr(0, second) : place;
}

void examine_domains(proto::Status_reply const& status, std::string const& failure_domain,
                     Findings& findings) {
  auto const before = findings.size();
  std::set<std::string> domains;
  for (auto const* const cs : of_kind(status, "CS")) {
    if (cs->state() == "active") domains.insert(domain_of(*cs, failure_domain));
  }
  auto const norm = status.replication_norm();
  auto const there_are = "replicas=" + std::to_string(norm) + ":" +
                         std::to_string(status.replication_min()) +
                         ", failure-domain=" + failure_domain + ", active chunk servers in " +
                         std::to_string(domains.size()) + " of these";
  if (norm == 1) {
    findings.push_back({Verdict::warning, "domains",
                        "one replica: a disk that dies takes data with it",
                        "'pstorage set-attr -R -p / replicas=3:2', with three hosts at least"});
  } else if (domains.size() < norm) {
    findings.push_back({Verdict::fault, "domains", there_are + ": new replicas have no place",
                        "add chunk servers in other domains, or set fewer replicas"});
  } else if (domains.size() == norm) {
    findings.push_back({Verdict::hint, "domains",
                        there_are + ": when one dies nothing can be repaired before it is back",
                        "one domain more than replicas lets the cluster repair itself"});
  }
  if (norm > 1 && status.replication_min() == norm) {
    findings.push_back({Verdict::warning, "domains",
                        "writes need all replicas: they wait as soon as one server is away",
                        "'pstorage set-attr -R -p / replicas=3:2'"});
  }
  add_well(findings, before, "domains", there_are);
}

void examine_single_points(proto::Status_reply const& status, Findings& findings) {
  auto const before = findings.size();
  auto const all_mds = of_kind(status, "MDS");
  std::map<std::uint64_t, int> mds_of_host;
  int voters = 0;
  for (auto const* const mds : all_mds) {
    voters += mds->is_voter() ? 1 : 0;
    if (mds->is_voter()) ++mds_of_host[mds->host_id()];
    if (mds->state() == "avail") continue;
    findings.push_back(
        {Verdict::warning, "mds", name_of(*mds) + " is " + mds->state(),
         "start it ('service pstorage-mdsd start'), or remove it: 'pstorage rm-mds " +
             std::to_string(mds->id()) + "'"});
  }
  if (voters < 3) {
    findings.push_back({Verdict::warning, "mds",
                        std::to_string(voters) +
                            " metadata server(s): the loss of one stops the cluster, the loss of "
                            "its disk " +
                            (voters == 1 ? "loses it" : "too"),
                        "make-mds on other hosts until there are three"});
  } else if (voters % 2 == 0) {
    findings.push_back({Verdict::hint, "mds",
                        std::to_string(voters) + " metadata servers survive no more losses than " +
                            std::to_string(voters - 1),
                        "add one, or remove one"});
  }
  for (auto const& [host, number] : mds_of_host) {
    if (voters < 3 || number * 2 < voters) continue;
    findings.push_back({Verdict::warning, "mds",
                        std::to_string(number) + " of " + std::to_string(voters) +
                            " metadata servers are on one host: its loss stops the cluster",
                        "spread them"});
  }
  add_well(findings, before, "mds",
           std::to_string(voters) + " metadata servers on hosts of their own");
}

void examine_unique(proto::Status_reply const& status, Findings& findings) {
  auto const before = findings.size();
  for (auto const* const cs : of_kind(status, "CS")) {
    if (cs->unique() == 0 || status.replication_norm() == 1) continue;
    findings.push_back({Verdict::warning, "unique",
                        name_of(*cs) + " has the only up-to-date replica of " +
                            std::to_string(cs->unique()) + " chunks",
                        "do not stop it ('pstorage ok-to-stop cs'); wait for the repair"});
  }
  add_well(findings, before, "unique", "no chunk hangs on one chunk server");
}

void examine_versions(proto::Status_reply const& status, std::string const& own_version,
                      Findings& findings) {
  auto const before = findings.size();
  std::set<std::string> known{own_version};
  std::string who;
  for (auto const& service : status.services()) {
    if (service.version().empty() || service.version() == own_version) continue;
    known.insert(service.version());
    if (service.kind() == "CLIENT") {
      who += " " + service.name() + " " + service.version();
    } else {
      who += " " + service.kind() + "#" + std::to_string(service.id()) + " " + service.version();
    }
  }
  if (known.size() > 1) {
    findings.push_back({Verdict::warning, "versions",
                        "not all run " + own_version + " as this program does:" + who,
                        "upgrade the packages and restart the services, one host after the other"});
  }
  add_well(findings, before, "versions", "all that tell theirs run " + own_version);
}

void examine_repository(Repository_facts const& facts, Findings& findings) {
  auto const before = findings.size();
  auto const add = [&](Verdict verdict, std::string const& text, std::string const& advice) {
    findings.push_back({verdict, "flush", facts.directory + ": " + text, advice});
  };
  if (!facts.is_there) {
    return add(Verdict::warning, "noted in " + facts.kind + ".list, but there is no repository",
               "mount the disk, or delete the line");
  }
  if (facts.file_system == "tmpfs" || facts.file_system == "ramfs") {
    return add(Verdict::fault, "lies in memory: nothing of it survives a restart of the host",
               "put it on a disk");
  }
  char speed[64] = "";
  if (facts.sync_ms) std::snprintf(speed, sizeof speed, " (a sync takes %.2f ms)", *facts.sync_ms);
  if (facts.is_rotating.value_or(false) && facts.sync_ms && *facts.sync_ms < rotating_sync_ms_min &&
      facts.write_cache != "write back") {
    return add(Verdict::warning,
               std::string("a rotating disk cannot be so quick: something calls data durable that "
                           "is in a cache") +
                   speed,
               "make sure that the cache has a battery, and check it with pstorage-hwflush-check");
  }
  if (facts.write_cache != "write through") {
    return add(Verdict::hint,
               "on " + (facts.device.empty() ? facts.file_system : facts.device) +
                   ", with a volatile cache that must obey flushes" + speed,
               "prove it once with pstorage-hwflush-check");
  }
  if (findings.size() == before) add(Verdict::well, std::string("no volatile cache") + speed, "");
}

}  // namespace

char const* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::well:
      return "OK";
    case Verdict::hint:
      return "HINT";
    case Verdict::warning:
      return "WARN";
    case Verdict::fault:
      break;
  }
  return "FAULT";
}

std::vector<Finding> examine_cluster(proto::Status_reply const& status,
                                     std::string const& failure_domain,
                                     std::string const& own_version) {
  Findings findings;
  examine_health(status, findings);
  examine_chunks(status, findings);
  examine_space(status, findings);
  examine_clocks(status, findings);
  examine_domains(status, failure_domain, findings);
  examine_single_points(status, findings);
  examine_unique(status, findings);
  examine_versions(status, own_version, findings);
  return findings;
}

std::vector<Finding> examine_host(Host_facts const& host) {
  Findings findings;
  if (host.is_clock_synchronised == false) {
    findings.push_back({Verdict::warning, "clocks", "the clock of this host is not synchronised",
                        "run a time service (chrony, systemd-timesyncd)"});
  }
  if ((host.key_mode & 077) != 0) {
    findings.push_back({Verdict::fault, "key",
                        "others may read the key of the cluster on this host",
                        "chmod 600 on auth_digest.key"});
  }
  for (auto const& repository : host.repositories) examine_repository(repository, findings);
  return findings;
}

}  // namespace pstorage::cli
