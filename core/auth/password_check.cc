#include "core/auth/password_check.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "core/assert.h"

namespace pstorage {
namespace {

constexpr std::string_view scheme = "Basic ";
constexpr std::size_t credentials_max = 1024;

}  // namespace

std::optional<std::string> basic_password(std::string_view authorization) {
  if (!authorization.starts_with(scheme)) return std::nullopt;
  auto const encoded = authorization.substr(scheme.size());
  if (encoded.empty() || encoded.size() > credentials_max || encoded.size() % 4 != 0)
    return std::nullopt;
  std::string plain(encoded.size() / 4 * 3, '\0');
  int const size = ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(plain.data()),
                                     reinterpret_cast<unsigned char const*>(encoded.data()),
                                     static_cast<int>(encoded.size()));
  if (size < 0) return std::nullopt;
  // EVP_DecodeBlock counts the padding as bytes.
  auto const padding = encoded.ends_with("==") ? 2u : encoded.ends_with('=') ? 1u : 0u;
  plain.resize(static_cast<std::size_t>(size) - padding);
  auto const colon = plain.find(':');
  if (colon == std::string::npos) return std::nullopt;
  return plain.substr(colon + 1);
}

Password_check::Password_check(Cluster_key const& key) : key_(key) {}

Password_check::Digest Password_check::digest_of(std::string_view authorization) const {
  Digest digest;
  unsigned size = 0;
  auto const* const made =
      ::HMAC(::EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<unsigned char const*>(authorization.data()), authorization.size(),
             reinterpret_cast<unsigned char*>(digest.data()), &size);
  PS_ASSERT(made != nullptr && size == digest.size());
  return digest;
}

bool Password_check::is_known(std::string_view authorization) const {
  if (!known_) return false;
  auto const digest = digest_of(authorization);
  return ::CRYPTO_memcmp(digest.data(), known_->data(), digest.size()) == 0;
}

bool Password_check::verify(std::string_view authorization) const {
  auto const password = basic_password(authorization);
  if (!password) return false;
  auto const derived = derive_key(*password, key_.salt);
  return derived.has_value() &&
         ::CRYPTO_memcmp(derived.value().key.data(), key_.key.data(), key_.key.size()) == 0;
}

void Password_check::remember(std::string_view authorization) { known_ = digest_of(authorization); }

}  // namespace pstorage
