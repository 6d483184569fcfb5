// Runs seeds of the simulated ploop image; see image_sim.h.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "core/disk/file_descriptor.h"
#include "core/mutant.h"
#include "tests/blockdev/ploop/image_sim.h"
#include "tests/sim/seed_runner.h"

namespace {

using pstorage::ploop::test::Image_sim;
using pstorage::ploop::test::Judge;

/// Rules that the code breaks when asked to (core/mutant.h). Each must be found within
/// seeds_a_mutant.
std::vector<pstorage::sim::Planted> const planted = {
    {"copy_is_not_durable_before_its_entry"}, {"freed_cluster_is_reused_at_once"},
    {"reused_cluster_is_not_zeroed"},         {"freed_cluster_is_not_durable_before_reuse"},
    {"space_is_used_before_it_is_durable"},   {"new_cluster_is_not_waited_for"},
    {"write_is_answered_before_its_entry"},   {"bat_change_rides_on_old_page"},
    {"chain_discard_clears_the_entry"},       {"fua_forgets_the_entry"},
    {"snapshot_before_it_is_durable"},        {"delta_dropped_before_its_copies_are_durable"},
};
constexpr std::uint64_t seeds_a_mutant = 2000;

/// What the real tool says about images: one file, written again for each.
class Ploop_check {
 public:
  explicit Ploop_check(std::string const& directory)
      : path_(directory + "/ploop_sim_" + std::to_string(::getpid()) + ".hds") {}
  ~Ploop_check() { ::unlink(path_.c_str()); }
  Ploop_check(Ploop_check const&) = delete;
  Ploop_check& operator=(Ploop_check const&) = delete;

  std::string judge(pstorage::Bytes image) {
    {
      pstorage::File_descriptor const file(
          ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      if (!file ||
          ::write(file.get(), image.data(), image.size()) != static_cast<ssize_t>(image.size()))
        return "cannot write " + path_;
    }
    ++count_;
    std::vector<std::string> words = {"ploop", "check", "-f", "-c", "-d", "-s", path_};
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    pid_t child = 0;
    auto const failed =
        ::posix_spawnp(&child, "ploop", &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return "cannot run ploop; scripts/install-deps installs it";
    int status = 0;
    if (::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return "ploop check died";
    if (WEXITSTATUS(status) == 0) return {};
    return "ploop check: exit code " + std::to_string(WEXITSTATUS(status));
  }
  std::uint64_t count() const { return count_; }

 private:
  std::string path_;
  std::uint64_t count_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Simulated ploop image: the product's code, a disk that loses power.");
  pstorage::sim::Seed_arguments arguments;
  arguments.add_to(app);
  std::string directory;
  app.add_option("--ploop-check", directory,
                 "judge every crash by the real 'ploop check' too, on a file in this directory "
                 "(tmpfs: it refuses sparse files elsewhere)");
  CLI11_PARSE(app, argc, argv);
  if (arguments.mutants) {
    return pstorage::sim::find_mutants(
        planted, arguments.mutant, seeds_a_mutant,
        [](std::uint64_t seed, bool verbose) { return Image_sim(seed, verbose, {}).run(); });
  }
  Ploop_check real(directory);
  Judge const judge =
      directory.empty() ? Judge{} : [&real](pstorage::Bytes image) { return real.judge(image); };
  std::uint64_t crashes = 0;
  auto const code = pstorage::sim::run_seeds(arguments, [&](std::uint64_t seed, bool verbose) {
    auto result = Image_sim(seed, verbose, judge).run();
    crashes += result.crashes;
    return result;
  });
  std::printf("%llu crashes, %llu images judged by ploop check\n",
              static_cast<unsigned long long>(crashes),
              static_cast<unsigned long long>(real.count()));
  return code;
}
