#include "iscsi/module/nbd_store.h"

#include <algorithm>
#include <cerrno>

namespace pstorage::iscsi {
namespace {

constexpr std::uint32_t pause_ticks_max = ticks_per_second;

}  // namespace

Nbd_store::Nbd_store(std::string name, std::string uri, std::uint64_t size_bytes,
                     std::uint32_t patience_seconds, std::function<void(std::uint64_t)> grown)
    : name_(std::move(name)),
      uri_(std::move(uri)),
      size_(size_bytes),
      wanted_size_(size_bytes),
      patience_ticks_(patience_seconds * ticks_per_second),
      grown_(std::move(grown)) {
  tgt_init_sched_event(&deferred_, &Nbd_store::on_deferred, this);
  has_ticker_ = Ticker::instance().add(*this);
  connect();
}

Nbd_store::~Nbd_store() {
  tgt_remove_sched_event(&deferred_);
  if (has_ticker_) Ticker::instance().remove(*this);
}

void Nbd_store::connect() {
  connection_ = std::make_unique<Nbd_connection>(static_cast<Nbd_connection_owner&>(*this));
  auto const why = connection_->start(uri_);
  if (why.empty()) return;
  dead_.push_back(std::move(connection_));
  wait_to_connect(why);
}

void Nbd_store::wait_to_connect(std::string const& why) {
  pause_ticks_ = next_pause_ticks_;
  next_pause_ticks_ = std::min(next_pause_ticks_ * 2, pause_ticks_max);
  if (!has_complained_) {
    log_error("pstorage: %s: %s is not reachable: %s; trying again\n", name_.c_str(), uri_.c_str(),
              why.c_str());
  }
  has_complained_ = true;
  defer();
}

void Nbd_store::connection_ready(Nbd_connection& connection) {
  if (&connection == next_.get()) return use_next();
  if (&connection != connection_.get()) return;
  if (connection.size_bytes() < size_) {
    auto const why = "it has " + std::to_string(connection.size_bytes()) + " bytes, the LUN has " +
                     std::to_string(size_);
    dead_.push_back(std::move(connection_));
    return wait_to_connect(why);
  }
  if (has_complained_) log_warning("pstorage: %s: connected again\n", name_.c_str());
  has_complained_ = false;
  next_pause_ticks_ = 1;
  silent_ticks_ = 0;
  if (connection.size_bytes() >= wanted_size_) has_grown();
  send_waiting();
}

void Nbd_store::grow(std::uint64_t bytes) {
  wanted_size_ = bytes;
  if (!next_) try_to_grow();
}

void Nbd_store::try_to_grow() {
  next_ = std::make_unique<Nbd_connection>(static_cast<Nbd_connection_owner&>(*this));
  auto const why = next_->start(uri_);
  if (!why.empty()) retry_to_grow(why);
}

void Nbd_store::retry_to_grow(std::string const& why) {
  if (grow_pause_ticks_ == 0) {
    log_warning("pstorage: %s: has not grown yet: %s\n", name_.c_str(), why.c_str());
  }
  if (next_) dead_.push_back(std::move(next_));
  grow_pause_ticks_ = ticks_per_second;
  defer();
}

void Nbd_store::use_next() {
  if (next_->size_bytes() < wanted_size_) {
    return retry_to_grow("the server still reports " + std::to_string(next_->size_bytes()) +
                         " bytes, not " + std::to_string(wanted_size_));
  }
  if (connection_) draining_.push_back(std::move(connection_));
  connection_ = std::move(next_);
  has_grown();
  send_waiting();
}

void Nbd_store::has_grown() {
  if (next_) dead_.push_back(std::move(next_));
  if (size_ == wanted_size_) return;
  size_ = wanted_size_;
  grow_pause_ticks_ = 0;
  grown_(size_);
}

void Nbd_store::connection_lost(Nbd_connection& connection, std::string const& why) {
  if (&connection == next_.get()) return retry_to_grow(why);
  if (&connection == connection_.get()) {
    dead_.push_back(std::move(connection_));
    return wait_to_connect(why);
  }
  auto const found = std::find_if(draining_.begin(), draining_.end(),
                                  [&](auto const& one) { return one.get() == &connection; });
  if (found == draining_.end()) return;
  dead_.push_back(std::move(*found));
  draining_.erase(found);
  defer();
}

void Nbd_store::submit(Store_request& request) {
  request.age_ticks = 0;
  if (connection_ && connection_->is_ready() && !is_stuck()) {
    connection_->issue(request);
  } else {
    waiting_.push_back(&request);
  }
}

void Nbd_store::send_waiting() {
  while (!waiting_.empty() && connection_ && connection_->is_ready() && !is_stuck()) {
    auto& request = *waiting_.front();
    waiting_.pop_front();
    connection_->issue(request);
  }
}

void Nbd_store::answered(Store_request& request, int error) {
  silent_ticks_ = 0;
  answers_.emplace_back(&request, error);
  if (!is_passing_) defer();
}

void Nbd_store::unanswered(Store_request& request) {
  request.age_ticks = 0;
  waiting_.push_back(&request);
  defer();
}

void Nbd_store::defer() { tgt_add_sched_event(&deferred_); }

void Nbd_store::on_deferred(event_data* event) {
  static_cast<Nbd_store*>(event->data)->event_done();
}

void Nbd_store::event_done() {
  if (is_passing_) return;
  if (connection_) connection_->look_at_state();
  if (next_) next_->look_at_state();
  dead_.clear();
  std::erase_if(draining_, [](auto const& one) { return one->in_flight() == 0; });
  send_waiting();
  pass_answers();
}

void Nbd_store::pass_answers() {
  is_passing_ = true;
  std::vector<std::pair<Store_request*, int>> batch;
  while (!answers_.empty()) {
    batch.clear();
    batch.swap(answers_);
    for (auto const& [request, error] : batch) request->store_done(error);
  }
  is_passing_ = false;
}

void Nbd_store::on_tick() {
  if (!connection_ && pause_ticks_ > 0 && --pause_ticks_ == 0) connect();
  bool const grows = wanted_size_ != size_ && !next_ && connection_ && connection_->is_ready();
  if (grows && (grow_pause_ticks_ == 0 || --grow_pause_ticks_ == 0)) {
    grow_pause_ticks_ = 1;  // the reason was logged
    try_to_grow();
  }
  bool const owes = !connection_ || !connection_->is_ready() || connection_->in_flight() > 0;
  silent_ticks_ = owes ? std::min(silent_ticks_ + 1, patience_ticks_) : 0;
  send_waiting();
  std::deque<Store_request*> still;
  for (auto* const request : waiting_) {
    if (++request->age_ticks >= patience_ticks_ || is_stuck()) {
      answers_.emplace_back(request, EAGAIN);
    } else {
      still.push_back(request);
    }
  }
  waiting_.swap(still);
  event_done();
}

}  // namespace pstorage::iscsi
