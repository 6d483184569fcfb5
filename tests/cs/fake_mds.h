// An MDS that agrees to everything, remembers what it was asked and pushes what the test wants.
#pragma once

#include <vector>

#include "mds.pb.h"
#include "tests/cs/fake_network.h"

namespace pstorage::cs {

class Fake_mds final : public Connection_handler {
 public:
  explicit Fake_mds(Fake_hub& hub) : network_(hub, Role::mds) {
    static_cast<void>(network_.listen(address(), *this));
  }
  static Address address() { return {"mds", 2511, {}}; }

  void on_connected(Connection_id, Peer_info const&) override {}
  void on_disconnected(Connection_id, Failure const&) override {}
  void on_message(Connection_id connection, Message& message) override {
    proto::Mds_request request;
    if (!request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()))) return;
    if (request.has_register_cs()) servers[request.register_cs().cs()] = connection;
    requests.push_back(request);
    proto::Mds_reply reply;
    if (request.has_open_session()) reply.mutable_session()->set_timeout_ms(10000);
    if (request.has_register_cs() || request.has_cs_heartbeat()) {
      reply.mutable_registered_cs()->set_scrub_period_s(scrub_period_s);
    }
    if (request.has_register_cs() && is_dropped) {
      reply.Clear();
      reply.set_status(static_cast<std::uint32_t>(Errc::dropped));
      reply.set_text("CS#1025 has been removed from the cluster");
    }
    if (request.has_register_cs() && forgets_sessions) {
      reply.Clear();
      reply.set_status(static_cast<std::uint32_t>(Errc::session_expired));
    }
    if (request.has_report_damage()) *reply.mutable_map() = map;
    if (request.has_sync_done() && refuse_sync_done) {
      reply.set_status(static_cast<std::uint32_t>(Errc::stale_epoch));
    }
    send(connection, message.header.request_id, reply);
  }
  void close(std::uint32_t cs) { network_.close(servers[cs]); }
  void push(std::uint32_t cs, proto::Mds_push const& push) { send(servers[cs], 0, push); }

  template <typename Has>
  std::vector<proto::Mds_request> all(Has has) const {
    std::vector<proto::Mds_request> found;
    for (auto const& request : requests) {
      if (has(request)) found.push_back(request);
    }
    return found;
  }
  std::vector<proto::Mds_request> sync_dones() const {
    return all([](auto const& request) { return request.has_sync_done(); });
  }

  std::vector<proto::Mds_request> requests;
  std::map<std::uint32_t, Connection_id> servers;
  bool refuse_sync_done = false;
  bool is_dropped = false;           // every server
  bool forgets_sessions = false;     // as if they had expired
  std::uint64_t scrub_period_s = 0;  // never
  proto::File_map map;               // answer to Report_damage

 private:
  template <typename Body>
  void send(Connection_id connection, std::uint64_t id, Body const& body) {
    Message message;
    message.header.is_reply = id != 0;
    message.header.request_id = id;
    message.meta = Slice::allocate(body.ByteSizeLong());
    body.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
    network_.send(connection, std::move(message));
  }
  Fake_network network_;
};

}  // namespace pstorage::cs
