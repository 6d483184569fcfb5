// One connection to an NBD server, driven by tgtd's loop; nothing here blocks.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "iscsi/store.h"

namespace pstorage::iscsi {

class Nbd_connection;

/// Who owns the connection. None of these runs inside Nbd_connection::issue() or start(), except
/// answered() and unanswered().
class Nbd_connection_owner {
 public:
  /// `error`: 0 or an errno.
  virtual void answered(Store_request& request, int error) = 0;
  /// The connection ended before the answer: nobody knows whether it was carried out.
  virtual void unanswered(Store_request& request) = 0;
  virtual void connection_ready(Nbd_connection& connection) = 0;
  /// `why`: one clause. The connection is dead and wants to be destroyed, but not in this call.
  virtual void connection_lost(Nbd_connection& connection, std::string const& why) = 0;
  /// An event has been handled; what was answered during it can be passed on.
  virtual void event_done() = 0;

 protected:
  ~Nbd_connection_owner() = default;
};

class Nbd_connection {
 public:
  explicit Nbd_connection(Nbd_connection_owner& owner);
  ~Nbd_connection();
  Nbd_connection(Nbd_connection const&) = delete;
  Nbd_connection& operator=(Nbd_connection const&) = delete;

  /// Starts connecting to `uri` (unix socket only). Not empty: why it cannot.
  std::string start(std::string const& uri);
  bool is_ready() const { return is_ready_; }
  std::uint64_t size_bytes() const;
  std::size_t in_flight() const { return slots_.size(); }
  /// Only when ready. May find that the connection has ended: then it is not ready any more, its
  /// requests are unanswered, and look_at_state() reports the loss.
  void issue(Store_request& request);
  /// Reports to the owner what has become of the connection. Not from inside issue().
  void look_at_state();

 private:
  struct Slot {
    Nbd_connection* connection;
    Store_request* request;
    std::size_t index;
    bool wants_flush;
  };

  static void on_event(int fd, int events, void* self);
  static int on_complete(void* slot, int* error);
  static int on_extent(void* slot, char const* context, std::uint64_t offset,
                       std::uint32_t* entries, std::size_t count, int* error);
  std::int64_t send(Slot& slot, bool flush);
  void complete(Slot& slot, int error);
  void remove(Slot& slot);
  bool is_gone() const;
  void die(std::string const& why);
  void watch();

  Nbd_connection_owner& owner_;
  nbd_handle* handle_ = nullptr;
  int fd_ = -1;
  int watched_ = 0;
  bool is_ready_ = false;
  bool is_dead_ = false;
  bool can_fua_ = false;
  bool can_flush_ = false;
  bool can_status_ = false;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::unique_ptr<Slot>> free_slots_;
};

}  // namespace pstorage::iscsi
