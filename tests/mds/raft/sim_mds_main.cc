// Runs seeds of simulated Raft clusters. See scripts/sim.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/mutant.h"
#include "tests/mds/raft/mutants.h"
#include "tests/mds/raft/raft_sim.h"
#include "tests/mds/raft/schedules.h"

namespace {

using namespace pstorage::mds::raft;

struct Arguments {
  std::uint64_t from = 1;
  std::uint64_t count = 100;
  double seconds = 0;
  std::uint64_t seed = 0;
  bool twice = false;
  bool verbose = false;
  bool mutants = false;
  std::string mutant;
};

std::uint64_t current_seed = 0;  // for the handler of SIGABRT

Run_result run(std::uint64_t seed, bool verbose) {
  current_seed = seed;
  return Raft_sim(seed, verbose).run();
}

void on_abort(int) {
  std::printf("seed %llu: an assertion failed\n", static_cast<unsigned long long>(current_seed));
  std::fflush(stdout);
  std::_Exit(1);
}

/// Looks for the active bug; prints who found it. In a process of its own: it may abort.
[[noreturn]] void look_for_mutant() {
  auto const found = [](std::string const& by) {
    std::printf("found by %s\n", by.c_str());
    std::fflush(stdout);
    std::_Exit(0);
  };
  for (auto const& schedule : schedules()) {
    if (auto const fault = schedule.run(); !fault.empty()) {
      found(std::string("schedule ") + schedule.name);
    }
  }
  for (std::uint64_t seed = 1; seed <= seeds_a_mutant; ++seed) {
    if (auto const result = run(seed, false); !result.fault.empty()) {
      found("seed " + std::to_string(seed) + ": " + result.fault);
    }
  }
  std::printf("NOT FOUND\n");
  std::fflush(stdout);
  std::_Exit(1);
}

int find_mutants(std::string const& only) {
  int found = 0, missed = 0;
  for (auto const& name : planted) {
    if (!only.empty() && only != name) continue;
    std::printf("%-45s ", name.c_str());
    std::fflush(stdout);
    auto const child = fork();
    if (child < 0) return 2;
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stderr) == nullptr) std::_Exit(2);
      std::signal(SIGABRT, [](int) {
        std::printf("found by an assertion, seed %llu\n",
                    static_cast<unsigned long long>(current_seed));
        std::fflush(stdout);
        std::_Exit(0);
      });
      pstorage::activate_mutant(name);
      look_for_mutant();
    }
    int status = 0;
    waitpid(child, &status, 0);
    ++(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? found : missed);
  }
  std::printf("%d passed, %d failed\n", found, missed);
  return missed == 0 ? 0 : 1;
}

int run_seeds(Arguments const& arguments) {
  auto const begin = std::chrono::steady_clock::now();
  auto const elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::uint64_t passed = 0, failed = 0, operations = 0;
  double virtual_seconds = 0;
  for (auto seed = arguments.from; seed < arguments.from + arguments.count; ++seed) {
    if (arguments.seconds > 0 && elapsed() > arguments.seconds) break;
    Run_result result = run(seed, arguments.verbose);
    if (arguments.twice && result.fault.empty() && run(seed, false).hash != result.hash) {
      result.fault = "not deterministic: two runs differ";
    }
    operations += result.operations;
    virtual_seconds += result.virtual_seconds;
    if (result.fault.empty()) {
      ++passed;
      continue;
    }
    ++failed;
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), result.fault.c_str());
    std::fflush(stdout);
  }
  double const cpu = elapsed();
  std::printf("%.0f virtual seconds in %.1f s (%.0f a second), %llu operations\n", virtual_seconds,
              cpu, virtual_seconds / cpu, static_cast<unsigned long long>(operations));
  std::printf("%llu passed, %llu failed\n", static_cast<unsigned long long>(passed),
              static_cast<unsigned long long>(failed));
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Simulated Raft clusters: the real core and log, virtual time, network and disks.");
  Arguments arguments;
  app.add_option("--from", arguments.from, "first seed");
  app.add_option("--count", arguments.count, "number of seeds");
  app.add_option("--seconds", arguments.seconds, "begin no new seed after this time");
  app.add_option("--seed", arguments.seed, "replay this one");
  app.add_flag("--twice", arguments.twice, "run each seed twice and compare");
  app.add_flag("--verbose", arguments.verbose, "print what happens");
  app.add_flag("--mutants", arguments.mutants, "plant known bugs; each must be found");
  app.add_option("--mutant", arguments.mutant, "with --mutants: only this one; else run with it");
  CLI11_PARSE(app, argc, argv);
  if (arguments.mutants) return find_mutants(arguments.mutant);
  std::signal(SIGABRT, on_abort);
  if (!arguments.mutant.empty()) pstorage::activate_mutant(arguments.mutant);
  if (arguments.seed != 0) {
    arguments.from = arguments.seed;
    arguments.count = 1;
  }
  return run_seeds(arguments);
}
