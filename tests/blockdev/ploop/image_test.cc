// Ploop_image over files in memory: what the crash simulation does not look at.
#include <gtest/gtest.h>

#include <chrono>

#include "blockdev/ploop/check.h"
#include "blockdev/ploop/create.h"
#include "blockdev/ploop/open_image.h"
#include "tests/blockdev/ploop/allocation_counter.h"
#include "tests/blockdev/ploop/memory_store.h"

namespace pstorage::ploop {
namespace {

using test::Memory_file;
using test::Memory_loop;

constexpr std::uint64_t mib = 1u << 20;

/// Images in memory: one file a delta.
class Image : public testing::Test {
 protected:
  std::shared_ptr<Memory_file> add_delta(std::uint64_t size = 16 * mib,
                                         std::uint32_t cluster = mib) {
    files.push_back(std::make_shared<Memory_file>());
    auto store = loop.blocking(files.back());
    EXPECT_TRUE(
        create_image(store, make_header(Version::v2, cluster, size).value(), false).has_value());
    return files.back();
  }
  Outcome<void> open(Open_options options = {.is_writable = true}) {
    std::vector<Layer> layers;
    for (auto const& file : files) layers.push_back({loop.open(file), false, {}});
    Outcome<void> result = failure(Errc::timed_out, "not answered");
    open_image(std::move(layers), "image", options, loop.queue,
               [&](Outcome<std::unique_ptr<Ploop_image>> opened) {
                 if (opened.has_value()) {
                   image = std::move(opened).value();
                   result = success();
                 } else {
                   result = opened.error();
                 }
               });
    loop.run();
    return result;
  }
  Result<void> write(std::uint64_t offset, std::uint64_t length, int value) {
    return wait([&](Done done) {
      auto data = Slice::allocate(length);
      std::memset(data.data(), value, length);
      image->write(offset, {data}, false, std::move(done));
    });
  }
  Result<void> zero(std::uint64_t offset, std::uint64_t length, bool discard = false) {
    return wait([&](Done done) { image->zero(offset, length, discard, false, std::move(done)); });
  }
  Result<void> flush() {
    return wait([&](Done done) { image->flush(std::move(done)); });
  }
  Result<void> close() {
    auto const result = wait([&](Done done) { image->close(std::move(done)); });
    image.reset();
    return result;
  }
  template <typename Start>
  Result<void> wait(Start const& start) {
    return wait_for_answer<Result<void>>(loop.turn(), start);
  }
  /// The byte at `offset`, or -1.
  int byte_at(std::uint64_t offset) {
    auto const read = wait_for_answer<Result<std::vector<Slice>>>(
        loop.turn(), [&](Read_done done) { image->read(offset, 1, std::move(done)); });
    return read ? static_cast<int>(gathered(read.value()).data()[0]) : -1;
  }

  Memory_loop loop;
  std::vector<std::shared_ptr<Memory_file>> files;
  std::unique_ptr<Ploop_image> image;
};

TEST_F(Image, Overwriting_what_is_allocated_allocates_nothing_and_writes_no_table) {
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(4096, 4096, 1));
  auto const tables = image->counters().bat_writes;
  auto slice = Slice::allocate(4096);
  std::vector<Slice> data = {slice};
  bool is_done = false;
  // What the store itself needs (its queue, its vectors) is counted apart.
  auto const store = loop.open(files[0]);
  auto before = test::allocations_so_far();
  store->write(mib, {data}, false, [&](Result<void> const&) { is_done = true; });
  auto const by_store = test::allocations_so_far() - before;
  loop.run();
  before = test::allocations_so_far();
  image->write(8192, {data}, false, [&](Result<void> const&) { is_done = true; });
  EXPECT_EQ(test::allocations_so_far() - before, by_store);
  loop.run();
  EXPECT_TRUE(is_done);
  EXPECT_EQ(image->counters().bat_writes, tables);
}

TEST_F(Image, Opening_10_TiB_takes_under_a_second_and_memory_like_its_table) {
  auto const file = std::make_shared<Memory_file>();
  files.push_back(file);
  auto const header = make_header(Version::v2, mib, std::uint64_t{10} << 40).value();
  auto store = loop.blocking(file);
  ASSERT_TRUE(create_image(store, header, false).has_value());
  // Every cluster in use, in a shuffled order.
  file->size = header.offset_of(header.first_cluster + header.entries);
  std::vector<std::uint32_t> entries(header.entries);
  for (std::uint32_t i = 0; i < header.entries; ++i)
    entries[i] =
        header.first_cluster + static_cast<std::uint32_t>(std::uint64_t{i} * 7919 % header.entries);
  file->put(header_bytes, std::as_bytes(std::span(entries)));
  auto const start = std::chrono::steady_clock::now();
  auto const opened = open();
  auto const seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(opened.has_value()) << opened.error().text;
  RecordProperty("milliseconds", static_cast<int>(seconds * 1000));
  std::printf("opened a full image of 10 TiB in %.0f ms\n", seconds * 1000);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(seconds, 1.0);
#endif
  EXPECT_EQ(image->map().size(), header.entries);
  EXPECT_EQ(image->map().cluster(1), header.first_cluster + 7919);
}

TEST_F(Image, A_write_of_a_whole_cluster_over_a_parent_reads_nothing) {
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, 2 * mib, 1));
  ASSERT_TRUE(close());
  add_delta();
  ASSERT_TRUE(open().has_value());
  EXPECT_EQ(image->levels(), 2u);
  ASSERT_TRUE(write(mib + 5, 10, 2));
  EXPECT_EQ(image->counters().copied, 1u);
  EXPECT_EQ(byte_at(mib + 4), 1);
  EXPECT_EQ(byte_at(mib + 5), 2);
  EXPECT_EQ(byte_at(mib + 15), 1);
  EXPECT_EQ(byte_at(5), 1);
}

TEST_F(Image, A_discarded_cluster_of_a_chain_hides_the_parent_s) {
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, mib, 1));
  ASSERT_TRUE(close());
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, mib, 2));
  ASSERT_TRUE(zero(0, mib, true));
  EXPECT_EQ(byte_at(77), 0);
  ASSERT_TRUE(zero(0, mib));
  EXPECT_EQ(byte_at(77), 0);
}

TEST_F(Image, Zeros_over_a_parent_take_a_cluster_and_write_no_data) {
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, mib, 1));
  ASSERT_TRUE(close());
  auto const top = add_delta();
  ASSERT_TRUE(open().has_value());
  auto const writes = top->writes;
  ASSERT_TRUE(zero(0, mib));
  EXPECT_EQ(top->writes - writes, 1u);  // the table
  EXPECT_EQ(byte_at(0), 0);
  EXPECT_EQ(byte_at(mib - 1), 0);
}

TEST_F(Image, Space_that_was_discarded_is_used_again_before_the_file_grows) {
  auto const file = add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, 8 * mib, 1));
  ASSERT_TRUE(zero(2 * mib, 3 * mib, true));
  ASSERT_TRUE(flush());
  loop.run();
  ASSERT_TRUE(write(10 * mib, 3 * mib, 2));
  EXPECT_EQ(byte_at(2 * mib), 0);
  EXPECT_EQ(byte_at(12 * mib), 2);
  ASSERT_TRUE(close());
  EXPECT_EQ(file->size, 9 * mib);  // table and 8 clusters
}

TEST_F(Image, Extents_tell_what_is_in_no_delta) {
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(3 * mib, 2 * mib, 1));
  std::vector<client::Extent> found;
  image->extents(mib, 8 * mib, 16, [&](Result<std::vector<client::Extent>> result) {
    found = std::move(result.value());
  });
  loop.run();
  ASSERT_EQ(found.size(), 3u);
  EXPECT_TRUE(found[0].hole);
  EXPECT_EQ(found[0].length, 2 * mib);
  EXPECT_EQ(found[1].length, 2 * mib);
  EXPECT_FALSE(found[1].hole);
  EXPECT_EQ(found[2].length, 4 * mib);
}

TEST_F(Image, After_a_failed_flush_every_change_is_refused_and_reads_go_on) {
  auto const file = add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, 4096, 1));
  file->fail_flushes = make_error_code(Errc::lost_writes);
  EXPECT_EQ(flush().error(), Errc::lost_writes);
  file->fail_flushes = {};
  EXPECT_EQ(flush().error(), Errc::lost_writes);
  EXPECT_EQ(write(0, 4096, 2).error(), Errc::lost_writes);
  EXPECT_EQ(zero(0, mib).error(), Errc::lost_writes);
  EXPECT_EQ(byte_at(0), 1);
  EXPECT_FALSE(close());
  EXPECT_EQ(open().error().code, Errc::busy);  // still marked as in use
}

TEST_F(Image, Without_space_a_write_fails_and_the_image_stays_good) {
  auto const file = add_delta();
  ASSERT_TRUE(open({.is_writable = true, .extension_bytes = 2 * mib}).has_value());
  ASSERT_TRUE(write(0, mib, 1));
  file->fail_extensions = make_error_code(Errc::no_space);
  ASSERT_TRUE(write(mib, 2 * mib, 1));
  EXPECT_EQ(write(3 * mib, mib, 1).error(), Errc::no_space);
  ASSERT_TRUE(write(0, 4096, 3));
  file->fail_extensions = {};
  ASSERT_TRUE(write(3 * mib, mib, 2));
  EXPECT_EQ(byte_at(3 * mib), 2);
  ASSERT_TRUE(close());
  auto store = loop.blocking(file);
  auto const report = check_image(store, {}).value();
  EXPECT_TRUE(report.is_clean());
  EXPECT_EQ(report.allocated, 4u);
}

TEST_F(Image, An_image_that_was_not_closed_opens_only_when_asked_to_recover) {
  auto const file = add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, 4096, 1));
  image.reset();  // killed
  auto const refused = open();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::busy);
  EXPECT_NE(refused.error().text.find("check -d"), std::string::npos);
  ASSERT_TRUE(open({.is_writable = true, .may_recover = true}).has_value());
  EXPECT_EQ(byte_at(0), 1);
  ASSERT_TRUE(close());
  EXPECT_EQ(file->size, 2 * mib);
}

TEST_F(Image, A_reader_changes_nothing) {
  auto const file = add_delta();
  auto const writes = file->writes;
  ASSERT_TRUE(open({}).has_value());
  EXPECT_EQ(write(0, 4096, 1).error(), Errc::read_only);
  EXPECT_EQ(zero(0, 4096).error(), Errc::read_only);
  EXPECT_EQ(byte_at(0), 0);
  ASSERT_TRUE(flush());
  ASSERT_TRUE(close());
  EXPECT_EQ(file->writes, writes);
}

TEST_F(Image, Damage_is_refused_with_the_command_that_repairs_it) {
  auto const file = add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(0, 2 * mib, 1));
  ASSERT_TRUE(close());
  std::array<std::byte, 4> entry{};
  store_le(entry.data(), std::uint32_t{1});  // that of entry 0
  file->put(header_bytes + 4, entry);
  auto const twice = open();
  ASSERT_FALSE(twice.has_value());
  EXPECT_NE(twice.error().text.find("same cluster"), std::string::npos) << twice.error().text;
  store_le(entry.data(), std::uint32_t{99});
  file->put(header_bytes + 4, entry);
  auto const behind = open();
  ASSERT_FALSE(behind.has_value());
  EXPECT_NE(behind.error().text.find("check -F"), std::string::npos) << behind.error().text;
  auto store = loop.blocking(file);
  EXPECT_EQ(check_image(store, {}).value().fatal, 1u);
  auto const repaired = check_image(store, {.is_read_only = false, .may_fix_fatal = true}).value();
  EXPECT_TRUE(repaired.is_clean());
  EXPECT_TRUE(open().has_value());
}

TEST_F(Image, Goes_on_without_the_delta_below_once_its_top_has_everything) {
  add_delta();
  ASSERT_TRUE(open().has_value());
  for (std::uint64_t at = 0; at < 4; ++at) ASSERT_TRUE(write(at * mib, mib, 1));
  ASSERT_TRUE(close());
  auto const frozen = files[0]->pages;
  add_delta();
  ASSERT_TRUE(open().has_value());
  ASSERT_TRUE(write(mib, 4096, 2));
  ASSERT_TRUE(zero(2 * mib, mib));
  ASSERT_TRUE(wait([&](Done done) { image->copy_up_from_below(0, 1, std::move(done)); }));
  bool is_committed = false;
  auto const drop = [&] {
    return wait([&](Done done) {
      image->drop_layer_below(
          [&](Done committed) {
            is_committed = true;
            committed(success());
          },
          std::move(done));
    });
  };
  auto const refused = drop();
  ASSERT_FALSE(refused);
  EXPECT_EQ(errc_of(refused.error()), Errc::refused);
  EXPECT_FALSE(is_committed);
  ASSERT_TRUE(wait([&](Done done) { image->copy_up_from_below(1, 100, std::move(done)); }));
  ASSERT_TRUE(drop());
  EXPECT_TRUE(is_committed);
  EXPECT_EQ(image->levels(), 1u);
  EXPECT_EQ(files[0]->pages, frozen);
  EXPECT_GT(files[0]->closes, 1u);
  auto const check_content = [&] {
    for (auto const& [offset, wanted] : std::vector<std::pair<std::uint64_t, int>>{
             {0, 1}, {mib, 2}, {mib + 4096, 1}, {2 * mib, 0}, {3 * mib, 1}, {4 * mib, 0}})
      EXPECT_EQ(byte_at(offset), wanted) << offset;
  };
  check_content();
  ASSERT_TRUE(write(0, 512, 7));
  ASSERT_TRUE(write(0, 512, 1));
  ASSERT_TRUE(close());
  files.erase(files.begin());
  ASSERT_TRUE(open().has_value());
  check_content();
}

}  // namespace
}  // namespace pstorage::ploop
