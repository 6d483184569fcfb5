#include "iscsi/reservations.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "core/bytes.h"
#include "core/disk/atomic_file.h"
#include "iscsi/reservation_store.h"
#include "tests/iscsi/cdb.h"

namespace pstorage::iscsi {
namespace {

Port_name const a = "iqn.2026-11.test:a,i,0x000000000001";
Port_name const b = "iqn.2026-11.test:b,i,0x000000000001";
Port_name const c = "iqn.2026-11.test:c,i,0x000000000001";

enum : std::uint8_t { reg, reserve, release, clear, preempt, preempt_abort, reg_ignore };

class Reservations : public ::testing::Test {
 protected:
  Reserve_decision out(Port_name const& port, std::uint8_t action, std::uint64_t key,
                       std::uint64_t action_key = 0, std::uint8_t type = 0,
                       std::uint8_t flags = 0) {
    Cdb cdb{opcode::persistent_reserve_out, action, type};
    put_be<4>(cdb, 5, 24);
    std::array<std::uint8_t, 24> list{};
    put_be<8>(list, 0, key);
    put_be<8>(list, 8, action_key);
    list[20] = flags;
    auto decision = decide(state, port, std::span(cdb).first(10), list);
    if (decision.next) state = *decision.next;
    return decision;
  }
  void reserve_as(Port_name const& port, std::uint8_t type) {
    ASSERT_EQ(out(port, reserve, key_of(port), 0, type).status, Status::good);
  }
  void register_all() {
    for (auto const& port : {a, b, c}) out(port, reg, 0, key_of(port));
  }
  static std::uint64_t key_of(Port_name const& port) { return port == a ? 1 : port == b ? 2 : 3; }
  bool can(Port_name const& port, std::uint8_t code) {
    return !conflicts(state, port, cdb_10(code, 0, 1));
  }

  Reservation_state state;
};

TEST_F(Reservations, A_registration_needs_the_right_key) {
  EXPECT_EQ(out(a, reg, 5, 1).status, Status::reservation_conflict);
  EXPECT_EQ(out(a, reg, 0, 1).status, Status::good);
  EXPECT_EQ(state.generation, 1u);
  EXPECT_EQ(out(a, reg, 9, 7).status, Status::reservation_conflict);
  EXPECT_EQ(out(a, reg_ignore, 9, 7).status, Status::good);
  EXPECT_EQ(state.registrations[0].key, 7u);
  EXPECT_EQ(out(a, reg, 7, 0).status, Status::good);
  EXPECT_TRUE(state.registrations.empty());
  EXPECT_EQ(out(a, reserve, 7, 0, 1).status, Status::reservation_conflict);
}

TEST_F(Reservations, Fields_that_are_not_supported_are_refused) {
  EXPECT_EQ(out(a, reg, 0, 1, 0, 0x08).sense, sense::invalid_field_in_parameters);
  EXPECT_EQ(out(a, reg, 0, 1, 0, 0x04).sense, sense::invalid_field_in_parameters);
  EXPECT_EQ(out(a, 7, 0, 1).sense, sense::invalid_field_in_cdb);
  out(a, reg, 0, 1);
  EXPECT_EQ(out(a, reserve, 1, 0, 2).sense, sense::invalid_field_in_cdb);
  EXPECT_EQ(out(a, reserve, 1, 0, 0x11).sense, sense::invalid_field_in_cdb);
  Cdb cdb{opcode::persistent_reserve_out, reg};
  put_be<4>(cdb, 5, 20);
  std::array<std::uint8_t, 24> list{};
  EXPECT_EQ(decide(state, a, cdb, list).sense, sense::parameter_length);
}

struct May {
  std::uint8_t type;
  bool registrant_writes, stranger_reads;
};

TEST_F(Reservations, Who_may_do_what_under_each_type) {
  // holder writes always; what the others may depends on the type.
  for (auto const& may : {May{1, false, true}, May{3, false, false}, May{5, true, true},
                          May{6, true, false}, May{7, true, true}, May{8, true, false}}) {
    state = {};
    out(a, reg, 0, 1);
    out(b, reg, 0, 2);
    reserve_as(a, may.type);
    SCOPED_TRACE(static_cast<int>(may.type));
    EXPECT_TRUE(can(a, opcode::write_10));
    EXPECT_EQ(can(b, opcode::write_10), may.registrant_writes);
    EXPECT_FALSE(can(c, opcode::write_10));
    EXPECT_EQ(can(c, opcode::read_10), may.stranger_reads);
    EXPECT_TRUE(can(c, opcode::inquiry));
    EXPECT_TRUE(can(c, opcode::persistent_reserve_in));
  }
}

TEST_F(Reservations, A_fenced_node_cannot_change_the_disk_in_any_way) {
  register_all();
  reserve_as(a, 1);
  for (auto const code :
       {opcode::write_6, opcode::write_10, opcode::write_12, opcode::write_16,
        opcode::write_and_verify_10, opcode::write_and_verify_16, opcode::write_same_10,
        opcode::write_same_16, opcode::unmap, opcode::compare_and_write, opcode::or_write_16,
        std::uint8_t{0x04}, std::uint8_t{0x15}, std::uint8_t{0x55}}) {
    EXPECT_FALSE(can(b, code)) << static_cast<int>(code);
  }
}

TEST_F(Reservations, Only_the_holder_releases) {
  register_all();
  reserve_as(a, 5);
  EXPECT_EQ(out(b, reserve, 2, 0, 5).status, Status::reservation_conflict);
  EXPECT_EQ(out(b, release, 2, 0, 5).status, Status::good);
  EXPECT_TRUE(state.holder.has_value());
  EXPECT_EQ(out(a, release, 1, 0, 6).sense, sense::invalid_release);
  auto const released = out(a, release, 1, 0, 5);
  EXPECT_FALSE(state.holder.has_value());
  EXPECT_EQ(released.attentions, (std::vector<Attention>{{b, attention::reservations_released},
                                                         {c, attention::reservations_released}}));
}

TEST_F(Reservations, A_holder_that_unregisters_gives_its_reservation_up) {
  register_all();
  reserve_as(a, 6);
  EXPECT_EQ(out(a, reg, 1, 0).attentions.size(), 2u);
  EXPECT_FALSE(state.holder.has_value());
}

TEST_F(Reservations, All_registrants_hold_until_the_last_one_is_gone) {
  register_all();
  reserve_as(a, 8);
  out(a, reg, 1, 0);
  EXPECT_TRUE(can(b, opcode::write_10));
  EXPECT_FALSE(can(a, opcode::write_10));
  out(b, reg, 2, 0);
  EXPECT_TRUE(state.holder.has_value());
  out(c, reg, 3, 0);
  EXPECT_FALSE(state.holder.has_value());
}

TEST_F(Reservations, Preempt_takes_the_reservation_over) {
  register_all();
  reserve_as(a, 5);
  auto const taken = out(b, preempt_abort, 2, 1, 6);
  EXPECT_EQ(taken.status, Status::good);
  EXPECT_TRUE(taken.fences);
  EXPECT_EQ(state.holder, (Holder{b, Reservation_type::exclusive_access_registrants}));
  EXPECT_EQ(taken.attentions, (std::vector<Attention>{{a, attention::registrations_preempted},
                                                      {c, attention::reservations_released}}));
  EXPECT_FALSE(can(a, opcode::read_10));
  EXPECT_EQ(out(a, reserve, 1, 0, 5).status, Status::reservation_conflict);
}

TEST_F(Reservations, Preempt_of_another_key_only_removes_registrations) {
  register_all();
  reserve_as(a, 1);
  EXPECT_EQ(out(b, preempt, 2, 3, 3).status, Status::good);
  EXPECT_EQ(state.holder->port, a);
  EXPECT_EQ(state.registrations.size(), 2u);
  EXPECT_EQ(out(b, preempt, 2, 99, 1).status, Status::reservation_conflict);
  EXPECT_EQ(out(b, preempt, 2, 0, 1).sense, sense::invalid_field_in_parameters);
}

TEST_F(Reservations, Clear_ends_everything) {
  register_all();
  reserve_as(a, 3);
  auto const cleared = out(b, clear, 2);
  EXPECT_EQ(cleared.attentions.size(), 2u);
  EXPECT_TRUE(state.registrations.empty());
  EXPECT_FALSE(state.holder.has_value());
}

TEST_F(Reservations, Reports_list_keys_reservation_and_full_status) {
  register_all();
  reserve_as(b, 1);
  auto const keys = *report(state, 0);
  EXPECT_EQ(get_be<4>(keys, 0), 3u);
  EXPECT_EQ(get_be<4>(keys, 4), 24u);
  EXPECT_EQ(get_be<8>(keys, 16), 2u);
  auto const reservation = *report(state, 1);
  EXPECT_EQ(reservation.size(), 24u);
  EXPECT_EQ(get_be<8>(reservation, 8), 2u);
  EXPECT_EQ(reservation[21], 1);
  auto const full = *report(state, 3);
  EXPECT_EQ(get_be<4>(full, 4), full.size() - 8);
  EXPECT_EQ(full[8 + 24], 0x45);
  EXPECT_EQ(report(state, 9), std::nullopt);
}

TEST_F(Reservations, Survive_being_stored) {
  register_all();
  reserve_as(c, 8);
  auto const read = decode(encode({12, state}));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read.value().version, 12u);
  EXPECT_EQ(read.value().state, state);
  EXPECT_FALSE(decode("").has_value());
  EXPECT_FALSE(decode("{\"format\":1}").has_value());
  EXPECT_FALSE(decode("{\"format\":2,\"version\":1}").has_value());
}

TEST_F(Reservations, The_file_store_refuses_whoever_comes_second) {
  auto const path = std::filesystem::temp_directory_path() /
                    ("reservations." + std::to_string(::getpid()) + ".json");
  register_all();
  auto const store = make_file_store(path);
  bool ok = false;
  store->replace(0, state, [&](Outcome<void> const& done) { ok = done.has_value(); });
  EXPECT_TRUE(ok);
  Errc code = Errc::ok;
  make_file_store(path)->replace(0, {}, [&](Outcome<void> const& done) {
    code = done.has_value() ? Errc::ok : errc_of(done.error().code);
  });
  EXPECT_EQ(code, Errc::stale_version);
  make_file_store(path)->load([&](Outcome<Versioned_reservations> const& loaded) {
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded.value().state, state);
    EXPECT_EQ(loaded.value().version, 1u);
  });
  ASSERT_TRUE(write_file_atomically(path, as_bytes("not JSON"), 0600).has_value());
  make_file_store(path)->load(
      [&](Outcome<Versioned_reservations> const& loaded) { EXPECT_FALSE(loaded.has_value()); });
  std::filesystem::remove(path);
}

TEST_F(Reservations, Whatever_is_asked_the_state_stays_sound) {
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    auto const& port = random() % 3 == 0 ? a : random() % 2 == 0 ? b : c;
    out(port, static_cast<std::uint8_t>(random() % 9), random() % 4, random() % 4,
        static_cast<std::uint8_t>(random() % 10), static_cast<std::uint8_t>(random() % 2));
    for (std::uint8_t action = 0; action < 4; ++action) ASSERT_TRUE(report(state, action));
    if (state.registrations.empty()) {
      ASSERT_FALSE(state.holder.has_value());  // nobody could end it
    }
    for (auto const& one : state.registrations) ASSERT_NE(one.key, 0u);
    ASSERT_LE(state.registrations.size(), 3u);
    auto const again = decode(encode({1, state}));
    ASSERT_TRUE(again.has_value());
    ASSERT_EQ(again.value().state, state);
  }
}

}  // namespace
}  // namespace pstorage::iscsi
