// The network of a process for a part of it that acts in another role than the process itself.
#pragma once

#include <utility>

#include "core/env/network.h"

namespace pstorage {

/// Whom this connects to takes it for a process of role `role`. Outgoing connections only.
class Role_network final : public Network {
 public:
  Role_network(Network& network, Role role) : network_(network), role_(role) {}

  Connection_id connect(Address const& to, Connection_handler& handler) override {
    return network_.connect_as(role_, to, handler);
  }
  Outcome<Address> listen(Address const&, Connection_handler&) override {
    return failure(Errc::refused, "only outgoing connections have another role");
  }
  void send(Connection_id connection, Message message) override {
    network_.send(connection, std::move(message));
  }
  Slice take_payload(std::size_t bytes) override { return network_.take_payload(bytes); }
  void close(Connection_id connection) override { network_.close(connection); }
  std::size_t queued_bytes(Connection_id connection) const override {
    return network_.queued_bytes(connection);
  }
  /// The process has its own.
  void set_turn_hook(Turn_hook*) override {}

 private:
  Network& network_;
  Role const role_;
};

}  // namespace pstorage
