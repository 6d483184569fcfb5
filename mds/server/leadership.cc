// Becoming the master and ceasing to be it; who else takes part.
#include <algorithm>

#include "core/address.h"
#include "core/version.h"
#include "mds/server/metadata_server.h"
#include "mds/state/settings.h"

namespace pstorage::mds {
namespace {

using proto::Mds_request;

constexpr Duration leaderless_patience = std::chrono::seconds(10);
constexpr std::uint64_t lag_max = 1000;
constexpr auto silence_max = std::chrono::seconds(5);
// A server that cannot take what grows lets another one lead, again and again until one can.
constexpr Duration full_hand_over_interval = std::chrono::seconds(10);
constexpr Duration full_hand_over_patience = std::chrono::seconds(1);

struct Mds_row {
  std::uint32_t id = 0;
  std::uint64_t member = 0;
  std::string address;
  Host_id host;
  std::string host_name;
};

std::vector<Mds_row> load_mds(Database& database) {
  std::vector<Mds_row> all;
  Rows rows(database, "SELECT id, member, address, host, host_name FROM mds ORDER BY id");
  while (rows.next()) {
    all.push_back({rows.u32(0), rows.u64(1), rows.text(2), Host_id{rows.u64(3)}, rows.text(4)});
  }
  return all;
}

Log_member const* find(std::vector<Log_member> const& members, std::uint64_t id) {
  auto const found = std::find_if(members.begin(), members.end(),
                                  [id](Log_member const& member) { return member.id == id; });
  return found == members.end() ? nullptr : &*found;
}

/// Where clients reach the metadata server at `address`; empty if that is malformed.
std::string client_address(std::string const& address) {
  auto parsed = Address::parse(address, 0);
  if (!parsed.has_value()) return {};
  if (!parsed.value().is_unix()) ++parsed.value().port;
  return parsed.value().text();
}

char const* state_of(Log_member const* member) {
  if (member == nullptr) return "joining";
  if (member->has_lost) return "outdated";
  if (!member->is_active) return "unavail";
  return member->is_voter ? "avail" : "learning";
}

}  // namespace

void Metadata_server::on_leadership(bool leads) {
  if (!started_) return;  // start() looks itself
  takes_over_ = leads;
  if (!leads) return step_down();
  if (to_apply_.empty()) take_over();
}

void Metadata_server::take_over() {
  takes_over_ = false;
  auto& database = state_->database();
  auto const now = clock_.now();
  // Sessions and leases live on; all of them have their whole timeout again.
  tables_ = {};
  orphans_ = {};
  space_state_.clear();
  tables_.load(database, now);
  lead_since_ = last_plan_ = now;
  planner_due_ = true;
  if (meta_text(database, "cluster_uuid").empty()) {
    Mds_request bootstrap;
    bootstrap.mutable_bootstrap()->set_cluster(options_.cluster);
    bootstrap.mutable_bootstrap()->set_cluster_uuid(options_.cluster_uuid);
    propose_own(std::move(bootstrap));
  }
  if (load_mds(database).empty()) {
    Mds_request own;
    auto& create = *own.mutable_create_mds();
    create.set_member(entries_.own_id());
    create.set_address(options_.address);
    create.set_host_id(options_.host.value);
    create.set_host_name(options_.host_name);
    propose_own(std::move(own));
  }
  learn_members();
  add_event("JRN", "INF", own_text() + " became master");
}

void Metadata_server::step_down() {
  auto const waiting = std::exchange(waiting_, {});
  waiting_bytes_ = 0;
  // Whether their commands take effect is open: they are asked again, with the same numbers.
  for (auto const& [index, one] : waiting) refuse_as_follower(one.connection, one.request_id);
  for (auto const& [id, one] : std::exchange(questions_, {})) {
    refuse_as_follower(one.asker, one.request_id);
  }
  answer_fresh_queries();
  tables_ = {};
  healing_ = {};
  drop_cursor_.clear();
  told_of_.clear();
  leader_heard_ = clock_.now();
}

void Metadata_server::refuse_as_follower(Connection_id connection, std::uint64_t request_id) {
  auto const address = entries_.leader_address();
  proto::Mds_reply refused;
  refused.set_status(static_cast<std::uint32_t>(Errc::not_leader));
  refused.set_text(address.empty() ? "no metadata server leads now: most of them do not answer"
                                   : "the metadata server at " + address + " leads");
  refused.set_leader(client_address(address));
  reply(connection, request_id, refused);
}

std::string Metadata_server::own_text() const {
  return "MDS#" + std::to_string(options_.id.value) + " at " + options_.address;
}

void Metadata_server::add_event(char const* source, char const* severity, std::string text) {
  Mds_request request;
  auto& event = *request.mutable_add_event();
  event.set_source(source);
  event.set_severity(severity);
  event.set_text(std::move(text));
  propose_own(std::move(request));
}

void Metadata_server::watch_leader(Time_point now) {
  if (entries_.is_leader() || !entries_.leader_address().empty()) {
    leader_heard_ = now;
    has_warned_ = false;
    return;
  }
  if (has_warned_ || now - leader_heard_ < leaderless_patience) return;
  has_warned_ = true;
  std::string names;
  for (auto const& member : entries_.members()) {
    names += (names.empty() ? "" : ", ") + member.address;
  }
  log_.warn("no metadata server leads: most of them do not answer, or this one is not a member",
            {{"members", names.empty() ? "none known yet" : names}});
}

// ------------------------------------------------------------------ members

void Metadata_server::learn_members() {
  std::vector<std::string> servers;
  for (auto const& row : load_mds(state_->database())) {
    auto address = client_address(row.address);
    if (!address.empty()) servers.push_back(std::move(address));
  }
  if (servers.empty()) servers.push_back(client_address(options_.address));
  tables_.mds_clients = std::move(servers);
  ++tables_.mds_generation;
}

void Metadata_server::arrange_members() {
  auto const wanted = load_mds(state_->database());
  if (wanted.empty()) return;
  auto const members = entries_.members();
  for (auto const& row : wanted) {
    if (find(members, row.member) == nullptr) {
      return note_change(entries_.add_member(row.member, row.address), row.address);
    }
  }
  for (auto const& member : members) {
    bool const stays = std::any_of(wanted.begin(), wanted.end(),
                                   [&](Mds_row const& row) { return row.member == member.id; });
    if (!stays) return note_change(entries_.remove_member(member.id), member.address);
  }
}

void Metadata_server::note_change(Outcome<void> const& changed, std::string const& address) {
  // Not now: asked again a second later.
  if (changed.has_value() || errc_of(changed.error().code) == Errc::unavailable) return;
  log_.error("the metadata servers cannot be changed",
             {{"server", address}, {"reason", changed.error().text}});
}

void Metadata_server::watch_members(Time_point now) {
  auto const members = entries_.members();
  for (auto const& row : load_mds(state_->database())) {
    auto const* const member = find(members, row.member);
    if (member == nullptr) continue;
    auto const name = "MDS#" + std::to_string(row.id) + " (" + row.address + ") ";
    auto& told = told_of_.try_emplace(row.member, Member_memory{now, {}}).first->second;
    if (member->is_active) told.active_at = now;
    std::string trouble;
    if (member->has_lost) {
      trouble =
          "has lost entries that it had acknowledged: its repository is an old copy. "
          "Remove it with rm-mds and make a new one";
    } else if (now - told.active_at >= silence_max) {
      trouble = "didn't accept commits for " +
                std::to_string(std::chrono::seconds(silence_max).count()) + " sec";
    } else if (!member->is_active) {
      continue;
    } else if (member->takes_copy) {
      trouble = "state is outdated and will do a full resync";
    } else if (member->lag > lag_max) {
      trouble = "lags behind for more than 1000 rounds";
    }
    if (told.trouble == trouble) continue;
    bool const is_over = trouble.empty();
    told.trouble = trouble;
    add_event("JRN", is_over ? "INF" : "ERR", name + (is_over ? "is up to date again" : trouble));
  }
}

/// For want of space here. False: that was tried just now, and nobody else can.
bool Metadata_server::yield_leadership() {
  auto const now = clock_.now();
  auto const since = now - handed_over_;
  if (since < full_hand_over_patience) return true;
  if (since < full_hand_over_interval || !hand_over()) return false;
  handed_over_ = now;
  log_.warn("this server's disk is full: another one is asked to lead");
  return true;
}

Outcome<void> Metadata_server::may_remove(std::uint32_t id) {
  std::uint64_t removed = 0;
  for (auto const& row : load_mds(state_->database())) {
    if (row.id == id) removed = row.member;
  }
  std::size_t voters = 0;
  std::size_t active = 0;
  for (auto const& member : entries_.members()) {
    if (!member.is_voter || member.id == removed) continue;
    ++voters;
    if (member.is_active && !member.has_lost) ++active;
  }
  if (removed == 0 || voters == 0 || active >= voters / 2 + 1) return success();
  return failure(Errc::refused, "without MDS#" + std::to_string(id) + " only " +
                                    std::to_string(active) + " of " + std::to_string(voters) +
                                    " metadata servers would answer, too few to decide: bring "
                                    "the others back first");
}

void Metadata_server::watch_own_load(Time_point now) {
  ++ticks_;
  if (entries_.is_committing()) ++ticks_committing_;
  // The totals are dear to get, and count only once a second anyway.
  if (now - last_second_ < std::chrono::seconds(1)) return;
  own_rates_.heard(
      {entries_.commits(), options_.cpu_us ? options_.cpu_us() : 0, ticks_, ticks_committing_},
      now);
}

void Metadata_server::fill_members(proto::Services& services) {
  auto const members = entries_.members();
  auto const rows = load_mds(state_->database());
  for (auto const& row : rows) {
    auto const* const member = find(members, row.member);
    auto& mds = *services.add_services();
    mds.set_kind("MDS");
    mds.set_id(row.id);
    mds.set_state(state_of(member));
    mds.set_host_name(row.host_name);
    mds.set_host_id(row.host.value);
    mds.set_address(row.address);
    if (member == nullptr) continue;
    mds.set_is_voter(member->is_voter);
    mds.set_lag(member->lag);
    if (row.member != entries_.own_id()) continue;
    mds.set_is_master(true);
    mds.set_uptime_ms(static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - start_time_).count()));
    mds.set_commits(entries_.commits());
    if (options_.memory_bytes) mds.set_memory_bytes(options_.memory_bytes());
    auto const [commits, cpu_us, ticks, ticks_committing] = own_rates_.a_second(clock_.now());
    mds.set_commits_per_s(commits);
    mds.set_cpu_percent(static_cast<double>(cpu_us) / 1e4);
    mds.set_commit_percent(100.0 * static_cast<double>(ticks_committing) /
                           static_cast<double>(std::max<std::uint64_t>(ticks, 1)));
    mds.set_version(version());
  }
  for (auto const& member : members) {
    bool const is_known = std::any_of(rows.begin(), rows.end(),
                                      [&](Mds_row const& row) { return row.member == member.id; });
    if (is_known) continue;
    auto& mds = *services.add_services();
    mds.set_kind("MDS");
    mds.set_state("leaving");
    mds.set_address(member.address);
    mds.set_is_voter(member.is_voter);
  }
}

}  // namespace pstorage::mds
