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
void read_target(Target& target, json const& object) {
  target.address = object.at("address").get<std::string>();
  target.port = object.at("port").get<std::uint16_t>();
  target.should_run = object.at("running").get<bool>();
  target.may_move = object.value("failover", false);
  target.device = object.value("device", "");
  target.incoming = object.at("incoming").get<std::vector<std::string>>();
  target.outgoing = object.at("outgoing").get<std::string>();
  target.allowed = object.at("allowed").get<std::vector<std::string>>();
}

}  // namespace

std::string Target::portal() const {
  auto const host_part = address.find(':') == std::string::npos ? address : "[" + address + "]";
  return host_part + ":" + std::to_string(port);
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

Outcome<void> set_portal(Target& target, std::string const& text) {
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
  target.address = address;
  target.port = number;
  return success();
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
  properties["target"] = json{{"address", target.address},    {"port", target.port},
                              {"running", target.should_run}, {"incoming", target.incoming},
                              {"failover", target.may_move},  {"device", target.device},
                              {"outgoing", target.outgoing},  {"allowed", target.allowed}}
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
