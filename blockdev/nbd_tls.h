// TLS of NBD clients, over memory: certificates, pre-shared keys, or both. No sockets here.
// Source: NBD proto.md "TLS support".
#pragma once

#include <memory>
#include <string>

#include "core/bytes.h"
#include "core/result.h"

namespace pstorage::nbd {

struct Tls_options {
  /// Directory with server-cert.pem, server-key.pem and, when clients must show a certificate,
  /// ca-cert.pem: the names that qemu and libnbd use.
  std::string certificates;
  /// File with lines USER:HEX, as psktool writes it.
  std::string psk_file;
  bool is_required = false;  // nothing is told to a client in clear
};

/// What all connections share. Thread: the server's loop.
class Tls_settings {
 public:
  /// Errors: what cannot be read or does not fit together, and which file it is.
  static Outcome<std::unique_ptr<Tls_settings>> load(Tls_options const& options);
  ~Tls_settings();
  Tls_settings(Tls_settings const&) = delete;
  Tls_settings& operator=(Tls_settings const&) = delete;

  class Implementation;
  Implementation& implementation() const { return *implementation_; }

 private:
  explicit Tls_settings(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

/// One client's TLS. Thread: the server's loop.
class Tls_stream {
 public:
  explicit Tls_stream(Tls_settings const& settings);
  ~Tls_stream();
  Tls_stream(Tls_stream const&) = delete;
  Tls_stream& operator=(Tls_stream const&) = delete;

  /// Bytes that came from the client.
  void feed(Bytes from_client);
  /// Goes on with the handshake and decrypts into `to`: how many bytes; 0: more has to come first.
  /// Errors: io_error (why() says it), closed (the client has said good-bye).
  Result<std::size_t> read(Mutable_bytes to);
  /// Encrypts all of `plain`. Only after the handshake.
  Result<void> write(Bytes plain);
  bool is_ready() const;
  /// What is to be sent to the client; valid until the next call.
  Bytes output() const;
  void consume_output(std::size_t bytes);
  std::string const& why() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pstorage::nbd
