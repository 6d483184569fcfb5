// Names to addresses off the loop.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/net/event_loop.h"
#include "core/net/socket.h"

namespace pstorage {

/// Each look-up has a thread of its own that nobody waits for: a dead DNS server keeps getaddrinfo
/// busy for half a minute, and a process must be able to end meanwhile. Look-ups are rare (daemons
/// are usually named by numbers).
class Resolver {
 public:
  using Done = std::function<void(Outcome<std::vector<Endpoint>>)>;

  explicit Resolver(Event_loop& loop);
  /// No callback comes after this.
  ~Resolver();
  Resolver(Resolver const&) = delete;
  Resolver& operator=(Resolver const&) = delete;

  /// `done` is called from the loop.
  void resolve(Address const& address, Done done);

 private:
  struct Gate;
  std::shared_ptr<Gate> gate_;
};

}  // namespace pstorage
