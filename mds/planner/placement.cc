#include "mds/planner/placement.h"

#include <algorithm>
#include <array>
#include <set>

namespace pstorage::mds {
namespace {

constexpr std::array domain_names = {"disk", "host", "rack", "row", "room"};

bool contains(std::vector<Cs_id> const& list, Cs_id cs) {
  return std::find(list.begin(), list.end(), cs) != list.end();
}

std::string first_parts(std::string const& location, int parts) {
  std::size_t end = 0;
  for (int i = 0; i < parts; ++i) {
    auto const dot = location.find('.', end);
    if (dot == std::string::npos) return location;
    end = dot + 1;
  }
  return location.substr(0, end - 1);
}

/// Index into `eligible` at random, weighted by free space in MiB.
std::size_t draw(std::vector<Candidate const*> const& eligible, Random& random) {
  std::uint64_t sum = 0;
  for (auto const* candidate : eligible) sum += (candidate->free_bytes >> 20) + 1;
  auto left = random.below(sum);
  for (std::size_t i = 0; i < eligible.size(); ++i) {
    auto const weight = (eligible[i]->free_bytes >> 20) + 1;
    if (left < weight) return i;
    left -= weight;
  }
  return eligible.size() - 1;
}

/// Distinct failure domains that could be used if no server were full. `taken`: with the chosen.
std::size_t domains_with_full(Placement_request const& request,
                              std::vector<Candidate> const& candidates,
                              std::set<std::string> taken) {
  std::set<std::string> present;
  for (auto const& candidate : candidates) {
    auto const key = domain_key(request.domain, candidate);
    if (contains(request.present, candidate.cs)) present.insert(key);
    if (candidate.usable && !contains(request.excluded, candidate.cs)) taken.insert(key);
  }
  return taken.size() - present.size();
}

std::string plural(std::size_t count, std::string const& word) {
  return std::to_string(count) + " " + word + (count == 1 ? "" : "s");
}

std::string explain(Placement_request const& request, std::vector<Candidate> const& candidates,
                    Placement_rules const& rules, std::size_t found) {
  std::size_t full = 0;
  std::size_t away = 0;
  std::size_t active = 0;
  for (auto const& candidate : candidates) {
    if (!candidate.usable) {
      ++away;
    } else if (!has_room(candidate, request.chunk_bytes, rules)) {
      ++full;
    } else {
      ++active;
    }
  }
  std::string text =
      "a new chunk needs " + plural(request.min + request.present.size(), "active chunk server");
  if (request.min + request.present.size() > 1) {
    text += " on different " + std::string(name_of(request.domain)) + "s";
  }
  text += ", only " + std::to_string(found + request.present.size()) + " can be used (" +
          std::to_string(active) + " active with room, " + std::to_string(full) + " full, " +
          std::to_string(away) + " not active)";
  if (full != 0) return text + ": free space or add chunk servers";
  if (away != 0) return text + ": start the missing ones or add chunk servers";
  return text + ": add chunk servers with 'pstorage make-cs' or lower the replicas attribute";
}

}  // namespace

// 2 full -> 1 -> 0 -> 3.
std::vector<std::uint32_t> tier_order(std::uint32_t wanted) {
  std::vector<std::uint32_t> order;
  for (auto tier = wanted + 1; tier-- > 0;) order.push_back(tier);
  for (auto tier = wanted + 1; tier <= tier_max; ++tier) order.push_back(tier);
  return order;
}

std::uint32_t tier_rank(std::uint32_t wanted, std::uint32_t tier) {
  return tier <= wanted ? wanted - tier : tier;
}

char const* name_of(Failure_domain domain) {
  return domain_names[static_cast<std::size_t>(domain) % domain_names.size()];
}

Outcome<Failure_domain> parse_failure_domain(std::string const& name) {
  for (std::size_t i = 0; i < domain_names.size(); ++i) {
    if (name == domain_names[i]) return static_cast<Failure_domain>(i);
  }
  return failure(Errc::bad_request,
                 "unknown failure-domain '" + name + "': use disk, host, rack, row or room");
}

std::string domain_key(Failure_domain domain, Candidate const& candidate) {
  switch (domain) {
    case Failure_domain::disk:
      return std::to_string(candidate.cs.value);
    case Failure_domain::host:
      return std::to_string(candidate.host.value);
    case Failure_domain::rack:
      return candidate.location;
    case Failure_domain::row:
      return first_parts(candidate.location, 2);
    case Failure_domain::room:
      return first_parts(candidate.location, 1);
  }
  return {};
}

bool has_room(Candidate const& candidate, std::uint64_t chunk_bytes, Placement_rules const& rules) {
  auto const margin =
      std::max(rules.free_margin_bytes, candidate.total_bytes / 100 * rules.fill_margin_percent);
  return chunk_bytes <= candidate.free_bytes && margin <= candidate.free_bytes;
}

namespace {

/// Chooses until there are `wanted`, among the slow servers or among the others.
void choose(Placement_request const& request, std::vector<Candidate> const& candidates,
            Placement_rules const& rules, Random& random, bool slow, std::size_t wanted,
            std::set<std::string>& taken, std::vector<Cs_id>& chosen) {
  auto tiers = tier_order(std::min(request.tier, tier_max));
  tiers.resize(std::min<std::size_t>(tiers.size(), request.ranks));
  for (auto const tier : tiers) {
    std::vector<Candidate const*> eligible;
    for (auto const& candidate : candidates) {
      if (candidate.tier == tier && candidate.usable && candidate.slow == slow &&
          !contains(request.excluded, candidate.cs) && !contains(request.present, candidate.cs) &&
          has_room(candidate, request.chunk_bytes, rules)) {
        eligible.push_back(&candidate);
      }
    }
    while (chosen.size() < wanted) {
      std::erase_if(eligible, [&](Candidate const* candidate) {
        return taken.contains(domain_key(request.domain, *candidate));
      });
      if (eligible.empty()) break;
      auto const* const candidate = eligible[draw(eligible, random)];
      taken.insert(domain_key(request.domain, *candidate));
      chosen.push_back(candidate->cs);
    }
  }
}

}  // namespace

Outcome<std::vector<Cs_id>> place(Placement_request const& request,
                                  std::vector<Candidate> const& candidates,
                                  Placement_rules const& rules, Random& random) {
  std::set<std::string> taken;
  for (auto const& candidate : candidates) {
    if (contains(request.present, candidate.cs)) {
      taken.insert(domain_key(request.domain, candidate));
    }
  }
  std::vector<Cs_id> chosen;
  choose(request, candidates, rules, random, false, request.norm, taken, chosen);
  if (request.takes_slow && chosen.size() < request.min) {
    choose(request, candidates, rules, random, true, request.min, taken, chosen);
  }
  if (chosen.size() < request.min || chosen.empty()) {
    // Full servers stay full until somebody acts; missing ones may come back by themselves.
    auto const code = domains_with_full(request, candidates, taken) < request.min
                          ? Errc::no_placement
                          : Errc::no_space;
    return failure(code, explain(request, candidates, rules, chosen.size()));
  }
  return chosen;
}

}  // namespace pstorage::mds
