// Volumes that are block devices of this host's kernel: made, kept connected, taken away.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/volume/kernel_nbd.h"
#include "core/address.h"

namespace pstorage::volume {

/// What is noted about a device in /run/pstorage/attached/nbdN while it is attached.
struct Attachment {
  std::uint32_t index = 0;
  std::string cluster;
  std::string volume;    // or VOLUME@SNAPSHOT
  std::string server;    // as Address::parse takes it
  int keeper = 0;        // process id
  bool is_kept = false;  // the keeper lives

  std::string device() const { return "/dev/nbd" + std::to_string(index); }
  std::string identifier() const { return "pstorage:" + cluster + "/" + volume; }
};

/// Those that the kernel still has, by index; notes of others are removed.
std::vector<Attachment> attachments();
/// "/dev/nbd3" -> 3; nothing for what is no such name.
std::optional<std::uint32_t> device_index(std::string const& device);

/// A connection to `volume` at `server`, negotiated so far that requests may come: what the kernel
/// takes. Blocking, at most half a minute. Errors: what the server says, timed_out.
struct Negotiated {
  File_descriptor socket;
  std::uint64_t size_bytes = 0;
  std::uint16_t flags = 0;
};
Outcome<Negotiated> negotiate(Address const& server, std::string const& volume);

/// One attached volume, in the process that keeps it connected.
class Kept_device {
 public:
  /// `timeout_s`, `patience_s`: as Kernel_connection. Errors: as negotiate() and
  /// Kernel_nbd::connect(); busy (attached already).
  static Outcome<Kept_device> attach(Attachment wanted, std::optional<std::uint32_t> index,
                                     std::uint64_t timeout_s, std::uint64_t patience_s);
  Attachment const& attachment() const { return attachment_; }
  /// Connects the device again whenever its connection breaks; returns when it was detached.
  void keep();

 private:
  Kept_device(Attachment attachment, Kernel_nbd kernel)
      : attachment_(std::move(attachment)), kernel_(std::move(kernel)) {}
  bool connect_again();

  Attachment attachment_;
  Kernel_nbd kernel_;
};

/// Takes the device away; everything written is flushed before. Errors: busy (mounted, or held by
/// something else), the system's.
Outcome<void> detach(Attachment const& attachment);

}  // namespace pstorage::volume
