// States of a cluster to show, for tests of what is shown.
#pragma once

#include <string>
#include <vector>

#include "mds.pb.h"

namespace pstorage::cli {

inline proto::Service& add_mds(proto::Status_reply& status, std::uint64_t id, bool is_master) {
  auto& mds = *status.add_services();
  mds.set_kind("MDS");
  mds.set_id(id);
  mds.set_state("avail");
  mds.set_is_master(is_master);
  mds.set_host_name("host" + std::to_string(id));
  mds.set_address("192.168.0." + std::to_string(id) + ":2510");
  return mds;
}

inline proto::Service& add_cs(proto::Status_reply& status, std::uint64_t id,
                              std::string const& state) {
  auto& cs = *status.add_services();
  cs.set_kind("CS");
  cs.set_id(id);
  cs.set_state(state);
  cs.set_host_name("host" + std::to_string(id - 1024));
  cs.set_address("192.168.0." + std::to_string(id - 1024) + ":40000");
  cs.set_total_bytes(100ull << 30);
  cs.set_free_bytes((200 - (id - 1025) * 10) << 29);
  cs.set_flags("JCc");
  return cs;
}

/// One MDS, three CS of which the last one is dead, one client.
inline proto::Status_reply one_dead_cs() {
  proto::Status_reply status;
  status.set_cluster("stor1");
  status.set_health("degraded");
  status.set_health_reason("0 inactive, 1 offline, 0 failed CS");
  status.set_space_state("ok");
  status.set_chunk_count(4);
  (*status.mutable_chunks())["urgent"] = 4;
  status.set_repair_replicas(4);
  status.set_repair_bytes(256ull << 20);
  status.set_repair_bytes_per_s(32ull << 20);
  status.set_repair_eta_s(8);
  add_mds(status, 1, true);
  add_cs(status, 1025, "active").set_pulled_bytes_per_s(32ull << 20);
  add_cs(status, 1026, "active").set_io_latency_us(400);
  add_cs(status, 1027, "offline");
  auto& client = *status.add_services();
  client.set_kind("CLIENT");
  client.set_id(0x1234567890abcdefull);
  client.set_host_name("host9");
  client.set_name("pstorage-nbd[7]@host9");
  client.set_leases(1);
  client.set_write_bytes_per_s(1 << 20);
  client.set_write_ops_per_s(256);
  client.set_syncs_per_s(3);
  client.set_io_latency_us(1200);
  client.set_io_latency_max_us(31000);
  return status;
}

}  // namespace pstorage::cli
