#include "core/cli/advice.h"

#include <algorithm>

namespace pstorage::cli {
namespace {

constexpr std::uint64_t journal_unit_mb = 64;
constexpr std::uint64_t journal_mb_min = 256;
// More only makes the next start slower: a journal is emptied long before it is so full.
constexpr std::uint64_t journal_mb_max = 8192;
constexpr std::uint64_t cache_mb_min = 1024;

}  // namespace

Outcome<Advice> advise(Advice_question const& question) {
  Advice advice;
  auto const usable_mb = (question.ssd_free_bytes >> 20) / 10 * 9;
  bool const has_cache = !question.mount_point.empty();
  auto const for_journals = has_cache ? usable_mb / 2 : usable_mb;
  auto const share = for_journals / std::max<std::size_t>(question.servers.size(), 1);
  advice.journal_mb = std::min(share / journal_unit_mb * journal_unit_mb, journal_mb_max);
  if (!question.servers.empty() && advice.journal_mb < journal_mb_min) {
    return failure(Errc::no_space, question.ssd + " has " +
                                       std::to_string(question.ssd_free_bytes >> 20) +
                                       " MB free: that is less than 256 MB for each journal" +
                                       (has_cache ? "; leave -m away, or give" : "; give") +
                                       " fewer chunk servers or a larger SSD");
  }
  for (auto const& server : question.servers) {
    auto const size = std::to_string(advice.journal_mb);
    if (server.exists) {
      advice.commands.push_back(
          {"pstorage", "configure-cs", "-r", server.directory, "-a", question.ssd, "-s", size});
    } else {
      advice.commands.push_back({"pstorage", "-c", question.cluster, "make-cs", "-r",
                                 server.directory, "-j", question.ssd, "-s", size});
    }
  }
  if (!has_cache) return advice;
  advice.cache_mb = usable_mb - advice.journal_mb * question.servers.size();
  if (advice.cache_mb < cache_mb_min) {
    return failure(Errc::no_space, question.ssd + ": " + std::to_string(advice.cache_mb) +
                                       " MB are left for the read cache, less than 1024: leave -m "
                                       "away or give a larger SSD");
  }
  advice.commands.push_back({"pstorage-mount", "-c", question.cluster, question.mount_point, "-C",
                             question.ssd + "/pstorage-" + question.cluster + ".cache", "-R",
                             std::to_string(advice.cache_mb)});
  return advice;
}

std::string shell_text(std::vector<std::string> const& words) {
  std::string text;
  for (auto const& word : words) {
    if (!text.empty()) text += ' ';
    bool const is_plain =
        !word.empty() && word.find_first_not_of(
                             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                             "0123456789_-./:=,@") == std::string::npos;
    if (is_plain) {
      text += word;
      continue;
    }
    text += '\'';
    for (char const c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    text += '\'';
  }
  return text;
}

}  // namespace pstorage::cli
