#include "core/net/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>

#include "core/assert.h"

namespace pstorage {
namespace {

// Slots of what the loop watches for itself.
constexpr std::uint32_t wake_slot = ~std::uint32_t{0};
constexpr std::uint32_t timer_slot = wake_slot - 1;
constexpr std::uint32_t signal_slot = wake_slot - 2;

// Told once each time: nothing has to be asked for again after an event.
constexpr std::uint32_t read_events = EPOLLIN | EPOLLRDHUP | EPOLLET;

int timeout_of(Duration at_most) {
  if (at_most == Duration::max()) return -1;
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(at_most).count());
}

}  // namespace

Event_loop::Event_loop()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  PS_ASSERT(epoll_ && wake_);
  control(EPOLL_CTL_ADD, wake_.get(), {wake_slot, 0}, EPOLLIN | EPOLLET);
}

Event_loop::~Event_loop() {
  if (signals_) ::pthread_sigmask(SIG_SETMASK, &signals_before_, nullptr);
}

void Event_loop::control(int operation, int fd, Token token, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = std::uint64_t{token.generation} << 32 | token.slot;
  int const result = ::epoll_ctl(epoll_.get(), operation, fd, &event);
  PS_ASSERT(result == 0);
}

// ---------------------------------------------------------------- work, time, signals

void Event_loop::post(std::function<void()> work) {
  {
    std::lock_guard const lock(mutex_);
    posted_.push_back(std::move(work));
    if (posted_.size() > 1) return;  // the first one has woken the loop
  }
  // Never read: each addition is an edge, and the count does not run full in a machine's life.
  static_cast<void>(::eventfd_write(wake_.get(), 1));
}

void Event_loop::run_posted() {
  {
    std::lock_guard const lock(mutex_);
    std::swap(posted_, running_);
  }
  for (auto& work : running_) work();
  running_.clear();
}

void Event_loop::set_tick(Duration interval, std::function<void()> tick) {
  tick_ = std::move(tick);
  timer_ = File_descriptor(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  PS_ASSERT(timer_);
  itimerspec times{};
  times.it_interval.tv_nsec = static_cast<long>(interval.count() % 1'000'000'000);
  times.it_interval.tv_sec = static_cast<time_t>(interval.count() / 1'000'000'000);
  times.it_value = times.it_interval;
  PS_ASSERT(::timerfd_settime(timer_.get(), 0, &times, nullptr) == 0);
  control(EPOLL_CTL_ADD, timer_.get(), {timer_slot, 0}, EPOLLIN | EPOLLET);
}

void Event_loop::handle_signals(std::function<void()> handler) {
  on_signal_ = std::move(handler);
  sigset_t set;
  ::sigemptyset(&set);
  for (int const signal : {SIGTERM, SIGINT}) {
    ::sigaddset(&set, signal);
    ::signal(signal, SIG_DFL);  // one that is ignored (a job of a shell script) would never arrive
  }
  ::pthread_sigmask(SIG_BLOCK, &set, &signals_before_);
  signals_ = File_descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  PS_ASSERT(signals_);
  control(EPOLL_CTL_ADD, signals_.get(), {signal_slot, 0}, EPOLLIN | EPOLLET);
}

// ---------------------------------------------------------------- descriptors

Event_loop::Token Event_loop::add(Watch& watch) {
  if (free_entries_.empty()) {
    free_entries_.push_back(static_cast<std::uint32_t>(entries_.size()));
    entries_.emplace_back();
  }
  Token const token{free_entries_.back(), ++entries_[free_entries_.back()].generation};
  free_entries_.pop_back();
  entries_[token.slot].watch = &watch;
  return token;
}

void Event_loop::remove(Token token) {
  entries_[token.slot].watch = nullptr;
  free_entries_.push_back(token.slot);
}

void Event_loop::tell(Token token, Readiness ready) {
  if (token.slot >= entries_.size()) return;
  Entry const& entry = entries_[token.slot];
  if (entry.watch != nullptr && entry.generation == token.generation) entry.watch->tell(ready);
}

// ---------------------------------------------------------------- a turn

void Event_loop::handle(Token token, std::uint32_t events) {
  if (token.slot == wake_slot) return run_posted();
  if (token.slot == timer_slot) {
    std::uint64_t missed = 0;
    if (::read(timer_.get(), &missed, sizeof missed) == sizeof missed) tick_();
    return;
  }
  if (token.slot == signal_slot) {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) on_signal_();
    return;
  }
  bool const broken = (events & (EPOLLERR | EPOLLHUP)) != 0;
  Readiness ready;
  ready.ended = broken || (events & EPOLLRDHUP) != 0;
  ready.readable = ready.ended || (events & EPOLLIN) != 0;
  ready.writable = broken || (events & EPOLLOUT) != 0;
  tell(token, ready);
}

bool Event_loop::run_turn(Duration at_most) {
  std::array<epoll_event, events_a_turn> events;
  int const timeout = unfinished_.empty() ? timeout_of(at_most) : 0;
  // A signal that interrupts the wait (SIGSTOP and SIGCONT) is like nothing having happened.
  int const count = ::epoll_wait(epoll_.get(), events.data(), events_a_turn, timeout);
  bool const any = count > 0 || !unfinished_.empty();
  std::swap(unfinished_, continuing_);
  for (Token const token : continuing_) tell(token, {.readable = true});
  continuing_.clear();
  for (int i = 0; i < count; ++i) {
    std::uint64_t const data = events[static_cast<std::size_t>(i)].data.u64;
    handle({static_cast<std::uint32_t>(data), static_cast<std::uint32_t>(data >> 32)},
           events[static_cast<std::size_t>(i)].events);
  }
  return any;
}

// ---------------------------------------------------------------- Watch

void Watch::open(File_descriptor fd) {
  close();
  fd_ = std::move(fd);
  token_ = loop_.add(*this);
  loop_.control(EPOLL_CTL_ADD, fd_.get(), token_, read_events);
}

void Watch::close() {
  if (!fd_) return;
  loop_.control(EPOLL_CTL_DEL, fd_.get(), token_, 0);
  loop_.remove(token_);
  waits_writable_ = false;
  fd_ = {};
}

void Watch::wait_writable() {
  if (std::exchange(waits_writable_, true)) return;
  loop_.control(EPOLL_CTL_MOD, fd_.get(), token_, read_events | EPOLLOUT);
}

void Watch::again() { loop_.unfinished_.push_back(token_); }

void Watch::tell(Readiness ready) {
  ready.writable = ready.writable && waits_writable_;
  if (ready.writable) {
    // Left on, it would wake us for every buffer that the peer takes.
    waits_writable_ = false;
    loop_.control(EPOLL_CTL_MOD, fd_.get(), token_, read_events);
  }
  if (ready.readable || ready.writable) handler_.on_ready(ready);
}

}  // namespace pstorage
