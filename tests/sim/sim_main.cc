// Runs seeds of the simulated cluster. See scripts/sim.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/mutant.h"
#include "tests/sim/cluster_sim.h"

namespace {

using pstorage::sim::Cluster_sim;
using pstorage::sim::Run_result;

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

/// Rules that the product's code breaks when asked to (core/mutant.h). Each must be found within
/// this many seeds.
std::vector<std::string> const planted = {
    "skip_the_seal",
    "acknowledge_before_the_journal",
    "flush_without_sync",
    "serve_a_syncing_replica",
    "forget_the_lost_writes",
    "skip_reconciliation",
    "acknowledge_without_the_failed_replica",
    "drop_the_last_replica",
    "reads_pass_writes_in_flight",
    "forget_the_seal",
    "answer_a_flush_before_an_earlier_one",
    "wait_for_a_newcomer",
    "answer_flush_at_once",
    "never_unclean",
};
constexpr std::uint64_t seeds_a_mutant = 1000;

Run_result run(std::uint64_t seed, bool verbose) { return Cluster_sim(seed, verbose).run(); }

int find_mutants(std::string const& only) {
  int found = 0, missed = 0;
  for (auto const& name : planted) {
    if (!only.empty() && only != name) continue;
    pstorage::activate_mutant(name);
    std::uint64_t seed = 1;
    Run_result result;
    for (; seed <= seeds_a_mutant && result.fault.empty(); ++seed) result = run(seed, false);
    pstorage::activate_mutant("");
    bool const caught = !result.fault.empty();
    std::printf("%-40s %s\n", name.c_str(),
                caught ? ("found by seed " + std::to_string(seed - 1) + ": " + result.fault).c_str()
                       : "NOT FOUND");
    std::fflush(stdout);
    ++(caught ? found : missed);
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
  std::uint64_t seed = arguments.from;
  for (; seed < arguments.from + arguments.count; ++seed) {
    if (arguments.seconds > 0 && elapsed() > arguments.seconds) break;
    Run_result result = run(seed, arguments.verbose);
    if (arguments.twice && result.fault.empty() && run(seed, false).hash != result.hash)
      result.fault = "not deterministic: two runs differ";
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
  CLI::App app("Simulated pstorage cluster: real decision code, virtual time, network and disks.");
  Arguments arguments;
  app.add_option("--from", arguments.from, "first seed");
  app.add_option("--count", arguments.count, "number of seeds");
  app.add_option("--seconds", arguments.seconds, "begin no new seed after this time");
  app.add_option("--seed", arguments.seed, "replay this one");
  app.add_flag("--twice", arguments.twice, "run each seed twice and compare");
  app.add_flag("--verbose", arguments.verbose, "print the daemons' logs");
  app.add_flag("--mutants", arguments.mutants, "plant known bugs; each must be found");
  app.add_option("--mutant", arguments.mutant, "with --mutants: only this one; else run with it");
  CLI11_PARSE(app, argc, argv);
  if (arguments.mutants) return find_mutants(arguments.mutant);
  if (!arguments.mutant.empty()) pstorage::activate_mutant(arguments.mutant);
  if (arguments.seed != 0) {
    arguments.from = arguments.seed;
    arguments.count = 1;
  }
  return run_seeds(arguments);
}
