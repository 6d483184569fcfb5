#include "core/cli/advice.h"

#include <algorithm>

namespace pstorage::cli {
namespace {

constexpr std::uint64_t journal_unit_mb = 64;
constexpr std::uint64_t journal_mb_min = 256;
// More only makes the next start slower: a journal is emptied long before it is so full.
constexpr std::uint64_t journal_mb_max = 8192;
constexpr std::uint64_t cache_mb_min = 64;

}  // namespace

Outcome<Advice> advise(Advice_question const& question) {
  Advice advice;
  auto const usable_mb = (question.ssd_free_bytes >> 20) / 10 * 9;
  auto const share = usable_mb / std::max<std::size_t>(question.servers.size(), 1);
  // With a mount half of it is for what is read there, but journals come first.
  auto const wanted =
      question.mount_point.empty() ? share : std::max(share / 2, std::min(share, journal_mb_min));
  advice.journal_mb = std::min(wanted / journal_unit_mb * journal_unit_mb, journal_mb_max);
  if (!question.servers.empty() && advice.journal_mb < journal_mb_min) {
    return failure(Errc::no_space, question.ssd + " has " +
                                       std::to_string(question.ssd_free_bytes >> 20) +
                                       " MB free: that is less than 256 MB for each journal; give "
                                       "fewer chunk servers or a larger SSD");
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
  if (!question.mount_point.empty()) {
    Command mount = {"pstorage-mount", "-c", question.cluster, question.mount_point};
    advice.cache_mb = usable_mb - advice.journal_mb * question.servers.size();
    if (advice.cache_mb >= cache_mb_min) {
      auto const size = std::to_string(advice.cache_mb);
      mount.insert(mount.end(),
                   {"-C", question.ssd + "/" + question.cluster + ".cache", "-R", size});
    } else {
      advice.cache_mb = 0;
    }
    advice.commands.push_back(std::move(mount));
  }
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
