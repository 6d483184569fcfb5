// The kernel's NBD client, driven over generic netlink.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/disk/file_descriptor.h"
#include "core/env/clock.h"
#include "core/result.h"

namespace pstorage::volume {

/// A message of generic netlink being made: little pieces, each padded to four bytes.
class Netlink_message {
 public:
  Netlink_message(std::uint16_t family, std::uint8_t command, std::uint16_t flags);
  void add(std::uint16_t type, std::uint32_t value);
  void add(std::uint16_t type, std::uint64_t value);
  void add(std::uint16_t type, std::string const& value);  // with its final zero
  /// What is added until end() belongs to it. Returns what end() wants.
  std::size_t begin(std::uint16_t type);
  void end(std::size_t at);
  /// The whole message, its length filled in.
  std::vector<std::byte> const& bytes();

 private:
  void add_bytes(std::uint16_t type, void const* data, std::size_t size);

  std::vector<std::byte> bytes_;
};

/// What a device is connected with.
struct Kernel_connection {
  std::uint64_t size_bytes = 0;
  std::uint16_t flags = 0;       // the export's, as in the protocol
  std::uint64_t timeout_s = 0;   // a request without an answer for so long is sent again
  std::uint64_t patience_s = 0;  // with no connection requests wait for so long, then fail
  std::string identifier;        // told in /sys/block/nbdN/backend
};

/// Thread: one. Blocking, but for wait_for_death(), at most for a moment.
class Kernel_nbd {
 public:
  /// Errors: refused (this kernel has no NBD client; not root), the system's.
  static Outcome<Kernel_nbd> open();

  /// Hands the connected `socket` to a device: `index`, or a free one. Returns its index.
  /// Errors: busy (the device is in use), the system's.
  Outcome<std::uint32_t> connect(Kernel_connection const& connection, int socket,
                                 std::optional<std::uint32_t> index);
  /// Gives a device whose connection broke another one; one that is connected keeps its own.
  /// Errors: the system's.
  Outcome<void> reconnect(Kernel_connection const& connection, int socket, std::uint32_t index);
  /// Tells the device how large it is now. Errors: the system's.
  Outcome<void> resize(std::string const& identifier, std::uint64_t size_bytes,
                       std::uint32_t index);
  /// Errors: the system's.
  Outcome<void> disconnect(std::uint32_t index);
  /// Waits for the kernel to tell that a connection of the device broke, at most `patience`.
  /// True: it did, or may have.
  bool wait_for_death(std::uint32_t index, Duration patience);

 private:
  Outcome<void> find_family();
  /// Sends and waits for the kernel's verdict; `index`: what its reply says, if it does.
  Outcome<void> call(Netlink_message& message, std::string const& what,
                     std::uint32_t* index = nullptr);

  File_descriptor requests_;
  File_descriptor events_;
  std::uint16_t family_ = 0;
  std::uint32_t group_ = 0;
};

}  // namespace pstorage::volume
