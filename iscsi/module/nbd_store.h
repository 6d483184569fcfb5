// A volume behind an NBD server that may go away and come back.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "iscsi/module/nbd_connection.h"
#include "iscsi/module/tgt_abi.h"
#include "iscsi/module/ticker.h"
#include "iscsi/store.h"

namespace pstorage::iscsi {

/// Connects, and connects again with growing pauses (0.1 to 1 s). What was not answered when a
/// connection ended is asked again on the next one. A request that cannot be sent for `patience`
/// is answered EAGAIN; one that has been sent never is: it may still be carried out, and its range
/// must stay locked until it is known. Thread: tgtd's loop.
class Nbd_store final : public Store, private Nbd_connection_owner, private Tick_listener {
 public:
  /// `name`: for log lines. `uri`: nbd+unix:///EXPORT?socket=PATH. Returns at once.
  /// `grown`: the server has the size that grow() was told, and it is in use.
  Nbd_store(std::string name, std::string uri, std::uint64_t size_bytes,
            std::uint32_t patience_seconds, std::function<void(std::uint64_t)> grown);
  ~Nbd_store() override;
  Nbd_store(Nbd_store const&) = delete;
  Nbd_store& operator=(Nbd_store const&) = delete;

  bool is_working() const { return has_ticker_; }
  /// The server has not answered for `patience`; what comes now is answered EAGAIN.
  bool is_stuck() const { return silent_ticks_ >= patience_ticks_; }
  void submit(Store_request& request) override;
  /// The volume has become larger. An NBD connection knows the size of its beginning only: a second
  /// one is made, again and again until the server reports the size; then it takes the requests
  /// over while the first one drains.
  void grow(std::uint64_t bytes);

 private:
  void answered(Store_request& request, int error) override;
  void unanswered(Store_request& request) override;
  void connection_ready(Nbd_connection& connection) override;
  void connection_lost(Nbd_connection& connection, std::string const& why) override;
  void event_done() override;
  void on_tick() override;

  static void on_deferred(event_data* event);
  void defer();
  void connect();
  void try_to_grow();
  void retry_to_grow(std::string const& why);
  void use_next();
  void has_grown();
  void wait_to_connect(std::string const& why);
  void send_waiting();
  void pass_answers();

  std::string const name_;
  std::string const uri_;
  std::uint64_t size_;
  std::uint64_t wanted_size_;  // larger than size_ while growing
  std::uint32_t const patience_ticks_;
  std::function<void(std::uint64_t)> const grown_;
  bool has_ticker_ = false;

  std::unique_ptr<Nbd_connection> connection_;
  std::unique_ptr<Nbd_connection> next_;  // asks whether the server knows the wanted size
  std::uint32_t grow_pause_ticks_ = 0;
  std::vector<std::unique_ptr<Nbd_connection>> draining_;
  std::vector<std::unique_ptr<Nbd_connection>> dead_;  // closed when no call of theirs is active
  std::uint32_t pause_ticks_ = 0;                      // until the next attempt
  std::uint32_t next_pause_ticks_ = 1;
  std::uint32_t silent_ticks_ = 0;  // since an answer, or since the server went away
  bool has_complained_ = false;

  std::deque<Store_request*> waiting_;
  std::vector<std::pair<Store_request*, int>> answers_;
  bool is_passing_ = false;
  event_data deferred_{};
};

}  // namespace pstorage::iscsi
