#include "iscsi/module/ticker.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "iscsi/module/tgt_abi.h"

namespace pstorage::iscsi {

Ticker& Ticker::instance() {
  static Ticker ticker;
  return ticker;
}

bool Ticker::add(Tick_listener& listener) {
  listeners_.push_back(&listener);
  if (fd_ >= 0) return true;
  fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  itimerspec const every{.it_interval = {0, tick_ms * 1000000l},
                         .it_value = {0, tick_ms * 1000000l}};
  if (fd_ >= 0 && ::timerfd_settime(fd_, 0, &every, nullptr) == 0 &&
      tgt_event_add(fd_, EPOLLIN, &Ticker::on_timer, this) == 0) {
    return true;
  }
  log_error("pstorage: cannot make a timer: %s\n", std::strerror(errno));
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  listeners_.pop_back();
  return false;
}

void Ticker::remove(Tick_listener& listener) {
  std::erase(listeners_, &listener);
  if (!listeners_.empty() || fd_ < 0) return;
  tgt_event_del(fd_);
  ::close(fd_);
  fd_ = -1;
}

void Ticker::on_timer(int fd, int /*events*/, void* self) {
  std::uint64_t expirations = 0;
  if (::read(fd, &expirations, sizeof(expirations)) < 0) return;
  auto const listeners = static_cast<Ticker*>(self)->listeners_;
  for (auto* const listener : listeners) listener->on_tick();
}

}  // namespace pstorage::iscsi
