// A process's view of a cluster: its session with the MDS, its links to chunk servers, its files.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/client/cs_link.h"
#include "core/client/file_volume.h"
#include "core/client/mds_session.h"
#include "core/client/volume.h"
#include "core/env/executor.h"

namespace pstorage::client {

struct Cluster_options {
  Mds_session_options session;  // bootstrap list, name, host
  Cs_link_options links;
};

struct Open_options {
  bool force = false;    // take the lease from a live holder
  Duration patience{0};  // how long to wait for a busy file or an unreachable MDS; 0: one answer
  bool shared =
      false;  // for reading only, beside other readers. Errors: refused, take it over first
  bool grows = false;      // writes behind the size allocate; the owner keeps the size
  bool wait_dead = false;  // a silent holder counts as an unreachable MDS, not as busy
  bool settle = false;     // see Cluster::settle_file
  Duration busy_retry = std::chrono::milliseconds(500);
};

/// An open file with what the MDS said of it.
struct Opened_file {
  std::unique_ptr<File_volume> volume;
  proto::File file;
  bool clean = false;  // the last writer has closed: nothing lies behind the size
};

/// Thread: the owner's loop. Destroy after all volumes.
class Cluster final : public Ticker, private Volume_host {
 public:
  Cluster(Clock& clock, Network& network, Random& random, Log& log, Executor& executor,
          Cluster_options options);
  ~Cluster() override;
  Cluster(Cluster const&) = delete;
  Cluster& operator=(Cluster const&) = delete;

  Mds_session& mds() override { return session_; }

  /// For files whose attribute client-ssd-cache says so, opened from now on. Outlives this.
  void set_read_cache(Read_cache& cache) { read_cache_ = &cache; }

  /// The entries of a directory. Errors: not_found, unavailable after `patience`.
  void list(std::string const& path, Duration patience,
            std::function<void(Outcome<std::vector<proto::File>>)> done);
  /// Takes the lease of a file, fences its former writers and hands out the open file. Errors:
  /// busy (the text names the holder), not_found, unavailable.
  void open(std::string const& path, Open_options const& options,
            std::function<void(Outcome<std::unique_ptr<Volume>>)> done);
  void open_file(std::string const& path, Open_options const& options,
                 std::function<void(Outcome<Opened_file>)> done);
  /// Makes good that the last writer of a file left without closing it: fences that writer, makes
  /// the replicas agree, clears what lies behind the size, closes. With `options.settle` nobody is
  /// kept from opening it meanwhile (stale_epoch then), and no server is left behind. Errors:
  /// refused (nothing to make good, with `settle`), busy, unavailable (a server cannot be reached).
  void settle_file(std::string const& path, Open_options options,
                   std::function<void(Outcome<void>)> done);
  /// The file of a lease that came with its creation.
  Opened_file adopt_new_file(std::string const& path, proto::Lease const& lease);
  /// What to call with the answer to a command that may bring a lease when nobody wants it any
  /// more: gives it back. Otherwise it stayed with this process as long as that lives.
  Mds_done unwanted_lease();
  /// Called when somebody waits for the lease of a file that this process has open.
  void set_wanted_handler(std::function<void(proto::Lease_wanted const&)> handler) {
    on_wanted_ = std::move(handler);
  }

  /// Opens a file for reading, without a lease: one that nobody is writing, or whose writer changes
  /// it no more (a frozen delta; a descriptor, which is only ever replaced as a whole). Reads fail
  /// with stale_epoch once somebody opens it for writing. A file that its last writer did not
  /// close is taken over and closed first. Errors: as open().
  void open_reader(std::string const& path, Duration patience,
                   std::function<void(Outcome<std::unique_ptr<Volume>>)> done);
  /// Changes the size of a file opened here; durable when answered. What is cut off is gone.
  /// No request behind the new end may be under way. Errors: stale_epoch, no_space.
  void resize(Volume& volume, std::uint64_t size_bytes, Done done);
  /// Makes the replicas of one chunk of a file opened here agree: File_volume::compare().
  void compare(Volume& volume, std::uint32_t index, Done done);
  /// Flushes, gives the lease of a file opened here back and goes on reading it: it is frozen.
  void freeze(Volume& volume, Done done);
  /// For commands that must fail once the lease of `volume`, opened here, is gone.
  proto::Lease_guard guard_of(Volume const& volume) const;

  /// Called when another client asks for something to be done with a file opened here.
  /// nullptr: not open any more. Returns whether `answer` was or will be called, once; false: the
  /// file is being opened or closed, and it is called again at the next tick.
  using Holder_answer = std::function<void(Outcome<void>)>;
  using Holder_handler = std::function<bool(Volume* volume, proto::Holder_request const& request,
                                            Holder_answer const& answer)>;
  void set_holder_handler(Holder_handler handler) { on_question_ = std::move(handler); }
  /// Asks whoever has the lease of `path`. Errors: not_found (nobody has), timed_out, the holder's.
  void ask_holder(std::string const& path, proto::Holder_request request, Duration patience,
                  std::function<void(Outcome<void>)> done);

  /// Calls `visit` with the link to each chunk server that was ever needed.
  void visit_links(std::function<void(Cs_link const&)> const& visit) const {
    for (auto const& [cs, link] : links_) visit(*link);
  }

  void on_tick() override;

 private:
  struct Opening {
    std::string path;
    Open_options options;
    bool is_reader = false;
    std::function<void(Outcome<Opened_file>)> done;
    Time_point give_up{};
    Time_point again_at{};
  };
  struct Question {
    proto::Holder_question asked;
    Time_point give_up{};
  };

  Clock& clock() override { return clock_; }
  Latency& io_latency() override { return io_latency_; }
  Log& log() override { return log_; }
  Executor& executor() override { return executor_; }
  Cs_link& link_of(Cs_id cs) override;
  void learn_servers(proto::File_map const& map) override;
  void volume_closed(File_volume& volume) override;

  Opened_file adopt(std::string const& path, proto::Lease const& lease, Volume_use use);
  void settle_opened(Opened_file opened, std::function<void(Outcome<void>)> const& done);
  void end_settling(File_volume* volume, Result<void> const& closed,
                    std::function<void(Outcome<void>)> const& done);
  void ask_lease(std::shared_ptr<Opening> const& opening);
  void give_back(proto::Lease const& lease);
  void lease_answered(std::shared_ptr<Opening> const& opening,
                      Outcome<proto::Mds_reply> const& answer);
  void pushed(proto::Mds_push const& push);
  void session_expired();
  void compare_servers();
  File_volume* find(File_id file);
  File_volume* find(File_id file, bool is_shared);
  File_volume* find(Volume const& volume) const;
  void ask_reading(std::shared_ptr<Opening> const& opening);
  void reader_answered(std::shared_ptr<Opening> const& opening,
                       Outcome<proto::Mds_reply> const& answer);
  void asked(proto::Holder_question const& question);
  bool try_question(proto::Holder_question const& question);
  void answer_question(std::uint64_t question, Outcome<void> const& result);
  void try_questions();

  Clock& clock_;
  Network& network_;
  Log& log_;
  Executor& executor_;
  Cluster_options const options_;
  Mds_session session_;
  Latency_watch latency_;
  Latency io_latency_;  // of users' reads and writes
  std::map<Cs_id, std::unique_ptr<Cs_link>> links_;
  std::vector<File_volume*> volumes_;  // open ones, also while they are being sealed
  std::map<File_volume*, Opened_file> settling_;
  std::vector<std::shared_ptr<Opening>> retries_;
  std::function<void(proto::Lease_wanted const&)> on_wanted_;
  Holder_handler on_question_;
  std::vector<Question> questions_;  // about files that are being opened or closed
  Read_cache* read_cache_ = nullptr;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::client
