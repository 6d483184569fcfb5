// One chunk of an open file: orders its requests, replicates them, survives its replicas.
// The rules are in core/format.md "Client" and "Sync of a replica".
#pragma once

#include <memory>
#include <string>
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
  virtual Time_point now() const = 0;
  virtual Log& log() = 0;
  virtual Cs_link& link_of(Cs_id cs) = 0;
  /// The piece is finished; the chunk has forgotten it.
  virtual void piece_done(Piece& piece, Errc status) = 0;
  virtual Piece& new_piece() = 0;
  virtual void free_piece(Piece& piece) = 0;
  virtual void ask_allocation(Chunk_io& chunk) = 0;
  /// `failed`: members that do not answer or have refused. Answered by adopt() or report_failed().
  virtual void ask_report(Chunk_io& chunk, std::vector<Cs_id> const& failed,
                          std::string const& why) = 0;
  virtual void ask_map(Chunk_io& chunk) = 0;
  /// This cs has unflushed writes of the file now.
  virtual void mark_dirty(Cs_id cs) = 0;
  /// A CS says that a newer writer has taken over: nothing more may be sent.
  virtual void lease_lost() = 0;
  /// Every replica lost writes that were acknowledged but not flushed: FLUSH has to fail.
  virtual void writes_lost(Chunk_io& chunk) = 0;
  /// Something a pending flush may wait for has changed.
  virtual void flush_may_go_on() = 0;
};

/// Thread: the owner's loop. No callback runs inside; results are queued at the host.
class Chunk_io final : private Cs_op_owner {
 public:
  struct Replica {
    Cs_id cs;
    proto::Replica_state state = proto::REPLICA_IN_SYNC;
    Cs_link* link = nullptr;
    bool opened = false;     // at the chunk's version, on the link's present connection
    bool opening = false;
    bool refused = false;    // it lives but cannot serve (no space, read-only, lost the chunk)
    bool lost_writes = false;  // it came back without acknowledged writes
    bool missing = false;    // it has no such chunk
    bool create = false;     // next open may create
    bool unclean = false;
    std::uint64_t last_stamp = 0;  // as it said when it was opened
    std::uint64_t acked = 0;       // highest stamp it has acknowledged to us
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
  bool is_idle() const { return in_flight_.empty() && waiting_.empty(); }
  bool is_active() const { return reconciled_; }
  bool has_demand() const;
  std::vector<Replica> const& replicas() const { return replicas_; }
  bool uses(Cs_link const& link) const;
  /// Acknowledged writes at `cs` that are not flushed, cs still being a member?
  bool dirty_at(Cs_id cs) const;
  void flushed_at(Cs_id cs);
  std::string waiting_reason() const;

  /// Takes a piece; it comes back by Chunk_host::piece_done.
  void submit(Piece& piece);
  /// A map of this chunk from the MDS; older versions than the known one are ignored.
  void adopt(proto::Chunk const& chunk, bool just_allocated);
  void report_failed();       // the MDS did not answer usefully; try again later
  void allocation_failed(Errc why);
  void link_up(Cs_link& link);
  void link_down(Cs_link& link);
  /// The lease is gone or the file closed: every piece is answered with `why`.
  void abort(Errc why);
  /// Hedges slow reads, repeats what has to wait.
  void on_tick();
  /// Runs the state machine; call after anything it depends on has changed.
  void advance();
  /// Pieces (not internal ones) that have not been answered.
  std::size_t pieces() const { return waiting_.size() + in_flight_.size(); }

 private:
  void on_cs_reply(Cs_op& op, Message& reply) override;
  void on_cs_lost(Cs_op& op) override;

  // Membership: chunk_members.cc.
  void open_members();
  void send_open(std::uint32_t index);
  void on_opened(std::uint32_t index, Message& reply);
  void opened_one(Replica& replica, proto::Cs_reply::Opened const& opened);
  void report_if_needed();
  bool judge_missing_and_lost();
  std::uint32_t count(proto::Replica_state state) const;
  bool all_opened() const;
  bool can_write() const;
  bool can_read() const;

  // Reconciliation: chunk_members.cc.
  void reconcile_if_needed();
  void ask_table(std::uint32_t index);
  void on_table(std::uint32_t index, Message& reply);
  void merge_tables();
  void next_merge_step();
  void on_merge_read(Message& reply);
  void on_merge_written(std::uint32_t index, Message& reply);
  void on_accepted(Message& reply);
  void restart_reconciliation();
  void reconciled();

  // Requests: chunk_io.cc, chunk_read.cc.
  bool may_start(Piece const& piece) const;
  void start_waiting();
  void start(Piece& piece);
  void finish(Piece& piece, Errc status);
  void start_change(Piece& piece);
  void send_change(Piece& piece, std::uint32_t index);
  void resend(std::uint32_t index);
  void acknowledge(Piece& piece, std::uint32_t index);
  void on_change_reply(Piece& piece, std::uint32_t index, Message& reply);
  void member_refused(Piece& piece, std::uint32_t index, Errc why);
  void settle(Piece& piece);
  void answer_unmapped();

  void start_read(Piece& piece);
  void send_read(Piece& piece, std::uint32_t index);
  int choose_replica(Piece const& piece) const;
  void on_read_reply(Piece& piece, std::uint32_t index, Message& reply, Cs_op& op);
  bool read_is_valid(Piece const& piece, Message const& reply) const;
  void read_failed(Piece& piece, std::uint32_t index);
  void read_delivered(Piece& piece, Message& reply);
  void drop_reads_of(Piece& piece, Cs_op const* except);
  void merge_edges(Piece& piece, Slice old_content);
  void start_heal(Piece const& read, Slice data, Slice crcs);

  enum class Task : unsigned char { piece, open, table, merge_read, merge_write, accept };
  struct Ticket {  // context of a Cs_op
    Task task;
    std::uint32_t cs;
    Piece* piece;
    std::uint64_t round;  // of reconciliation
  };
  Ticket* new_ticket(Task task, std::uint32_t index, Piece* piece);
  int index_of(Cs_id cs) const;
  Header header(Operation operation) const;

  Chunk_host& host_;
  std::uint32_t const index_;
  Chunk_id id_;
  Version version_;
  std::vector<Replica> replicas_;
  bool allocating_ = false;
  bool reporting_ = false;
  bool reconciled_ = false;
  bool needs_map_ = false;
  bool first_open_create_ = false;
  Errc aborted_ = Errc::ok;
  std::uint32_t next_sequence_ = 1;
  Time_point retry_report_at_{};
  Time_point waiting_since_{};

  Piece_list waiting_;    // in order of submission
  Piece_list in_flight_;  // changes in order of their stamps; reads anywhere
  std::uint32_t changes_in_flight_ = 0;

  std::unique_ptr<Merge_state> merge_;
  std::uint64_t merge_round_ = 0;
  std::vector<std::unique_ptr<Ticket>> tickets_;
  std::vector<Ticket*> free_tickets_;
};

}  // namespace pstorage::client
