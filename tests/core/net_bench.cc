// Cost of the internal network: 4 KiB writes between two processes. Not a test; run by hand:
// net_bench [unix|tcp] [clear|tls] [CPU]. Prints requests/s and CPU us a request of both sides.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

struct Setup {
  bool is_unix = true;
  bool encrypted = false;
  int cpu = -1;
};

double cpu_us() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto const us = [](timeval t) {
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

Runtime_options bench_options(Setup const& setup) {
  auto result = options();
  result.identity.encryption = setup.encrypted;
  result.cpu_affinity = setup.cpu;
  return result;
}

/// Answers every message with its header; to control messages with its CPU time.
[[noreturn]] void serve(Setup const& setup, Address const& at, int tell) {
  Memory_log log;
  Runtime runtime(bench_options(setup), log);
  Recorder side;
  side.react = [&](Connection_id from, Message& message) {
    message.header.is_reply = true;
    if (message.header.operation == Operation::read) {
      static Slice const data = Slice::allocate(1u << 20);
      message.data = data.part(0, message.header.length);
    } else {
      message.data = {};
    }
    if (message.header.operation == Operation::control) {
      message.meta = Slice::allocate(sizeof(double));
      store_le(message.meta.data(), cpu_us());
    }
    runtime.network().send(from, std::move(message));
  };
  auto const real = runtime.network().listen(at, side);
  if (!real) _exit(1);
  auto const port = real.value().port;
  if (write(tell, &port, sizeof port) != sizeof port) _exit(1);
  runtime.run();
  _exit(0);
}

class Load {
 public:
  Load(Setup const& setup, Address const& to) : runtime_(bench_options(setup), log_) {
    connection_ = runtime_.network().connect(to, side_);
    while (side_.connected.empty() && side_.failures.empty())
      runtime_.run_turn(std::chrono::milliseconds(10));
    if (!side_.failures.empty()) {
      std::printf("%s\n", side_.failures[0].text.c_str());
      std::exit(1);
    }
  }

  void run(char const* name, Operation operation, std::uint32_t bytes, int depth,
           Duration time = std::chrono::seconds(2)) {
    auto payload = Slice::allocate(bytes);
    std::memset(payload.data(), 1, bytes);
    std::uint64_t answered = 0;
    Message message;
    message.header.operation = operation;
    message.header.length = bytes;
    auto const send = [&] {
      Message copy = message;
      if (operation == Operation::write) copy.data = payload;
      runtime_.network().send(connection_, std::move(copy));
    };
    auto const server_before = server_cpu();
    auto const before = cpu_us();
    auto const start = runtime_.clock().now();
    bool over = false;
    int under_way = depth;
    side_.react = [&](Connection_id, Message&) {
      ++answered;
      if (over)
        --under_way;
      else
        send();
    };
    for (int i = 0; i < depth; ++i) send();
    while (under_way > 0) {
      runtime_.run_turn(std::chrono::milliseconds(10));
      over = runtime_.clock().now() - start > time;
    }
    auto const own = cpu_us() - before;
    auto const server = server_cpu() - server_before;
    auto const n = static_cast<double>(answered);
    std::printf("%-14s depth %2d: %8.0f/s, CPU us/request %6.2f (client %.2f + server %.2f)\n",
                name, depth, n / std::chrono::duration<double>(time).count(), (own + server) / n,
                own / n, server / n);
  }

 private:
  double server_cpu() {
    double result = -1;
    side_.react = [&](Connection_id, Message& message) {
      result = load_le<double>(message.meta.data());
    };
    runtime_.network().send(connection_, {});
    while (result < 0) runtime_.run_turn(std::chrono::milliseconds(10));
    return result;
  }

  Memory_log log_;
  Recorder side_;
  Runtime runtime_;
  Connection_id connection_{};
};

int bench(Setup const& setup) {
  Temporary_directory directory;
  Address at;
  if (setup.is_unix)
    at.unix_path = directory.path("socket");
  else
    at.host = "127.0.0.1";
  int ends[2];
  if (pipe(ends) != 0) return 1;
  auto const child = fork();
  if (child == 0) serve(setup, at, ends[1]);
  std::uint16_t port = 0;
  if (read(ends[0], &port, sizeof port) != sizeof port) return 1;
  at.port = port;
  {
    Load load(setup, at);
    load.run("4k write", Operation::write, 4096, 32);
    load.run("4k read", Operation::read, 4096, 32);
    load.run("4k write", Operation::write, 4096, 1);
    load.run("4k read", Operation::read, 4096, 1);
    load.run("1M write", Operation::write, 1u << 20, 4);
    load.run("1M read", Operation::read, 1u << 20, 4);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return 0;
}

}  // namespace
}  // namespace pstorage::test

int main(int count, char** arguments) {
  pstorage::test::Setup setup;
  for (int i = 1; i < count; ++i) {
    std::string const argument = arguments[i];
    if (argument == "tcp") setup.is_unix = false;
    if (argument == "tls") setup.encrypted = true;
    if (argument.find_first_not_of("0123456789") == std::string::npos)
      setup.cpu = std::atoi(argument.c_str());
  }
  return pstorage::test::bench(setup);
}
