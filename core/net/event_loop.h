// Waiting for everything at once: sockets, the tick, signals, and work that other threads post.
// Own epoll instead of Asio's reactor, which costs a wake-up two system calls more (a read that
// finds nothing, a look at epoll that finds nothing) and, once a socket was full, wakes its process
// for every buffer that the peer empties.
#pragma once

#include <signal.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "core/disk/file_descriptor.h"
#include "core/env/clock.h"

namespace pstorage {

/// What has happened to a descriptor since it was last told. Told once each time something arrives
/// (edge-triggered): read until a read is short, or ask for again().
struct Readiness {
  bool readable = false;
  bool writable = false;  // only while it was asked for
  bool ended = false;     // the peer has hung up: read until the end is found
};

class Watch;

class Event_handler {
 public:
  virtual ~Event_handler() = default;
  /// May close anything, this one too; must keep itself alive until it returns.
  virtual void on_ready(Readiness ready) = 0;
};

/// Thread: the one that runs it, except post().
class Event_loop {
 public:
  Event_loop();
  ~Event_loop();
  Event_loop(Event_loop const&) = delete;
  Event_loop& operator=(Event_loop const&) = delete;

  /// Runs `work` in the next turn. Thread: any.
  void post(std::function<void()> work);
  /// Calls `tick` each `interval`; once, not as often as it was missed.
  void set_tick(Duration interval, std::function<void()> tick);
  /// From now on SIGTERM and SIGINT do not end the process, `handler` is called.
  void handle_signals(std::function<void()> handler);
  /// Waits at most `at_most` for something to happen (Duration::max(): until then) and handles it.
  /// True: there was something.
  bool run_turn(Duration at_most);

 private:
  friend class Watch;

  /// A slot of the table below and how often it was given out: events of a descriptor that was
  /// closed earlier in the same turn find nobody.
  struct Token {
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
  };
  struct Entry {
    Watch* watch = nullptr;
    std::uint32_t generation = 0;
  };
  static constexpr int events_a_turn = 64;

  Token add(Watch& watch);
  void remove(Token token);
  void control(int operation, int fd, Token token, std::uint32_t events);
  void handle(Token token, std::uint32_t events);
  void tell(Token token, Readiness ready);
  void run_posted();

  File_descriptor epoll_;
  File_descriptor wake_;
  File_descriptor timer_;
  File_descriptor signals_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_entries_;
  std::vector<Token> unfinished_;  // asked for again()
  std::vector<Token> continuing_;
  std::function<void()> tick_;
  std::function<void()> on_signal_;
  sigset_t signals_before_{};

  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by mutex_
  std::vector<std::function<void()>> running_;
};

/// A descriptor in a loop, owned: closed with this object. Thread: the loop's.
class Watch {
 public:
  Watch(Event_loop& loop, Event_handler& handler) : loop_(loop), handler_(handler) {}
  ~Watch() { close(); }
  Watch(Watch const&) = delete;
  Watch& operator=(Watch const&) = delete;

  /// Watches `fd` (non-blocking) from now on.
  void open(File_descriptor fd);
  void close();
  bool is_open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  /// on_ready(writable) once it can be written.
  void wait_writable();
  /// on_ready(readable) in the next turn, whatever the kernel says.
  void again();

 private:
  friend class Event_loop;
  void tell(Readiness ready);

  Event_loop& loop_;
  Event_handler& handler_;
  File_descriptor fd_;
  Event_loop::Token token_;
  bool waits_writable_ = false;
};

}  // namespace pstorage
