#include "blockdev/exports.h"

#include <algorithm>

#include "core/assert.h"

namespace pstorage::nbd {
namespace {

Failure unknown_export(std::string const& name) {
  return failure(Errc::not_found, "there is no export '" + name + "' here");
}

}  // namespace

Exports::Exports(Volume_provider& provider, Clock& clock, Log& log, std::vector<std::string> names)
    : provider_(provider), clock_(clock), log_(log), named_(names.begin(), names.end()) {}

Exports::~Exports() { *alive_ = false; }

void Exports::abandon_all() {
  *alive_ = false;  // answers to what was asked come to nobody
  exports_.clear();
  dead_.clear();
}

Outcome<std::string> Exports::real_name(std::string const& name) const {
  if (name.empty()) {
    if (named_.size() == 1) return *named_.begin();
    return failure(Errc::not_found, "there is no default export: name a volume");
  }
  if (!named_.empty() && !is_named(name)) return unknown_export(name);
  return name;
}

void Exports::open_named(std::function<void(Outcome<void>)> done) {
  auto const left = std::make_shared<std::size_t>(named_.size());
  if (*left == 0) return done(success());
  for (auto const& name : named_) {
    acquire(name, [this, left, done](Outcome<client::Volume*> volume) {
      if (*left == 0) return;  // one has failed and said so
      if (!volume) {
        *left = 0;
        return done(volume.error());
      }
      release(*volume.value());
      if (--*left == 0) done(success());
    });
  }
}

void Exports::list(List_done done) {
  if (named_.empty())
    return provider_.list([alive = alive_, done = std::move(done)](auto volumes) {
      if (*alive) done(std::move(volumes));
    });
  std::vector<Volume_description> result;
  for (auto const& name : named_) {
    auto const found = exports_.find(name);
    bool const open = found != exports_.end() && found->second.volume;
    result.push_back({name, open ? found->second.volume->size_bytes() : 0,
                      open && found->second.volume->is_read_only()});
  }
  done(std::move(result));
}

void Exports::describe(std::string const& name, Describe_done done) {
  auto real = real_name(name);
  if (!real) return done(real.error());
  auto const found = exports_.find(real.value());
  if (found != exports_.end() && found->second.volume)
    return done(Volume_description{real.value(), found->second.volume->size_bytes(),
                                   found->second.volume->is_read_only()});
  provider_.describe(real.value(), [alive = alive_, done = std::move(done)](auto volume) {
    if (*alive) done(std::move(volume));
  });
}

void Exports::acquire(std::string const& name, Acquired done) {
  if (closing_all_) return done(failure(Errc::closed, "the server is stopping"));
  auto real = real_name(name);
  if (!real) return done(real.error());
  auto const found = exports_.find(real.value());
  if (found == exports_.end()) {
    exports_[real.value()].waiting.push_back(std::move(done));
    return start_open(real.value());
  }
  Export& entry = found->second;
  if (entry.state == Export::State::open && !entry.lost) {
    ++entry.users;
    ask_size(real.value());
    return done(entry.volume.get());
  }
  entry.waiting.push_back(std::move(done));
  if (entry.state == Export::State::open && entry.users == 0) start_close(real.value());
}

void Exports::ask_size(std::string const& name) {
  if (std::exchange(exports_[name].asks_size, true)) return;
  provider_.describe(name, [this, name, alive = alive_](Outcome<Volume_description> const& now) {
    if (!*alive) return;
    auto const found = exports_.find(name);
    if (found == exports_.end()) return;
    Export& entry = found->second;
    entry.asks_size = false;
    // Only growth: a smaller size would cut off requests of clients that know the old one.
    bool const grew = now.has_value() && entry.state == Export::State::open &&
                      now.value().size_bytes > entry.volume->size_bytes();
    if (grew) entry.volume->set_size(now.value().size_bytes);
  });
}

void Exports::start_open(std::string const& name) {
  exports_[name].state = Export::State::opening;
  provider_.open(name, [this, name, alive = alive_](auto volume) {
    if (*alive) opened(name, std::move(volume));
  });
}

void Exports::opened(std::string const& name, Outcome<std::unique_ptr<client::Volume>> volume) {
  auto const found = exports_.find(name);
  PS_ASSERT(found != exports_.end());
  auto const waiting = std::exchange(found->second.waiting, {});
  if (!volume) {
    exports_.erase(found);
    std::uint64_t suppressed = 0;  // any client may ask for any name, as often as it likes
    if (refusals_.allow(clock_.now(), suppressed))
      log_.warn("cannot open a volume", {{"volume", name}, {"reason", volume.error().text}});
    for (auto const& done : waiting) done(volume.error());
    return check_all_closed();
  }
  Export& entry = found->second;
  entry.volume = std::move(volume).value();
  entry.state = Export::State::open;
  entry.lost = false;
  entry.idle_since = clock_.now();
  entry.users = waiting.size();
  log_.info("opened a volume", {{"volume", name}, {"bytes", entry.volume->size_bytes()}});
  auto* const opened_volume = entry.volume.get();
  for (auto const& done : waiting) done(opened_volume);
  if (closing_all_) start_close(name);
}

Exports::Export* Exports::find(client::Volume const& volume, std::string const** name) {
  for (auto& [export_name, entry] : exports_) {
    if (entry.volume.get() != &volume) continue;
    if (name != nullptr) *name = &export_name;
    return &entry;
  }
  return nullptr;
}

void Exports::release(client::Volume const& volume) {
  std::string const* name = nullptr;
  auto* const entry = find(volume, &name);
  if (entry == nullptr) return;  // closed by close_all
  PS_ASSERT(entry->users > 0);
  --entry->users;
  entry->idle_since = clock_.now();
  if (entry->lost && entry->users == 0 && entry->state == Export::State::open) start_close(*name);
}

Exports::Io& Exports::io_of(client::Volume const& volume) {
  std::string const* name = nullptr;
  if (find(volume, &name) == nullptr) return io_of_others_;
  if (auto const known = io_.find(*name); known != io_.end()) return known->second;
  return io_.size() < io_max ? io_[*name] : io_of_others_;
}

std::string Exports::trouble() const {
  static constexpr std::size_t text_max = 1000;
  std::string text;
  for (auto const& [name, entry] : exports_) {
    if (entry.volume == nullptr || text.size() > text_max) continue;
    auto const why = entry.volume->waiting_reason();
    if (!why.empty()) text += (text.empty() ? "" : "; ") + name + ": " + why;
  }
  return text;
}

void Exports::mark_lost(client::Volume const& volume) {
  auto* const entry = find(volume, nullptr);
  if (entry == nullptr || std::exchange(entry->lost, true)) return;
  log_.warn("lost a volume to another client", {{"volume", volume.path()}});
}

void Exports::start_close(std::string const& name) {
  // A copy: `name` may be the key that closed() erases.
  std::string const closing = name;
  Export& entry = exports_[closing];
  entry.state = Export::State::closing;
  entry.volume->close([this, closing](Result<void> result) { closed(closing, result); });
}

void Exports::closed(std::string const& name, Result<void> result) {
  auto const found = exports_.find(name);
  PS_ASSERT(found != exports_.end());
  bool const was_lost = found->second.lost;
  if (!result && !was_lost)
    log_.error("closing a volume failed: its last writes may not be on disk",
               {{"volume", name}, {"reason", result.error().message()}});
  else
    log_.info("closed a volume", {{"volume", name}});
  // Later: we are inside one of its callbacks.
  dead_.push_back(std::move(found->second.volume));
  auto waiting = std::exchange(found->second.waiting, {});
  exports_.erase(found);
  if (closing_all_) {
    for (auto const& done : waiting) done(failure(Errc::closed, "the server is stopping"));
    return check_all_closed();
  }
  if (waiting.empty()) return;
  exports_[name].waiting = std::move(waiting);
  start_open(name);
}

void Exports::close_all(std::function<void()> done) {
  closing_all_ = true;
  all_closed_ = std::move(done);
  std::vector<std::string> open;
  for (auto const& [name, entry] : exports_)
    if (entry.state == Export::State::open) open.push_back(name);
  for (auto const& name : open) start_close(name);
  check_all_closed();
}

void Exports::check_all_closed() {
  if (!closing_all_ || !exports_.empty() || !all_closed_) return;
  auto const done = std::exchange(all_closed_, nullptr);
  done();
}

void Exports::on_tick() {
  dead_.clear();
  auto const now = clock_.now();
  std::vector<std::string> idle;
  for (auto const& [name, entry] : exports_) {
    bool const keep = is_named(name) && !entry.lost;
    if (entry.state == Export::State::open && entry.users == 0 && !keep &&
        now - entry.idle_since >= idle_close)
      idle.push_back(name);
  }
  for (auto const& name : idle) start_close(name);
}

}  // namespace pstorage::nbd
