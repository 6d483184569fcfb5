#include "core/client/latency_watch.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr std::uint32_t reads_needed = 100;  // for a 99th percentile
constexpr std::uint32_t reads_kept = 4096;   // then all counts are halved: old ones fade
constexpr int hedge_median_factor = 20;      // a hung server must not raise the bound for itself
constexpr int usual_weight = 8;
// A judgement later than this: the silence may be this process's own.
constexpr Duration late = Latency_watch::interval * 4;

std::size_t bucket_of(Duration took) {
  auto const us = static_cast<std::uint64_t>(std::max<Duration::rep>(took.count(), 0)) / 1000 + 1;
  auto const power = static_cast<std::size_t>(std::bit_width(us)) - 1;
  std::size_t const half = power > 0 ? us >> (power - 1) & 1 : 0;
  return std::min<std::size_t>(2 * power + half, 63);
}

/// The longest time that falls into the bucket.
Duration bucket_end(std::size_t bucket) {
  std::uint64_t const power = std::uint64_t{1} << (bucket / 2);
  std::uint64_t const end = bucket % 2 == 0 ? power + power / 2 : 2 * power;
  return std::chrono::microseconds(end);
}

}  // namespace

Latency_watch::Server& Latency_watch::server(Cs_id cs) {
  auto& known = servers_[cs];
  if (known == nullptr) known = std::make_unique<Server>(*this);
  return *known;
}

Latency_watch::Verdict Latency_watch::verdict_of(Cs_id cs, Server const& server, std::size_t kind,
                                                 Time_point now) const {
  auto const& window = server.windows_[kind];
  Duration const mean = window.count == 0 ? Duration{0} : window.sum / window.count;
  Duration const level = std::max(mean, window.oldest);
  // What is younger than the bound may still be answered in time: no evidence.
  if (window.count == 0 && level <= rules_.lag_min) return Verdict::none;
  std::vector<Duration> peers;
  for (auto const& [id, other] : servers_) {
    auto const& theirs = other->windows_[kind];
    if (id == cs || theirs.usual == Duration{0} || now - theirs.known > rules_.peers_known)
      continue;
    peers.push_back(theirs.usual);
  }
  if (peers.empty()) return Verdict::none;
  auto const middle = peers.begin() + static_cast<std::ptrdiff_t>(peers.size() / 2);
  std::nth_element(peers.begin(), middle, peers.end());
  if (level > std::max(rules_.lag_min, *middle * rules_.lag_factor)) return Verdict::lags;
  return window.count == 0 ? Verdict::none : Verdict::fine;
}

void Latency_watch::Server::note(Flag& flag, Verdict verdict, Duration patience, Time_point now,
                                 Latency_rules const& rules) {
  if (verdict == Verdict::none) {
    // Nobody asks it any more: after a while it gets its chance.
    bool const is_old = now - flag.evidence > std::max(flag.stay, rules.flag_min);
    if (is_old) flag.lagged = Duration{0};
    if (is_old && std::exchange(flag.is_set, false)) flag.since = now;
    return;
  }
  flag.evidence = now;
  if (verdict == Verdict::fine) {
    flag.lagged = std::max(flag.lagged - 2 * interval, Duration{0});
    bool const may_clear = flag.is_set && flag.lagged == Duration{0};
    if (!may_clear || now - flag.since < flag.stay) return;
    flag.is_set = false;
    flag.since = now;
    return;
  }
  flag.lagged = std::min(flag.lagged + interval, patience);
  if (flag.is_set || flag.lagged < patience) return;
  bool const again = flag.stay != Duration{0} && now - flag.since < 6 * flag.stay;
  flag.stay = again ? std::min(2 * flag.stay, rules.flag_max) : rules.flag_min;
  flag.is_set = true;
  flag.since = now;
}

void Latency_watch::judge(Time_point now) {
  bool const slept = now - std::exchange(judged_, now) > late;
  std::map<Cs_id, std::array<Verdict, answer_kinds>> verdicts;
  std::array<std::size_t, answer_kinds> lagging{}, asked{};
  for (auto const& [cs, server] : servers_)
    for (std::size_t kind = 0; kind < answer_kinds; ++kind) {
      auto const& window = server->windows_[kind];
      Verdict const verdict = slept ? Verdict::none : verdict_of(cs, *server, kind, now);
      verdicts[cs][kind] = verdict;
      lagging[kind] += verdict == Verdict::lags ? 1 : 0;
      asked[kind] += window.count != 0 || window.oldest != Duration{0} ? 1 : 0;
    }
  for (auto& [cs, server] : servers_) {
    auto& verdict = verdicts[cs];
    // When most of them lag the cause is on this side.
    for (std::size_t kind = 0; kind < answer_kinds; ++kind)
      if (verdict[kind] == Verdict::lags && 2 * lagging[kind] > asked[kind] && asked[kind] > 1)
        verdict[kind] = Verdict::none;
    auto const change = verdict[static_cast<std::size_t>(Answer_kind::change)];
    auto const flush = verdict[static_cast<std::size_t>(Answer_kind::flush)];
    auto const& read = verdict[static_cast<std::size_t>(Answer_kind::read)];
    Server::note(server->changes_, std::max(change, flush), rules_.change_patience, now, rules_);
    if (PS_MUTANT(never_call_a_server_slow)) server->changes_.is_set = false;
    Server::note(server->reads_, read, rules_.read_patience, now, rules_);
    for (auto& window : server->windows_) {
      if (window.count != 0 && !slept) {
        Duration const mean = std::max(window.sum / window.count, Duration{1});
        window.usual += window.usual == Duration{0} ? mean : (mean - window.usual) / usual_weight;
        window.known = now;
      }
      window.count = 0;
      window.sum = window.oldest = Duration{0};
    }
  }
  update_hedging();
}

void Latency_watch::note_read(Duration took) {
  ++reads_[bucket_of(took)];
  ++reads_total_;
  hedges_left_ = std::min(hedges_left_ + rules_.hedge_share, rules_.hedge_burst);
  if (reads_total_ < reads_kept) return;
  reads_total_ = 0;
  for (auto& count : reads_) {
    count /= 2;
    reads_total_ += count;
  }
}

Duration Latency_watch::quantile(double share) const {
  auto left = static_cast<double>(reads_total_) * share;
  for (std::size_t i = 0; i < buckets; ++i) {
    left -= reads_[i];
    if (left <= 0) return bucket_end(i);
  }
  return bucket_end(buckets - 1);
}

void Latency_watch::update_hedging() {
  if (reads_total_ < reads_needed) return;
  Duration const bound = std::min(quantile(0.99), quantile(0.5) * hedge_median_factor);
  hedge_after_ = std::clamp(bound, rules_.hedge_min, rules_.hedge_max);
}

bool Latency_watch::take_hedge() {
  if (hedges_left_ < 1) return false;
  hedges_left_ -= 1;
  return true;
}

}  // namespace pstorage::client
