#include "iscsi/tool/target_config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace pstorage::iscsi {
namespace {

using nlohmann::json;

constexpr std::size_t name_bytes_max = 64;
constexpr std::size_t user_bytes_max = 64;
constexpr std::size_t secret_bytes_min = 12;
constexpr std::size_t secret_bytes_max = 64;
constexpr std::size_t portals_max = 16;  // the module's
constexpr std::string_view lun_prefix = "lun.";

bool is_all_of(std::string_view text, std::string_view more) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [more](char letter) {
    bool const alphanumeric = (letter >= 'a' && letter <= 'z') ||
                              (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9');
    return alphanumeric || more.find(letter) != std::string_view::npos;
  });
}

template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return !text.empty() && error == std::errc{} && end == text.data() + text.size();
}

Failure bad(std::string what) { return failure(Errc::bad_request, std::move(what)); }

/// Throws json::exception.
Portal read_portal(json const& object) {
  return {object.at("address").get<std::string>(), object.at("port").get<std::uint16_t>(),
          object.value("group", std::uint16_t{1})};
}

/// Throws json::exception.
void read_target(Target& target, json const& object) {
  target.address = read_portal(object);
  auto const portals = object.value("portals", json::object());
  for (auto const& [host, portal] : portals.items()) {
    target.portals[host] = read_portal(portal);
  }
  target.should_run = object.at("running").get<bool>();
  target.may_move = object.value("failover", false);
  target.device = object.value("device", "");
  target.incoming = object.at("incoming").get<std::vector<std::string>>();
  target.outgoing = object.at("outgoing").get<std::string>();
  target.allowed = object.at("allowed").get<std::vector<std::string>>();
}

}  // namespace

std::string Portal::text() const {
  auto const host_part = address.find(':') == std::string::npos ? address : "[" + address + "]";
  return host_part + ":" + std::to_string(port);
}

Outcome<Portal> Target::portal(std::string const& on_host) const {
  if (portals.empty()) return address;
  auto const found = portals.find(on_host);
  if (found != portals.end()) return found->second;
  return failure(Errc::not_found, "target " + iqn() + " has no portal on host " + on_host +
                                      ": run 'pstorage-iscsi portal add -t " + name +
                                      " -a ADDR' there");
}

std::vector<std::string> Target::portal_texts() const {
  if (portals.empty()) return {address.text()};
  std::vector<std::string> texts;
  for (auto const& [on_host, portal] : portals) {
    texts.insert(on_host == host ? texts.begin() : texts.end(), portal.text());
  }
  return texts;
}

Outcome<void> add_portal(Target& target, std::string const& on_host, Portal where) {
  if (!target.device.empty()) {
    return failure(Errc::refused,
                   "the target's address moves with it: run 'pstorage-iscsi set --device none' to "
                   "give its hosts portals of their own instead");
  }
  auto portals = target.portals;
  if (portals.empty()) {
    if (target.host.empty() || target.host == on_host) {
      return failure(Errc::refused,
                     "the target has its own address on its own host: run this on "
                     "another one");
    }
    portals[target.host] = target.address;
    portals[target.host].group = 1;
  }
  portals.erase(on_host);
  if (portals.size() == portals_max) {
    return failure(Errc::too_large,
                   "a target has at most " + std::to_string(portals_max) + " portals");
  }
  where.group = 1;
  for (bool is_free = false; !is_free;) {
    is_free = true;
    for (auto const& [other, portal] : portals) {
      if (portal.text() == where.text()) {
        return failure(Errc::exists, where.text() + " is the portal of host " + other);
      }
      if (portal.group == where.group) {
        ++where.group;
        is_free = false;
      }
    }
  }
  portals[on_host] = where;
  target.portals = std::move(portals);
  return success();
}

Outcome<void> remove_portal(Target& target, std::string const& on_host) {
  if (!target.portals.contains(on_host)) {
    return failure(Errc::not_found, "the target has no portal on host " + on_host);
  }
  if (on_host == target.host) {
    return failure(Errc::busy, "the target is registered on this host: unregister it first");
  }
  target.portals.erase(on_host);
  auto const own = target.portals.find(target.host);
  if (target.portals.size() == 1 && own != target.portals.end()) {
    target.address = own->second;
    target.portals.clear();
  }
  return success();
}

Outcome<std::string> target_name(std::string const& iqn_or_name) {
  auto const name =
      iqn_or_name.starts_with(iqn_prefix) ? iqn_or_name.substr(iqn_prefix.size()) : iqn_or_name;
  // iSCSI names are compared in lower case (RFC 7143 4.2.7).
  bool const has_capitals =
      std::any_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  if (has_capitals || name.size() > name_bytes_max || !is_all_of(name, "-.") ||
      name.front() == '.') {
    return bad("bad target '" + iqn_or_name + "': a name has up to 64 of a-z 0-9 - . (its IQN is " +
               std::string(iqn_prefix) + "NAME)");
  }
  return name;
}

Outcome<Portal> parse_portal(std::string const& text) {
  auto const wrong = bad("bad address '" + text + "': give ADDR, ADDR:PORT or [IPV6]:PORT");
  std::string address = text;
  std::string port;
  if (text.starts_with('[')) {
    auto const end = text.find(']');
    if (end == std::string::npos) return wrong;
    address = text.substr(1, end - 1);
    if (end + 1 < text.size() && text[end + 1] != ':') return wrong;
    if (end + 1 < text.size()) port = text.substr(end + 2);
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    address = text.substr(0, text.find(':'));
    port = text.substr(text.find(':') + 1);
    if (port.empty()) return wrong;
  }
  if (!is_all_of(address, ".:")) return wrong;
  std::uint16_t number = iscsi_port;
  if (!port.empty() && (!parse_number(port, number) || number == 0)) return wrong;
  return Portal{address, number};
}

Outcome<unsigned> lun_number(std::string const& text) {
  unsigned number = 0;
  if (!parse_number(text, number) || number == 0 || number > lun_number_max) {
    return bad("bad LUN '" + text + "': a number from 1 to " + std::to_string(lun_number_max));
  }
  return number;
}

Outcome<void> check_user(std::string const& user) {
  if (user.size() > user_bytes_max || !is_all_of(user, "-._:@")) {
    return bad("bad user '" + user + "': up to 64 of letters, digits and - . _ : @");
  }
  return success();
}

Outcome<void> check_secret(std::string const& secret) {
  bool const is_printable = std::all_of(secret.begin(), secret.end(), [](char letter) {
    return letter > ' ' && letter < 0x7f && letter != ',';
  });
  if (secret.size() < secret_bytes_min || secret.size() > secret_bytes_max || !is_printable) {
    return bad("bad secret: 12 to 64 printable characters without blanks and commas");
  }
  return success();
}

Outcome<void> check_allowed(std::string const& initiator) {
  bool const is_name = initiator.starts_with("iqn.") || initiator.starts_with("eui.") ||
                       initiator.starts_with("naa.");
  if (is_name && initiator.size() <= 223 && is_all_of(initiator, "-.:")) return success();
  bool const is_address = initiator.find_first_not_of("0123456789abcdef.:/") == std::string::npos &&
                          initiator.find_first_of(".:") != std::string::npos;
  if (is_address) return success();
  return bad("bad initiator '" + initiator + "': give its name (iqn....) or its address");
}

Outcome<void> check_device(std::string const& device) {
  constexpr std::size_t device_bytes_max = 15;
  if (device.size() <= device_bytes_max && is_all_of(device, "-._@") && device.front() != '-') {
    return success();
  }
  return bad("bad device '" + device + "': give the name of a network device, such as eth0");
}

std::string lun_property(unsigned number) {
  return std::string(lun_prefix) + std::to_string(number);
}

Properties to_properties(Target const& target) {
  Properties properties;
  auto portals = json::object();
  for (auto const& [host, portal] : target.portals) {
    portals[host] = {{"address", portal.address}, {"port", portal.port}, {"group", portal.group}};
  }
  properties["target"] = json{{"address", target.address.address},
                              {"port", target.address.port},
                              {"portals", portals},
                              {"running", target.should_run},
                              {"incoming", target.incoming},
                              {"failover", target.may_move},
                              {"device", target.device},
                              {"outgoing", target.outgoing},
                              {"allowed", target.allowed}}
                             .dump();
  for (auto const& [number, lun] : target.luns) {
    properties[lun_property(number)] =
        json{{"volume", lun.volume}, {"uuid", lun.uuid}, {"owned", lun.is_owned}}.dump();
  }
  return properties;
}

Outcome<Target> from_properties(std::string const& name, Properties const& properties) {
  Target target;
  target.name = name;
  auto const damaged = [&](std::string const& property) {
    return failure(Errc::corrupt, "target " + name + ": its property '" + property +
                                      "' in the cluster cannot be read");
  };
  if (!properties.contains("target")) return damaged("target");
  for (auto const& [property, text] : properties) {
    auto const object = json::parse(text, nullptr, false);
    try {
      if (property == "target") {
        read_target(target, object);
      } else if (property.starts_with(lun_prefix)) {
        PS_TRY(auto const number, lun_number(property.substr(lun_prefix.size())));
        target.luns[number] = {object.at("volume").get<std::string>(),
                               object.at("uuid").get<std::string>(),
                               object.at("owned").get<bool>()};
      }
    } catch (json::exception const&) {
      return damaged(property);
    }
  }
  return target;
}

}  // namespace pstorage::iscsi
