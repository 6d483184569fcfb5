// The command line that all simulators share: which seeds to run, and how a failing one is told.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "core/mutant.h"

namespace pstorage::sim {

struct Seed_arguments {
  std::uint64_t from = 1;
  std::uint64_t count = 100;
  double seconds = 0;
  std::uint64_t seed = 0;
  bool twice = false;
  bool verbose = false;
  bool mutants = false;
  std::string mutant;

  void add_to(CLI::App& app) {
    app.add_option("--from", from, "first seed");
    app.add_option("--count", count, "number of seeds");
    app.add_option("--seconds", seconds, "begin no new seed after this time");
    app.add_option("--seed", seed, "replay this one");
    app.add_flag("--twice", twice, "run each seed twice and compare");
    app.add_flag("--verbose", verbose, "print what happens");
    app.add_flag("--mutants", mutants, "plant known bugs; each must be found");
    app.add_option("--mutant", mutant, "with --mutants: only this one; else run with it");
  }
};

/// Runs the seeds with `run(seed, verbose)`, whose result has fault (empty: everything held), hash,
/// operations and virtual_seconds. Prints each failing seed and what it broke, and last
/// "N passed, M failed". Returns the exit code.
template <typename Run>
int run_seeds(Seed_arguments arguments, Run const& run) {
  if (!arguments.mutant.empty()) activate_mutant(arguments.mutant);
  if (arguments.seed != 0) {
    arguments.from = arguments.seed;
    arguments.count = 1;
  }
  auto const begin = std::chrono::steady_clock::now();
  auto const elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::uint64_t passed = 0, failed = 0, operations = 0;
  double virtual_seconds = 0;
  for (auto seed = arguments.from; seed < arguments.from + arguments.count; ++seed) {
    if (arguments.seconds > 0 && elapsed() > arguments.seconds) break;
    auto result = run(seed, arguments.verbose);
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

/// A planted bug, and the seeds first, first + step, ... whose scenarios can show it.
struct Planted {
  std::string name;
  std::uint64_t first = 1;
  std::uint64_t step = 1;
};

/// Plants each of `planted` (core/mutant.h), or only `only`, and looks among its first `seeds_max`
/// seeds for one that `run(seed, verbose)` fails with. Prints what was found and last "N passed, M
/// failed". Returns the exit code.
template <typename Run>
int find_mutants(std::vector<Planted> const& planted, std::string const& only,
                 std::uint64_t seeds_max, Run const& run) {
  int found = 0, missed = 0;
  for (auto const& [name, first, step] : planted) {
    if (!only.empty() && only != name) continue;
    activate_mutant(name);
    std::uint64_t seed = 0;
    std::string fault;
    for (std::uint64_t tried = 0; fault.empty() && tried < seeds_max; ++tried)
      fault = run(seed = first + tried * step, false).fault;
    activate_mutant("");
    bool const is_caught = !fault.empty();
    std::printf(
        "%-40s %s\n", name.c_str(),
        is_caught ? ("found by seed " + std::to_string(seed) + ": " + fault).c_str() : "NOT FOUND");
    std::fflush(stdout);
    ++(is_caught ? found : missed);
  }
  std::printf("%d passed, %d failed\n", found, missed);
  return missed == 0 ? 0 : 1;
}

}  // namespace pstorage::sim
