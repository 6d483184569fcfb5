#include "blockdev/ploop/bat_writer.h"

#include <algorithm>
#include <cstring>

#include "core/mutant.h"

namespace pstorage::ploop {

Slice compose_page(Header const& header, Image_map const& map, Level level, std::uint32_t page) {
  auto slice = Slice::allocate(page_bytes);
  std::memset(slice.data(), 0, page_bytes);
  std::uint64_t const from = std::uint64_t{page} * page_bytes;
  auto const first = page == 0 ? 0 : (from - header_bytes) / 4;
  auto* at = slice.data();
  if (page == 0) {
    encode_header(header, slice.mutable_bytes());
    at += header_bytes;
  }
  auto const end = std::min<std::uint64_t>((from + page_bytes - header_bytes) / 4, map.size());
  for (auto index = first; index < end; ++index, at += 4) {
    auto const i = static_cast<std::uint32_t>(index);
    if (map.level(i) == level) store_le(at, header.encode_entry(map.cluster(i)));
  }
  return slice;
}

void Bat_writer::write_page(std::uint32_t page, Done done) {
  auto const [found, is_new] = pages_.try_emplace(page);
  if (is_new) {
    found->second.under_way.push_back(std::move(done));
    start(page);
  } else if (PS_MUTANT(bat_change_rides_on_old_page)) {
    found->second.under_way.push_back(std::move(done));
  } else {
    found->second.waiting.push_back(std::move(done));
  }
}

void Bat_writer::start(std::uint32_t page) {
  ++writes_;
  std::vector<Slice> data;
  data.push_back(compose_(page));
  store_->write(std::uint64_t{page} * page_bytes, std::move(data), false,
                [this, page](Result<void> const& result) { written(page, result); });
}

void Bat_writer::written(std::uint32_t page, Result<void> const& result) {
  if (result) ++answered_;
  auto const found = pages_.find(page);
  auto const done = std::move(found->second.under_way);
  if (found->second.waiting.empty()) {
    pages_.erase(found);
  } else {
    found->second.under_way = std::exchange(found->second.waiting, {});
    start(page);
  }
  for (auto const& each : done) each(result);
}

}  // namespace pstorage::ploop
