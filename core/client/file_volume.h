// client::Volume over the chunk servers: splits requests into chunks, flushes, holds the lease.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/client/chunk_io.h"
#include "core/client/cs_link.h"
#include "core/client/mds_session.h"
#include "core/client/read_cache.h"
#include "core/client/volume.h"
#include "core/env/executor.h"
#include "core/latency.h"

namespace pstorage::client {

/// What an open file needs of its process: links shared by all files, the MDS, the loop.
class Volume_host {
 public:
  virtual ~Volume_host() = default;
  virtual Clock& clock() = 0;
  virtual Latency& io_latency() = 0;
  virtual Log& log() = 0;
  virtual Executor& executor() = 0;
  virtual Mds_session& mds() = 0;
  virtual Cs_link& link_of(Cs_id cs) = 0;
  virtual void learn_servers(proto::File_map const& map) = 0;
  virtual void volume_closed(class File_volume& volume) = 0;
};

/// Counters since the volume was opened.
struct Volume_counters {
  std::uint64_t reads = 0, read_bytes = 0, writes = 0, write_bytes = 0, flushes = 0;
};

/// What a file is opened for.
enum class Volume_use : unsigned char {
  write,   // under a lease
  grow,    // as well; any offset may be written, and whoever has opened it keeps the size
  settle,  // as grow; but the take-over leaves no server behind: unavailable instead
  read,    // without a lease, only with an epoch to read under
};

class File_volume final : public Volume, private Chunk_host, private Cs_link_user {
 public:
  File_volume(Volume_host& host, std::string path, proto::Lease const& lease,
              Volume_use use = Volume_use::write);
  ~File_volume() override;
  File_volume(File_volume const&) = delete;
  File_volume& operator=(File_volume const&) = delete;

  /// The take-over: every reachable CS of the file stores the epoch, the others are dropped.
  /// Serves only after `done` was called with success. Source: DESIGN 4.
  void seal(std::function<void(Outcome<void>)> done);

  /// Whoever seals it is going: nobody hears of it any more, and this may be destroyed.
  void forget_sealing() { auto const forgotten = std::move(sealing_); }

  /// Content may be kept in `cache`, which outlives this. `previous`: see Read_cache::file_opened.
  /// Before the first request.
  void use_cache(Read_cache& cache, Epoch previous);

  /// Instead of seal(), where nothing is to be fenced: a new file, or one open for reading only.
  void serve();

  std::uint64_t size_bytes() const override { return size_; }
  void set_size(std::uint64_t bytes) override;
  bool is_read_only() const override { return is_reader(); }
  std::string const& path() const override { return path_; }
  void read(std::uint64_t offset, std::uint64_t length, Read_done done) override;
  void write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) override;
  void zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
            Done done) override;
  void flush(Done done) override;
  void extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
               Extents_done done) override;
  void close(Done done) override { close_with({}, std::move(done)); }
  /// As close(); the inode is changed with it, when the flush succeeds.
  void close_with(proto::Inode_change change, Done done);
  std::string waiting_reason() const override;

  File_id id() const { return file_; }
  Epoch lease_epoch() const { return epoch_; }
  /// Servers that could not be reached at the take-over. What only they hold waits until they can;
  /// until then a former writer might still reach it, and this one sees what it did.
  std::size_t unsealed() const { return unsealed_; }
  bool is_dead() const { return dead_ != Errc::ok; }
  std::uint64_t mapped_chunks() const;
  /// Compares the replicas of chunk `index` and makes them agree, durably, by the rule of a
  /// take-over: the highest stamp wins, block by block. Readers may, too: the next writer's seal
  /// ends them. Errors: busy (not sealed yet), stale_epoch.
  void compare(std::uint32_t index, Done done);
  bool is_shared() const { return shared_; }
  Volume_counters const& counters() const { return counters_; }
  /// How often all replicas of a chunk were found to have lost unflushed writes with their power.
  std::uint64_t losses() const { return losses_; }
  /// A push or an answer of the MDS about this file.
  void adopt_map(proto::File_map const& map);
  void on_tick();
  /// Has the MDS refused a command because the lease is gone? Then so is this volume.
  bool lost_with(Failure const& refused);
  void lose_lease(std::string const& why);
  /// Opens in-sync replicas only, repairs nothing, makes none: a map that is not kept up to date
  /// may name servers that have none any more.
  bool is_reader() const override { return reader_ || shared_; }
  /// Not even a share: nobody tells it anything.
  bool is_unleased() const { return reader_; }
  /// Flushes and gives the lease back, but goes on reading under its epoch: the file changes no
  /// more, or its next writer ends this. No write may follow.
  void give_lease_back(Done done);

 private:
  struct Server {                  // a CS that has been written to
    std::vector<Chunk_io*> dirty;  // chunks with unflushed writes there
  };
  struct Flush_part {
    Cs_id cs;
    std::vector<Chunk_io*> chunks;
    bool sent = false;
  };
  struct Flush {
    Done done;
    std::vector<Flush_part> parts;
    Errc error = Errc::ok;
    std::uint64_t changes = 0;  // those that it covers, by cached_->guard
  };
  struct Cached {
    Cached(Read_cache& of, Cache_key file) : cache(of), key(file) {}
    Read_cache& cache;
    Cache_key const key;
    Fill_guard guard;
  };
  using Cached_read = std::shared_ptr<Request*>;  // to null: answered without the cache
  struct Sealing {
    std::function<void(Outcome<void>)> done;
    std::set<Cs_id> pending;
    std::set<Cs_id> asked;
    std::set<Cs_id> unreachable;
    Time_point started{};
    bool finishing = false;
  };
  struct Confirmation {              // that no newer writer has begun
    std::vector<Request*> requests;  // finished before it was asked for
    std::set<Cs_id> pending;
  };
  struct Settling {
    std::vector<std::uint32_t> left;  // chunks not asked yet, the lowest last
    std::size_t asked = 0;            // those under way
    std::uint64_t round = 0;
    Time_point give_up{};
    std::vector<Done> done;
  };
  struct Comparison {
    std::uint32_t index = 0;
    Done done;
  };
  struct Report {
    Chunk_io* chunk;
    Version version;
    std::vector<Cs_id> failed;
    std::string why;
    bool waiting_io;
  };

  // Chunk_host
  Epoch epoch() const override { return epoch_; }
  File_id file() const override { return file_; }
  std::uint32_t chunk_bytes() const override { return chunk_bytes_; }
  std::uint32_t replicas_min() const override { return replicas_min_; }
  bool waits_when_full() const override { return waits_when_full_; }
  Time_point now() const override { return host_.clock().now(); }
  Log& log() override { return host_.log(); }
  Cs_link& link_of(Cs_id cs) override;
  void piece_done(Piece& piece, Errc status) override;
  Piece& new_piece() override;
  void ask_allocation(Chunk_io& chunk) override;
  void ask_report(Chunk_io& chunk, std::vector<Cs_id> const& failed,
                  std::string const& why) override;
  bool may_report() const override { return host_.mds().is_answering(); }
  void ask_map(Chunk_io& chunk) override;
  void confirm_map(Chunk_io& chunk) override;
  void mark_dirty(Chunk_io& chunk, Cs_id cs) override;
  void lease_lost() override;
  void writes_lost(Chunk_io& chunk) override;
  void flush_may_go_on() override { flush_changed_ = true; }
  void restless(Chunk_io& chunk) override { restless_.push_back(&chunk); }
  void end_of_event() override;

  // Cs_link_user
  void on_link_up(Cs_link& link) override;
  void on_link_down(Cs_link& link) override;

  Chunk_io& chunk_at(std::uint32_t index);
  Request& new_request(Request_kind kind, std::uint64_t offset, std::uint64_t length);
  Errc check(std::uint64_t offset, std::uint64_t length) const;
  Errc check_change(std::uint64_t offset, std::uint64_t length) const;
  Piece& add_piece(Request& request, Piece_kind kind, std::uint64_t offset, std::uint64_t length);
  void submit_piece(Piece& piece);
  void submit_range(Request& request, std::uint64_t offset, std::uint64_t length,
                    std::vector<Slice> const* data);
  void free_piece(Piece& piece);
  void submit_read(Request& request, std::uint64_t offset, std::uint64_t length);
  void submitted(Request& request);
  void run_completions();
  void complete_piece(Piece& piece, Errc status);
  void split_read(Piece& piece);
  void complete_request(Request& request);
  void answer_request(Request& request);
  void defer_completions();
  void answer_later(std::function<void()> answer);
  void send_reports();
  void send_allocations();
  void abort_all(Errc why);
  void answer_comparisons();
  void send_close(proto::Inode_change const& change, bool settled, Result<void> const& flushed,
                  Done const& done);
  void flush_and_give_back(Done done);

  // Flush: file_flush.cc.
  /// Flushes what is dirty now; then `error` or what went wrong is the answer.
  void start_flush(Done done, Errc error);
  void send_flush_part(std::uint64_t id, Flush_part& part);
  void flush_answered(std::uint64_t id, Cs_id cs, Message& reply);
  void flush_lost(std::uint64_t id, Cs_id cs);
  void continue_flushes();
  void drop_slow_servers();
  void finish_part(std::uint64_t id, Cs_id cs);
  void answer_flushes();

  // Content cached on this host: file_cached.cc.
  bool is_cached(std::uint64_t offset, std::uint64_t length) const;
  void read_cached(std::uint64_t offset, std::uint64_t length, Read_done done);
  void note_read(Request& request, std::uint64_t offset, std::uint64_t length);
  void note_change(Request& request, std::uint64_t offset, std::uint64_t length);
  void note_end(Request& request);
  void distrust_cache();
  void abort_cached_reads(Errc why);

  // Take-over: file_seal.cc.
  void join_newcomers();
  void advance_sealing();
  void send_seal(Cs_id cs);
  void seal_answered(Cs_id cs, Message& reply);
  void finish_sealing();

  // After a holder that has gone without closing: file_settle.cc.
  /// Makes the replicas of every chunk agree, as the first request to each would. What they differ
  /// in is not durable before the next flush. Errors: timed_out at `give_up`, stale_epoch.
  void settle(Time_point give_up, Done done);
  std::vector<std::uint32_t> unsettled_chunks() const;
  void settle_more();
  void settled_one(Errc status);
  void end_settling(Errc status);

  // Answers that no CS has checked the epoch of: file_confirm.cc.
  bool is_leased() const { return now() < host_.mds().leased_until(); }
  void confirm_requests();
  bool add_members(std::uint32_t index, std::set<Cs_id>& servers) const;
  bool can_confirm(Request const& request, std::set<Cs_id>& servers);
  void ask_for_confirmation(Cs_id cs);
  void give_up_confirmation();
  void answer_confirmed(std::vector<Request*> requests);

  Volume_host& host_;
  std::string const path_;
  File_id const file_;
  Epoch const epoch_;
  std::uint64_t size_;
  bool const shared_;
  bool const grows_;
  bool const leaves_none_behind_;
  std::uint32_t const chunk_bytes_;
  std::uint32_t replicas_min_;  // set-attr may change it
  bool waits_when_full_;        // likewise
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

  std::map<std::uint32_t, proto::Chunk> untouched_;  // mapped, not used under this lease yet
  boost::unordered_flat_map<std::uint32_t, std::unique_ptr<Chunk_io>> chunks_;
  std::map<Cs_id, Cs_link*> links_;
  std::map<Cs_id, Server> servers_;

  std::vector<std::unique_ptr<Piece>> pieces_;
  std::vector<Piece*> free_pieces_;
  std::uint64_t next_serial_ = 1;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_requests_;
  std::size_t requests_open_ = 0;
  std::deque<std::pair<Piece*, Errc>> completed_;
  std::vector<std::function<void()>> finished_;  // answers that must not run inside their call
  bool completing_ = false;
  bool completion_deferred_ = false;

  std::vector<Chunk_io*> restless_;  // those with something to do at a tick
  std::vector<Report> reports_;
  std::uint32_t batching_ = 0;
  std::vector<Chunk_io*> allocations_;
  bool map_asked_ = false;

  std::unique_ptr<Cached> cached_;         // null: nothing is kept here
  std::vector<Cached_read> cached_reads_;  // under way
  std::vector<Comparison> comparisons_;

  std::map<std::uint64_t, Flush> flushes_;
  std::uint64_t next_flush_ = 1;
  bool flush_changed_ = false;
  bool lost_writes_ = false;  // no FLUSH has told of it yet
  std::uint64_t losses_ = 0;

  bool is_settled_;  // the replicas of every chunk agree, but for what was written under this lease
  std::unique_ptr<Settling> settling_;
  std::uint64_t settlings_ = 0;

  std::unique_ptr<Sealing> sealing_;
  Time_point fence_end_{};             // until then a former holder may still answer reads
  std::vector<Request*> unconfirmed_;  // wait for a confirmation that is asked for after them
  std::unique_ptr<Confirmation> confirmation_;
  std::uint64_t confirmations_ = 0;
  Errc dead_ = Errc::ok;
  bool closing_ = false;
  std::size_t unsealed_ = 0;
  bool serving_ = false;                            // sealed
  bool reader_ = false;                             // without the lease
  std::vector<std::unique_ptr<Chunk_io>> retired_;  // of a part that was cut off
  Volume_counters counters_;
};

}  // namespace pstorage::client
