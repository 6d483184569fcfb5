// Two Runtimes in one process that talk to each other, turn by turn.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/runtime/runtime.h"

namespace pstorage::test {

/// Collects log lines.
class Memory_log final : public Log {
 public:
  void write(Log_level, std::string_view message, Fields fields) override {
    std::string line(message);
    for (auto const& field : fields) line += " " + std::string(field.key) + "=" + field.value;
    lines.push_back(line);
  }
  std::size_t count(std::string_view part) const {
    std::size_t found = 0;
    for (auto const& line : lines) found += line.find(part) != std::string::npos;
    return found;
  }
  std::vector<std::string> lines;
};

/// A directory that is gone after the test.
class Temporary_directory {
 public:
  Temporary_directory() {
    std::string name = std::filesystem::temp_directory_path() / "pstorage-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~Temporary_directory() { std::filesystem::remove_all(path_); }
  Temporary_directory(Temporary_directory const&) = delete;
  Temporary_directory& operator=(Temporary_directory const&) = delete;
  std::string path(std::string const& name = {}) const {
    return name.empty() ? path_ : path_ + "/" + name;
  }

 private:
  std::string path_;
};

/// Records what it hears; `react` may answer.
class Recorder final : public Connection_handler {
 public:
  void on_connected(Connection_id connection, Peer_info const& peer) override {
    connected.push_back(connection);
    peers.push_back(peer);
    if (on_connect) on_connect(connection);
  }
  void on_message(Connection_id connection, Message& message) override {
    ++messages;
    if (react) react(connection, message);
  }
  void on_disconnected(Connection_id connection, Failure const& why) override {
    disconnected.push_back(connection);
    failures.push_back(why);
  }
  std::vector<Connection_id> connected, disconnected;
  std::vector<Peer_info> peers;
  std::vector<Failure> failures;
  std::size_t messages = 0;
  std::function<void(Connection_id)> on_connect;
  std::function<void(Connection_id, Message&)> react;
};

inline Runtime_options options(std::string const& cluster = "test", char key = 'k') {
  Runtime_options result;
  result.identity.cluster = cluster;
  result.identity.key.key.fill(static_cast<std::byte>(key));
  result.identity.key.salt.fill(std::byte{7});
  result.handle_signals = false;
  return result;
}

/// A server and a client runtime of one process.
struct Pair {
  explicit Pair(Runtime_options server_options = options(),
                Runtime_options client_options = options())
      : server(std::move(server_options), server_log),
        client(std::move(client_options), client_log) {}

  /// Turns both loops until `done` or 20 s.
  bool turn_until(std::function<bool()> const& done) {
    auto const deadline = server.clock().now() + std::chrono::seconds(20);
    while (!done()) {
      if (server.clock().now() > deadline) return false;
      server.run_turn(std::chrono::milliseconds(1));
      client.run_turn(std::chrono::milliseconds(1));
    }
    return true;
  }
  void turn(int times) {
    while (times-- > 0) {
      server.run_turn(std::chrono::milliseconds(1));
      client.run_turn(std::chrono::milliseconds(1));
    }
  }

  Memory_log server_log, client_log;
  Runtime server, client;
  Recorder server_side, client_side;
};

}  // namespace pstorage::test
