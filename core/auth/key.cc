#include "core/auth/key.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "core/assert.h"
#include "core/bytes.h"
#include "core/disk/atomic_file.h"

namespace pstorage {
namespace {

constexpr std::uint64_t scrypt_n = 1u << 15;
constexpr std::uint32_t scrypt_r = 8;
constexpr std::uint32_t scrypt_p = 1;
// scrypt needs 128 * N * r = 32 MiB; OpenSSL's own limit is exactly below that.
constexpr std::uint64_t scrypt_memory_max = 64u << 20;

constexpr std::size_t key_file_bytes = sizeof(Cluster_key::key) + sizeof(Cluster_key::salt);

}  // namespace

Cluster_key::~Cluster_key() { OPENSSL_cleanse(key.data(), key.size()); }

Outcome<Cluster_key> derive_key(std::string const& password,
                                std::array<std::byte, 16> const& salt) {
  if (password.empty())
    return failure(Errc::bad_request, "the password is empty: give at least one character");
  std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> const kdf(
      EVP_KDF_fetch(nullptr, "SCRYPT", nullptr), EVP_KDF_free);
  std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> const context(
      kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr, EVP_KDF_CTX_free);
  if (!context) return failure(Errc::refused, "this OpenSSL has no scrypt");

  std::uint64_t n = scrypt_n, memory = scrypt_memory_max;
  std::uint32_t r = scrypt_r, p = scrypt_p;
  OSSL_PARAM const params[] = {
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, const_cast<char*>(password.data()),
                                        password.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, const_cast<std::byte*>(salt.data()),
                                        salt.size()),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
      OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
      OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory),
      OSSL_PARAM_construct_end()};
  Cluster_key result;
  result.salt = salt;
  if (EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(result.key.data()),
                     result.key.size(), params) != 1)
    return failure(Errc::refused, "scrypt failed: is there 32 MiB of free memory?");
  return result;
}

std::array<std::byte, 16> random_salt() {
  std::array<std::byte, 16> salt;
  // Up to 256 bytes getrandom is all or EINTR-free once the pool is seeded.
  auto const got = ::getrandom(salt.data(), salt.size(), 0);
  PS_ASSERT(got == static_cast<ssize_t>(salt.size()));
  return salt;
}

Outcome<Cluster_key> load_key(std::string const& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT)
      return failure(Errc::not_found, "there is no key " + path +
                                          ": run 'pstorage -c CLUSTER auth-node' on this host");
    std::error_code const code(errno, std::generic_category());
    return failure(code, "cannot read the key " + path + ": " + code.message());
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return failure(Errc::refused,
                   "others may read the key " + path + ": run 'chmod 600 " + path + "'");
  PS_TRY(auto content, read_small_file(path, key_file_bytes));
  if (content.size() != key_file_bytes) {
    OPENSSL_cleanse(content.data(), content.size());
    return failure(Errc::corrupt, "the key " + path + " is damaged (it has not " +
                                      std::to_string(key_file_bytes) +
                                      " bytes): run 'pstorage -c CLUSTER auth-node' again");
  }
  Cluster_key key;
  auto const bytes = as_bytes(content);
  std::copy_n(bytes.begin(), key.key.size(), key.key.begin());
  std::copy_n(bytes.begin() + sizeof key.key, key.salt.size(), key.salt.begin());
  OPENSSL_cleanse(content.data(), content.size());
  return key;
}

Outcome<void> save_key(std::string const& path, Cluster_key const& key) {
  std::array<std::byte, key_file_bytes> content;
  auto const behind_key = std::copy(key.key.begin(), key.key.end(), content.begin());
  std::copy(key.salt.begin(), key.salt.end(), behind_key);
  auto result = write_file_atomically(path, content, 0600);
  OPENSSL_cleanse(content.data(), content.size());
  return result;
}

}  // namespace pstorage
