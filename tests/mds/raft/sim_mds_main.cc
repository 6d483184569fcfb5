// Runs seeds of simulated Raft clusters. See scripts/sim.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/mutant.h"
#include "tests/mds/raft/mutants.h"
#include "tests/mds/raft/raft_sim.h"
#include "tests/mds/raft/schedules.h"
#include "tests/sim/seed_runner.h"

namespace {

using namespace pstorage::mds::raft;

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

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Simulated Raft clusters: the real core and log, virtual time, network and disks.");
  pstorage::sim::Seed_arguments arguments;
  arguments.add_to(app);
  CLI11_PARSE(app, argc, argv);
  if (arguments.mutants) return find_mutants(arguments.mutant);
  std::signal(SIGABRT, on_abort);
  return pstorage::sim::run_seeds(arguments, run);
}
