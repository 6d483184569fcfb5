// What the cluster keeps about iSCSI targets, and the rules for it. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"

namespace pstorage::iscsi {

inline constexpr std::uint16_t iscsi_port = 3260;
inline constexpr std::size_t luns_max = 60;  // a LUN is a property of the target's directory
inline constexpr unsigned lun_number_max = 255;
inline constexpr std::string_view iqn_prefix = "iqn.2014-04.com.pstorage:";

struct Lun {
  std::string volume;     // name below /volumes
  std::string uuid;       // what initiators know it by
  bool is_owned = false;  // made with the LUN, and deleted with it
};

/// Where one of several gateways serves a target, or stands by to.
struct Portal {
  std::string address;
  std::uint16_t port = iscsi_port;
  std::uint16_t group = 1;  // target port group, and number of the port

  std::string text() const;  // ADDR:PORT
  bool operator==(Portal const&) const = default;
};

struct Target {
  std::string name;
  Portal address;                         // that goes along to other hosts
  std::map<std::string, Portal> portals;  // of hosts, instead of `address`; empty: no multipath
  bool should_run = false;
  bool may_move = false;  // pstorage-iscsid of another host may take it over
  std::string device;     // network device that gets the address with the target; empty: none
  std::string host;       // 16 hex digits of the host it is registered on; empty: on none
  std::string holder;     // who serves it (pstorage-iscsid), for people; empty: nobody
  std::map<unsigned, Lun> luns;
  std::vector<std::string> incoming;  // CHAP accounts that initiators log in with; empty: no CHAP
  std::string outgoing;               // CHAP account that the target proves (mutual)
  std::vector<std::string> allowed;   // initiator names (iqn...) and addresses; empty: all

  std::string iqn() const { return std::string(iqn_prefix) + name; }
  /// Where `on_host` serves it. Errors: not_found: it has no portal there.
  Outcome<Portal> portal(std::string const& on_host) const;
  /// All of them, ADDR:PORT, the one of its host first.
  std::vector<std::string> portal_texts() const;
  bool may_serve(std::string const& on_host) const {
    return portals.empty() || portals.contains(on_host);
  }
};

/// A LUN with what is known of its volume now.
struct Lun_with_size {
  Lun lun;
  std::uint64_t size_bytes = 0;
};

/// Everything that a tgtd is told besides the target itself.
struct Replayed {
  std::map<unsigned, Lun_with_size> luns;
  std::map<std::string, std::string> accounts;
};

/// NAME of "iqn.2014-04.com.pstorage:NAME" or of NAME itself. Errors: bad_request.
Outcome<std::string> target_name(std::string const& iqn_or_name);
/// "ADDR" or "ADDR:PORT" (IPv6: [ADDR]:PORT). Errors: bad_request.
Outcome<Portal> parse_portal(std::string const& text);
/// `on_host` gets the portal `where` beside that of the target's host; what it had is replaced.
/// Errors: exists, refused, too_large.
Outcome<void> add_portal(Target& target, std::string const& on_host, Portal where);
/// With the last one but that of the target's host it has one address again. Errors: not_found,
/// busy (of the target's host).
Outcome<void> remove_portal(Target& target, std::string const& on_host);
/// 1 to lun_number_max. Errors: bad_request.
Outcome<unsigned> lun_number(std::string const& text);
/// User names and secrets travel in lists of name=value to tgtd: no commas, no blanks. Secrets have
/// 12 to 64 characters (RFC 7143 wants 96 bits or more).
Outcome<void> check_user(std::string const& user);
Outcome<void> check_secret(std::string const& secret);
/// An initiator's name (iqn., eui., naa.) or an address. Errors: bad_request.
Outcome<void> check_allowed(std::string const& initiator);

/// A network device's name: up to 15 of what they consist of. Errors: bad_request.
Outcome<void> check_device(std::string const& device);

/// Properties of the target's directory in the cluster: "target", and "lun.N" for each LUN.
using Properties = std::map<std::string, std::string>;
Properties to_properties(Target const& target);
/// `host` is kept elsewhere. Errors: corrupt, naming the property.
Outcome<Target> from_properties(std::string const& name, Properties const& properties);
std::string lun_property(unsigned number);

}  // namespace pstorage::iscsi
