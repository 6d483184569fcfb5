// Targets, accounts and volumes as the cluster keeps them: below /iscsi and /volumes.
//
//   /iscsi                properties "account.USER": a CHAP secret
//   /iscsi/NAME           properties "target" and "lun.N" (target_config.h)
//   /volumes/iscsi-reservations/UUID
//                         persistent reservations of the LUN with that UUID
//   /iscsi/NAME/owner     property "host": who has the target registered. Creating a file that
//                         exists fails, so two hosts never both get it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "blockdev/volume/limits.h"
#include "core/result.h"
#include "iscsi/tool/target_config.h"
#include "mds.pb.h"

namespace pstorage::iscsi {

struct Volume_info {
  std::uint64_t size_bytes = 0;
  std::uint64_t mapped_bytes = 0;
  std::string uuid;  // empty: it has none yet
  bool is_raw = false;
  volume::Limits limits;
};

/// The file whose lease the gateway holds that serves the target.
std::string owner_path(std::string const& target);
/// Name of the volume that keeps the reservations of LUN `uuid`.
std::string reservations_volume(std::string const& uuid);
/// Tries for 15 s while it is busy: the NBD server gives an idle volume back after 2 s, a
/// pstorage-iscsid looks once a second. Errors: those of `work`.
Outcome<void> when_free(std::function<Outcome<void>()> const& work);

/// Every call is one or a few blocking requests to the MDS; each of them is atomic.
class Cluster_state {
 public:
  using Call = std::function<Outcome<proto::Mds_reply>(proto::Mds_request)>;
  explicit Cluster_state(Call call) : call_(std::move(call)) {}

  Outcome<std::vector<std::string>> target_names();
  /// Errors: not_found, corrupt.
  Outcome<Target> load(std::string const& name);
  /// Makes the target's directory. Errors: exists.
  Outcome<void> create(Target const& target);
  /// Writes what is not about LUNs.
  Outcome<void> save(Target const& target);
  Outcome<void> save_lun(std::string const& target, unsigned number, Lun const& lun);
  Outcome<void> forget_lun(std::string const& target, unsigned number);
  Outcome<void> remove(std::string const& target);

  /// Errors: busy, naming the host that has it.
  Outcome<void> register_on(std::string const& target, std::string const& host);
  /// Waits up to 15 s for a pstorage-iscsid that is about to give it back. Errors: busy.
  Outcome<void> unregister(std::string const& target);
  /// Registers it on `host`, wherever it is, if `guard` still holds. Errors: stale_epoch.
  Outcome<void> move(std::string const& target, std::string const& host,
                     proto::Lease_guard const& guard);
  /// Has somebody the volume open?
  Outcome<bool> is_in_use(std::string const& volume);
  /// Whoever has the volume open loses it. Nobody: fine.
  Outcome<void> revoke_volume(std::string const& name);

  Outcome<std::map<std::string, std::string>> accounts();
  /// `secret` empty: removes the account.
  Outcome<void> save_account(std::string const& user, std::string const& secret);

  /// What a gateway is told of the target's LUNs and of all accounts. Errors: those of volume().
  Outcome<Replayed> replayed(Target const& target);
  /// Raw or ploop. Errors: not_found, is_directory.
  Outcome<Volume_info> volume(std::string const& name);
  Outcome<void> set_volume_uuid(std::string const& name, std::string const& uuid);
  /// The volume that keeps the reservations of LUN `uuid`, made when there is none.
  Outcome<void> ensure_reservations(std::string const& uuid);
  /// Absent: fine.
  Outcome<void> remove_reservations(std::string const& uuid);

 private:
  Outcome<proto::File> look_up(std::string const& path);
  Outcome<void> make_directory(std::string const& path, Properties const& properties);
  Outcome<void> set_properties(std::string const& path, Properties const& properties);
  Outcome<void> remove_path(std::string const& path);
  Outcome<std::uint64_t> mapped_below(std::string const& path);

  Call call_;
};

}  // namespace pstorage::iscsi
