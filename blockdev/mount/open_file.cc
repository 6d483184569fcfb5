#include "blockdev/mount/open_file.h"

#include <errno.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "blockdev/mount/errno_of.h"
#include "core/bytes.h"

namespace pstorage::mount {
namespace {

constexpr Duration busy_retry = std::chrono::milliseconds(10);
// Zeros are sent for so much at once: a request has a piece a chunk.
constexpr std::uint64_t zero_step = 1ull << 36;
constexpr std::size_t extents_a_look = 1u << 20;
constexpr std::uint64_t size_max = 1ull << 50;
constexpr long ns_a_ms = 1'000'000;

timespec time_of(proto::File const& file) {
  return {static_cast<time_t>(file.modified_ms() / 1000),
          static_cast<long>(file.modified_ms() % 1000) * ns_a_ms +
              static_cast<long>(file.modified_sub_ns())};
}

}  // namespace

Open_file::Open_file(File_environment& environment, File_id id)
    : environment_(environment), id_(id) {}

Open_file::Open_file(File_environment& environment, client::Opened_file opened)
    : environment_(environment), id_{opened.file.id()} {
  hold_file(std::move(opened));
  lease_.taken(Hold::exclusive);
}

Open_file::~Open_file() { *alive_ = false; }

bool Open_file::can_go() const {
  return !lease_.has_users() && lease_.hold() == Hold::none && !lease_.is_moving() &&
         lease_.operations() == 0 && waiting_.empty();
}

// ------------------------------------------------------------------ lease

void Open_file::open(bool writes, Errno_done done) {
  lease_.add_user(writes);
  // Whatever handles it had before: this one begins with the lease that is there then.
  with_lease({}, writes, [this, writes, done = std::move(done)](int why) {
    if (why != 0) lease_.remove_user(writes, environment_.clock.now());
    done(why);
    if (why == 0) end_operation();
  });
}

bool Open_file::may_keep_cache() { return std::exchange(cache_is_valid_, true); }

void Open_file::close(bool writes) {
  lease_.remove_user(writes, environment_.clock.now());
  pump();
}

void Open_file::with_lease(Generation generation, bool writes, std::function<void(int)> go) {
  check_alive();
  if (is_dead(generation)) return go(ESTALE);
  if (waiting_.empty() && may_start(writes, !generation)) {
    lease_.start_operation();
    return go(0);
  }
  waiting_.push_back({writes, generation, std::move(go)});
  pump();
}

/// Whom the MDS does not hear may have lost the lease without knowing: then readers wait, and every
/// open, which promises what others have left. What a writer does is checked by the chunk servers.
bool Open_file::may_start(bool writes, bool opens) const {
  auto const now = environment_.clock.now();
  bool const is_confirmed = now < environment_.cluster.mds().leased_until();
  bool const is_checked = !opens && lease_.hold() == Hold::exclusive;
  return (is_checked || is_confirmed) && lease_.may_start(writes, now);
}

void Open_file::end_operation() {
  lease_.end_operation();
  pump();
}

void Open_file::check_alive() {
  if (volume_ == nullptr || !volume_->is_dead() || lease_.is_moving()) return;
  if (lease_.operations() != 0) return;  // the volume answers them first
  environment_.log.error(
      "the lease of an open file is lost: what has it open gets errors until it "
      "is opened again",
      {{"file", id_}, {"unsaved_size", size_changed_ ? "yes" : "no"}});
  volume_.reset();
  size_changed_ = time_changed_ = false;
  tail_end_ = 0;
  lease_.lost();
  environment_.on_lost(id_);
}

void Open_file::pump() {
  check_alive();
  run_waiting();
  auto const step = lease_.next(environment_.clock.now());
  if (step == Step::wait) return;
  lease_.begin(step);
  if (step == Step::give_back) return give_back();
  take(step == Step::take_shared ? Hold::shared : Hold::exclusive);
}

void Open_file::run_waiting() {
  if (std::exchange(running_waiting_, true)) return;
  for (std::size_t at = 0; at < waiting_.size();) {
    auto const& next = waiting_[at];
    bool const is_late = is_dead(next.generation);
    if (!is_late && !may_start(next.writes, !next.generation)) break;
    auto go = std::move(waiting_[at].go);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(at));
    if (!is_late) lease_.start_operation();
    go(is_late ? ESTALE : 0);
  }
  running_waiting_ = false;
}

void Open_file::take(Hold hold) {
  client::Open_options options;
  options.shared = hold == Hold::shared;
  options.grows = true;
  options.wait_dead = true;
  options.busy_retry = busy_retry;
  options.patience = environment_.busy_patience;
  environment_.cluster.open_file(path(), options,
                                 [this, hold, alive = alive_](Outcome<client::Opened_file> opened) {
                                   if (*alive) taken(hold, std::move(opened));
                                 });
}

void Open_file::taken(Hold hold, Outcome<client::Opened_file> opened) {
  if (opened.has_error()) {
    if (hold == Hold::shared && errc_of(opened.error().code) == Errc::refused)
      return take_over_first();
    return refused(hold, opened.error());
  }
  hold_file(std::move(opened).value());
  lease_.taken(hold);
  if (removed_) lease_.removed();
  pump();
}

/// The last writer has gone without closing. To be its successor is enough to read, too; the lease
/// is given back, and with it shared by others, when they ask.
void Open_file::take_over_first() { take(Hold::exclusive); }

void Open_file::refused(Hold hold, Failure const& why) {
  int const error = errc_of(why.code) == Errc::not_found ? ESTALE : errno_of(why.code);
  environment_.log.warn(
      hold == Hold::shared ? "cannot open a file for reading" : "cannot open a file for writing",
      {{"file", id_}, {"reason", why.text}});
  lease_.refused();
  fail_waiting(error);
  pump();
}

void Open_file::fail_waiting(int why) {
  for (auto& waiting : std::exchange(waiting_, {})) waiting.go(why);
}

void Open_file::hold_file(client::Opened_file opened) {
  bool const was_writer = volume_ != nullptr && !volume_->is_shared();
  PS_ASSERT(!was_writer);
  volume_ = std::move(opened.volume);
  auto const& file = opened.file;
  known_ = file;
  size_ = file.size();
  chunk_bytes_ = file.attributes().chunk_size();
  modified_ = time_of(file);
  cache_is_valid_ = false;
  size_changed_ = time_changed_ = false;
  // The MDS has dropped the chunks behind the end; what is left may be in the last one.
  tail_end_ = opened.clean ? 0 : (size_ + chunk_bytes_ - 1) / chunk_bytes_ * chunk_bytes_;
  if (tail_end_ != 0 && !volume_->is_shared()) clear_tail();
}

void Open_file::give_back() {
  volume_->close_with(change(), [this, alive = alive_](Result<void> closed) {
    if (!*alive) return;
    if (closed.has_error())
      environment_.log.error("a file could not be closed: its last writes may be lost",
                             {{"file", id_}, {"reason", closed.error().message()}});
    volume_.reset();
    lease_.given_back();
    if (closed.has_error()) {
      lease_.lost();
      environment_.on_lost(id_);
    }
    pump();
  });
}

void Open_file::wanted(proto::Lease_wanted const& wanted) {
  lease_.wanted(wanted.exclusive());
  if (lease_.has_users() && (lease_.has_writers() || wanted.exclusive()))
    environment_.log.info("somebody waits for a file that is open here",
                          {{"file", id_}, {"who", wanted.by()}});
  pump();
}

void Open_file::removed() {
  removed_ = true;
  lease_.removed();
  pump();
}

void Open_file::stop() {
  lease_.stop();
  pump();
}

void Open_file::on_tick() { pump(); }

// ------------------------------------------------------------------ size and time

proto::Inode_change Open_file::change() const {
  proto::Inode_change change;
  if (volume_ == nullptr || volume_->is_shared()) return change;
  if (size_changed_) change.set_size(size_);
  if (size_changed_ || time_changed_) {
    change.set_modified_ms(static_cast<std::uint64_t>(modified_.tv_sec) * 1000 +
                           static_cast<std::uint64_t>(modified_.tv_nsec / ns_a_ms));
    change.set_modified_sub_ns(static_cast<std::uint32_t>(modified_.tv_nsec % ns_a_ms));
  }
  return change;
}

void Open_file::correct(proto::File& file) const {
  if (!is_writer()) return;
  file.set_size(size_);
  file.set_allocated_chunks(volume_->mapped_chunks());
  file.set_modified_ms(static_cast<std::uint64_t>(modified_.tv_sec) * 1000 +
                       static_cast<std::uint64_t>(modified_.tv_nsec / ns_a_ms));
  file.set_modified_sub_ns(static_cast<std::uint32_t>(modified_.tv_nsec % ns_a_ms));
}

bool Open_file::set_modified(timespec const& time) {
  if (!is_writer() || lease_.is_moving()) return false;
  modified_ = time;
  time_changed_ = true;
  return true;
}

void Open_file::touch() {
  ::clock_gettime(CLOCK_REALTIME, &modified_);
  time_changed_ = true;
}

void Open_file::grow(std::uint64_t size) {
  if (size <= size_) return;
  size_ = size;
  size_changed_ = true;
}

/// Before the file grows over what a dead writer left behind the end. Ordered before every request
/// that comes later.
void Open_file::clear_tail() {
  auto const from = size_;
  auto const end = std::exchange(tail_end_, 0);
  if (end <= from) return;
  volume_->zero(from, end - from, false, false, [this, alive = alive_](Result<void> done) {
    if (*alive && done.has_error())
      environment_.log.warn("what lies behind the end of a file was not cleared",
                            {{"file", id_}, {"reason", done.error().message()}});
  });
}

// ------------------------------------------------------------------ data

void Open_file::read(std::uint32_t generation, std::uint64_t offset, std::uint64_t length,
                     Data_done done) {
  with_lease(generation, false, [this, offset, length, done = std::move(done)](int why) {
    if (why != 0) return done(why, {});
    auto const end = std::min(size_, offset > size_max ? size_ : offset + length);
    if (offset >= end) {
      done(0, {});
      return end_operation();
    }
    volume_->read(offset, end - offset,
                  [this, done, alive = alive_](Result<std::vector<Slice>> read) {
                    if (!*alive) return done(EIO, {});
                    if (read.has_error())
                      done(errno_of(read.error()), {});
                    else
                      done(0, std::move(read).value());
                    end_operation();
                  });
  });
}

void Open_file::write(std::uint32_t generation, std::uint64_t offset, Slice data, Errno_done done) {
  if (offset > size_max || data.size() > size_max - offset) return done(EFBIG);
  with_lease(generation, true,
             [this, offset, data = std::move(data), done = std::move(done)](int why) {
               if (why != 0) return done(why);
               auto const end = offset + data.size();
               volume_->write(offset, {data}, false,
                              [this, end, done, alive = alive_](Result<void> written) {
                                if (!*alive) return done(EIO);
                                if (written.has_value()) {
                                  grow(end);
                                  touch();
                                } else if (end > size_) {
                                  // A part of it may be there, behind the end.
                                  tail_end_ = end;
                                  clear_tail();
                                }
                                done(written.has_error() ? errno_of(written.error()) : 0);
                                end_operation();
                              });
             });
}

void Open_file::sync(std::uint32_t generation, Errno_done done) {
  with_lease(generation, false, [this, done = std::move(done)](int why) {
    if (why != 0) return done(why);
    if (!is_writer()) {
      done(0);
      return end_operation();
    }
    // First the data, then the size that covers it: a crash between them shows an older file.
    proto::Inode_change const now = change();
    size_changed_ = time_changed_ = false;
    volume_->flush([this, now, done, alive = alive_](Result<void> flushed) {
      if (!*alive) return done(EIO);
      bool const has_change = now.ByteSizeLong() != 0;
      if (flushed.has_error() || !has_change) {
        if (flushed.has_error() && has_change) size_changed_ = time_changed_ = true;
        done(flushed.has_error() ? errno_of(flushed.error()) : 0);
        return end_operation();
      }
      proto::Mds_request request;
      request.mutable_set_inode()->set_path(path());
      request.mutable_set_inode()->set_epoch(volume_->lease_epoch().value);
      *request.mutable_set_inode()->mutable_change() = now;
      environment_.cluster.mds().call(
          std::move(request), Duration{0}, [this, done, alive](Outcome<proto::Mds_reply> answer) {
            if (!*alive) return done(EIO);
            if (answer.has_error()) size_changed_ = true;
            done(answer.has_error() ? errno_of(answer.error().code) : 0);
            end_operation();
          });
    });
  });
}

void Open_file::truncate(std::uint32_t generation, std::uint64_t size, Errno_done done) {
  if (size > size_max) return done(EFBIG);
  with_lease(generation, true, [this, size, done = std::move(done)](int why) {
    if (why != 0) return done(why);
    auto const finish = [this, done](int error) {
      done(error);
      end_operation();
    };
    auto const old = size_;
    if (size == old) return finish(0);
    touch();
    size_ = size;
    size_changed_ = true;
    if (size > old) return finish(0);
    // Zeros, so that nothing of it comes back when the file grows again.
    zero_from(size, old, finish);
  });
}

void Open_file::zero_from(std::uint64_t offset, std::uint64_t end, Errno_done done) {
  auto const length = std::min(end - offset, zero_step);
  volume_->zero(offset, length, false, false,
                [this, offset, length, end, done, alive = alive_](Result<void> zeroed) {
                  if (!*alive) return done(EIO);
                  if (zeroed.has_error()) return done(errno_of(zeroed.error()));
                  if (offset + length == end) return done(0);
                  zero_from(offset + length, end, done);
                });
}

void Open_file::zero(std::uint32_t generation, std::uint64_t offset, std::uint64_t length,
                     bool keep_size, Errno_done done) {
  if (offset > size_max || length > size_max - offset) return done(EFBIG);
  with_lease(generation, true, [this, offset, length, keep_size, done = std::move(done)](int why) {
    if (why != 0) return done(why);
    auto const finish = [this, offset, length, keep_size, done](int error) {
      if (error == 0) {
        touch();
        if (!keep_size) grow(offset + length);
      }
      done(error);
      end_operation();
    };
    // Behind the end there is nothing to be made zero.
    auto const end = std::min(offset + length, size_);
    if (offset >= end) return finish(0);
    zero_from(offset, end, finish);
  });
}

void Open_file::seek(std::uint32_t generation, std::uint64_t offset, bool hole, Offset_done done) {
  with_lease(generation, false, [this, offset, hole, done = std::move(done)](int why) {
    if (why != 0) return done(why, 0);
    seek_from(offset, hole, [this, done](int error, std::uint64_t found) {
      done(error, found);
      end_operation();
    });
  });
}

void Open_file::seek_from(std::uint64_t offset, bool hole, Offset_done done) {
  if (offset >= size_) return done(ENXIO, 0);
  volume_->extents(
      offset, size_ - offset, extents_a_look,
      [this, offset, hole, done, alive = alive_](Result<std::vector<client::Extent>> extents) {
        if (!*alive) return done(EIO, 0);
        if (extents.has_error()) return done(errno_of(extents.error()), 0);
        auto at = offset;
        for (auto const& extent : extents.value()) {
          if (extent.hole == hole) return done(0, at);
          at += extent.length;
        }
        if (at < size_) return seek_from(at, hole, done);
        // The end is a hole; behind the last data there is none.
        if (hole) return done(0, size_);
        done(ENXIO, 0);
      });
}

}  // namespace pstorage::mount
