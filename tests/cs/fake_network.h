// A network of a few nodes on virtual time: every message arrives, in order, after 50 us.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/env/network.h"
#include "tests/sim/sim_scheduler.h"

namespace pstorage::cs {

class Fake_network;

/// Who listens where, and which two ends make a connection.
struct Fake_hub {
  explicit Fake_hub(sim::Event_queue& events) : queue(events) {}
  struct End {
    Fake_network* network = nullptr;
    Connection_handler* handler = nullptr;
    Connection_id other;
  };
  sim::Event_queue& queue;
  std::map<std::string, std::pair<Fake_network*, Connection_handler*>> listeners;
  std::map<Connection_id, End> ends;
  std::uint64_t next = 1;
};

class Fake_network final : public Network {
 public:
  Fake_network(Fake_hub& hub, Role role) : hub_(hub) { info_.role = role; }
  ~Fake_network() override { *alive_ = false; }

  Connection_id connect(Address const& to, Connection_handler& handler) override {
    Connection_id const mine{hub_.next++}, theirs{hub_.next++};
    auto const found = hub_.listeners.find(to.text());
    if (found == hub_.listeners.end()) {
      later([this, mine, &handler] {
        handler.on_disconnected(mine, failure(Errc::unavailable, "connection refused"));
      });
      return mine;
    }
    hub_.ends[mine] = {this, &handler, theirs};
    hub_.ends[theirs] = {found->second.first, found->second.second, mine};
    later([this, mine, theirs] {
      if (!hub_.ends.contains(mine)) return;
      auto const other = hub_.ends[theirs];
      if (other.handler != nullptr) other.handler->on_connected(theirs, info_);
      Peer_info const theirs_info = other.network == nullptr ? Peer_info{} : other.network->info_;
      hub_.ends[mine].handler->on_connected(mine, theirs_info);
    });
    return mine;
  }
  Outcome<Address> listen(Address const& at, Connection_handler& handler) override {
    hub_.listeners[at.text()] = {this, &handler};
    return at;
  }
  void send(Connection_id connection, Message message) override {
    auto const found = hub_.ends.find(connection);
    if (found == hub_.ends.end()) return;
    Connection_id const other = found->second.other;
    auto const kept = std::make_shared<Message>(std::move(message));
    later([this, other, kept] {
      auto const end = hub_.ends.find(other);
      if (end == hub_.ends.end()) return;
      Fake_network* const network = end->second.network;
      end->second.handler->on_message(other, *kept);
      network->end_turn();
    });
  }
  void close(Connection_id connection) override {
    auto const found = hub_.ends.find(connection);
    if (found == hub_.ends.end()) return;
    Connection_id const other = found->second.other;
    hub_.ends.erase(found);
    later([this, other] {
      auto const end = hub_.ends.find(other);
      if (end == hub_.ends.end()) return;
      auto* const handler = end->second.handler;
      hub_.ends.erase(end);
      handler->on_disconnected(other, failure(Errc::unavailable, "connection closed"));
    });
  }
  std::size_t queued_bytes(Connection_id) const override { return queued; }
  void set_turn_hook(Turn_hook* hook) override { hook_ = hook; }
  void end_turn() {
    if (hook_ != nullptr) hook_->on_turn_end();
  }
  /// The process behind this network is gone.
  void die() {
    hook_ = nullptr;
    std::erase_if(hub_.listeners, [this](auto const& one) { return one.second.first == this; });
    std::vector<Connection_id> mine;
    for (auto const& [id, end] : hub_.ends) {
      if (end.network == this) mine.push_back(id);
    }
    for (Connection_id const id : mine) close(id);
  }

  std::size_t queued = 0;

 private:
  void later(std::function<void()> work) {
    hub_.queue.at(std::chrono::microseconds(50), [alive = alive_, work = std::move(work)] {
      if (*alive) work();
    });
  }
  Fake_hub& hub_;
  Peer_info info_;
  Turn_hook* hook_ = nullptr;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::cs
