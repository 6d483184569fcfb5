#include "core/cli/attribute_text.h"

#include <charconv>
#include <limits>

#include "core/size.h"

namespace pstorage::cli {
namespace {

Outcome<std::uint32_t> parse_number(std::string const& name, std::string const& text) {
  std::uint32_t value = 0;
  auto const* const end = text.data() + text.size();
  auto const parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return failure(Errc::bad_request, name + ": a number is expected, not '" + text + "'");
  }
  return value;
}

}  // namespace

Outcome<void> parse_replicas(std::string const& text, proto::Attributes& attributes) {
  auto const colon = text.find(':');
  PS_TRY(auto const norm, parse_number("replicas", text.substr(0, colon)));
  std::uint32_t min = 0;
  if (colon != std::string::npos) {
    PS_TRY(min, parse_number("replicas", text.substr(colon + 1)));
    if (min == 0) return failure(Errc::bad_request, "replicas: the minimum is at least 1");
  }
  if (norm == 0) return failure(Errc::bad_request, "replicas: at least 1");
  attributes.set_replicas_norm(norm);
  attributes.set_replicas_min(min);
  return success();
}

Outcome<void> parse_attribute(std::string const& text, proto::Attributes& attributes) {
  auto const equals = text.find('=');
  auto const name = text.substr(0, equals);
  auto const value = equals == std::string::npos ? std::string() : text.substr(equals + 1);
  if (value.empty()) {
    return failure(Errc::bad_request, "'" + text + "': give attribute=value");
  }
  if (name == "replicas") return parse_replicas(value, attributes);
  if (name == "failure-domain") {
    attributes.set_failure_domain(value);
    return success();
  }
  if (name == "tier") {
    PS_TRY(auto const tier, parse_number(name, value));
    attributes.set_tier(tier);
    return success();
  }
  if (name == "chunk-size") {
    PS_TRY(auto const size, parse_size(value));
    if (size == 0 || size > std::numeric_limits<std::uint32_t>::max()) {
      return failure(Errc::bad_request, "chunk-size: a power of two from 4096 to 1G");
    }
    attributes.set_chunk_size(static_cast<std::uint32_t>(size));
    return success();
  }
  if (name == "client-ssd-cache") {
    if (value != "0" && value != "1") {
      return failure(Errc::bad_request, "client-ssd-cache: 0 or 1");
    }
    attributes.set_client_ssd_cache(value == "1");
    return success();
  }
  if (name == "on-full") {
    attributes.set_on_full(value);
    return success();
  }
  return failure(Errc::bad_request, "unknown attribute '" + name +
                                        "': there are replicas, failure-domain, tier, "
                                        "chunk-size, on-full and client-ssd-cache");
}

std::vector<std::string> attribute_lines(proto::Attributes const& attributes) {
  return {"client-ssd-cache=" + std::string(attributes.client_ssd_cache() ? "1" : "0"),
          "replicas=" + std::to_string(attributes.replicas_norm()) + ":" +
              std::to_string(attributes.replicas_min()),
          "failure-domain=" + attributes.failure_domain(),
          "tier=" + std::to_string(attributes.tier()),
          "chunk-size=" + std::to_string(attributes.chunk_size()),
          "on-full=" + attributes.on_full()};
}

}  // namespace pstorage::cli
