// Where the replicas of a new chunk go. Pure: the same input gives the same answer everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/env/random.h"
#include "core/ids.h"
#include "core/result.h"

namespace pstorage::mds {

/// What must not fail together. Numbers are stored in the database: never renumber.
enum class Failure_domain : std::uint8_t { disk = 0, host = 1, rack = 2, row = 3, room = 4 };

/// "disk", "host", ...
char const* name_of(Failure_domain domain);
/// Errors: bad_request, naming the known ones.
Outcome<Failure_domain> parse_failure_domain(std::string const& name);

inline constexpr std::uint32_t tier_max = 3;

/// What a heartbeat said about a CS's disk.
struct Space_report {
  Cs_id cs;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  bool slow = false;
};

/// A chunk server as placement sees it.
struct Candidate {
  Cs_id cs;
  Host_id host;
  std::string location;  // room.row.rack
  std::uint32_t tier = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
  bool usable = false;     // active
  std::string state;       // for people
  bool releasing = false;  // rm-cs: a source, nothing more
  bool slow = false;       // gets new data only where there is nobody else
  bool given_up = false;   // slow for so long that others take over what it should hold
};

struct Placement_rules {
  std::uint64_t fill_margin_percent = 5;
  std::uint64_t free_margin_bytes = 512ull << 20;
};

struct Placement_request {
  std::uint32_t norm = 1;  // wanted replicas
  std::uint32_t min = 1;   // fewer than this: no placement
  Failure_domain domain = Failure_domain::host;
  std::uint32_t tier = 0;
  std::uint64_t chunk_bytes = 0;
  std::vector<Cs_id> present;          // hold a replica already: their domains are taken
  std::vector<Cs_id> excluded;         // must not be used, but their domains are free
  std::uint32_t ranks = tier_max + 1;  // only this many tiers, from the front of tier_order()
  bool takes_slow = true;              // slow servers where the others are fewer than min
};

/// The asked tier, then lower numbers downwards, then higher ones: where a full tier spills.
std::vector<std::uint32_t> tier_order(std::uint32_t wanted);
/// Position of `tier` in the order for `wanted`: 0 is the asked one.
std::uint32_t tier_rank(std::uint32_t wanted, std::uint32_t tier);

/// The key of `candidate`'s failure domain: equal keys fail together.
std::string domain_key(Failure_domain domain, Candidate const& candidate);

/// Has `candidate` room for one more chunk? Below its margin it gets none; what it has may grow
/// into the margin.
bool has_room(Candidate const& candidate, std::uint64_t chunk_bytes, Placement_rules const& rules);

/// Between min and norm servers in distinct failure domains, none of them twice, preferring the
/// asked tier (then lower numbers downwards, then higher ones), at random weighted by free space.
/// Slow servers only where there would be fewer than min without them.
/// `min` and `norm` count new replicas only. Errors, saying what is missing: no_space (enough
/// servers are active, but full), no_placement.
Outcome<std::vector<Cs_id>> place(Placement_request const& request,
                                  std::vector<Candidate> const& candidates,
                                  Placement_rules const& rules, Random& random);

}  // namespace pstorage::mds
