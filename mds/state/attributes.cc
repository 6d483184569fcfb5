#include "mds/state/attributes.h"

#include <algorithm>
#include <bit>

namespace pstorage::mds {

Outcome<Attribute_set> changed_attributes(Attribute_set base, proto::Attributes const& change) {
  if (change.replicas_norm() != 0) {
    base.norm = change.replicas_norm();
    base.min = change.replicas_min() != 0 ? change.replicas_min() : base.norm / 2 + 1;
  } else if (change.replicas_min() != 0) {
    base.min = change.replicas_min();
  }
  if (base.norm > replicas_max) {
    return failure(Errc::bad_request, "replicas: at most " + std::to_string(replicas_max));
  }
  if (base.min > base.norm) {
    return failure(Errc::bad_request, "replicas=" + std::to_string(base.norm) + ":" +
                                          std::to_string(base.min) +
                                          ": the minimum is above the norm");
  }
  if (!change.failure_domain().empty()) {
    PS_TRY(base.domain, parse_failure_domain(change.failure_domain()));
  }
  if (change.has_tier()) {
    if (change.tier() > tier_max) {
      return failure(Errc::bad_request, "tier: 0 to " + std::to_string(tier_max));
    }
    base.tier = change.tier();
  }
  if (change.chunk_size() != 0) {
    auto const size = change.chunk_size();
    if (!std::has_single_bit(size) || size < chunk_size_min || size > chunk_size_max) {
      return failure(Errc::bad_request, "chunk-size: a power of two from " +
                                            std::to_string(chunk_size_min) + " to " +
                                            std::to_string(chunk_size_max) + " bytes");
    }
    base.chunk_size = size;
  }
  if (!change.on_full().empty()) {
    if (change.on_full() != "error" && change.on_full() != "wait") {
      return failure(Errc::bad_request, "on-full: error or wait");
    }
    base.waits_when_full = change.on_full() == "wait";
  }
  if (change.has_client_ssd_cache()) base.client_ssd_cache = change.client_ssd_cache();
  return base;
}

proto::Attributes to_proto(Attribute_set const& attributes) {
  proto::Attributes out;
  out.set_replicas_norm(attributes.norm);
  out.set_replicas_min(attributes.min);
  out.set_failure_domain(name_of(attributes.domain));
  out.set_tier(attributes.tier);
  out.set_chunk_size(attributes.chunk_size);
  out.set_client_ssd_cache(attributes.client_ssd_cache);
  out.set_on_full(attributes.waits_when_full ? "wait" : "error");
  return out;
}

Outcome<std::vector<std::string>> split_path(std::string const& path) {
  if (path.empty() || path.front() != '/') {
    return failure(Errc::bad_request, "path '" + path + "' does not begin with '/'");
  }
  if (path.size() > path_bytes_max) {
    return failure(Errc::bad_request,
                   "path longer than " + std::to_string(path_bytes_max) + " bytes");
  }
  std::vector<std::string> names;
  for (std::size_t at = 1; at < path.size();) {
    auto const end = std::min(path.find('/', at), path.size());
    auto name = path.substr(at, end - at);
    at = end + 1;
    if (name.empty()) continue;  // "//" and a trailing '/'
    if (name.size() > name_bytes_max) {
      return failure(Errc::bad_request,
                     "name longer than " + std::to_string(name_bytes_max) + " bytes in the path");
    }
    bool const printable = std::none_of(name.begin(), name.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    });
    if (name == "." || name == ".." || !printable) {
      return failure(Errc::bad_request,
                     "path with '.', '..' or control characters: use plain absolute names");
    }
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace pstorage::mds
