// A ploop image inside a volume of the cluster, as the NBD server will hold it: volume over image
// over volume, all asynchronous.
#include "blockdev/ploop/volume_store.h"

#include <gtest/gtest.h>

#include "blockdev/ploop/check.h"
#include "blockdev/ploop/create.h"
#include "blockdev/ploop/open_image.h"
#include "blockdev/ploop/run_queue.h"
#include "tests/blockdev/memory_volume.h"

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t mib = 1u << 20;

class Volume_image : public testing::Test {
 protected:
  std::unique_ptr<Image_store> open_store() {
    auto const defer = [this](std::function<void()> work) { queue.defer(std::move(work)); };
    auto resize = [this](std::uint64_t size, Done done) {
      queue.defer([this, size, done = std::move(done)] {
        file->size = size;
        done(success());
      });
    };
    return std::make_unique<Volume_store>(std::make_unique<nbd::test::Memory_volume>(file, defer),
                                          resize);
  }
  Turn turn() {
    return [this] {
      PS_ASSERT(queue.run_one());
      return true;
    };
  }
  void open_volume() {
    std::vector<Layer> layers;
    layers.push_back({open_store(), false, {}});
    bool is_answered = false;
    open_image(std::move(layers), "/volumes/vm1", {.is_writable = true}, queue,
               [&](Outcome<std::unique_ptr<Ploop_image>> opened) {
                 ASSERT_TRUE(opened.has_value()) << opened.error().text;
                 volume = std::move(opened).value();
                 is_answered = true;
               });
    while (!is_answered) ASSERT_TRUE(queue.run_one());
  }
  template <typename Start>
  Result<void> wait(Start const& start) {
    return wait_for_answer<Result<void>>(turn(), start);
  }

  std::shared_ptr<nbd::test::Memory_store> file = std::make_shared<nbd::test::Memory_store>();
  Run_queue queue;
  std::unique_ptr<client::Volume> volume;
};

TEST_F(Volume_image, Serves_requests_like_any_volume_and_gives_the_lease_back) {
  {
    Blocking_store store(open_store(), turn());
    auto const header = make_header(Version::v2, mib, 100 * mib).value();
    ASSERT_TRUE(create_image(store, header, false).has_value());
  }
  open_volume();
  EXPECT_EQ(volume->size_bytes(), 100 * mib);
  EXPECT_EQ(volume->path(), "/volumes/vm1");
  auto const data = Slice::copy_of(as_bytes(std::string(70000, 'x')));
  ASSERT_TRUE(wait([&](Done done) { volume->write(5 * mib - 1234, {data}, true, done); }));
  EXPECT_EQ(file->size, 64 * mib);  // to the end of the chunk
  EXPECT_GE(file->flushes, 2u);
  auto const read = wait_for_answer<Result<std::vector<Slice>>>(
      turn(), [&](Read_done done) { volume->read(5 * mib - 1235, 70002, std::move(done)); });
  ASSERT_TRUE(read);
  auto const bytes = gathered(read.value());
  EXPECT_EQ(as_text(bytes.bytes()),
            std::string(1, '\0') + std::string(70000, 'x') + std::string(1, '\0'));
  ASSERT_TRUE(wait([&](Done done) { volume->zero(4 * mib, mib, true, false, done); }));
  ASSERT_TRUE(wait([&](Done done) { volume->close(done); }));
  volume.reset();
  EXPECT_EQ(file->open_now, 0u);
  EXPECT_EQ(file->size, 3 * mib);
  Blocking_store store(open_store(), turn());
  auto const report = check_image(store, {}).value();
  EXPECT_TRUE(report.is_clean());
  EXPECT_EQ(report.allocated, 1u);
}

TEST_F(Volume_image, A_lost_lease_ends_every_change) {
  {
    Blocking_store store(open_store(), turn());
    auto const header = make_header(Version::v2, mib, 100 * mib).value();
    ASSERT_TRUE(create_image(store, header, false).has_value());
  }
  open_volume();
  auto const data = Slice::copy_of(as_bytes("data"));
  file->fail_with = make_error_code(Errc::stale_epoch);
  EXPECT_EQ(wait([&](Done done) { volume->write(0, {data}, false, done); }).error(),
            Errc::stale_epoch);
  EXPECT_EQ(wait([&](Done done) { volume->flush(done); }).error(), Errc::stale_epoch);
  EXPECT_EQ(wait([&](Done done) { volume->close(done); }).error(), Errc::stale_epoch);
}

}  // namespace
}  // namespace pstorage::ploop
