// What the NBD server has served, for /metrics.
#include "blockdev/nbd_server.h"

namespace pstorage::nbd {
namespace {

using Kind = std::pair<char const*, Io_counters Exports::Io::*>;

constexpr Kind kinds[] = {{"read", &Exports::Io::reads},
                          {"write", &Exports::Io::writes},
                          {"flush", &Exports::Io::flushes},
                          {"discard", &Exports::Io::discards}};

}  // namespace

void Nbd_server::collect(Metrics_text& text) const {
  text.one_gauge("pstorage_nbd_clients", "NBD clients connected now.", connections_.size());
  auto const& all = exports_.io();
  text.histogram("pstorage_volume_request_duration_seconds",
                 "From an NBD request to its answer, by volume and operation.");
  for (auto const& [volume, io] : all)
    for (auto const& [name, counters] : kinds)
      text.add({{"volume", volume}, {"operation", name}}, (io.*counters).latency);
  text.counter("pstorage_volume_bytes", "Bytes asked for, by volume and operation.");
  for (auto const& [volume, io] : all)
    for (auto const& [name, counters] : kinds)
      text.add({{"volume", volume}, {"operation", name}}, (io.*counters).bytes);
  text.counter("pstorage_volume_errors", "Requests that were answered with an error.");
  for (auto const& [volume, io] : all) text.add({{"volume", volume}}, io.errors);
}

}  // namespace pstorage::nbd
