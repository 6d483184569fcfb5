// What a replicated 4 KiB write costs in system calls and checksums alone, without a product: a
// server that gets writes on a unix socket and passes them to three stores, each of which answers
// when the write is in the page cache of a journal, puts it in place once that is durable, and
// syncs what is in place before the journal's ring is full (DESIGN 5). With --in-place there is no
// journal, as in the prototype of DESIGN 10. Prints CPU us a write. For scripts/bench; not a test.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "core/crc32c.h"

namespace pstorage {
namespace {

constexpr std::size_t block = 4096, header = 64, replicas = 3;
constexpr std::size_t journal_bytes = 256u << 20, receive_bytes = 256u << 10;
constexpr std::size_t commit_bytes = 8u << 20, apply_above = 16u << 20;  // as cs/store.h
constexpr std::size_t checkpoint_bytes = journal_bytes / 4 * 3;

struct Setup {
  std::string directory = ".";
  unsigned depth = 32, size_mb = 256;
  double seconds = 5;
  bool in_place = false;
  int cpu = 0;
};

struct Header {
  std::uint64_t id = 0;
  std::uint64_t number = 0;  // of the block
  std::uint32_t crc = 0;
  std::array<std::byte, 44> more{};
};
static_assert(sizeof(Header) == header);

[[noreturn]] void die(char const* what) {
  std::perror(what);
  std::_Exit(1);
}

/// All of it. False: the other end has closed.
bool write_all(int to, std::vector<iovec>& pieces) {
  for (std::size_t first = 0; first < pieces.size();) {
    auto const count = std::min<std::size_t>(pieces.size() - first, IOV_MAX);
    ssize_t written = ::writev(to, &pieces[first], static_cast<int>(count));
    if (written < 0) return false;
    while (written > 0 && written >= static_cast<ssize_t>(pieces[first].iov_len))
      written -= static_cast<ssize_t>(pieces[first++].iov_len);
    if (written == 0) continue;
    pieces[first].iov_base = static_cast<std::byte*>(pieces[first].iov_base) + written;
    pieces[first].iov_len -= static_cast<std::size_t>(written);
  }
  pieces.clear();
  return true;
}

/// Receives messages of one size into memory that is used in turn.
class Receiver {
 public:
  Receiver(int from, std::size_t message, std::size_t bytes)
      : from_(from), message_(message), memory_(bytes + receive_bytes + message) {}
  /// What has arrived, whole messages; empty: closed.
  std::vector<std::byte*> receive() {
    if (filled_ > memory_.size() - receive_bytes) {
      std::memmove(memory_.data(), &memory_[taken_], filled_ - taken_);
      filled_ -= std::exchange(taken_, 0);
    }
    std::vector<std::byte*> found;
    while (found.empty()) {
      ssize_t const got = ::read(from_, &memory_[filled_], receive_bytes);
      if (got <= 0) break;
      filled_ += static_cast<std::size_t>(got);
      for (; filled_ - taken_ >= message_; taken_ += message_) found.push_back(&memory_[taken_]);
    }
    return found;
  }

 private:
  int from_;
  std::size_t message_;
  std::vector<std::byte> memory_;
  std::size_t filled_ = 0, taken_ = 0;
};

class Store {
 public:
  Store(Setup const& setup, std::string const& name, int peer)
      : setup_(setup), peer_(peer), receiver_(peer, header + block, 2 * apply_above) {
    data_ = make(name + ".data", std::size_t{setup.size_mb} << 20);
    journal_ = make(name + ".journal", journal_bytes);
    if (!setup.in_place) committer_ = std::thread([this] { commit(); });
  }
  void run() {
    for (auto found = receiver_.receive(); !found.empty(); found = receiver_.receive()) {
      for (std::byte* message : found) {
        auto const& head = *reinterpret_cast<Header*>(message);
        if (crc32c({message + header, block}) != head.crc) die("checksum");
      }
      setup_.in_place ? put(found) : append(found);
      for (std::byte* message : found) pieces_.push_back({message, header});
      if (!write_all(peer_, pieces_)) break;
    }
    wanted_ = ~std::uint64_t{0};
    wanted_.notify_one();
    if (committer_.joinable()) committer_.join();
  }

 private:
  int make(std::string const& name, std::size_t bytes) const {
    int const file = ::open((setup_.directory + "/" + name).c_str(), O_RDWR | O_CREAT, 0600);
    if (file < 0) die(name.c_str());
    std::vector<std::byte> zeros(1u << 20);
    for (std::size_t at = 0; at < bytes; at += zeros.size())
      if (::pwrite(file, zeros.data(), zeros.size(), static_cast<off_t>(at)) < 0) die("pwrite");
    ::fsync(file);
    return file;
  }
  void put(std::vector<std::byte*> const& messages) const {
    for (std::byte* message : messages) {
      auto const& head = *reinterpret_cast<Header*>(message);
      if (::pwrite(data_, message + header, block, static_cast<off_t>(head.number * block)) < 0)
        die("pwrite");
    }
  }
  void append(std::vector<std::byte*> const& messages) {
    std::size_t const bytes = messages.size() * (header + block);
    if (appended_ % journal_bytes + bytes > journal_bytes)
      appended_ += journal_bytes - appended_ % journal_bytes;
    for (std::byte* message : messages) pieces_.push_back({message, header + block});
    auto const at = static_cast<off_t>(appended_ % journal_bytes);
    if (::pwritev(journal_, pieces_.data(), static_cast<int>(pieces_.size()), at) < 0)
      die("pwritev");
    pieces_.clear();
    appended_ += bytes;
    staged_.insert(staged_.end(), messages.begin(), messages.end());
    staged_at_.insert(staged_at_.end(), messages.size(), appended_);
    if (appended_ - wanted_ >= commit_bytes) {
      wanted_ = appended_;
      wanted_.notify_one();
    }
    if (staged_.size() * block <= apply_above) return;
    std::vector<std::byte*> ready;
    while (ready.size() < 2 * messages.size() && staged_at_.front() <= durable_) {
      ready.push_back(staged_.front());
      staged_.pop_front();
      staged_at_.pop_front();
    }
    put(ready);
  }
  void commit() {
    for (std::uint64_t done = 0, checkpoint = 0;;) {
      wanted_.wait(done);
      done = wanted_;
      if (done == ~std::uint64_t{0}) return;
      if (::fdatasync(journal_) != 0) die("fdatasync");
      if (done - checkpoint >= checkpoint_bytes) {
        checkpoint = done;
        if (::fdatasync(data_) != 0) die("fdatasync");
      }
      durable_ = done;
    }
  }

  Setup const& setup_;
  int peer_;
  Receiver receiver_;
  int data_ = -1, journal_ = -1;
  std::vector<iovec> pieces_;
  std::uint64_t appended_ = 0;
  std::deque<std::byte*> staged_;
  std::deque<std::uint64_t> staged_at_;
  std::atomic<std::uint64_t> wanted_ = 0, durable_ = 0;
  std::thread committer_;
};

/// Passes each write on to all stores and answers when all have.
void serve(int client, std::array<int, replicas> const& stores) {
  Receiver requests(client, header + block, 0);
  std::vector<Receiver> answers;
  std::vector<pollfd> ends{{client, POLLIN, 0}};
  for (int store : stores) {
    answers.emplace_back(store, header, 0);
    ends.push_back({store, POLLIN, 0});
  }
  std::vector<unsigned> missing(1u << 16);
  std::vector<iovec> pieces;
  std::vector<Header> done;
  while (::poll(ends.data(), ends.size(), -1) > 0) {
    if (ends[0].revents != 0) {
      auto const found = requests.receive();
      if (found.empty()) return;
      for (std::byte* message : found) {
        auto& head = *reinterpret_cast<Header*>(message);
        head.crc = crc32c({message + header, block});
        missing[head.id] = replicas;
      }
      for (int store : stores) {
        for (std::byte* message : found) pieces.push_back({message, header + block});
        if (!write_all(store, pieces)) return;
      }
    }
    for (std::size_t i = 0; i < replicas; ++i) {
      if (ends[i + 1].revents == 0) continue;
      for (std::byte* answer : answers[i].receive()) {
        auto const& head = *reinterpret_cast<Header*>(answer);
        if (--missing[head.id] == 0) done.push_back(head);
      }
    }
    for (Header& head : done) pieces.push_back({&head, 16});
    if (!write_all(client, pieces)) return;
    done.clear();
  }
}

/// Keeps `depth` writes of random blocks under way. Returns how many were answered.
std::uint64_t load(Setup const& setup, int server) {
  std::vector<std::byte> content(block, std::byte{7});
  std::vector<Header> heads(setup.depth);
  std::vector<iovec> pieces;
  Receiver answers(server, 16, 0);
  std::uint64_t const blocks = std::uint64_t{setup.size_mb} * (1u << 20) / block;
  std::uint64_t count = 0, seed = 1;
  auto const end = std::chrono::steady_clock::now() + std::chrono::duration<double>(setup.seconds);
  std::vector<std::uint64_t> ids(setup.depth);
  for (unsigned i = 0; i < setup.depth; ++i) ids[i] = i;
  while (std::chrono::steady_clock::now() < end) {
    for (std::uint64_t const id : ids) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      heads[id] = {.id = id, .number = (seed >> 33) % blocks, .more = {}};
      pieces.push_back({&heads[id], header});
      pieces.push_back({content.data(), block});
      if (!write_all(server, pieces)) die("the server is gone");  // each by itself, as clients do
    }
    ids.clear();
    for (std::byte* answer : answers.receive())
      ids.push_back(reinterpret_cast<Header*>(answer)->id);
    count += ids.size();
  }
  return count;
}

std::array<int, 2> connection() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) != 0) die("socketpair");
  int const bytes = 4u << 20;
  for (int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return ends;
}

double cpu_us(rusage const& usage) {
  auto const us = [](timeval t) { return double(t.tv_sec) * 1e6 + double(t.tv_usec); };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

double cpu_us_of(pid_t child) {
  int status = 0;
  rusage usage{};
  if (::wait4(child, &status, 0, &usage) < 0 || status != 0) die("a process failed");
  return cpu_us(usage);
}

template <typename Work>
pid_t start(Work const& work) {
  pid_t const child = ::fork();
  if (child < 0) die("fork");
  if (child != 0) return child;
  work();
  std::_Exit(0);
}

void measure(Setup const& setup) {
  if (setup.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(setup.cpu, &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity");
  }
  auto const front = connection();
  std::array<std::array<int, 2>, replicas> back{};
  for (auto& one : back) one = connection();
  auto const keep_only = [&](int kept) {
    for (int end : front)
      if (end != kept) ::close(end);
    for (auto const& one : back)
      for (int end : one)
        if (end != kept) ::close(end);
  };
  std::vector<pid_t> children;
  std::array<int, 2> ready{};
  if (::pipe(ready.data()) != 0) die("pipe");
  for (std::size_t i = 0; i < replicas; ++i)
    children.push_back(start([&, i] {
      keep_only(back[i][1]);
      Store store(setup, "store" + std::to_string(i), back[i][1]);
      rusage usage{};
      ::getrusage(RUSAGE_SELF, &usage);
      double const spent = cpu_us(usage);
      if (::write(ready[1], &spent, sizeof spent) != sizeof spent) die("pipe");
      store.run();
    }));
  double spent = 0, before = 0;  // making the files
  for (std::size_t i = 0; i < replicas; ++i, before += spent)
    if (::read(ready[0], &spent, sizeof spent) != sizeof spent) die("a store did not start");
  children.push_back(start([&] {
    ::close(front[0]);
    for (auto const& one : back) ::close(one[1]);
    serve(front[1], {back[0][0], back[1][0], back[2][0]});
  }));
  keep_only(front[0]);
  std::uint64_t const count = load(setup, front[0]);
  ::close(front[0]);
  double const server = cpu_us_of(children.back());
  children.pop_back();
  double stores = -before;
  for (pid_t child : children) stores += cpu_us_of(child);
  std::printf("%.2f us a write: server %.2f, a store %.2f; %.0f writes/s\n",
              (server + stores) / double(count), server / double(count),
              stores / double(count) / replicas, double(count) / setup.seconds);
}

}  // namespace
}  // namespace pstorage

int main(int count, char** words) {
  pstorage::Setup setup;
  CLI::App app{"CPU a replicated 4 KiB write in system calls and checksums alone."};
  app.add_option("--dir", setup.directory, "where the files go")->check(CLI::ExistingDirectory);
  app.add_option("--depth", setup.depth, "writes under way")->check(CLI::Range(1, 1024));
  app.add_option("--size-mb", setup.size_mb, "working set")->check(CLI::Range(1, 65536));
  app.add_option("--seconds", setup.seconds)->check(CLI::PositiveNumber);
  app.add_flag("--in-place", setup.in_place, "no journal, as DESIGN 10's prototype");
  app.add_option("--cpu", setup.cpu, "all processes on this one; -1: anywhere");
  CLI11_PARSE(app, count, words);
  pstorage::measure(setup);
  return 0;
}
