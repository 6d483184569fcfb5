#include "cs/repository.h"

#include "tests/cs/sim_store.h"

namespace pstorage::cs {
namespace {

struct World {
  sim::Event_queue queue;
  Seeded_random random{1};
  sim::Sim_disk disk{queue, random};
  Repository_identity identity;
  World() {
    identity.cluster = "stor1";
    identity.cs = {1025};
    identity.bootstrap = "127.0.0.1:2510";
    randomize(identity, random);
  }
  Outcome<void> make() {
    PS_CHECK(prepare_directory(disk));
    PS_CHECK(make_contents(disk, disk, "journal", identity, 1u << 20, {}));
    return finish_repository(disk, identity);
  }
};

TEST(Repository, What_was_made_is_loaded_again_after_power_loss) {
  World world;
  ASSERT_TRUE(world.make().has_value());
  world.disk.crash();
  auto const loaded = load_identity(world.disk);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().text;
  EXPECT_EQ(loaded.value().cluster, "stor1");
  EXPECT_EQ(loaded.value().uuid, world.identity.uuid);
  EXPECT_EQ(loaded.value().salt, world.identity.salt);
  EXPECT_EQ(loaded.value().bootstrap, "127.0.0.1:2510");
}

TEST(Repository, Lost_and_found_may_stay_and_foreign_files_may_not) {
  World world;
  ASSERT_TRUE(world.disk.make_directory("lost+found").has_value());
  ASSERT_TRUE(prepare_directory(world.disk).has_value());
  ASSERT_TRUE(world.disk.open("photo.jpg", Open_mode{.create = true}).has_value());
  auto const refused = prepare_directory(world.disk);
  ASSERT_TRUE(refused.has_error());
  EXPECT_NE(refused.error().text.find("photo.jpg"), std::string::npos);
}

TEST(Repository, A_directory_that_holds_one_already_is_refused) {
  World world;
  ASSERT_TRUE(world.make().has_value());
  EXPECT_TRUE(prepare_directory(world.disk).has_error());
}

TEST(Repository, A_make_that_fails_or_dies_anywhere_can_be_repeated) {
  for (bool const dies : {false, true}) {
    for (std::uint64_t nth = 0;; ++nth) {
      World world;
      std::uint64_t left = nth;
      bool met = false;
      world.disk.set_fault(
          [&](sim::Disk_call, std::string const&) -> std::optional<std::error_code> {
            if (left != 0) {
              --left;
              return std::nullopt;
            }
            bool const fails = dies || !met;
            met = true;
            if (!fails) return std::nullopt;
            return std::error_code(EIO, std::system_category());
          });
      bool const made = world.make().has_value();
      world.disk.set_fault(nullptr);
      if (dies) world.disk.crash();
      if (!met) break;
      if (load_identity(world.disk).has_value()) continue;  // failed after the last step
      EXPECT_FALSE(made) << nth;
      auto const again = world.make();
      ASSERT_TRUE(again.has_value()) << "call " << nth << ": " << again.error().text;
    }
  }
}

TEST(Repository, A_damaged_identity_is_one_clear_line) {
  World world;
  ASSERT_TRUE(world.make().has_value());
  world.disk.flip(identity_name, 0, 0x10);
  auto const loaded = load_identity(world.disk);
  ASSERT_TRUE(loaded.has_error());
  EXPECT_EQ(loaded.error().text.find('\n'), std::string::npos);
  EXPECT_TRUE(load_identity(world.disk).has_error());
}

TEST(Repository, A_foreign_journal_is_refused) {
  World world;
  ASSERT_TRUE(world.make().has_value());
  Silent_log log;
  Store_options options;
  options.salt = world.identity.salt + 1;
  Store store(world.queue, world.disk, world.disk, log, options);
  auto const started = store.start();
  ASSERT_TRUE(started.has_error());
  EXPECT_NE(started.error().text.find("does not belong"), std::string::npos);
}

}  // namespace
}  // namespace pstorage::cs
