#include "iscsi/vital_product_data.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "iscsi/big_endian.h"
#include "iscsi/block_command.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint32_t physical_block_bytes = 4096;  // of the cluster's block tables
constexpr std::uint32_t best_transfer_bytes = 1u << 20;
constexpr std::string_view vendor = "PSTORAGE";

int hex_digit(char letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  if (letter >= 'a' && letter <= 'f') return letter - 'a' + 10;
  if (letter >= 'A' && letter <= 'F') return letter - 'A' + 10;
  return -1;
}

bool is_dash_place(std::size_t at) { return at == 8 || at == 13 || at == 18 || at == 23; }

enum Code_set : std::uint8_t { binary = 1, ascii = 2 };
enum Designator : std::uint8_t {
  t10_vendor = 1,
  naa = 3,
  relative_port = 4,
  port_group = 5,
  uuid_type = 10
};
constexpr std::uint8_t of_port = 0x10;     // association
constexpr std::uint8_t iscsi_port = 0x50;  // protocol identifier, with of_port and protocol_valid
constexpr std::uint8_t protocol_valid = 0x80;

void add_designator(std::vector<std::uint8_t>& page, std::uint8_t code_set, std::uint8_t type,
                    std::span<std::uint8_t const> value) {
  page.push_back(code_set);
  page.push_back(type);
  page.push_back(0);
  page.push_back(static_cast<std::uint8_t>(value.size()));
  page.insert(page.end(), value.begin(), value.end());
}

}  // namespace

Outcome<Volume_uuid> parse_uuid(std::string const& text) {
  auto const bad =
      failure(Errc::bad_request, "bad UUID '" + text + "': give 8-4-4-4-12 hexadecimal digits");
  if (text.size() != 36) return bad;
  Volume_uuid uuid{};
  std::size_t digits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_dash_place(i)) {
      if (text[i] != '-') return bad;
      continue;
    }
    int const digit = hex_digit(text[i]);
    if (digit < 0) return bad;
    auto& byte = uuid[digits / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | digit);
    ++digits;
  }
  return uuid;
}

std::string uuid_text(Volume_uuid const& uuid) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string text;
  for (auto const byte : uuid) {
    if (is_dash_place(text.size())) text.push_back('-');
    text.push_back(hex[byte >> 4]);
    text.push_back(hex[byte & 15]);
  }
  return text;
}

std::vector<std::uint8_t> serial_number_page(Volume_uuid const& uuid) {
  auto const text = uuid_text(uuid);
  return {text.begin(), text.end()};
}

std::vector<std::uint8_t> identification_page(Volume_uuid const& uuid, Port_groups const& groups) {
  std::vector<std::uint8_t> page;
  // The first 8 bytes of a random UUID have 6 fixed bits; mixed with the others all 60 are random.
  std::array<std::uint8_t, 8> local{};
  for (std::size_t i = 0; i < local.size(); ++i) {
    local[i] = static_cast<std::uint8_t>(uuid[i] ^ uuid[i + 8]);
  }
  local[0] = static_cast<std::uint8_t>(0x30 | (local[0] & 0x0f));
  add_designator(page, binary, naa, local);

  std::string const name = std::string(vendor) + uuid_text(uuid);
  std::vector<std::uint8_t> const named(name.begin(), name.end());
  add_designator(page, ascii, t10_vendor, named);

  std::vector<std::uint8_t> whole{0x10, 0x00};
  whole.insert(whole.end(), uuid.begin(), uuid.end());
  add_designator(page, binary, uuid_type, whole);

  std::array<std::uint8_t, 4> port{};
  put_be<2>(port, 2, groups.own);
  add_designator(page, iscsi_port | binary, protocol_valid | of_port | relative_port, port);
  if (groups.is_any()) {
    add_designator(page, iscsi_port | binary, protocol_valid | of_port | port_group, port);
  }
  return page;
}

std::vector<std::uint8_t> block_limits_page(std::uint32_t block_bytes) {
  std::vector<std::uint8_t> page(0x3c);
  auto const granularity = std::max(1u, physical_block_bytes / block_bytes);
  page[1] = static_cast<std::uint8_t>(compare_blocks_max);
  put_be<2>(page, 2, granularity);
  put_be<4>(page, 4, transfer_bytes_max / block_bytes);
  put_be<4>(page, 8, best_transfer_bytes / block_bytes);
  put_be<4>(page, 16, unmap_blocks_max);
  put_be<4>(page, 20, unmap_ranges_max);
  put_be<4>(page, 24, granularity);
  page[28] = 0x80;  // UGAVALID, alignment 0
  put_be<8>(page, 32, write_same_blocks_max);
  return page;
}

std::vector<std::uint8_t> characteristics_page() {
  std::vector<std::uint8_t> page(0x3c);
  put_be<2>(page, 0, 1);  // medium rotation rate: non-rotating
  return page;
}

std::vector<std::uint8_t> provisioning_page() {
  return {0, 0xe4, 0x02, 0};  // LBPU, LBPWS, LBPWS10, LBPRZ; thin
}

}  // namespace pstorage::iscsi
