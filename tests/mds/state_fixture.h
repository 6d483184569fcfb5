// A state machine in memory, fed with commands as a leader would.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "entry.pb.h"
#include "mds/state/inodes.h"
#include "mds/state/state_machine.h"

namespace pstorage::mds {

class State_fixture : public ::testing::Test {
 protected:
  State_fixture() {
    auto opened = State_machine::open(":memory:");
    EXPECT_TRUE(opened.has_value()) << opened.error().text;
    machine_ = std::move(opened).value();
    proto::Mds_request bootstrap;
    bootstrap.mutable_bootstrap()->set_cluster("stor1");
    bootstrap.mutable_bootstrap()->set_cluster_uuid("uuid-1");
    own(std::move(bootstrap));
  }

  /// Applies one entry; effects are gathered in effects_.
  proto::Mds_reply apply(Entry const& entry) {
    log_.push_back({machine_->applied() + 1, entry.SerializeAsString()});
    auto applied = machine_->apply({&log_.back(), 1}, effects_);
    EXPECT_TRUE(applied.has_value()) << applied.error().text;
    return applied.has_value() ? applied.value().front().reply : proto::Mds_reply();
  }
  proto::Mds_reply own(proto::Mds_request request) { return apply(entry_of(std::move(request))); }

  Entry entry_of(proto::Mds_request request) {
    Entry entry;
    entry.set_wall_ms(++wall_ms_);
    entry.set_random(random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL);
    entry.set_role(static_cast<std::uint32_t>(Role::client));
    *entry.mutable_request() = std::move(request);
    return entry;
  }

  void open_session(std::uint64_t session, std::string const& name = "nbd[1]@host1") {
    proto::Mds_request request;
    request.set_session(session);
    request.mutable_open_session()->set_name(name);
    request.mutable_open_session()->set_host_id(0xab);
    auto const reply = own(std::move(request));
    EXPECT_EQ(reply.status(), 0u) << reply.text();
  }
  /// A command of `session` under its next sequence.
  proto::Mds_reply ask(std::uint64_t session, proto::Mds_request request) {
    request.set_session(session);
    request.set_sequence(++sequences_[session]);
    return own(std::move(request));
  }
  static Errc status(proto::Mds_reply const& reply) { return static_cast<Errc>(reply.status()); }

  proto::Mds_reply create(std::uint64_t session, std::string const& path, std::uint64_t size = 0,
                          std::uint32_t norm = 0, std::uint32_t min = 0) {
    proto::Mds_request request;
    auto& command = *request.mutable_create();
    command.set_path(path);
    command.set_size(size);
    command.mutable_attributes()->set_replicas_norm(norm);
    command.mutable_attributes()->set_replicas_min(min);
    command.set_parents(true);
    return ask(session, std::move(request));
  }
  proto::Mds_reply create_directory(std::uint64_t session, std::string const& path) {
    proto::Mds_request request;
    request.mutable_create()->set_path(path);
    request.mutable_create()->set_type(proto::TYPE_DIRECTORY);
    return ask(session, std::move(request));
  }
  proto::Mds_reply remove(std::uint64_t session, std::string const& path) {
    proto::Mds_request request;
    request.mutable_remove()->set_path(path);
    return ask(session, std::move(request));
  }
  proto::Mds_reply rename(std::uint64_t session, std::string const& from, std::string const& to) {
    proto::Mds_request request;
    request.mutable_rename()->set_from(from);
    request.mutable_rename()->set_to(to);
    return ask(session, std::move(request));
  }
  proto::Mds_reply open_file(std::uint64_t session, std::string const& path, bool force = false) {
    proto::Mds_request request;
    request.mutable_open_file()->set_path(path);
    request.mutable_open_file()->set_force(force);
    return ask(session, std::move(request));
  }
  proto::Mds_reply finish_seal(std::uint64_t session, std::uint64_t file, std::uint32_t epoch,
                               std::vector<std::uint32_t> const& unreachable = {}) {
    proto::Mds_request request;
    request.mutable_finish_seal()->set_file(file);
    request.mutable_finish_seal()->set_epoch(epoch);
    for (auto const cs : unreachable) request.mutable_finish_seal()->add_unreachable(cs);
    return ask(session, std::move(request));
  }
  proto::Mds_reply close_file(std::uint64_t session, std::uint64_t file, std::uint32_t epoch,
                              bool unsettled = false) {
    proto::Mds_request request;
    request.mutable_close_file()->set_file(file);
    request.mutable_close_file()->set_epoch(epoch);
    request.mutable_close_file()->set_unsettled(unsettled);
    return ask(session, std::move(request));
  }
  proto::Mds_reply allocate(std::uint64_t session, std::uint64_t file, std::uint32_t epoch,
                            std::vector<std::uint32_t> const& indexes) {
    proto::Mds_request request;
    request.mutable_allocate()->set_file(file);
    request.mutable_allocate()->set_epoch(epoch);
    for (auto const index : indexes) request.mutable_allocate()->add_indexes(index);
    return ask(session, std::move(request));
  }
  proto::Mds_reply report_failed(std::uint64_t session, std::uint64_t file, std::uint32_t epoch,
                                 proto::Chunk const& chunk,
                                 std::vector<std::uint32_t> const& failed) {
    proto::Mds_request request;
    auto& command = *request.mutable_report_failed();
    command.set_file(file);
    command.set_epoch(epoch);
    command.set_reason("test");
    auto& one = *command.add_chunks();
    one.set_chunk(chunk.chunk());
    one.set_version(chunk.version());
    for (auto const cs : failed) one.add_failed(cs);
    return ask(session, std::move(request));
  }
  proto::Mds_reply start_sync(proto::Chunk const& chunk, std::uint32_t cs) {
    proto::Mds_request request;
    auto& one = *request.mutable_start_sync()->add_chunks();
    one.set_chunk(chunk.chunk());
    one.set_version(chunk.version());
    one.set_cs(cs);
    return own(std::move(request));
  }
  proto::Mds_reply sync_done(std::uint64_t session, std::uint64_t chunk, std::uint32_t version,
                             std::uint32_t cs, std::uint32_t epoch, bool failed = false) {
    proto::Mds_request request;
    auto& command = *request.mutable_sync_done();
    command.set_cs(cs);
    command.set_chunk(chunk);
    command.set_version(version);
    command.set_epoch(epoch);
    command.set_failed(failed);
    return ask(session, std::move(request));
  }
  /// A registered, active server on its own host unless `host` says otherwise.
  std::uint32_t add_server(std::uint64_t session, std::uint64_t host = 0, std::uint32_t tier = 0) {
    proto::Mds_request request;
    if (host == 0) host = ++hosts_;
    request.mutable_create_cs()->set_host_id(host);
    request.mutable_create_cs()->set_tier(tier);
    auto const reply = ask(session, std::move(request));
    EXPECT_EQ(reply.status(), 0u) << reply.text();
    auto const cs = reply.created_cs().cs();
    auto const registered = register_server(session, cs, host, 1);
    EXPECT_EQ(registered.status(), 0u) << registered.text();
    return cs;
  }
  proto::Mds_reply register_server(std::uint64_t session, std::uint32_t cs, std::uint64_t host,
                                   std::uint32_t incarnation, std::string const& uuid = {}) {
    proto::Mds_request request;
    auto& command = *request.mutable_register_cs();
    command.set_cs(cs);
    command.set_repository_uuid(uuid.empty() ? "repository-" + std::to_string(cs) : uuid);
    command.set_incarnation(incarnation);
    command.add_addresses("127.0.0.1:" + std::to_string(20000 + cs));
    command.set_host_id(host);
    command.set_host_name("host" + std::to_string(host));
    command.set_total_bytes(100ull << 30);
    command.set_free_bytes(90ull << 30);
    return ask(session, std::move(request));
  }
  proto::Mds_reply set_cs_state(std::uint32_t cs, std::string const& state) {
    proto::Mds_request request;
    request.mutable_set_cs_state()->set_cs(cs);
    request.mutable_set_cs_state()->set_state(state);
    return own(std::move(request));
  }
  proto::Mds_reply expire(std::uint64_t session) {
    proto::Mds_request request;
    request.mutable_expire_sessions()->add_sessions(session);
    return own(std::move(request));
  }
  /// Opens and seals; the epoch.
  std::uint32_t lease(std::uint64_t session, std::string const& path, std::uint64_t& file) {
    auto const opened = open_file(session, path);
    EXPECT_EQ(opened.status(), 0u) << opened.text();
    file = opened.lease().file().id();
    auto const sealed = finish_seal(session, file, opened.lease().epoch());
    EXPECT_EQ(sealed.status(), 0u) << sealed.text();
    return opened.lease().epoch();
  }
  /// The stored state of a replica: -1 = none.
  int replica_state(std::uint64_t chunk, std::uint32_t cs) {
    return static_cast<int>(machine_->database().number(
        "SELECT state FROM replica WHERE chunk = ? AND cs = ?", std::uint64_t(-1), chunk, cs));
  }
  std::uint32_t version_of(std::uint64_t chunk) {
    return static_cast<std::uint32_t>(
        machine_->database().number("SELECT version FROM chunk WHERE id = ?", 0, chunk));
  }
  std::vector<std::string> events() {
    std::vector<std::string> texts;
    Rows rows(machine_->database(), "SELECT text FROM event ORDER BY number");
    while (rows.next()) texts.push_back(rows.text(0));
    return texts;
  }
  bool has_event(std::string const& part) {
    for (auto const& text : events()) {
      if (text.find(part) != std::string::npos) return true;
    }
    return false;
  }

  std::unique_ptr<State_machine> machine_;
  Effects effects_;
  std::vector<Committed_entry> log_;
  std::map<std::uint64_t, std::uint64_t> sequences_;
  std::uint64_t wall_ms_ = 1'700'000'000'000;
  std::uint64_t random_ = 42;
  std::uint64_t hosts_ = 0;
};

}  // namespace pstorage::mds
