#include "blockdev/nbd_tls.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <vector>

#include "core/assert.h"
#include "core/disk/atomic_file.h"

namespace pstorage::nbd {
namespace {

constexpr std::size_t psk_file_bytes_max = 1u << 20;

std::string openssl_reason() {
  auto const code = ERR_peek_error();
  char const* const reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  std::string text = reason != nullptr ? reason : "TLS error";
  ERR_clear_error();
  return text;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// Empty: not hexadecimal.
std::vector<unsigned char> bytes_of(std::string const& hex) {
  std::vector<unsigned char> bytes;
  if (hex.size() % 2 != 0) return {};
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    auto const high = digit_of(hex[i]);
    auto const low = digit_of(hex[i + 1]);
    if (high < 0 || low < 0) return {};
    bytes.push_back(static_cast<unsigned char>(high * 16 + low));
  }
  return bytes;
}

}  // namespace

class Tls_settings::Implementation {
 public:
  Implementation() : context_(SSL_CTX_new(TLS_server_method())) {
    PS_ASSERT(context_ != nullptr);
    SSL_CTX_set_app_data(context_, this);
    SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
    SSL_CTX_set_options(context_, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context_, 0);
    SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  }
  ~Implementation() {
    SSL_CTX_free(context_);
    for (auto& [user, key] : keys_) OPENSSL_cleanse(key.data(), key.size());
  }
  Implementation(Implementation const&) = delete;
  Implementation& operator=(Implementation const&) = delete;

  SSL_CTX* get() const { return context_; }

  Outcome<void> use_certificates(std::string const& directory) {
    auto const certificate = directory + "/server-cert.pem";
    auto const key = directory + "/server-key.pem";
    auto const authority = directory + "/ca-cert.pem";
    if (SSL_CTX_use_certificate_chain_file(context_, certificate.c_str()) != 1)
      return failure(Errc::bad_request, "cannot use " + certificate + ": " + openssl_reason());
    if (SSL_CTX_use_PrivateKey_file(context_, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context_) != 1)
      return failure(Errc::bad_request, "cannot use " + key + ": " + openssl_reason());
    auto const known = read_small_file(authority, psk_file_bytes_max);
    if (!known.has_value() && errc_of(known.error().code) == Errc::not_found) return success();
    if (SSL_CTX_load_verify_locations(context_, authority.c_str(), nullptr) != 1)
      return failure(Errc::bad_request, "cannot use " + authority + ": " + openssl_reason());
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    return success();
  }

  Outcome<void> use_keys(std::string const& path) {
    PS_TRY(auto const text, read_small_file(path, psk_file_bytes_max));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (line.empty() || line.front() == '#') continue;
      auto const colon = line.find(':');
      auto key = colon == std::string::npos ? std::vector<unsigned char>{}
                                            : bytes_of(line.substr(colon + 1));
      if (colon == 0 || key.size() < 16 || key.size() > 64)
        return failure(
            Errc::bad_request,
            path + ": a line must be USER:HEX with 16 to 64 bytes, as psktool writes it");
      keys_[line.substr(0, colon)] = std::move(key);
    }
    if (keys_.empty()) return failure(Errc::bad_request, path + " has no keys");
    SSL_CTX_set_psk_server_callback(context_, find_key);
    return success();
  }

 private:
  static unsigned int find_key(SSL* ssl, char const* user, unsigned char* key,
                               unsigned int key_max) {
    auto const& self = *static_cast<Implementation*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    auto const found = self.keys_.find(user == nullptr ? "" : user);
    if (found == self.keys_.end() || found->second.size() > key_max) return 0;
    std::copy(found->second.begin(), found->second.end(), key);
    return static_cast<unsigned int>(found->second.size());
  }

  SSL_CTX* context_;
  std::map<std::string, std::vector<unsigned char>> keys_;
};

Tls_settings::Tls_settings(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}
Tls_settings::~Tls_settings() = default;

Outcome<std::unique_ptr<Tls_settings>> Tls_settings::load(Tls_options const& options) {
  auto implementation = std::make_unique<Implementation>();
  if (!options.certificates.empty())
    PS_CHECK(implementation->use_certificates(options.certificates));
  if (!options.psk_file.empty()) PS_CHECK(implementation->use_keys(options.psk_file));
  return std::unique_ptr<Tls_settings>(new Tls_settings(std::move(implementation)));
}

struct Tls_stream::State {
  SSL* ssl = nullptr;
  BIO* input = nullptr;   // owned by ssl
  BIO* output = nullptr;  // owned by ssl
  std::size_t output_taken = 0;
  std::string why;

  Errc failed(int result) {
    int const error = SSL_get_error(ssl, result);
    if (error == SSL_ERROR_WANT_READ) return Errc::would_block;
    if (error == SSL_ERROR_ZERO_RETURN) return Errc::closed;
    why = openssl_reason();
    return Errc::io_error;
  }
};

Tls_stream::Tls_stream(Tls_settings const& settings) : state_(std::make_unique<State>()) {
  state_->ssl = SSL_new(settings.implementation().get());
  state_->input = BIO_new(BIO_s_mem());
  state_->output = BIO_new(BIO_s_mem());
  PS_ASSERT(state_->ssl != nullptr && state_->input != nullptr && state_->output != nullptr);
  BIO_set_mem_eof_return(state_->input, -1);  // an empty one means "more comes later"
  SSL_set_bio(state_->ssl, state_->input, state_->output);
  SSL_set_accept_state(state_->ssl);
}

Tls_stream::~Tls_stream() { SSL_free(state_->ssl); }

void Tls_stream::feed(Bytes from_client) {
  std::size_t written = 0;
  if (from_client.empty()) return;
  PS_ASSERT(BIO_write_ex(state_->input, from_client.data(), from_client.size(), &written) == 1);
  PS_ASSERT(written == from_client.size());
}

Result<std::size_t> Tls_stream::read(Mutable_bytes to) {
  ERR_clear_error();
  std::size_t got = 0;
  int const result = SSL_read_ex(state_->ssl, to.data(), to.size(), &got);
  if (result == 1) return got;
  auto const why = state_->failed(result);
  if (why == Errc::would_block) return std::size_t{0};
  return why;
}

Result<void> Tls_stream::write(Bytes plain) {
  if (plain.empty()) return success();
  ERR_clear_error();
  std::size_t written = 0;
  int const result = SSL_write_ex(state_->ssl, plain.data(), plain.size(), &written);
  if (result == 1 && written == plain.size()) return success();
  return state_->failed(result);
}

bool Tls_stream::is_ready() const { return SSL_is_init_finished(state_->ssl) == 1; }

Bytes Tls_stream::output() const {
  char* data = nullptr;
  auto const size = BIO_get_mem_data(state_->output, &data);
  if (size <= 0) return {};
  auto const all = Bytes(reinterpret_cast<std::byte const*>(data), static_cast<std::size_t>(size));
  return all.subspan(state_->output_taken);
}

void Tls_stream::consume_output(std::size_t bytes) {
  state_->output_taken += bytes;
  if (!output().empty()) return;
  state_->output_taken = 0;
  static_cast<void>(BIO_reset(state_->output));
}

std::string const& Tls_stream::why() const { return state_->why; }

}  // namespace pstorage::nbd
