#include "mds/raft/raft_node.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"

namespace pstorage::mds::raft {

Raft_node::Raft_node(Clock& clock, Network& network, Disk& disk, Random& random, Log& log,
                     Raft_node_options options, Snapshot_source* source, Snapshot_sink* sink)
    : clock_(clock),
      network_(network),
      disk_(disk),
      random_(random),
      log_(log),
      options_(std::move(options)),
      source_(source),
      sink_(sink),
      log_file_(disk, random, log, options_.log) {}

Raft_node::~Raft_node() = default;

Outcome<void> Raft_node::start(std::uint64_t applied, Log_listener& listener) {
  PS_ASSERT(listener_ == nullptr);
  PS_TRY(auto state, log_file_.start(applied, *this));
  PS_TRY(state.installing, load_installing());
  auto const last = state.base.index + state.entries.size();
  bool const is_installing = state.installing && state.installing->index == applied;
  if (last < applied && state.hard.repair_until < applied && !is_installing) {
    return failure(Errc::corrupt, "the metadata log ends at entry " + std::to_string(last) +
                                      ", but the database has applied entry " +
                                      std::to_string(applied) +
                                      ": the log has lost durable entries. Remove this server from "
                                      "the cluster and add a new one in its place");
  }
  listener_ = &listener;
  handed_out_ = applied;
  auto core_options = options_.core;
  core_options.id = log_file_.member();
  core_ = std::make_unique<Raft_core>(core_options, std::move(state), random_);
  Peer_network::Options peer_options;
  peer_options.cluster_uuid = options_.cluster_uuid;
  peer_options.id = id();
  Peer_listener& heard = *this;
  peers_ = std::make_unique<Peer_network>(clock_, network_, log_, peer_options, heard);
  PS_TRY(auto const address, network_.listen(options_.listen, *peers_));
  log_.info("member of the metadata log",
            {{"member", id()}, {"servers", address.text()}, {"entries", last}});
  PS_CHECK(lead_alone());
  pump();
  return success();
}

/// The only voter is elected by itself, and waits for nobody.
Outcome<void> Raft_node::lead_alone() {
  auto const& configuration = core_->configuration();
  if (configuration.voters() != 1 || !configuration.is_voter(id())) return success();
  is_starting_ = true;
  core_->campaign();
  while (core_->has_ready()) {
    carry_out(core_->take_ready());
    PS_CHECK(log_file_.flush_blocking());
  }
  is_starting_ = false;
  update_leadership();
  return success();
}

Failure Raft_node::not_leader() const {
  auto const address = leader_address();
  return failure(Errc::not_leader, address.empty()
                                       ? "no metadata server leads now: try again"
                                       : "the metadata server at " + address + " leads: ask it");
}

std::string Raft_node::leader_address() const {
  if (!core_ || core_->leader() == id()) return {};
  auto const* member = core_->configuration().find(core_->leader());
  return member == nullptr ? std::string() : member->address;
}

Outcome<std::uint64_t> Raft_node::propose(std::string entry) {
  if (has_failed_ || listener_ == nullptr) {
    return failure(Errc::closed, "the metadata log is closed");
  }
  if (!leads_) return not_leader();
  PS_ASSERT(!entry.empty());  // empty ones are the log's own
  if (!log_file_.fits(entry.size())) {
    return failure(Errc::too_large, "the command is larger than an entry of the metadata log");
  }
  if (!log_file_.has_room(entry.size())) {
    return failure(Errc::no_space,
                   "the disk of the metadata server is full: free space there, then try again");
  }
  auto const index = core_->propose(Slice::copy_of(as_bytes(entry)));
  if (!index.has_value()) {
    if (errc_of(index.error()) == Errc::not_leader) return not_leader();
    return failure(index.error(), "too many commands are waiting for the metadata log");
  }
  return index.value();
}

void Raft_node::flush() { pump(); }

void Raft_node::tick() {
  if (has_failed_ || !core_) return;
  log_file_.tick();
  promote_learners();
  pump();
}

void Raft_node::on_tick() {
  if (has_failed_ || !core_) return;
  peers_->on_tick();
  if (++ticks_ % options_.tick_ticks == 0) {
    core_->tick();
    expire_snapshots();
  }
  pump();
}

void Raft_node::pump() {
  if (is_pumping_ || is_starting_ || has_failed_ || !core_) return;
  is_pumping_ = true;
  while (!has_failed_ && core_->has_ready()) {
    open_read_ = 0;
    carry_out(core_->take_ready());
  }
  is_pumping_ = false;
  if (has_failed_) return;
  flush_log();
  if (configuration_seen_ != core_->log().configuration_index()) {
    configuration_seen_ = core_->log().configuration_index();
    peers_->set_members(core_->configuration());
  }
}

void Raft_node::carry_out(Ready ready) {
  if (ready.has_stepped_down) update_leadership();
  for (auto const& message : ready.messages_now) peers_->send(message);
  if (ready.token != 0) {
    // Before what is committed is applied: the disk works meanwhile, and somebody waits for it.
    log_file_.write(ready);
    unsent_.emplace_back(ready.token, std::move(ready.messages_after));
    if (!is_starting_) flush_log();
  }
  hand_out(ready.committed);
  update_leadership();
  finish_reads(ready.reads);
  for (auto const member : ready.snapshots_needed) send_snapshot(member);
}

void Raft_node::flush_log() {
  auto const began = clock_.now();
  log_file_.flush();
  if (log_file_.is_committing() && !commit_began_) commit_began_ = began;
}

void Raft_node::on_persisted(std::uint64_t token) {
  if (commit_began_) commit_times_.add(clock_.now() - *std::exchange(commit_began_, {}));
  while (!unsent_.empty() && unsent_.front().first <= token) {
    for (auto const& message : unsent_.front().second) peers_->send(message);
    unsent_.pop_front();
  }
  core_->persisted(token);
  pump();
}

void Raft_node::on_raft_log_failed(Failure const& why) {
  has_failed_ = true;
  listener_->on_log_failed(why);
}

void Raft_node::on_raft_message(Raft_message message) {
  if (has_failed_) return;
  std::size_t bytes = 0;
  for (auto const& entry : message.entries) {
    if (!log_file_.fits(entry.bytes.size())) return;
    bytes += payload_of(entry);
  }
  // A full disk takes no more entries; the leader sends them again.
  if (bytes != 0 && !log_file_.has_room(bytes)) return;
  core_->step(std::move(message));
}

void Raft_node::hand_out(std::vector<Log_entry> const& entries) {
  if (entries.empty()) return;
  std::vector<Committed_entry> committed;
  committed.reserve(entries.size());
  for (auto const& entry : entries) {
    bool const is_command = entry.kind == Entry_kind::command;
    committed.push_back(
        {entry.index, is_command ? std::string(as_text(entry.bytes.bytes())) : std::string()});
    if (entry.kind == Entry_kind::begin) begun_term_ = entry.term;
  }
  handed_out_ = entries.back().index;
  listener_->on_committed(std::move(committed));
  release_barriers();
}

/// A leader is one for the owner once all entries of earlier terms are handed out.
void Raft_node::update_leadership() {
  bool const leads = core_->is_leader() && begun_term_ == core_->term();
  if (leads == leads_) return;
  leads_ = leads;
  log_.info(leads ? "this metadata server leads" : "this metadata server leads no more",
            {{"term", core_->term()}});
  listener_->on_leadership(leads);
}

void Raft_node::read_barrier(Barrier_done done) {
  if (open_read_ == 0) {
    auto const read = core_->read();
    if (!read.has_value()) return done(Errc::unavailable);
    open_read_ = read.value();
  }
  asked_[open_read_].push_back(std::move(done));
  pump();
}

void Raft_node::finish_reads(std::vector<Read_state> const& states) {
  for (auto const& state : states) {
    if (state.id == open_read_) open_read_ = 0;
    auto asked = asked_.extract(state.id);
    if (asked.empty()) continue;
    for (auto& done : asked.mapped()) {
      if (state.is_ok) {
        barriers_.push_back({state.index, std::move(done)});
      } else {
        done(Errc::unavailable);
      }
    }
  }
  release_barriers();
}

void Raft_node::release_barriers() {
  std::vector<Barrier> ready;
  for (auto it = barriers_.begin(); it != barriers_.end();) {
    if (it->index > handed_out_) {
      ++it;
      continue;
    }
    ready.push_back(std::move(*it));
    it = barriers_.erase(it);
  }
  for (auto& barrier : ready) barrier.done(barrier.index);
}

void Raft_node::cut(std::uint64_t index) {
  if (!core_ || index <= options_.tail_entries + 1) return;
  core_->cut(std::min(index - 1 - options_.tail_entries, cut_limit()));
  log_file_.cut(core_->log().base_index());
}

}  // namespace pstorage::mds::raft
