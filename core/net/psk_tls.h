// TLS 1.3 with an external pre-shared key over memory: no sockets here. Proves at both ends that
// the other one has the cluster's key, and encrypts what goes on in TLS.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/auth/key.h"
#include "core/bytes.h"
#include "core/result.h"

namespace pstorage {

/// What both ends must have in common. One for all connections of a process.
/// The PSK is HKDF-SHA256(key, salt "pstorage transport", info cluster name); the identity that the
/// client sends in clear is the cluster's name.
class Tls_context {
 public:
  /// `cluster`: 1 to 63 characters.
  Tls_context(std::string cluster, Cluster_key const& key);
  ~Tls_context();
  Tls_context(Tls_context const&) = delete;
  Tls_context& operator=(Tls_context const&) = delete;

  class Implementation;
  Implementation& implementation() const { return *implementation_; }

 private:
  std::unique_ptr<Implementation> implementation_;
};

/// One connection's TLS. Thread: the owner's loop.
class Tls_channel {
 public:
  enum class Status { progress, want_input, failed };

  /// The context must outlive the channel.
  Tls_channel(Tls_context& context, bool is_server);
  ~Tls_channel();
  Tls_channel(Tls_channel const&) = delete;
  Tls_channel& operator=(Tls_channel const&) = delete;

  /// Takes bytes that came from the peer. Give whole records: what is behind the last wanted record
  /// may belong to the clear part of the conversation.
  void feed(Bytes from_peer);
  /// Goes on with the handshake; progress: it is complete.
  Status handshake();
  /// Decrypts into `to`; progress: `got` > 0 bytes.
  Status read(Mutable_bytes to, std::size_t& got);
  /// Encrypts all of `plain` into pending output.
  Status write(Bytes plain);

  /// Bytes to send to the peer; valid until the next call of any function.
  Bytes output() const;
  void consume_output(std::size_t bytes);

  /// Did the peer end the conversation with an alert, and which ("decrypt error")? For logs.
  std::string failure_text() const;

 private:
  struct State;
  Status status_of(int result);
  std::unique_ptr<State> state_;
};

/// Size of the record whose first bytes these are, header included; 0: fewer than 5 bytes;
/// bad_request: no TLS record.
Result<std::size_t> tls_record_bytes(Bytes bytes);

/// Largest record RFC 8446 5.2 allows, header included.
inline constexpr std::size_t tls_record_bytes_max = 5 + (1u << 14) + 256;

}  // namespace pstorage
