// Checks one delta, and repairs what can be repaired without guessing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockdev/ploop/blocking_store.h"
#include "blockdev/ploop/format.h"

namespace pstorage::ploop {

struct Check_options {
  bool is_read_only = true;  // nothing is changed, whatever the others say
  /// Also what loses data: entries that point nowhere are cleared, a cluster used twice is copied.
  bool may_fix_fatal = false;
  bool drop_in_use = false;
};

struct Check_fault {
  bool is_fatal = false;  // the image must not be used as it is
  bool is_fixed = false;
  std::string text;
};

struct Check_report {
  Header header;
  std::vector<Check_fault> faults;  // at most faults_max are kept
  std::uint64_t fatal = 0;          // counted in full, without the fixed ones
  std::uint64_t allocated = 0;      // clusters
  std::uint64_t holes = 0;          // clusters inside the file that nobody refers to
  std::uint64_t tail_bytes = 0;     // behind the last cluster in use
  bool is_in_use = false;           // still marked so
  bool has_wrong_empty_flag = false;

  static constexpr std::size_t faults_max = 100;
  /// Nothing is wrong that matters to a reader or a writer.
  bool is_clean() const { return fatal == 0 && !is_in_use && !has_wrong_empty_flag; }
};

/// Looks at every entry. Without is_read_only also: cuts off the tail, corrects the flag "empty",
/// and what `options` allow. Memory: at most 5 bytes an entry. Nobody may use the image meanwhile.
/// Errors: corrupt when the header makes no sense (nothing was changed), the store's.
Outcome<Check_report> check_image(Blocking_store& store, Check_options options);

}  // namespace pstorage::ploop
