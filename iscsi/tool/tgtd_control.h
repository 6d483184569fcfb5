// tgtd's control socket, spoken directly: tgtadm would show CHAP secrets on its command line.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace pstorage::iscsi {

/// Thread: one. Every call is one blocking request of at most a few seconds.
class Tgtd_control {
 public:
  /// `socket`: as tgtd makes it, TGT_IPC_SOCKET with ".N" behind.
  explicit Tgtd_control(std::string socket) : socket_(std::move(socket)) {}

  bool is_up() const;
  // All errors: unavailable (tgtd does not answer), refused (with tgtd's reason).
  Outcome<void> add_target(std::string const& iqn) const;
  Outcome<void> set_parameter(std::string const& name, std::string const& value) const;
  Outcome<void> add_lun(unsigned number, std::string const& uri, std::string const& options) const;
  Outcome<void> remove_lun(unsigned number) const;
  Outcome<void> grow_lun(unsigned number, std::uint64_t bytes) const;
  /// A LUN that stands by is served from now on.
  Outcome<void> activate_lun(unsigned number) const;
  /// An account that is known already stays as it is.
  Outcome<void> add_account(std::string const& user, std::string const& secret) const;
  Outcome<void> bind_account(std::string const& user, bool is_outgoing, bool binds) const;
  /// `initiator`: a name, an address, or ALL.
  Outcome<void> allow(std::string const& initiator, bool allows) const;

 private:
  struct Request;
  Outcome<void> send(Request const& request, std::string const& parameters) const;

  std::string socket_;
};

}  // namespace pstorage::iscsi
