#include "iscsi/volume_reservation_store.h"

#include <gtest/gtest.h>

#include "tests/iscsi/memory_store.h"

namespace pstorage::iscsi {
namespace {

class Reservations_in_a_volume : public testing::Test {
 protected:
  Versioned_reservations load(Volume_reservation_store& store) {
    std::optional<Versioned_reservations> found;
    store.load([&](Outcome<Versioned_reservations> const& loaded) {
      ASSERT_TRUE(loaded.has_value()) << loaded.error().text;
      found = loaded.value();
    });
    disk.answer_all();
    slots.answer_all();
    return found.value_or(Versioned_reservations{.version = 999, .state = {}});
  }
  Outcome<void> replace(Volume_reservation_store& store, std::uint64_t expected,
                        std::uint64_t key) {
    Outcome<void> result = failure(Errc::timed_out, "no answer");
    Reservation_state state;
    state.registrations.push_back({"iqn.2026-11.test:a,i,0x000000000001", key});
    store.replace(expected, state, [&](Outcome<void> const& done) { result = done; });
    slots.answer_all();
    return result;
  }

  Memory_disk_store disk{4096};
  Memory_disk_store slots{reservation_volume_bytes};
};

TEST_F(Reservations_in_a_volume, Are_none_at_first_and_outlive_their_gateway) {
  Volume_reservation_store first(disk, slots);
  EXPECT_EQ(load(first).version, 0u);
  for (std::uint64_t version = 0; version < 5; ++version) {
    ASSERT_TRUE(replace(first, version, 100 + version).has_value());
  }
  Volume_reservation_store second(disk, slots);
  auto const found = load(second);
  EXPECT_EQ(found.version, 5u);
  ASSERT_EQ(found.state.registrations.size(), 1u);
  EXPECT_EQ(found.state.registrations[0].key, 104u);
}

TEST_F(Reservations_in_a_volume, Are_read_only_after_the_disk_has_answered) {
  Volume_reservation_store store(disk, slots);
  bool is_loaded = false;
  std::optional<Errc> why;
  auto const load_again = [&] {
    store.load([&](Outcome<Versioned_reservations> const& loaded) {
      is_loaded = loaded.has_value();
      if (!is_loaded) why = errc_of(loaded.error().code);
    });
  };
  load_again();
  EXPECT_TRUE(slots.queue.empty());
  disk.answer_one(EAGAIN);  // out of reach
  EXPECT_EQ(why, Errc::unavailable);
  load_again();
  EXPECT_TRUE(slots.queue.empty());
  ASSERT_EQ(disk.queue.size(), 1u);
  disk.answer_one();
  ASSERT_EQ(slots.queue.size(), 1u);
  EXPECT_FALSE(is_loaded);
  slots.answer_one();
  EXPECT_TRUE(is_loaded);
}

TEST_F(Reservations_in_a_volume, A_write_cut_short_leaves_the_state_before) {
  Volume_reservation_store store(disk, slots);
  load(store);
  ASSERT_TRUE(replace(store, 0, 1).has_value());
  ASSERT_TRUE(replace(store, 1, 2).has_value());
  slots.data[(2 % 2) * reservation_slot_bytes + 40] ^= 1;  // version 2 is torn
  Volume_reservation_store next(disk, slots);
  auto const found = load(next);
  EXPECT_EQ(found.version, 1u);
  EXPECT_EQ(found.state.registrations.at(0).key, 1u);
}

TEST_F(Reservations_in_a_volume, Nothing_changes_when_the_volume_refuses) {
  Volume_reservation_store store(disk, slots);
  load(store);
  ASSERT_TRUE(replace(store, 0, 1).has_value());
  std::optional<Errc> why;
  store.replace(1, {}, [&](Outcome<void> const& done) { why = errc_of(done.error().code); });
  slots.answer_one(EIO);  // this gateway has been fenced
  EXPECT_EQ(why, Errc::unavailable);
  EXPECT_EQ(errc_of(replace(store, 0, 3).error().code), Errc::stale_version);
  Volume_reservation_store next(disk, slots);
  EXPECT_EQ(load(next).version, 1u);
}

TEST_F(Reservations_in_a_volume, Before_they_are_loaded_nothing_is_replaced) {
  Volume_reservation_store store(disk, slots);
  EXPECT_EQ(errc_of(replace(store, 0, 1).error().code), Errc::unavailable);
  EXPECT_TRUE(slots.queue.empty());
}

TEST(Reservation_slot, Takes_as_many_registrations_as_there_can_be) {
  Versioned_reservations full{.version = 7, .state = {}};
  for (std::size_t i = 0; i < registrations_max; ++i) {
    full.state.registrations.push_back({std::string(223, 'x') + ",i,0x" + std::to_string(i), i});
  }
  auto const slot = encode_slot(full);
  ASSERT_TRUE(slot.has_value()) << slot.error().text;
  auto const back = decode_slot(slot.value());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->state.registrations.size(), registrations_max);
}

TEST(Reservation_slot, Zeros_and_garbage_are_nothing) {
  std::vector<std::uint8_t> bytes(4096);
  EXPECT_FALSE(decode_slot(bytes).has_value());
  EXPECT_FALSE(decode_slot({}).has_value());
  auto slot = encode_slot({.version = 1, .state = {}}).value();
  for (std::size_t i = 8; i < 16; ++i) {
    auto changed = slot;
    changed[i] ^= 0x80;
    EXPECT_FALSE(decode_slot(changed).has_value()) << i;
  }
}

}  // namespace
}  // namespace pstorage::iscsi
