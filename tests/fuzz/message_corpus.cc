// Writes the inputs that message_fuzz begins with: message_corpus DIRECTORY.
#include <array>
#include <cstdio>
#include <fstream>
#include <string>

#include "core/net/message.h"

namespace {

using namespace pstorage;

std::string message(Operation operation, bool is_reply, std::uint32_t meta, std::uint32_t data,
                    bool is_shared = false) {
  Header header;
  header.operation = operation;
  header.is_reply = is_reply;
  header.request_id = 7;
  header.chunk = {42};
  header.stamp = Stamp::of({3}, 9);
  header.offset = 8192;
  header.length = data;
  header.version = {2};
  header.incarnation = {1};
  Header_bytes raw;
  encode_header(header, meta, data, raw.data(), is_shared);
  std::string bytes(reinterpret_cast<char const*>(raw.data()), raw.size());
  bytes.append(meta, 'm');
  if (!is_shared) return bytes.append(data, 'd');
  std::array<std::byte, shared_reference_bytes> reference;
  encode_reference({.offset = 0, .size = data, .ticket = 1}, reference.data());
  return bytes.append(reinterpret_cast<char const*>(reference.data()), reference.size());
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: message_corpus DIRECTORY\n");
    return 2;
  }
  std::string all;
  for (auto number = static_cast<unsigned>(Operation::control);
       number <= static_cast<unsigned>(Operation::give_back); ++number) {
    auto const operation = static_cast<Operation>(number);
    for (bool const is_reply : {false, true}) {
      auto const one = message(operation, is_reply, 16, 4096);
      all += one;
      auto const name = std::string(arguments[1]) + "/" + std::to_string(number) +
                        (is_reply ? "_reply" : "_request");
      std::ofstream(name, std::ios::binary) << "\377\377" << one;
      std::ofstream(name + "_torn", std::ios::binary) << "\7" << '\0' << one.substr(0, 1000);
    }
  }
  std::ofstream(std::string(arguments[1]) + "/all", std::ios::binary) << '\0' << '\20' << all;
  std::ofstream(std::string(arguments[1]) + "/shared", std::ios::binary)
      << "\377\377" << message(Operation::write, false, 4, 4096, true);
  return 0;
}
