// One chunk of an open file: orders its requests, replicates them, survives its replicas.
// The rules are in core/format.md "Client" and "Sync of a replica".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/client/cs_link.h"
#include "core/client/merge_plan.h"
#include "core/client/piece.h"
#include "core/env/clock.h"
#include "core/ids.h"
#include "core/log.h"
#include "mds.pb.h"

namespace pstorage::client {

class Chunk_io;

/// What a chunk needs from the open file it belongs to.
class Chunk_host {
 public:
  virtual ~Chunk_host() = default;
  virtual Epoch epoch() const = 0;
  virtual File_id file() const = 0;
  virtual std::uint32_t chunk_bytes() const = 0;
  virtual std::uint32_t replicas_min() const = 0;
  /// Without the lease: only reads are submitted, any replica will do, nothing may be repaired.
  virtual bool is_reader() const { return false; }
  /// Writes without room wait for it; else they are answered no_space.
  virtual bool waits_when_full() const = 0;
  virtual Time_point now() const = 0;
  virtual Log& log() = 0;
  virtual Cs_link& link_of(Cs_id cs) = 0;
  /// The piece is finished; the chunk has forgotten it.
  virtual void piece_done(Piece& piece, Errc status) = 0;
  virtual Piece& new_piece() = 0;
  virtual void free_piece(Piece& piece) = 0;
  virtual void ask_allocation(Chunk_io& chunk) = 0;
  /// `failed`: members that do not answer or have refused. Answered by
  /// report_answered(). Only while may_report().
  virtual void ask_report(Chunk_io& chunk, std::vector<Cs_id> const& failed,
                          std::string const& why) = 0;
  /// Would the MDS read a report at once? Else it could read it when it is no longer true.
  virtual bool may_report() const = 0;
  virtual void ask_map(Chunk_io& chunk) = 0;
  /// Asks the MDS, from now on, what the chunk's set is. Answered by map_confirmed().
  virtual void confirm_map(Chunk_io& chunk) = 0;
  /// `cs` has unflushed writes of `chunk` now, and had none before.
  virtual void mark_dirty(Chunk_io& chunk, Cs_id cs) = 0;
  /// A CS says that a newer writer has taken over: nothing more may be sent.
  virtual void lease_lost() = 0;
  /// Every replica lost writes that were acknowledged but not flushed: FLUSH has to fail.
  virtual void writes_lost(Chunk_io& chunk) = 0;
  /// Something a pending flush may wait for has changed.
  virtual void flush_may_go_on() = 0;
  /// Wants its on_tick() until is_calm().
  virtual void restless(Chunk_io& chunk) = 0;
  /// An event has been handled whole: answers may go to the user now.
  virtual void end_of_event() = 0;
};

/// Thread: the owner's loop. No callback runs inside; results are queued at the host.
class Chunk_io final : private Cs_op_owner {
 public:
  /// A member of the chunk's set, as this client knows it.
  struct Replica {
    Cs_id cs;
    proto::Replica_state state = proto::REPLICA_IN_SYNC;
    Cs_link* link = nullptr;
    bool opened = false;  // at the chunk's version, on the link's present connection
    bool opening = false;
    bool reported = false;     // the MDS has been asked to drop it and has not answered
    bool refused = false;      // it lives but cannot serve (no space, read-only, lost the chunk)
    std::string refusal;       // why
    bool full = false;         // refused for that: asked again while nobody else can serve
    bool cut_off = false;      // refused for that while it joined: asked again once it is in sync
    bool too_slow = false;     // refused for that: taken back when it is no longer so
    bool lost_writes = false;  // it came back without acknowledged writes
    bool repaired = false;     // blocks were repaired here that it has not flushed
    bool repair_flushing = false;  // a flush that covers them is under way
    bool missing = false;          // it has no such chunk
    bool create = false;           // next open may create
    bool unclean = false;
    std::uint64_t last_stamp = 0;  // as it said when it was opened
    std::uint64_t acked = 0;       // highest stamp that it has acknowledged, or has to have in sync
    bool dirty = false;            // acknowledged writes that it has not flushed
  };

  Chunk_io(Chunk_host& host, std::uint32_t index);
  ~Chunk_io() override;
  Chunk_io(Chunk_io const&) = delete;
  Chunk_io& operator=(Chunk_io const&) = delete;

  std::uint32_t index() const { return index_; }
  Chunk_id id() const { return id_; }
  Version version() const { return version_; }
  bool is_mapped() const { return static_cast<bool>(id_); }
  /// Do its replicas agree, but for what was written under this lease?
  bool is_reconciled() const { return reconciled_; }
  bool is_idle() const { return in_flight_.empty() && waiting_.empty(); }
  /// Nothing to do at a tick.
  bool is_calm() const;
  std::vector<Replica> const& replicas() const { return replicas_; }
  bool uses(Cs_link const& link) const;
  /// Acknowledged writes at `cs` that are not flushed, cs still being a member?
  bool dirty_at(Cs_id cs) const;
  void flushed_at(Cs_id cs);
  /// Unflushed again: the flush got lost. No change when cs is no member.
  void dirty_again_at(Cs_id cs);
  void flush_answered_at(Cs_id cs);
  /// `cs` could not flush: it must leave the set. False when it is the last one.
  bool flush_refused_at(Cs_id cs, Errc why);
  /// A flush waits for `cs`, which is slow: it leaves the set if that is allowed.
  void held_up_by(Cs_id cs);
  bool is_member(Cs_id cs) const { return index_of(cs) >= 0; }
  /// Open at cs, so that a flush sent there now covers all its acknowledged writes?
  bool opened_at(Cs_id cs) const;
  std::string waiting_reason() const;

  /// Takes a piece; it comes back by Chunk_host::piece_done.
  void submit(Piece& piece);
  /// A map of this chunk from the MDS; older versions than the known one are ignored.
  void adopt(proto::Chunk const& chunk, bool just_allocated);
  /// Answer to confirm_map(): the chunk as the MDS has it now; null: unknown, ask again.
  void map_confirmed(proto::Chunk const* chunk);
  /// The MDS has read the report about the set of `version`; what it made of it comes by adopt().
  void report_answered(Version version);
  void allocation_failed(Errc why);
  void link_up(Cs_link& link);
  void link_down(Cs_link& link);
  /// The lease is gone or the file closed: every piece is answered with `why`.
  void abort(Errc why);
  /// Hedges slow reads, repeats what has to wait.
  void on_tick();
  /// The host looks at it no more, until it says so again.
  void calmed() { restless_ = false; }
  /// Compares the tables of the in-sync replicas and makes them agree, although nothing says that
  /// they differ: once no change is on its way and no newcomer is being synced.
  void compare();
  /// compare() has not come to its end.
  bool is_comparing() const { return compares_; }
  /// Runs the state machine; call after anything it depends on has changed.
  void advance();
  /// Pieces (not internal ones) that have not been answered.
  std::size_t pieces() const { return waiting_.size() + in_flight_.size(); }

 private:
  enum class Task : unsigned char { change, read, open, table, merge_read, merge_write, accept };
  struct Ticket {  // context of a Cs_op
    Task task = Task::change;
    Cs_id cs;
    Piece* piece = nullptr;
    std::uint64_t round = 0;  // open: the version; reconciliation: its number; else the serial
    Cs_op* op = nullptr;
  };

  // Membership: chunk_members.cc.
  void judge_members();
  void judge_as_reader();
  void judge_slowness(Cs_id holds_flush);
  static void refuse(Replica& replica, std::string why);
  static void refuse(Replica& replica, Errc why);
  void try_full_ones_again();
  void report_if_needed();
  void look_for_members();
  void send_again_to_all();
  void open_members();
  void send_open(std::uint32_t index);
  void on_opened(std::uint32_t index, std::uint64_t version, Message& reply);
  void opened_one(Replica& replica, proto::Cs_reply::Opened const& opened);
  void remap_pieces(std::vector<int> const& from, std::uint32_t newcomers);
  std::uint32_t count(proto::Replica_state state) const;
  bool all_opened() const;
  bool can_write() const;
  bool can_read() const;
  bool has_good_member() const;
  /// One that has been opened since it was last away, and has lost nothing.
  bool has_proven_member() const;
  bool is_missing_everywhere() const;
  bool has_joiner() const;
  bool needs_members() const;
  bool is_comparison_due() const;

  // Reconciliation: chunk_members.cc.
  void reconcile_if_needed();
  void restart_reconciliation();
  void submit_merge(Task task, std::uint32_t index, Message message);
  void on_merge_reply(Ticket const& ticket, std::uint32_t index, Message& reply);
  void merge_refused(std::uint32_t index, Errc why);
  void on_table(std::uint32_t index, Message& reply);
  void plan();
  void next_merge_step();
  void note_repair(Replica& replica);
  void accept_torn(Merge_step const& step);
  void on_accepted(std::uint32_t index, Message& reply);
  void on_merge_read(std::uint32_t index, Message& reply);
  void write_merge_step(Merge_step const& step, Slice const& data);
  void on_merge_written(std::uint32_t index, Message& reply);
  void reconciled();

  // Changes: chunk_io.cc.
  void answer_unmapped();
  bool may_start(Piece const& piece, Piece_list::const_iterator self) const;
  void start_waiting();
  void start(Piece& piece);
  void finish(Piece& piece, Errc status);
  void back_to_waiting(Piece& piece);
  void start_change(Piece& piece);
  void send_change(Piece& piece, std::uint32_t index);
  void resend(std::uint32_t index);
  void stamp_again(Piece& piece);
  static bool is_owed(Piece const& piece, std::uint32_t index);
  void on_change_reply(Piece& piece, std::uint32_t index, Message& reply);
  void settle(Piece& piece);
  void no_room_for(Piece& piece);
  void settle_held();
  bool is_drained() const;
  std::uint64_t newest_drained() const;
  bool wants_change() const;
  void note_unrest() {
    if (!std::exchange(restless_, true)) host_.restless(*this);
  }
  void on_cs_reply(Cs_op& op, Message& reply) override;
  void handle_reply(Ticket const& ticket, int place, Message& reply, Cs_op& op);
  void on_cs_lost(Cs_op& op) override;

  // Reads: chunk_read.cc.
  int choose_replica(Piece const& piece) const;
  void start_read(Piece& piece);
  void send_read(Piece& piece, std::uint32_t index);
  void forget_op(Piece& piece, Cs_op const& op);
  void cancel_reads(Piece& piece);
  void on_read_reply(Piece& piece, std::uint32_t index, Message& reply, Cs_op& op);
  bool read_is_valid(Piece const& piece, Message const& reply) const;
  void read_lost(Piece& piece, Cs_op const& op);
  void read_delivered(Piece& piece, Message& reply);
  bool may_have_read_ahead(Piece const& piece) const;
  void finish_read(Piece& piece);
  void answer_held_reads();
  void merge_edges(Piece& piece, Slice const& old_content);
  void start_heal(Piece const& read);
  void hedge_reads();

  Ticket& new_ticket(Task task, Cs_id cs, Piece* piece);
  void free_ticket(Ticket& ticket);
  int index_of(Cs_id cs) const;
  Header header(Operation operation) const;

  Chunk_host& host_;
  std::uint32_t const index_;
  Chunk_id id_;
  Version version_;
  std::vector<Replica> replicas_;
  bool allocating_ = false;
  bool reporting_ = false;
  bool confirming_ = false;     // confirm_map() is under way
  bool never_written_ = false;  // for a reader: none of its servers has it, it is all zeros
  bool confirmed_ = false;      // the set is still the present one, after all members had lost it
  bool reconciled_ = false;
  bool compares_ = false;
  bool restless_ = false;
  Errc aborted_ = Errc::ok;
  std::uint32_t next_sequence_ = 1;
  std::uint64_t answered_ = 0;  // highest stamp of a change that was answered under this lease
  Time_point retry_report_at_{};
  Time_point look_again_at_{};

  Piece_list waiting_;    // in order of submission
  Piece_list in_flight_;  // changes in order of their stamps; reads anywhere
  std::uint32_t changes_in_flight_ = 0;
  std::uint32_t reads_held_ = 0;  // have their data; see Piece::held_behind

  std::unique_ptr<Merge_state> merge_;
  std::uint64_t merge_round_ = 0;
  std::vector<std::unique_ptr<Ticket>> tickets_;
  std::vector<Ticket*> free_tickets_;
};

}  // namespace pstorage::client
