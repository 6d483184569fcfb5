// One connection of socket_network: connect, handshake, receive, send. Internal to core/net.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/net/event_loop.h"
#include "core/net/frame_reader.h"
#include "core/net/send_queue.h"
#include "core/net/socket.h"
#include "core/net/socket_network.h"

namespace pstorage {

/// What is posted to the loop for it holds a shared_ptr, so it may outlive its place in the table;
/// a dead one does nothing any more.
class Socket_connection final : public std::enable_shared_from_this<Socket_connection>,
                                private Event_handler {
 public:
  enum class Stage {
    connecting,  // TCP (names, too); outgoing only
    handshake,   // TLS and hello
    open,
    draining,  // refused: the reason is being sent, then the peer must hang up
    failing,   // on_disconnected is about to be called
    dead,
  };

  /// `address`: where it goes, or (accepted) where the listener is.
  Socket_connection(Socket_network& network, Connection_handler& handler, Address address,
                    bool is_server);
  ~Socket_connection() override { end_sharing(); }
  Socket_connection(Socket_connection const&) = delete;
  Socket_connection& operator=(Socket_connection const&) = delete;

  void start_connect();
  void start_accepted(File_descriptor fd);

  void send(Message message);
  /// Writes what is queued. End of a turn only.
  void flush();
  /// Ends it without a callback.
  void close();
  /// Ends it when its deadline is over.
  void check_deadline(Time_point now);
  /// Ends it; the handler hears of it from the loop if it knows of the connection.
  void fail(Failure why);

  void set_id(Connection_id id) { id_ = id; }
  /// What it says it is; outgoing only.
  void set_role(Role role) { role_ = role; }
  Connection_id id() const { return id_; }
  /// Is it one of the network's unauthenticated ones?
  bool counted() const { return counted_; }
  void set_counted(bool counted) { counted_ = counted; }
  std::size_t queued_bytes() const { return queue_.bytes(); }
  std::string const& peer_address() const { return peer_address_; }

 private:
  // Reading in TLS is by records: this many bytes of them at a time.
  static constexpr std::size_t raw_bytes_max = 4 * tls_record_bytes_max;
  // A peer that never stops sending must not keep the answers of the others waiting.
  static constexpr int reads_a_turn = 16;
  // Plain bytes encrypted ahead of the socket.
  static constexpr std::size_t encrypt_bytes_max = 256u << 10;
  // What a refused peer may still send before it is cut off.
  static constexpr std::size_t drain_bytes_max = 1u << 20;

  bool is_live() const { return stage_ <= Stage::open; }
  bool in_tls() const { return stage_ != Stage::open || encrypted_; }
  void resolved(Outcome<std::vector<Endpoint>> endpoints);
  void try_next_endpoint(std::error_code last);
  void connect_finished(std::error_code error);
  void begin_handshake();

  void on_ready(Readiness ready) override;

  // socket_receive.cc
  void receive();
  Received receive_once();
  void received(std::size_t bytes);
  void receive_failed(bool closed, std::error_code error);
  void take_raw();
  bool take_record(Bytes record);
  bool take_salt_request(Bytes bytes, bool& waiting);
  bool take_plain();
  bool take_hello_bytes(Bytes bytes);
  bool take_hello(Bytes message);
  void leave_tls(Bytes rest);
  void deliver();
  void discard(std::size_t bytes);

  // socket_handshake.cc
  bool advance_handshake();
  void send_hello();
  bool serve_hello(Bytes message);
  bool accept_hello_reply(Bytes message);
  void opened(proto::Hello const& hello, bool encrypted);
  bool write_tls(Bytes plain);
  void refuse(Failure const& why);

  // socket_send.cc
  void mark_dirty();
  bool flush_bytes(Bytes bytes, std::size_t& written);
  bool flush_tls();
  bool encrypt_some();
  bool flush_queue();
  void wait_writable();
  void finish_draining();
  void write_failed(std::error_code error);

  // socket_share.cc
  /// Queues `message` with a reference instead of its data, if the peer can see them.
  bool show(Message& message);
  // False: malformed.
  bool take_share(Header const& header);
  bool take_back(Header const& header);
  bool take_shown(Message& message);
  void give_back(std::uint32_t ticket);
  void end_sharing();

  Socket_network& network_;
  Connection_handler& handler_;
  Address address_;
  bool is_server_;
  Role role_ = Role::tool;
  Connection_id id_{};
  Stage stage_ = Stage::connecting;
  bool encrypted_ = false;
  bool known_to_handler_ = false;
  bool dirty_ = false;
  bool waiting_writable_ = false;
  bool shut_ = false;
  bool peer_ended_ = false;
  bool counted_ = false;
  std::string peer_address_;
  Time_point deadline_{};
  Watch socket_;
  std::vector<Endpoint> endpoints_;
  std::size_t next_endpoint_ = 0;

  std::unique_ptr<Tls_channel> tls_;
  bool tls_begun_ = false;  // a record has been seen
  bool tls_complete_ = false;
  std::vector<std::byte> raw_;  // bytes from the socket while in TLS
  std::size_t raw_filled_ = 0;
  std::vector<std::byte> hello_bytes_;
  std::vector<std::byte> plain_out_;  // answers that go out before and instead of TLS
  std::size_t drained_ = 0;

  bool shares_ = false;  // a unix socket, in clear
  std::uint64_t shown_generation_ = 0;
  std::vector<Slice> lent_;  // by ticket; what the peer may be looking at
  std::vector<std::uint32_t> free_tickets_;
  Shared_view* view_ = nullptr;
  File_descriptor passed_;  // came along, not yet named by a message

  Frame_reader reader_;
  Send_queue queue_;
};

}  // namespace pstorage
