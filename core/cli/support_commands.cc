// doctor, make-report.
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "core/cli/commands.h"
#include "core/cli/daemon.h"
#include "core/cli/doctor.h"
#include "core/cli/host_facts.h"
#include "core/cli/output.h"
#include "core/cli/tar.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/runtime/real_clock.h"
#include "core/version.h"

namespace pstorage::cli {
namespace {

constexpr std::size_t log_bytes_max = 1u << 20;  // of each log, its end
constexpr std::uint32_t events_in_report = 1000;

// ------------------------------------------------------------------ doctor

Outcome<std::vector<Finding>> examine(Cli& cli) {
  PS_TRY(auto const cluster, cli.cluster());
  proto::Mds_request request;
  request.mutable_get_status();
  PS_TRY(auto const status, cli.call(std::move(request)));
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path("/");
  PS_TRY(auto const root, cli.call(std::move(lookup)));
  auto findings = examine_cluster(status.cluster_status(),
                                  root.file().attributes().failure_domain(), version());
  auto const here = examine_host(host_facts(cluster));
  findings.insert(findings.end(), here.begin(), here.end());
  return findings;
}

Outcome<void> doctor(Cli& cli) {
  PS_TRY(auto const findings, examine(cli));
  std::size_t wrong = 0;
  auto list = nlohmann::json::array();
  for (auto const& finding : findings) {
    if (finding.verdict >= Verdict::warning) ++wrong;
    auto const* const verdict = verdict_name(finding.verdict);
    if (cli.is_json()) {
      list.push_back({{"verdict", verdict},
                      {"check", finding.check},
                      {"text", finding.text},
                      {"advice", finding.advice}});
      continue;
    }
    std::printf("%-7s %-8s %s\n", ("[" + std::string(verdict) + "]").c_str(), finding.check.c_str(),
                finding.text.c_str());
    if (!finding.advice.empty()) std::printf("%17sdo: %s\n", "", finding.advice.c_str());
  }
  if (cli.is_json()) print_json(list);
  if (wrong == 0) return success();
  return failure(Errc::refused, std::to_string(wrong) + " of " + std::to_string(findings.size()) +
                                    " findings need you");
}

// ------------------------------------------------------------------ make-report

/// The end of a file, or why there is none.
std::string tail_of(std::string const& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "cannot be read\n";
  auto const size = static_cast<std::size_t>(file.tellg());
  std::string text(std::min(size, log_bytes_max), '\0');
  file.seekg(static_cast<std::streamoff>(size - text.size()));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

/// A file of /proc or /sys: its size is not known before it was read.
std::string whole(std::string const& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Report {
 public:
  explicit Report(std::uint64_t now_s) : now_s_(now_s) {}
  void add(std::string const& name, std::string const& content) {
    tar_.add(name.substr(0, Tar::name_max), content, now_s_);
  }
  std::string finish() { return tar_.finish(); }

 private:
  std::uint64_t const now_s_;
  Tar tar_;
};

/// What the cluster says, or that it does not: a report is most wanted when things do not work.
void add_cluster(Cli& cli, Report& report) {
  auto const ask = [&](char const* name, auto fill, auto pick) {
    proto::Mds_request request;
    fill(request);
    auto const reply = cli.ask(std::move(request));
    report.add(name, reply.has_value() ? to_json(pick(reply.value())).dump(2) + "\n"
                                       : "no answer: " + reply.error().text + "\n");
    return reply.has_value();
  };
  bool const answers = ask(
      "status.json", [](auto& request) { request.mutable_get_status(); },
      [](auto const& reply) { return reply.cluster_status(); });
  if (!answers) return;
  ask(
      "config.json", [](auto& request) { request.mutable_get_config(); },
      [](auto const& reply) { return reply.config(); });
  ask(
      "events.json",
      [](auto& request) { request.mutable_get_events()->set_newest(events_in_report); },
      [](auto const& reply) { return reply.events(); });
  auto findings = examine(cli);
  std::string text;
  if (findings.has_value()) {
    for (auto const& finding : findings.value()) {
      text += std::string(verdict_name(finding.verdict)) + " " + finding.check + ": " +
              finding.text + "\n";
    }
  }
  report.add("doctor.txt", text);
}

/// Only files that are named here: keys, passwords and accounts lie beside them.
void add_host(std::string const& cluster, Report& report) {
  utsname system{};
  ::uname(&system);
  report.add("host.txt", "pstorage " + std::string(version()) + "\n" + system.nodename + " " +
                             system.sysname + " " + system.release + " " + system.machine + "\n");
  for (auto const* const path :
       {"/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/self/mounts", "/proc/partitions",
        "/proc/net/dev", "/etc/os-release"}) {
    report.add(std::string("host") + path, whole(path));
  }
  for (auto const* const name : {"host_id", "location"}) {
    report.add(std::string("etc/") + name, whole(etc_root() + "/" + name));
  }
  for (auto const* const name : {"bs.list", "mds.list", "cs.list"}) {
    report.add("etc/" + cluster + "/" + name, whole(cluster_directory(cluster) + "/" + name));
  }
  for (std::string const kind : {"mds", "cs"}) {
    int number = 0;
    for (auto const& directory : noted_repositories(cluster, kind)) {
      auto const name = kind + std::to_string(++number);
      std::error_code error;
      auto const space = std::filesystem::space(directory, error);
      report.add(name + "/directory", directory + "\n" + std::to_string(space.available) + " of " +
                                          std::to_string(space.capacity) + " bytes are free\n");
      for (auto const* const log : {"log", "fatal-log"}) {
        auto const path = directory + "/logs/" + log;
        if (std::filesystem::exists(path, error)) report.add(name + "/logs/" + log, tail_of(path));
      }
    }
  }
}

Outcome<void> make_report(Cli& cli, std::string path) {
  PS_TRY(auto const cluster, cli.cluster());
  auto const now_ms = Real_clock().wall_ms();
  if (path.empty()) {
    path = "pstorage-report-" + host_name() + "-" + std::to_string(now_ms / 1000) + ".tar";
  }
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    return failure(Errc::exists, path + " exists: give another name with -o");
  }
  Report report(now_ms / 1000);
  add_host(cluster, report);
  add_cluster(cli, report);
  auto const archive = report.finish();
  PS_CHECK(write_file_atomically(path, as_bytes(archive), 0600));
  if (cli.is_json()) {
    print_json({{"file", path}, {"bytes", archive.size()}});
  } else {
    std::printf("%s: state, events, settings and logs, no keys and no passwords\n", path.c_str());
  }
  return success();
}

}  // namespace

void add_support_commands(Cli& cli) {
  cli.add_json(cli.add_command("doctor", "Looks for what is wrong or will be, and says what to do",
                               [&cli] { return doctor(cli); }));
  auto const path = std::make_shared<std::string>();
  auto* const report =
      cli.add_command("make-report", "Collects what helps to find a fault, without secrets",
                      [&cli, path] { return make_report(cli, *path); });
  report->add_option("-o,--output", *path,
                     "File to make (default: pstorage-report-HOST-TIME.tar here)");
  cli.add_json(report);
}

}  // namespace pstorage::cli
