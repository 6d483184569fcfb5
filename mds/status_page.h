// The status page of a metadata server: what 'stat' and 'get-event' show, for a browser.
#pragma once

#include <cstdint>
#include <string>

#include "core/auth/password_check.h"
#include "core/http/server.h"
#include "mds/server/metadata_server.h"

namespace pstorage::mds {

/// Who may see the page.
enum class Page_access {
  password,  // who knows the cluster's password; on loopback addresses only, as it comes in clear
  open,      // everybody who reaches the port
  off
};

/// Read only. Thread: the runtime's loop.
class Status_page {
 public:
  /// `is_loopback`: of the address that it is served at.
  Status_page(Runtime& runtime, Metadata_server& server, Cluster_key const& key, Page_access access,
              bool is_loopback);

  void answer(http::Request const& request, http::Respond respond);
  /// The state of the cluster as of a moment ago; null: this is not the master.
  proto::Status_reply const* status();

 private:
  void check(http::Request const& request, http::Respond respond);
  http::Answer show(std::string const& path);
  http::Answer data();

  Runtime& runtime_;
  Metadata_server& server_;
  Password_check password_;
  Page_access const access_;
  bool const is_loopback_;
  bool is_checking_ = false;
  Time_point next_check_{};
  proto::Status_reply status_;
  bool is_master_ = false;
  Time_point status_until_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pstorage::mds
