#include "core/runtime/runtime.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "core/disk/posix_disk.h"
#include "core/runtime/implementation.h"

namespace pstorage {
namespace {

// Receive blocks and payloads come and go at up to 4 MiB. Taken from the kernel each time they cost
// a page fault for every 4 KiB; kept by malloc they cost nothing. return_memory() gives them back.
void keep_blocks_in_malloc() {
  ::mallopt(M_MMAP_THRESHOLD, 8 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

}  // namespace

std::string process_name() {
  char host[256] = "";
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  return std::string(program_invocation_short_name) + "[" + std::to_string(::getpid()) + "]@" +
         host;
}

Runtime::Implementation::Implementation(Runtime_options options, Log& log)
    : options_(std::move(options)), log_(log) {
  if (options_.identity.name.empty()) options_.identity.name = process_name();
  keep_blocks_in_malloc();
  apply_placement();
  // A write to a socket whose peer is gone is an error code, not the end of the process.
  ::signal(SIGPIPE, SIG_IGN);
  Network_options network;
  network.identity = options_.identity;
  network.connections_max = options_.connections_max;
  network.unauthenticated_max = options_.unauthenticated_max;
  network.handshake_timeout = options_.handshake_timeout;
  network_ = std::make_unique<Socket_network>(loop_, std::move(network), clock_, log_);
  tickers_.push_back(network_.get());
  flushers_.push_back(network_.get());
  if (options_.handle_signals) loop_.handle_signals([this] { on_signal(); });
  loop_.set_tick(tick_interval, [this] { on_tick(); });
}

Runtime::Implementation::~Implementation() = default;

void Runtime::Implementation::apply_placement() {
  if (options_.cpu_affinity < 0) return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (options_.cpu_affinity < CPU_SETSIZE)
    CPU_SET(static_cast<std::size_t>(options_.cpu_affinity), &cpus);
  if (::sched_setaffinity(0, sizeof cpus, &cpus) != 0)
    log_.warn("cannot bind to this CPU, running on any: give the number of a CPU of this host",
              {{"cpu", options_.cpu_affinity}});
}

void Runtime::Implementation::add_flusher(Turn_flusher& flusher) { flushers_.push_back(&flusher); }

void Runtime::Implementation::remove_flusher(Turn_flusher& flusher) {
  std::erase(flushers_, &flusher);
}

void Runtime::Implementation::on_tick() {
  // Tickers may add and remove tickers.
  for (std::size_t i = 0; i < tickers_.size(); ++i)
    if (tickers_[i] != nullptr) tickers_[i]->on_tick();
  std::erase(tickers_, nullptr);
  if (++ticks_ % ticks_a_memory_check == 0) return_memory();
}

// keep_blocks_in_malloc() holds on to what the largest burst needed. Giving it back takes some ms,
// so only once, when it is over.
void Runtime::Implementation::return_memory() {
  bool const is_busy = std::exchange(turns_, 0) >= busy_turns;
  if (is_busy)
    memory_is_loose_ = true;
  else if (std::exchange(memory_is_loose_, false))
    ::malloc_trim(4 << 20);
}

void Runtime::Implementation::on_signal() {
  auto const handler = std::exchange(stop_handler_, nullptr);
  if (!handler) {
    stopped_ = true;
    return;
  }
  handler();  // a second signal ends a clean shutdown that takes too long
}

bool Runtime::Implementation::spin() {
  Duration const limit = std::chrono::microseconds(options_.busy_poll_us);
  Real_clock const clock;
  auto const start = clock.now();
  do {
    if (loop_.run_turn(Duration::zero())) return true;
    // Others on this CPU may be what we wait for.
    ::sched_yield();
  } while (clock.now() - start < limit);
  return false;
}

void Runtime::Implementation::defer(std::function<void()> work) {
  deferred_.push_back(std::move(work));
}

void Runtime::Implementation::run_deferred() {
  for (int round = 0; round < deferred_rounds_a_turn && !deferred_.empty(); ++round) {
    std::swap(deferred_, running_deferred_);
    for (auto& work : running_deferred_) work();
    running_deferred_.clear();
  }
}

void Runtime::Implementation::run_turn(Duration at_most) {
  ++turns_;
  clock_.begin_turn();
  if (!deferred_.empty())
    loop_.run_turn(Duration::zero());  // work waits: look, but do not sleep
  else if (options_.busy_poll_us == 0 || !spin())
    loop_.run_turn(at_most);
  run_deferred();
  network_->run_turn_hook();
  // What the hook has deferred belongs to this turn: its answers go out below.
  run_deferred();
  // A flusher may add another one.
  for (std::size_t i = 0; i < flushers_.size(); ++i) flushers_[i]->flush_turn();
  clock_.end_turn();
}

Runtime::Runtime(Runtime_options options, Log& log)
    : implementation_(std::make_unique<Implementation>(std::move(options), log)) {}

Runtime::~Runtime() = default;

Clock& Runtime::clock() { return implementation_->clock_; }
Network& Runtime::network() { return *implementation_->network_; }
Random& Runtime::random() { return implementation_->random_; }
Log& Runtime::log() { return implementation_->log_; }
Executor& Runtime::executor() { return *implementation_; }

Outcome<std::unique_ptr<Disk>> Runtime::open_disk(std::string const& root) {
  auto& loop = implementation_->loop_;
  return open_posix_disk(root, implementation_->pool_,
                         [&loop](std::function<void()> work) { loop.post(std::move(work)); });
}

void Runtime::add_ticker(Ticker& ticker) { implementation_->tickers_.push_back(&ticker); }

void Runtime::remove_ticker(Ticker& ticker) {
  // Only marked: a tick may be going through the list.
  auto& tickers = implementation_->tickers_;
  std::replace(tickers.begin(), tickers.end(), &ticker, static_cast<Ticker*>(nullptr));
}

void Runtime::post(std::function<void()> work) { implementation_->loop_.post(std::move(work)); }

void Runtime::run_off_loop(std::function<void()> work, std::function<void()> done) {
  implementation_->pool_.run(
      [&loop = implementation_->loop_, work = std::move(work), done = std::move(done)]() mutable {
        work();
        loop.post(std::move(done));
      });
}

void Runtime::set_stop_handler(std::function<void()> handler) {
  implementation_->stop_handler_ = std::move(handler);
}

void Runtime::run() {
  auto& self = *implementation_;
  while (!self.stopped_) self.run_turn(Duration::max());
  self.stopped_ = false;
}

void Runtime::stop() { implementation_->stopped_ = true; }

void Runtime::run_turn(Duration at_most) {
  // What the caller has sent since the last turn must not wait until this one ends.
  for (std::size_t i = 0; i < implementation_->flushers_.size(); ++i) {
    implementation_->flushers_[i]->flush_turn();
  }
  implementation_->run_turn(at_most);
}

}  // namespace pstorage
