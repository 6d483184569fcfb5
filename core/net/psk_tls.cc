#include "core/net/psk_tls.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>

#include "core/assert.h"

namespace pstorage {
namespace {

constexpr std::size_t psk_bytes = 32;
constexpr unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};

using Psk = std::array<unsigned char, psk_bytes>;

Psk derive_psk(Cluster_key const& key, std::string const& cluster) {
  static constexpr char purpose[] = "pstorage transport";
  std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> const kdf(
      EVP_KDF_fetch(nullptr, "HKDF", nullptr), EVP_KDF_free);
  std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> const context(
      kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr, EVP_KDF_CTX_free);
  PS_ASSERT(context != nullptr);
  char digest[] = "SHA256";
  OSSL_PARAM const params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, const_cast<std::byte*>(key.key.data()),
                                        key.key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, const_cast<char*>(purpose),
                                        sizeof purpose - 1),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<char*>(cluster.data()),
                                        cluster.size()),
      OSSL_PARAM_construct_end()};
  Psk psk;
  PS_ASSERT(EVP_KDF_derive(context.get(), psk.data(), psk.size(), params) == 1);
  return psk;
}

}  // namespace

class Tls_context::Implementation {
 public:
  Implementation(std::string cluster, Cluster_key const& key)
      : cluster_(std::move(cluster)), psk_(derive_psk(key, cluster_)) {
    PS_ASSERT(!cluster_.empty());
    // A peer that names another cluster meets a key nobody has: it fails exactly where one with the
    // wrong password fails, so the answer tells nobody which of the two was right.
    PS_ASSERT(RAND_bytes(nobodys_psk_.data(), psk_bytes) == 1);
    context_ = SSL_CTX_new(TLS_method());
    PS_ASSERT(context_ != nullptr);
    SSL_CTX_set_app_data(context_, this);
    SSL_CTX_set_min_proto_version(context_, TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(context_, TLS1_3_VERSION);
    PS_ASSERT(SSL_CTX_set_ciphersuites(context_, "TLS_AES_128_GCM_SHA256") == 1);
    SSL_CTX_set_options(context_, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(context_, 0);
    SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_psk_use_session_callback(context_, use_session);
    SSL_CTX_set_psk_find_session_callback(context_, find_session);
  }
  ~Implementation() {
    SSL_CTX_free(context_);
    OPENSSL_cleanse(psk_.data(), psk_.size());
  }
  Implementation(Implementation const&) = delete;
  Implementation& operator=(Implementation const&) = delete;

  SSL_CTX* get() const { return context_; }

 private:
  static Implementation& of(SSL* ssl) {
    return *static_cast<Implementation*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  }

  static SSL_SESSION* make_session(SSL* ssl, Psk const& psk) {
    SSL_SESSION* const session = SSL_SESSION_new();
    SSL_CIPHER const* const cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    PS_ASSERT(session != nullptr && cipher != nullptr);
    PS_ASSERT(SSL_SESSION_set1_master_key(session, psk.data(), psk.size()) == 1);
    PS_ASSERT(SSL_SESSION_set_cipher(session, cipher) == 1);
    PS_ASSERT(SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1);
    return session;
  }

  static int use_session(SSL* ssl, EVP_MD const*, unsigned char const** id, std::size_t* id_size,
                         SSL_SESSION** session) {
    Implementation& self = of(ssl);
    *id = reinterpret_cast<unsigned char const*>(self.cluster_.data());
    *id_size = self.cluster_.size();
    *session = make_session(ssl, self.psk_);
    return 1;
  }

  static int find_session(SSL* ssl, unsigned char const* id, std::size_t id_size,
                          SSL_SESSION** session) {
    Implementation& self = of(ssl);
    bool const ours =
        id_size == self.cluster_.size() &&
        std::equal(self.cluster_.begin(), self.cluster_.end(), id,
                   [](char a, unsigned char b) { return static_cast<unsigned char>(a) == b; });
    *session = make_session(ssl, ours ? self.psk_ : self.nobodys_psk_);
    return 1;
  }

  std::string cluster_;
  Psk psk_;
  Psk nobodys_psk_{};
  SSL_CTX* context_ = nullptr;
};

Tls_context::Tls_context(std::string cluster, Cluster_key const& key)
    : implementation_(std::make_unique<Implementation>(std::move(cluster), key)) {}
Tls_context::~Tls_context() = default;

struct Tls_channel::State {
  SSL* ssl = nullptr;
  BIO* input = nullptr;   // owned by ssl
  BIO* output = nullptr;  // owned by ssl
  std::size_t output_taken = 0;
  std::string failure;
};

Tls_channel::Tls_channel(Tls_context& context, bool is_server) : state_(std::make_unique<State>()) {
  state_->ssl = SSL_new(context.implementation().get());
  state_->input = BIO_new(BIO_s_mem());
  state_->output = BIO_new(BIO_s_mem());
  PS_ASSERT(state_->ssl != nullptr && state_->input != nullptr && state_->output != nullptr);
  // An empty BIO means "more comes later", not the end.
  BIO_set_mem_eof_return(state_->input, -1);
  SSL_set_bio(state_->ssl, state_->input, state_->output);
  if (is_server) {
    SSL_set_accept_state(state_->ssl);
  } else {
    SSL_set_connect_state(state_->ssl);
    // The server has no certificate, so only the PSK can end its handshake well. The client insists
    // on it, or anybody with a certificate of his own could answer.
    SSL_set_verify(state_->ssl, SSL_VERIFY_PEER, nullptr);
  }
}

Tls_channel::~Tls_channel() { SSL_free(state_->ssl); }

void Tls_channel::feed(Bytes from_peer) {
  std::size_t written = 0;
  if (from_peer.empty()) return;
  PS_ASSERT(BIO_write_ex(state_->input, from_peer.data(), from_peer.size(), &written) == 1);
  PS_ASSERT(written == from_peer.size());
}

Tls_channel::Status Tls_channel::status_of(int result) {
  if (result == 1) return Status::progress;
  int const error = SSL_get_error(state_->ssl, result);
  if (error == SSL_ERROR_WANT_READ) return Status::want_input;
  if (auto const code = ERR_peek_error(); code != 0) {
    char const* const reason = ERR_reason_error_string(code);
    state_->failure = reason != nullptr ? reason : "TLS error";
  } else {
    state_->failure = "TLS closed by the peer";
  }
  ERR_clear_error();
  return Status::failed;
}

Tls_channel::Status Tls_channel::handshake() {
  ERR_clear_error();
  auto const status = status_of(SSL_do_handshake(state_->ssl));
  if (status == Status::progress && SSL_session_reused(state_->ssl) != 1) {
    state_->failure = "the peer did not use the key";
    return Status::failed;
  }
  return status;
}

Tls_channel::Status Tls_channel::read(Mutable_bytes to, std::size_t& got) {
  ERR_clear_error();
  got = 0;
  return status_of(SSL_read_ex(state_->ssl, to.data(), to.size(), &got));
}

Tls_channel::Status Tls_channel::write(Bytes plain) {
  if (plain.empty()) return Status::progress;
  ERR_clear_error();
  std::size_t written = 0;
  auto const status = status_of(SSL_write_ex(state_->ssl, plain.data(), plain.size(), &written));
  // A memory BIO takes everything; waiting for input could only be a renegotiation, which is off.
  return status == Status::progress && written == plain.size() ? Status::progress : Status::failed;
}

Bytes Tls_channel::output() const {
  char* data = nullptr;
  auto const size = BIO_get_mem_data(state_->output, &data);
  if (size <= 0) return {};
  auto const all = Bytes(reinterpret_cast<std::byte const*>(data), static_cast<std::size_t>(size));
  return all.subspan(state_->output_taken);
}

void Tls_channel::consume_output(std::size_t bytes) {
  // A memory BIO moves its rest to the front on every read; so it is emptied only as a whole.
  state_->output_taken += bytes;
  if (!output().empty()) return;
  state_->output_taken = 0;
  static_cast<void>(BIO_reset(state_->output));
}

std::string Tls_channel::failure_text() const { return state_->failure; }

Result<std::size_t> tls_record_bytes(Bytes bytes) {
  static constexpr auto change_cipher_spec = std::byte{20}, application_data = std::byte{23};
  // Even the first byte decides, so that garbage shorter than a header is refused at once.
  if (!bytes.empty() && (bytes[0] < change_cipher_spec || bytes[0] > application_data))
    return Errc::bad_request;
  if (bytes.size() >= 2 && bytes[1] != std::byte{3}) return Errc::bad_request;
  if (bytes.size() < 5) return std::size_t{0};
  auto const size =
      std::to_integer<std::size_t>(bytes[3]) << 8 | std::to_integer<std::size_t>(bytes[4]);
  if (size == 0 || size + 5 > tls_record_bytes_max) return Errc::bad_request;
  return size + 5;
}

}  // namespace pstorage
