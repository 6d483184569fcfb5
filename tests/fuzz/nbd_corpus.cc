// Writes the inputs that nbd_fuzz begins with: nbd_corpus DIRECTORY.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "tests/blockdev/nbd_client.h"

namespace {

using namespace pstorage;
using namespace pstorage::nbd;
using test::Client;
using test::Wire;

constexpr std::uint32_t flags = flag_fixed_newstyle | flag_no_zeroes;

enum class Replies { simple, structured, extended };

Wire request(Replies replies, Command command, std::uint64_t offset, std::uint32_t length,
             std::uint16_t command_flags) {
  if (replies != Replies::extended)
    return Client::request(command, 7, offset, length, command_flags);
  auto const with_payload = command == Command::write ? command_payload : std::uint16_t{0};
  return Wire()
      .put(magic_extended_request)
      .put(static_cast<std::uint16_t>(command_flags | with_payload))
      .put(static_cast<std::uint16_t>(command))
      .put(std::uint64_t{7})
      .put(offset)
      .put(std::uint64_t{length});
}

/// Into transmission, and then every command with every flag that it takes.
std::string session(Replies replies) {
  Wire wire;
  wire.put(flags);
  auto const option = [&](Option number, std::string const& data = {}) {
    wire.text(Client::option(number, data).str());
  };
  if (replies == Replies::structured) option(Option::structured_reply);
  if (replies == Replies::extended) option(Option::extended_headers);
  if (replies != Replies::simple)
    option(Option::set_meta_context, Client::meta("disk", {"base:allocation"}));
  option(Option::go, Client::info("disk", {0, 1, 3}));
  auto const ask = [&](Command command, std::uint64_t offset, std::uint32_t length,
                       std::uint16_t command_flags = 0) -> Wire& {
    return wire.text(request(replies, command, offset, length, command_flags).str());
  };
  ask(Command::write, 100, 5000, command_fua).fill(5000, 'w');
  ask(Command::read, 99, 5002, replies == Replies::simple ? 0 : command_df);
  ask(Command::flush, 0, 0);
  ask(Command::trim, 0, 8192, command_fua);
  ask(Command::write_zeroes, 1, 9000, command_no_hole);
  ask(Command::write_zeroes, 0, 1u << 20, command_fast_zero);
  ask(Command::cache, 0, 1u << 20);
  ask(Command::block_status, 0, 1u << 20);
  ask(Command::block_status, 4096, 4096, command_req_one);
  ask(Command::read, 1u << 20, 1);
  ask(Command::disconnect, 0, 0);
  return wire.str();
}

std::string options() {
  Wire wire;
  wire.put(flags);
  for (auto const& one :
       {Client::option(Option::list), Client::option(Option::info, Client::info("disk")),
        Client::option(Option::starttls),
        Client::option(Option::list_meta_context, Client::meta("disk", {})),
        Client::option(Option::list_meta_context, Client::meta("disk", {"base:", "x:y"})),
        Client::option(Option{4}, "unknown"), Client::option(Option::abort)})
    wire.text(one.str());
  return wire.str();
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: nbd_corpus DIRECTORY\n");
    return 2;
  }
  auto const old = Wire()
                       .put(std::uint32_t{0})
                       .text(Client::option(Option::export_name, "disk").str() +
                             Client::request(Command::read, 1, 0, 4096).str());
  std::vector<std::pair<std::string, std::string>> const inputs = {
      {"simple", session(Replies::simple)},
      {"structured", session(Replies::structured)},
      {"extended", session(Replies::extended)},
      {"options", options()},
      {"export_name", old.str()},
  };
  for (auto const& [name, bytes] : inputs) {
    for (char const piece : {'\0', '\377'}) {  // 1 byte or 4 KiB a read
      auto const path = std::string(arguments[1]) + "/" + name + (piece == 0 ? "_slow" : "");
      std::ofstream(path, std::ios::binary) << piece << bytes;
    }
    std::ofstream(std::string(arguments[1]) + "/" + name + "_torn", std::ios::binary)
        << '\377' << bytes.substr(0, bytes.size() / 2);
  }
  return 0;
}
