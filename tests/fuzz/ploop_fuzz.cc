// A hostile disk: any bytes as DiskDescriptor.xml, or as the image file. Everything that reads them
// must answer with a line or work; nothing may crash or take memory without bound.
#include <cstdint>
#include <string>

#include "blockdev/ploop/check.h"
#include "blockdev/ploop/descriptor.h"
#include "blockdev/ploop/offline_delta.h"
#include "blockdev/ploop/open_image.h"
#include "tests/blockdev/ploop/memory_store.h"

namespace {

using namespace pstorage;
using namespace pstorage::ploop;
using test::Memory_file;
using test::Memory_loop;

/// One line, not empty.
void expect_line(std::string const& text) {
  PS_ASSERT(!text.empty() && text.find('\n') == std::string::npos);
}

void fuzz_descriptor(std::string const& text) {
  auto parsed = Descriptor::parse(text);
  if (!parsed.has_value()) return expect_line(parsed.error().text);
  auto& disk = parsed.value();
  PS_ASSERT(!disk.chain_to(disk.top()).empty());
  auto const again = Descriptor::parse(disk.text());
  PS_ASSERT(again.has_value() && again.value().deltas().size() == disk.deltas().size());
  if (disk.deltas().size() >= deltas_max) return;
  std::string const snapshot = "{11111111-2222-3333-4444-555555555555}";
  if (disk.find(snapshot) == nullptr) {
    disk.push_top(snapshot, "next");
    disk.set_size(4096);
    disk.set_preallocated();
    disk.replace_top(snapshot, "other");
    disk.merge_down(disk.top());
  }
}

/// Opens the image and does a little of everything.
void use_image(std::shared_ptr<Memory_file> const& file, bool is_writable) {
  Memory_loop loop;
  std::vector<Layer> layers;
  layers.push_back({loop.open(file), false, {}});
  std::unique_ptr<Ploop_image> image;
  open_image(std::move(layers), "image", {is_writable, true, 1u << 20}, loop.queue,
             [&](Outcome<std::unique_ptr<Ploop_image>> opened) {
               if (opened.has_value())
                 image = std::move(opened).value();
               else
                 expect_line(opened.error().text);
             });
  loop.run();
  if (!image) return;
  auto const length = std::min<std::uint64_t>(image->size_bytes(), 3u << 20);
  auto const last = image->size_bytes() - length;
  unsigned answers = 0;
  auto const done = [&](Result<void> const&) { ++answers; };
  for (auto const offset : {std::uint64_t{0}, last}) {
    image->read(offset, length, [&](Result<std::vector<Slice>> const& read) {
      PS_ASSERT(!read || total(read.value()) == length);
      ++answers;
    });
    image->extents(offset, length, 16,
                   [&](Result<std::vector<client::Extent>> const&) { ++answers; });
    image->write(offset, {Slice::copy_of(as_bytes("some bytes"))}, false, done);
    image->zero(offset, length, true, false, done);
    image->flush(done);
  }
  loop.run();
  image->close(done);
  loop.run();
  PS_ASSERT(answers == 11);
}

void fuzz_image(Bytes bytes, std::uint64_t extra_bytes) {
  auto const file = std::make_shared<Memory_file>();
  file->size = bytes.size() + extra_bytes;
  file->put(0, bytes);
  use_image(file, false);
  Memory_loop loop;
  auto store = loop.blocking(file);
  auto const looked = check_image(store, {});
  if (!looked.has_value()) return expect_line(looked.error().text);
  use_image(std::make_shared<Memory_file>(*file), true);
  {
    auto delta = Offline_delta::open(loop.blocking(std::make_shared<Memory_file>(*file)), "image");
    if (!delta.has_value()) {
      expect_line(delta.error().text);
    } else if (delta.value().begin().has_value()) {
      auto const grown = delta.value().grow(delta.value().header().size_bytes() + (1u << 20));
      if (grown.has_value()) PS_ASSERT(delta.value().finish().has_value());
    }
  }
  Check_options const repair{.is_read_only = false, .may_fix_fatal = true, .drop_in_use = true};
  auto const repaired = check_image(store, repair);
  PS_ASSERT(repaired.has_value());
  // What was repaired is good: a second look finds nothing.
  PS_ASSERT(check_image(store, {}).value().is_clean());
  use_image(file, true);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size < 2) return 0;
  Bytes const rest(reinterpret_cast<std::byte const*>(data + 2), size - 2);
  // The second byte: how much larger than its bytes the file is, in units of 64 KiB.
  if (data[0] % 4 == 0)
    fuzz_descriptor(std::string(as_text(rest)));
  else
    fuzz_image(rest, std::uint64_t{data[1]} << 16);
  return 0;
}
