#include "core/net/resolver.h"

#include <signal.h>

#include <mutex>
#include <thread>

namespace pstorage {

struct Resolver::Gate {
  std::mutex mutex;
  Event_loop* loop;  // nullptr: the resolver is gone
  std::size_t running = 0;
};

namespace {
constexpr std::size_t lookups_max = 16;
}

Resolver::Resolver(Event_loop& loop) : gate_(std::make_shared<Gate>()) { gate_->loop = &loop; }

Resolver::~Resolver() {
  std::lock_guard const lock(gate_->mutex);
  gate_->loop = nullptr;
}

void Resolver::resolve(Address const& address, Done done) {
  {
    std::lock_guard const lock(gate_->mutex);
    if (gate_->running >= lookups_max) {
      gate_->loop->post([done = std::move(done)] {
        done(failure(Errc::unavailable, "too many look-ups of names: does DNS answer?"));
      });
      return;
    }
    ++gate_->running;
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([gate = gate_, address, done = std::move(done)]() mutable {
    auto result = pstorage::resolve(address);
    std::lock_guard const lock(gate->mutex);
    --gate->running;
    if (gate->loop == nullptr) return;
    gate->loop->post([done = std::move(done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
  }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace pstorage
