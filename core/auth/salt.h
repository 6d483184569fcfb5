// How a host that has only the password gets the cluster's salt. core/format.md "Salt".
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.h"
#include "core/bytes.h"
#include "core/env/clock.h"
#include "core/result.h"

namespace pstorage {

/// Begins the request (and is all of it) and the answer. TLS begins with 0x16, so a listener can
/// tell them apart by the first byte.
inline constexpr std::string_view salt_magic = "PSTSALT1";

struct Salt_answer {
  std::array<std::byte, 16> salt{};
  std::string cluster;  // name
};

/// magic, 16 bytes of salt, u8 length, cluster name.
std::vector<std::byte> encode_salt_answer(std::array<std::byte, 16> const& salt,
                                          std::string const& cluster);

/// Decodes a whole answer. Errors: bad_request.
Result<Salt_answer> decode_salt_answer(Bytes bytes);

/// Asks the server at `from` (an MDS's client port). Blocks for at most `at_most`. The answer is
/// not authenticated: a key derived from a false salt only fails to authenticate.
Outcome<Salt_answer> fetch_salt(Address const& from, Duration at_most);

}  // namespace pstorage
