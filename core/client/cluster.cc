#include "core/client/cluster.h"

#include <algorithm>
#include <utility>

#include "core/version.h"

namespace pstorage::client {
namespace {

Volume_use use_of(Open_options const& options) {
  if (options.settle) return Volume_use::settle;
  return options.grows ? Volume_use::grow : Volume_use::write;
}

}  // namespace

Cluster::Cluster(Clock& clock, Network& network, Random& random, Log& log, Executor& executor,
                 Cluster_options options)
    : clock_(clock),
      network_(network),
      log_(log),
      executor_(executor),
      options_(std::move(options)),
      session_(clock, network, random, log, options_.session) {
  session_.set_push_handler([this](proto::Mds_push const& push) { pushed(push); });
  session_.set_expired_handler([this] { session_expired(); });
  session_.set_heartbeat_filler([this](proto::Heartbeat& heartbeat) {
    Volume_counters sum;
    for (File_volume const* volume : volumes_) {
      if (!volume->is_dead() && volume->is_shared())
        heartbeat.add_shared_files(volume->id().value);
      else if (!volume->is_dead() && !volume->is_reader())
        heartbeat.add_files(volume->id().value);
      auto const& counters = volume->counters();
      sum.reads += counters.reads;
      sum.read_bytes += counters.read_bytes;
      sum.writes += counters.writes;
      sum.write_bytes += counters.write_bytes;
      sum.flushes += counters.flushes;
    }
    heartbeat.set_read_ops(sum.reads);
    heartbeat.set_read_bytes(sum.read_bytes);
    heartbeat.set_write_ops(sum.writes);
    heartbeat.set_write_bytes(sum.write_bytes);
    heartbeat.set_flushes(sum.flushes);
    auto const latency = io_latency_.summary(clock_.now());
    heartbeat.set_io_latency_us(latency.average_us);
    heartbeat.set_io_latency_max_us(latency.maximum_us);
    heartbeat.set_version(version());
  });
  session_.set_lost_files_handler([this](File_id file, bool is_shared) {
    if (auto* volume = find(file, is_shared))
      volume->lose_lease("the MDS has given it to somebody else");
  });
}

Cluster::~Cluster() {
  *alive_ = false;
  settling_.clear();
  auto const volumes = volumes_;
  for (File_volume* volume : volumes) volume->forget_sealing();
}

Cs_link& Cluster::link_of(Cs_id cs) {
  auto& link = links_[cs];
  if (link == nullptr)
    link = std::make_unique<Cs_link>(clock_, network_, log_, cs, options_.session.host,
                                     options_.links, latency_.server(cs));
  return *link;
}

void Cluster::learn_servers(proto::File_map const& map) {
  for (auto const& server : map.servers()) link_of({server.cs()}).set_addresses(server);
}

void Cluster::volume_closed(File_volume& volume) { std::erase(volumes_, &volume); }

File_volume* Cluster::find(File_id file) {
  for (File_volume* volume : volumes_)
    if (volume->id() == file && !volume->is_dead() && !volume->is_unleased()) return volume;
  return nullptr;
}

File_volume* Cluster::find(File_id file, bool is_shared) {
  for (File_volume* volume : volumes_) {
    bool const is_it = volume->id() == file && volume->is_shared() == is_shared;
    if (is_it && !volume->is_dead() && !volume->is_unleased()) return volume;
  }
  return nullptr;
}

void Cluster::list(std::string const& path, Duration patience,
                   std::function<void(Outcome<std::vector<proto::File>>)> done) {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(path);
  session_.call(std::move(request), patience,
                [done = std::move(done)](Outcome<proto::Mds_reply> answer) {
                  if (answer.has_error()) return done(answer.error());
                  auto const& files = answer.value().files().files();
                  done(std::vector<proto::File>(files.begin(), files.end()));
                });
}

void Cluster::open(std::string const& path, Open_options const& options,
                   std::function<void(Outcome<std::unique_ptr<Volume>>)> done) {
  open_file(path, options, [done = std::move(done)](Outcome<Opened_file> opened) {
    if (opened.has_error()) return done(opened.error());
    done(std::unique_ptr<Volume>(std::move(opened).value().volume));
  });
}

void Cluster::open_file(std::string const& path, Open_options const& options,
                        std::function<void(Outcome<Opened_file>)> done) {
  auto opening = std::make_shared<Opening>();
  opening->path = path;
  opening->options = options;
  opening->done = std::move(done);
  opening->give_up = clock_.now() + options.patience;
  ask_lease(opening);
}

void Cluster::ask_lease(std::shared_ptr<Opening> const& opening) {
  proto::Mds_request request;
  request.mutable_open_file()->set_path(opening->path);
  request.mutable_open_file()->set_force(opening->options.force);
  request.mutable_open_file()->set_shared(opening->options.shared);
  request.mutable_open_file()->set_wait_dead(opening->options.wait_dead);
  request.mutable_open_file()->set_settle(opening->options.settle);
  Duration const left = opening->give_up - clock_.now();
  // A holder that is not heard of any more loses its lease within this.
  Duration const at_least = std::chrono::seconds(opening->options.wait_dead ? 20 : 5);
  session_.call(
      std::move(request), std::max(left, at_least),
      [this, opening, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> answer) {
        auto const token = alive.lock();
        if (token != nullptr && *token) lease_answered(opening, answer);
      },
      unwanted_lease());
}

void Cluster::give_back(proto::Lease const& lease) {
  proto::Mds_request request;
  auto& close = *request.mutable_close_file();
  close.set_file(lease.file().id());
  close.set_epoch(lease.epoch());
  close.set_shared(lease.shared());
  // The MDS may count it as sealed although its answer to that never came.
  close.set_unsettled(!lease.sealed());
  session_.call(std::move(request), Duration{0}, [](Outcome<proto::Mds_reply> const&) {});
}

Mds_done Cluster::unwanted_lease() {
  return [this, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> const& answer) {
    auto const token = alive.lock();
    if (token == nullptr || !*token) return;
    if (answer.has_value() && answer.value().has_lease()) give_back(answer.value().lease());
  };
}

void Cluster::lease_answered(std::shared_ptr<Opening> const& opening,
                             Outcome<proto::Mds_reply> const& answer) {
  if (answer.has_error()) {
    Errc const code = errc_of(answer.error().code);
    bool const worth_waiting =
        code == Errc::busy || code == Errc::unavailable || code == Errc::session_expired;
    if (!worth_waiting || clock_.now() >= opening->give_up) return opening->done(answer.error());
    opening->again_at = clock_.now() + opening->options.busy_retry;
    retries_.push_back(opening);
    return;
  }
  // The seal's callback owns the volume until it is handed out.
  auto opened = std::make_shared<Opened_file>(
      adopt(opening->path, answer.value().lease(), use_of(opening->options)));
  File_volume& file = *opened->volume;
  if (answer.value().lease().sealed()) {
    file.serve();
    return opening->done(std::move(*opened));
  }
  if (auto const& previous = answer.value().lease().previous_holder(); !previous.empty())
    log_.info("took a file over", {{"file", opening->path}, {"from", previous}});
  file.seal([opening, opened, late = unwanted_lease(), answer](Outcome<void> sealed) {
    Opened_file open_now = std::move(*opened);
    if (sealed.has_value()) return opening->done(std::move(open_now));
    late(answer);
    opening->done(sealed.error());
  });
}

Opened_file Cluster::adopt(std::string const& path, proto::Lease const& lease, Volume_use use) {
  Opened_file opened;
  opened.volume = std::make_unique<File_volume>(static_cast<Volume_host&>(*this), path, lease, use);
  opened.file = lease.file();
  opened.clean = lease.clean();
  if (read_cache_ != nullptr && lease.file().attributes().client_ssd_cache())
    opened.volume->use_cache(*read_cache_, Epoch{lease.previous_epoch()});
  volumes_.push_back(opened.volume.get());
  return opened;
}

Opened_file Cluster::adopt_new_file(std::string const& path, proto::Lease const& lease) {
  auto opened = adopt(path, lease, Volume_use::grow);
  opened.volume->serve();
  return opened;
}

void Cluster::pushed(proto::Mds_push const& push) {
  if (push.has_map_changed()) {
    learn_servers(push.map_changed());
    if (auto* volume = find({push.map_changed().file()})) volume->adopt_map(push.map_changed());
  } else if (push.has_lease_wanted()) {
    if (on_wanted_) on_wanted_(push.lease_wanted());
  } else if (push.has_lease_lost()) {
    auto const& lost = push.lease_lost();
    auto* volume = find({lost.file()});
    if (volume != nullptr && volume->lease_epoch().value <= lost.epoch())
      volume->lose_lease("taken over by " + lost.taken_by());
  } else if (push.has_question()) {
    asked(push.question());
  }
}

void Cluster::session_expired() {
  auto const volumes = volumes_;
  for (File_volume* volume : volumes)
    if (!volume->is_unleased()) volume->lose_lease("the session with the MDS expired");
}

void Cluster::compare_servers() {
  Time_point const now = clock_.now();
  if (!latency_.is_due(now)) return;
  std::vector<Cs_id> were_slow;
  for (auto& [cs, link] : links_) {
    if (link->latency().is_slow()) were_slow.push_back(cs);
    link->note_ages(now);
  }
  latency_.judge(now);
  for (auto& [cs, link] : links_) {
    bool const was_slow = std::find(were_slow.begin(), were_slow.end(), cs) != were_slow.end();
    if (link->latency().is_slow() == was_slow) continue;
    log_.warn(was_slow ? "a chunk server may be as quick as the others again"
                       : "a chunk server answers far slower than the others",
              {{"cs", cs}});
  }
}

void Cluster::on_tick() {
  session_.on_tick();
  for (auto& [_, link] : links_) link->on_tick();
  compare_servers();
  auto const volumes = volumes_;
  for (File_volume* volume : volumes)
    if (std::find(volumes_.begin(), volumes_.end(), volume) != volumes_.end()) volume->on_tick();
  try_questions();
  Time_point const now = clock_.now();
  auto retries = std::exchange(retries_, {});
  for (auto& opening : retries) {
    if (now < opening->again_at)
      retries_.push_back(opening);
    else if (opening->is_reader)
      ask_reading(opening);
    else
      ask_lease(opening);
  }
}

}  // namespace pstorage::client
