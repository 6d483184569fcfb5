// The cluster's key: scrypt(password, salt), shared by all its nodes.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "core/result.h"

namespace pstorage {

/// 32 bytes of key, 16 of salt; on disk (auth_digest.key, mode 0600) in this order.
struct Cluster_key {
  std::array<std::byte, 32> key{};
  std::array<std::byte, 16> salt{};
  ~Cluster_key();  // wipes the key
  Cluster_key() = default;
  Cluster_key(Cluster_key const&) = default;
  Cluster_key& operator=(Cluster_key const&) = default;
};

/// scrypt with N = 2^15, r = 8, p = 1. An empty password is refused.
Outcome<Cluster_key> derive_key(std::string const& password, std::array<std::byte, 16> const& salt);
/// A fresh random salt (getrandom).
std::array<std::byte, 16> random_salt();
/// Reads a key file; refuses one that others may read, or of another size.
Outcome<Cluster_key> load_key(std::string const& path);
/// Writes it atomically with mode 0600, fsynced.
Outcome<void> save_key(std::string const& path, Cluster_key const& key);

}  // namespace pstorage
