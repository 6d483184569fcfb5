// Power losses and rot at chosen moments of the durable log.
#include "tests/mds/raft/log_bench.h"
#include "tests/mds/raft/schedules.h"

namespace pstorage::mds::raft {

std::string a_segment_is_removed_only_when_the_next_one_has_its_base() {
  // Each round with another luck of what of the unsynced writes and removals a power loss keeps.
  for (int round = 0; round < 30; ++round) {
    Log_bench bench;
    for (int i = 0; i < round; ++i) bench.random.next();
    if (!bench.start()) return bench.error;
    std::uint64_t index = 1;
    while (bench.disk.exists(Log_bench::name(2)) && index < 15) {
      bench.append(index, index, 1);
      ++index;
    }
    bench.write(index, index, 1);  // the first of the second segment; its sync is under way
    bench.log->cut(index - 1);
    bench.crash();
    if (!bench.start(index - 1)) return bench.error;
    if (bench.last_index() + 1 < index) return "durable entries are lost with their segment";
  }
  return "";
}

std::string damage_in_the_middle_is_remembered() {
  Log_bench bench;
  if (!bench.start()) return bench.error;
  for (std::uint64_t index = 1; index <= 8; ++index) bench.append(index, index, 1);
  bench.crash();
  bench.rot(1, 5);  // the blocks: header, base, then an entry each
  for (int starts = 0; starts < 3; ++starts) {
    if (!bench.start()) return bench.error;
    if (bench.last_index() != 3) return "kept entries behind the damage";
    if (bench.state.hard.repair_until != 8) return "forgot that entries up to 8 were acknowledged";
    bench.settle();
    bench.crash();
  }
  return "";
}

}  // namespace pstorage::mds::raft
