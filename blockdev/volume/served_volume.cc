#include "blockdev/volume/served_volume.h"

#include <utility>

#include "blockdev/ploop/slices.h"
#include "blockdev/volume/volume_opener.h"
#include "core/assert.h"

namespace pstorage::volume {
namespace {

// Whoever has asked for the disk takes its lease at once; then ours waits for that one's end.
constexpr Duration lent_for = std::chrono::milliseconds(300);
constexpr Duration take_back_patience = std::chrono::minutes(10);
// Then a look whether a volume in use may be served here, too: it is being migrated.
constexpr Duration glance = std::chrono::milliseconds(300);

}  // namespace

Served_volume::Served_volume(Volume_opener& opener, Volume_name name, Disk_parts parts)
    : opener_(opener),
      name_(std::move(name)),
      path_(parts.disk->path()),
      is_read_only_(parts.disk->is_read_only()),
      parts_(std::move(parts)) {
  limiter_.set(limits_of(parts_.properties), opener_.clock_.now());
  look_at_merge(parts_.properties);
  opener_.served_.insert(this);
}

Served_volume::Served_volume(Volume_opener& opener, Volume_name name, std::uint64_t size_bytes,
                             std::string migration)
    : opener_(opener),
      name_(std::move(name)),
      path_(name_.path()),
      is_read_only_(false),
      size_(size_bytes),
      gate_(Gate::closed),
      migration_(std::move(migration)),
      is_away_(true) {
  opener_.served_.insert(this);
}

Served_volume::~Served_volume() {
  *alive_ = false;
  opener_.served_.erase(this);
}

void Served_volume::set_size(std::uint64_t bytes) {
  if (parts_.disk && parts_.image == nullptr) parts_.disk->set_size(bytes);
}

std::string Served_volume::waiting_reason() const {
  if (!parts_.disk) return "another client works on the disk";
  return parts_.disk->waiting_reason();
}

void Served_volume::hold(std::function<void()> request) {
  held_.push_back(std::move(request));
  if (is_away_ && !is_fetching_ && fetch_at_ == Time_point{}) fetch_at_ = opener_.clock_.now();
}

client::Done Served_volume::counted(client::Done done) {
  ++changes_;
  return [this, done = std::move(done)](Result<void> result) {
    --changes_;
    auto const alive = alive_;
    done(std::move(result));
    if (*alive && when_quiet_) changed();
  };
}

void Served_volume::changed() {
  if (changes_ > 0 || (gate_ == Gate::closed && reads_ > 0)) return;
  std::exchange(when_quiet_, nullptr)();
}

/// In the order they came: what is behind them waits in held_ until these are on their way.
void Served_volume::let_go() {
  gate_ = Gate::open;
  auto const alive = alive_;
  while (*alive && gate_ == Gate::open && !held_.empty()) {
    auto const requests = std::exchange(held_, {});
    for (auto const& request : requests) request();
  }
}

template <typename Request>
bool Served_volume::admit(std::uint64_t bytes, Request&& request) {
  if (!limiter_.is_active() || is_releasing_) return true;
  if (throttled_.empty() && limiter_.admit(opener_.clock_.now(), bytes)) return true;
  throttled_.push_back({bytes, std::forward<Request>(request)});
  return false;
}

void Served_volume::release_throttled() {
  auto const alive = alive_;
  while (*alive && !throttled_.empty() &&
         limiter_.admit(opener_.clock_.now(), throttled_.front().bytes)) {
    auto const next = std::move(throttled_.front());
    throttled_.pop_front();
    is_releasing_ = true;
    next.request();
    if (*alive) is_releasing_ = false;
  }
}

void Served_volume::read(std::uint64_t offset, std::uint64_t length, client::Read_done done) {
  if (limiter_.is_active() && !is_releasing_ &&
      !admit(length, [this, offset, length, done] { read(offset, length, done); }))
    return;
  if (!may_read())
    return hold([this, offset, length, done = std::move(done)]() mutable {
      read(offset, length, std::move(done));
    });
  if (gone_) return opener_.executor_.defer([done = std::move(done), why = gone_] { done(why); });
  ++reads_;
  parts_.disk->read(offset, length,
                    [this, done = std::move(done)](Result<std::vector<Slice>> result) {
                      --reads_;
                      auto const alive = alive_;
                      done(std::move(result));
                      if (*alive && when_quiet_) changed();
                    });
}

void Served_volume::write(std::uint64_t offset, std::vector<Slice> data, bool fua,
                          client::Done done) {
  if (limiter_.is_active() && !is_releasing_ &&
      !admit(ploop::total(data),
             [this, offset, data, fua, done] { write(offset, data, fua, done); }))
    return;
  if (!may_change())
    return hold([this, offset, data = std::move(data), fua, done = std::move(done)]() mutable {
      write(offset, std::move(data), fua, std::move(done));
    });
  if (gone_) return opener_.executor_.defer([done = std::move(done), why = gone_] { done(why); });
  is_changed_ = true;
  parts_.disk->write(offset, std::move(data), fua, counted(std::move(done)));
}

void Served_volume::zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks,
                         bool fua, client::Done done) {
  if (limiter_.is_active() && !is_releasing_ &&
      !admit(0, [this, offset, length, only_whole_blocks, fua, done] {
        zero(offset, length, only_whole_blocks, fua, done);
      }))
    return;
  if (!may_change())
    return hold([this, offset, length, only_whole_blocks, fua, done = std::move(done)]() mutable {
      zero(offset, length, only_whole_blocks, fua, std::move(done));
    });
  if (gone_) return opener_.executor_.defer([done = std::move(done), why = gone_] { done(why); });
  is_changed_ = true;
  parts_.disk->zero(offset, length, only_whole_blocks, fua, counted(std::move(done)));
}

void Served_volume::flush(client::Done done) {
  // Everything that was answered became durable before the disk was handed over.
  if (is_away_ && !is_fetching_ && held_.empty())
    return opener_.executor_.defer([done = std::move(done)] { done(success()); });
  if (!may_change())
    return hold([this, done = std::move(done)]() mutable { flush(std::move(done)); });
  if (gone_) return opener_.executor_.defer([done = std::move(done), why = gone_] { done(why); });
  parts_.disk->flush(counted(std::move(done)));
}

void Served_volume::extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
                            client::Extents_done done) {
  if (!may_read())
    return hold([this, offset, length, extents_max, done = std::move(done)]() mutable {
      extents(offset, length, extents_max, std::move(done));
    });
  if (gone_) return opener_.executor_.defer([done = std::move(done), why = gone_] { done(why); });
  ++reads_;
  parts_.disk->extents(offset, length, extents_max,
                       [this, done = std::move(done)](Result<std::vector<client::Extent>> result) {
                         --reads_;
                         auto const alive = alive_;
                         done(std::move(result));
                         if (*alive && when_quiet_) changed();
                       });
}

void Served_volume::close(client::Done done) {
  if (answer_ || is_fetching_) {  // first the operation under way
    closing_ = std::move(done);
    return;
  }
  is_closing_ = true;
  merge_ = nullptr;  // who opens it next goes on
  if (is_away_) return opener_.executor_.defer([done = std::move(done)] { done(success()); });
  if (gone_) return opener_.executor_.defer([done = std::move(done), why = gone_] { done(why); });
  parts_.disk->close([this, done = std::move(done)](Result<void> const& closed) {
    if (!parts_.lock) return done(closed);
    parts_.lock->close(
        [closed, done](Result<void> const& unlocked) { done(closed ? unlocked : closed); });
  });
}

void Served_volume::asked(proto::Holder_request const& request,
                          client::Cluster::Holder_answer answer) {
  if (request.has_reload_limits()) return reload_limits(std::move(answer));
  if (answer_)
    return answer(failure(Errc::busy, "another operation on '" + name_.name + "' is under way"));
  if (request.has_hand_over() && !is_read_only_) {
    answer_ = std::move(answer);
    return hand_over(request.hand_over().migration());
  }
  if (!parts_.descriptor || is_read_only_)
    return answer(failure(Errc::refused, "'" + name_.name + "' is a raw volume"));
  answer_ = std::move(answer);
  if (request.has_take_snapshot()) return take_snapshot(request.take_snapshot());
  if (request.has_lend()) return lend();
  end_operation(failure(Errc::refused, "this server does not know how to do that: update it"));
}

/// They are stored with the volume, as is which snapshot is to go; this only says that they have
/// changed.
void Served_volume::reload_limits(client::Cluster::Holder_answer answer) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path_);
  opener_.cluster_.mds().call(
      std::move(request), std::chrono::seconds(10),
      [this, answer = std::move(answer), alive = alive_](Outcome<proto::Mds_reply> const& found) {
        if (!*alive) return answer(failure(Errc::not_found, "the volume was closed meanwhile"));
        if (!found.has_value()) return answer(found.error());
        std::map<std::string, std::string> properties;
        for (auto const& [key, value] : found.value().file().properties()) properties[key] = value;
        limiter_.set(limits_of(properties), opener_.clock_.now());
        look_at_merge(properties);
        release_throttled();
        answer(success());
      });
}

void Served_volume::end_operation(Outcome<void> const& result) {
  auto const answer = std::exchange(answer_, nullptr);
  auto closing = std::exchange(closing_, nullptr);
  if (answer) answer(result);
  if (closing) close(std::move(closing));
}

// ------------------------------------------------------------------ lending

/// Finishes what is under way and gives the volume back. Whoever asked works on it; then it is
/// taken again and requests go on, on the disk as it is by then.
void Served_volume::lend() {
  gate_ = Gate::closed;
  when_quiet_ = [this] { lend_quiet(); };
  changed();
}

void Served_volume::lend_quiet() {
  size_ = parts_.disk->size_bytes();
  parts_.disk->close([this](Result<void> const& closed) {
    parts_.lock->close(
        [this, closed](Result<void> const& unlocked) { lent(closed ? unlocked : closed); });
  });
}

void Served_volume::lent(Result<void> const& closed) {
  // Not inside their own callbacks.
  opener_.executor_.defer([parts = std::make_shared<Disk_parts>(std::move(parts_))] {});
  parts_ = {};
  auto const answer = std::exchange(answer_, nullptr);
  answer_ = [](Outcome<void> const&) {};  // the operation ends when the disk is back
  take_back_at_ = opener_.clock_.now() + lent_for;
  if (closed)
    answer(success());
  else
    answer(failure(closed.error(), "cannot close the disk: " + closed.error().message()));
}

void Served_volume::on_tick() {
  if (merge_) advance_merge();
  if (!throttled_.empty()) release_throttled();
  if (fetch_at_ != Time_point{} && opener_.clock_.now() >= fetch_at_) fetch();
  if (take_back_at_ == Time_point{} || opener_.clock_.now() < take_back_at_) return;
  take_back_at_ = {};
  take_back();
}

void Served_volume::take_back() {
  open_parts(opener_.cluster_, opener_.executor_, name_, take_back_patience,
             [this, alive = alive_](Outcome<Disk_parts> parts) {
               if (!*alive) return;
               if (parts.has_value()) {
                 parts_ = std::move(parts).value();
                 merge_ = nullptr;  // from the beginning: the disk may be another one
                 look_at_merge(parts_.properties);
               } else {
                 opener_.log_.error("cannot go on with a volume that was lent",
                                    {{"volume", name_.name}, {"reason", parts.error().text}});
                 gone_ = make_error_code(Errc::stale_epoch);
               }
               let_go();
               if (*alive) end_operation(success());
             });
}

// ------------------------------------------------------------------ the opener

Volume_opener::Volume_opener(client::Cluster& cluster, Executor& executor, Clock& clock, Log& log)
    : cluster_(cluster), executor_(executor), clock_(clock), log_(log) {
  cluster_.set_holder_handler([this](client::Volume* leased, proto::Holder_request const& request,
                                     client::Cluster::Holder_answer const& answer) {
    return asked(leased, request, answer);
  });
}

Volume_opener::~Volume_opener() {
  *alive_ = false;
  cluster_.set_holder_handler(nullptr);
}

void Volume_opener::open(std::string const& name, Duration patience, Volume_opened done) {
  auto parsed = parse_volume_name(name);
  if (!parsed.has_value()) {
    executor_.defer([done = std::move(done), why = failure(Errc::not_found, parsed.error().text)] {
      done(why);
    });
    return;
  }
  auto const first = parsed.value().snapshot.empty() ? std::min(patience, glance) : patience;
  open_parts(
      cluster_, executor_, parsed.value(), first,
      [this, name = parsed.value(), left = patience - first, alive = alive_,
       done = std::move(done)](Outcome<Disk_parts> parts) mutable {
        if (!*alive) return;
        if (parts.has_value())
          return done(std::make_unique<Served_volume>(*this, name, std::move(parts).value()));
        if (errc_of(parts.error().code) != Errc::busy || !name.snapshot.empty())
          return done(std::move(parts).error());
        open_in_use(name, left, std::move(parts).error(), std::move(done));
      });
}

bool Volume_opener::asked(client::Volume* leased, proto::Holder_request const& request,
                          client::Cluster::Holder_answer const& answer) {
  if (leased == nullptr) {
    answer(failure(Errc::not_found, "it was closed just now"));
    return true;
  }
  for (auto* const volume : served_) {
    if (!volume->is_locked_by(*leased)) continue;
    volume->asked(request, answer);
    return true;
  }
  return false;
}

void Volume_opener::on_tick() {
  auto const served = served_;
  for (auto* const volume : served)
    if (served_.contains(volume)) volume->on_tick();
}

}  // namespace pstorage::volume
