// HTTP Basic authentication with the cluster's password.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/auth/key.h"

namespace pstorage {

/// The password of "Basic BASE64(USER:PASSWORD)"; the user's name does not matter.
std::optional<std::string> basic_password(std::string_view authorization);

/// Deriving the key from a password takes 100 ms of a CPU, on purpose. So what was right once is
/// remembered, as a digest with a random key of this process.
class Password_check {
 public:
  explicit Password_check(Cluster_key const& key);
  /// Was this accepted before? Quick. Thread: one.
  bool is_known(std::string_view authorization) const;
  /// Slow. Thread: any.
  bool verify(std::string_view authorization) const;
  /// After verify() has said yes. Thread: that of is_known().
  void remember(std::string_view authorization);

 private:
  using Digest = std::array<std::byte, 32>;
  Digest digest_of(std::string_view authorization) const;

  Cluster_key const key_;
  std::array<std::byte, 16> const secret_ = random_salt();
  std::optional<Digest> known_;
};

}  // namespace pstorage
