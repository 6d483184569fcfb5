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

/// Where this host's pstorage-nbd serves `cluster`, as Address::parse takes it.
std::string default_server(std::string const& cluster);
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

/// How a volume is attached.
struct Attach_options {
  std::optional<std::uint32_t> index;  // of the device; nothing: a free one
  bool is_read_only = false;
  std::uint64_t timeout_s = 0;   // as Kernel_connection
  std::uint64_t patience_s = 0;  // as Kernel_connection
};

/// One attached volume, in the process that keeps it connected.
class Kept_device {
 public:
  /// A device of this volume that has lost its keeper gets this one, and stays as it was attached.
  /// Errors: as negotiate() and Kernel_nbd::connect(); busy (attached already).
  static Outcome<Kept_device> attach(Attachment wanted, Attach_options const& options);
  Attachment const& attachment() const { return attachment_; }
  /// Connects the device again whenever its connection breaks; returns when it was detached.
  void keep();

 private:
  Kept_device(Attachment attachment, Kernel_nbd kernel)
      : attachment_(std::move(attachment)), kernel_(std::move(kernel)) {}
  static Outcome<Kept_device> take_over(Attachment orphan, Kernel_nbd kernel);
  bool connect_again();

  Attachment attachment_;
  Kernel_nbd kernel_;
};

/// Takes the device away; everything written is flushed before. Errors: busy (mounted, or held by
/// something else), the system's.
Outcome<void> detach(Attachment const& attachment);
/// Cuts the device off from its volume, whoever uses it: what is under way, and all that comes,
/// fails; what was not flushed is lost. Errors: the system's.
Outcome<void> cut_off(Attachment const& attachment);
/// Waits until the last user of a device that was cut off has closed it. Errors: timed_out.
Outcome<void> await_end(Attachment const& attachment);
/// Shows the device's users that the volume has grown to `size_bytes`, as soon as its server says
/// so. Errors: as negotiate(); timed_out; the system's.
Outcome<void> show_growth(Attachment const& attachment, std::uint64_t size_bytes);

}  // namespace pstorage::volume
