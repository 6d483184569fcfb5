#include "core/nearest.h"

#include <algorithm>

namespace pstorage {
namespace {

/// Levenshtein distance.
std::size_t distance(std::string const& a, std::string const& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto const replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest(std::string const& word, std::vector<std::string> const& known,
                    std::size_t changes_max) {
  std::string best;
  bool is_found = false;
  std::size_t changes = changes_max;
  for (auto const& name : known) {
    auto const needed = distance(word, name);
    if (needed > changes || (is_found && needed == changes)) continue;
    changes = needed;
    best = name;
    is_found = true;
  }
  return best;
}

}  // namespace pstorage
