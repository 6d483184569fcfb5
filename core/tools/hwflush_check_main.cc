// pstorage-hwflush-check(8): does a disk keep what it has called durable? A client writes, syncs
// and tells a server on another machine; after a power cut it compares.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "core/disk/posix_disk.h"
#include "core/net/socket.h"
#include "core/size.h"
#include "core/tools/flush_file.h"
#include "core/tools/flush_ledger.h"
#include "core/version.h"

namespace pstorage::tools {
namespace {

constexpr int exit_failure = 1;
constexpr int exit_usage = 2;
constexpr int connect_ms = 10'000;
constexpr int answer_ms = 30'000;

struct Options {
  bool listens = false;
  std::uint16_t port = 32000;
  std::string server;
  std::string directory;
  std::string block_size = "16K";
  std::uint32_t blocks = 1024;
  std::uint32_t writers = 8;
};

/// The other end of a connection, line by line. Thread: one, but send() any.
class Line_socket {
 public:
  explicit Line_socket(File_descriptor fd) : fd_(std::move(fd)) {}
  int get() const { return fd_.get(); }

  /// False: the peer is gone.
  bool send(std::string line) {
    line += '\n';
    std::lock_guard const lock(mutex_);
    for (std::size_t done = 0; done < line.size();) {
      auto const sent = ::send(fd_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
      if (sent > 0) {
        done += static_cast<std::size_t>(sent);
        continue;
      }
      pollfd output{fd_.get(), POLLOUT, 0};
      if (errno != EAGAIN || ::poll(&output, 1, answer_ms) != 1) return false;
    }
    return true;
  }
  /// What has arrived. False: the peer is gone, or sends what is no line.
  bool receive() {
    char part[Flush_ledger::line_max];
    auto const got = ::recv(fd_.get(), part, sizeof part, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    buffer_.append(part, static_cast<std::size_t>(got));
    return got != 0 &&
           (buffer_.size() <= Flush_ledger::line_max || buffer_.find('\n') != buffer_.npos);
  }
  std::optional<std::string> next_line() {
    auto const end = buffer_.find('\n');
    if (end == std::string::npos) return std::nullopt;
    auto line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    return line;
  }

 private:
  File_descriptor fd_;
  std::mutex mutex_;
  std::string buffer_;
};

/// SIGINT and SIGTERM as something to poll; blocked in all threads started later.
Outcome<File_descriptor> stop_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  File_descriptor fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd) return failure(std::error_code(errno, std::generic_category()), "no signalfd");
  return fd;
}

void print(std::string const& line) {
  if (line.empty()) return;
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// ------------------------------------------------------------------ server

class Server {
 public:
  explicit Server(File_descriptor listener) : listener_(std::move(listener)) {}

  /// Until a signal. Returns whether a disk has lied.
  bool run(int signals) {
    while (true) {
      std::vector<pollfd> polled{{signals, POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      for (auto const& [id, peer] : peers_) polled.push_back({peer->get(), POLLIN, 0});
      if (::poll(polled.data(), polled.size(), -1) < 0) continue;
      if (polled[0].revents != 0) return ledger_.has_lies();
      std::size_t at = 2;
      for (auto peer = peers_.begin(); peer != peers_.end(); ++at) {
        bool const stays = polled[at].revents == 0 || serve(peer->first, *peer->second);
        if (!stays) print(ledger_.on_closed(peer->first).print);
        peer = stays ? std::next(peer) : peers_.erase(peer);
      }
      if (polled[1].revents != 0) accept();
    }
  }

 private:
  void accept() {
    auto socket = accept_one(listener_.get());
    // Too many: the socket is closed by its destructor.
    if (!socket.has_value() || peers_.size() >= Flush_ledger::clients_max) return;
    tune_socket(socket.value().get());
    peers_[++last_session_] = std::make_unique<Line_socket>(std::move(socket).value());
  }
  bool serve(Flush_ledger::Session session, Line_socket& peer) {
    bool const is_open = peer.receive();
    while (auto const line = peer.next_line()) {
      auto const answer = ledger_.on_line(session, *line);
      print(answer.print);
      if (!answer.reply.empty() && !peer.send(answer.reply)) return false;
      if (answer.is_end) return false;
    }
    return is_open;
  }

  File_descriptor listener_;
  Flush_ledger ledger_;
  std::map<Flush_ledger::Session, std::unique_ptr<Line_socket>> peers_;
  Flush_ledger::Session last_session_ = 0;
};

Outcome<int> listen(Options const& options) {
  PS_TRY(auto const signals, stop_signals());
  Address const at{.host = "0.0.0.0", .port = options.port, .unix_path = {}};
  Address real;
  PS_TRY(auto listener, listen_at(at, real));
  print("listening on port " + std::to_string(real.port));
  return Server(std::move(listener)).run(signals.get()) ? exit_failure : 0;
}

// ------------------------------------------------------------------ client

Outcome<File_descriptor> connect_to(Address const& server) {
  PS_TRY(auto const endpoints, resolve(server));
  std::error_code error = make_error_code(Errc::unavailable);
  for (auto const& endpoint : endpoints) {
    auto socket = begin_connect(endpoint);
    if (!socket.has_value()) {
      error = socket.error();
      continue;
    }
    pollfd output{socket.value().get(), POLLOUT, 0};
    error = ::poll(&output, 1, connect_ms) == 1 ? socket_error(socket.value().get())
                                                : std::make_error_code(std::errc::timed_out);
    if (error) continue;
    tune_socket(socket.value().get());
    return std::move(socket).value();
  }
  return failure(
      error, "no pstorage-hwflush-check -l answers at " + server.text() + ": " + error.message());
}

/// One line, or why there is none.
Outcome<std::string> answer_of(Line_socket& server) {
  while (true) {
    if (auto line = server.next_line()) return *std::move(line);
    pollfd input{server.get(), POLLIN, 0};
    if (::poll(&input, 1, answer_ms) != 1 || !server.receive()) {
      return failure(Errc::unavailable, "the server does not answer");
    }
  }
}

/// The durable writes of each writer as the server knows them.
Outcome<std::vector<std::uint64_t>> greet(Line_socket& server, Options const& options,
                                          std::uint64_t block_bytes) {
  char host[256] = "localhost";
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '?';
  auto place = std::string(host) + ":" + std::filesystem::absolute(options.directory).string();
  std::replace(place.begin(), place.end(), ' ', '_');
  if (!server.send("hello " + place + " " + std::to_string(block_bytes) + " " +
                   std::to_string(options.blocks) + " " + std::to_string(options.writers))) {
    return failure(Errc::unavailable, "the server has gone");
  }
  PS_TRY(auto const line, answer_of(server));
  std::istringstream words(line);
  std::string verb;
  words >> verb;
  std::vector<std::uint64_t> last(options.writers);
  for (auto& number : last) words >> number;
  if (verb == "last" && words) return last;
  return failure(Errc::refused, "the server refuses: " + line.substr(0, 500));
}

/// One writer with all it needs on a thread of its own.
struct Writer {
  Io_pool pool;
  std::unique_ptr<Disk> disk;
  std::optional<Flush_file> file;
};

Outcome<std::unique_ptr<Writer>> open_writer(Options const& options, Flush_file_shape shape) {
  auto writer = std::make_unique<Writer>();
  PS_TRY(writer->disk, open_posix_disk(options.directory, writer->pool, [](auto const&) {}));
  PS_TRY(writer->file,
         Flush_file::open(*writer->disk, "hwflush-check." + std::to_string(shape.writer), shape));
  return writer;
}

/// Writes until a signal, a failure, or the server is gone.
Outcome<int> write_all(Line_socket& server, std::vector<std::unique_ptr<Writer>>& writers,
                       int signals) {
  std::atomic<bool> stops = false;
  std::mutex mutex;
  std::optional<Failure> trouble;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < writers.size(); ++i) {
    threads.emplace_back([&, i] {
      while (!stops) {
        auto const written = writers[i]->file->write_next();
        if (written.has_value() &&
            server.send("done " + std::to_string(i) + " " + std::to_string(written.value()))) {
          continue;
        }
        std::lock_guard const lock(mutex);
        if (stops.exchange(true)) return;
        trouble = written.has_value() ? Failure(failure(Errc::unavailable, "the server has gone"))
                                      : written.error();
      }
    });
  }
  while (!stops) {
    pollfd polled[] = {{signals, POLLIN, 0}, {server.get(), POLLIN, 0}};
    if (::poll(polled, 2, 200) <= 0) continue;
    if (polled[0].revents != 0) stops = true;
    if (polled[1].revents == 0 || server.receive()) continue;
    std::lock_guard const lock(mutex);
    if (!stops.exchange(true)) trouble = failure(Errc::unavailable, "the server has gone");
  }
  for (auto& thread : threads) thread.join();
  if (trouble) return *trouble;
  return 0;
}

Outcome<int> check(Options const& options) {
  PS_TRY(auto const block_bytes, parse_size(options.block_size));
  if (block_bytes < flush_block_min || block_bytes > 16u << 20 ||
      block_bytes % flush_block_min != 0) {
    return failure(Errc::bad_request, "-b: a multiple of 512 from 512 to 16M");
  }
  PS_TRY(auto const signals, stop_signals());
  PS_TRY(auto const address, Address::parse(options.server, options.port));
  PS_TRY(auto socket, connect_to(address));
  Line_socket server(std::move(socket));
  PS_TRY(auto const last, greet(server, options, block_bytes));
  std::vector<std::unique_ptr<Writer>> writers;
  std::string lost;
  for (std::uint32_t i = 0; i < options.writers; ++i) {
    Flush_file_shape const shape{i, static_cast<std::uint32_t>(block_bytes), options.blocks};
    PS_TRY(auto writer, open_writer(options, shape));
    PS_TRY(auto const missing, writer->file->verify(last[i]));
    if (lost.empty()) lost = missing;
    writer->file->continue_after(last[i]);
    writers.push_back(std::move(writer));
  }
  server.send(lost.empty() ? "kept" : "lost " + lost);
  if (!lost.empty()) {
    print("cache error detected! " + lost);
    return exit_failure;
  }
  print("writing; cut the power, then start this again with the same options");
  return write_all(server, writers, signals.get());
}

void add_options(CLI::App& app, Options& options) {
  app.set_version_flag("-v,--version", std::string("pstorage-hwflush-check ") + version());
  auto* const listens = app.add_flag("-l,--listen", options.listens, "Be the server");
  app.add_option("-p,--port", options.port, "Port of the server")->capture_default_str();
  auto* const server = app.add_option("-s,--server", options.server, "Be a client of this server")
                           ->excludes(listens);
  app.add_option("-d,--dir", options.directory, "Directory on the disk to check")
      ->needs(server)
      ->check(CLI::ExistingDirectory);
  app.add_option("-b,--blocksize", options.block_size, "Size of a write")
      ->needs(server)
      ->capture_default_str();
  app.add_option("-n,--blocksmax", options.blocks, "Blocks a writer goes round in")
      ->needs(server)
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("-t,--threads", options.writers, "Writers at the same time")
      ->needs(server)
      ->check(CLI::Range(1u, Flush_ledger::writers_max))
      ->capture_default_str();
}

}  // namespace
}  // namespace pstorage::tools

int main(int argc, char** argv) {
  using namespace pstorage::tools;
  Options options;
  CLI::App app("Checks whether a disk keeps what it has called durable.", "pstorage-hwflush-check");
  add_options(app, options);
  try {
    app.parse(argc, argv);
    if (!options.listens && (options.server.empty() || options.directory.empty())) {
      throw CLI::ValidationError("give -l, or -s SERVER and -d DIR");
    }
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "pstorage-hwflush-check: %s; try --help\n", error.what());
    return exit_usage;
  }
  auto const result = options.listens ? listen(options) : check(options);
  if (result.has_value()) return result.value();
  std::fprintf(stderr, "pstorage-hwflush-check: %s\n", result.error().text.c_str());
  return exit_failure;
}
