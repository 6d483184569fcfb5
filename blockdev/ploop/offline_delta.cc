#include "blockdev/ploop/offline_delta.h"

#include <algorithm>
#include <cstring>

#include "blockdev/ploop/bat_writer.h"
#include "core/assert.h"

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t piece_bytes = 1u << 20;
constexpr std::uint64_t extension_bytes = 64u << 20;

}  // namespace

Failure Offline_delta::failed(std::string const& what, std::error_code const& code) const {
  return failure(code, path_ + ": cannot " + what + ": " + code.message());
}

Outcome<Offline_delta> Offline_delta::open(Blocking_store store, std::string path,
                                           std::uint32_t raw_cluster_bytes) {
  Offline_delta delta(std::move(store), std::move(path));
  if (raw_cluster_bytes == 0) {
    PS_CHECK(delta.load());
    return delta;
  }
  auto const size = delta.store_.size_bytes();
  if (size == 0 || size % raw_cluster_bytes != 0)
    return failure(Errc::corrupt, delta.path_ + ": the size of the raw image is no multiple of " +
                                      std::to_string(raw_cluster_bytes) + " bytes");
  delta.is_raw_ = true;
  PS_TRY(delta.header_, make_header(Version::v2, raw_cluster_bytes, size));
  delta.clusters_.resize(delta.header_.entries);
  for (std::uint32_t i = 0; i < delta.entries(); ++i) delta.clusters_[i] = i;
  return delta;
}

Outcome<void> Offline_delta::load() {
  auto const head = store_.read(0, std::min<std::uint64_t>(header_bytes, store_.size_bytes()));
  if (!head) return failed("read", head.error());
  auto const decoded = decode_header(head.value().bytes());
  if (!decoded.has_value()) return failure(Errc::corrupt, path_ + ": " + decoded.error().text);
  header_ = decoded.value();
  if (header_.is_open())
    return failure(Errc::busy, path_ +
                                   ": it is marked as in use: somebody has it open, or a crash "
                                   "left it so; then 'pstorage-ploop check -d' repairs it");
  if ((header_.flags & flag_converting) != 0)
    return failure(Errc::corrupt, path_ +
                                      ": a conversion of its version was interrupted; run "
                                      "'pstorage-ploop convert -v' again");
  if (header_.offset_of(header_.first_cluster) > store_.size_bytes())
    return failure(Errc::corrupt, path_ + ": the file ends inside its block table");
  clusters_.resize(header_.entries);
  auto const file_clusters = store_.size_bytes() / header_.cluster_bytes();
  for (std::uint64_t from = header_bytes; from < header_.bat_bytes();) {
    auto const length = std::min(piece_bytes - from % piece_bytes, header_.bat_bytes() - from);
    auto const piece = store_.read(from, length);
    if (!piece) return failed("read", piece.error());
    auto const first = (from - header_bytes) / 4;
    for (std::uint64_t i = 0; i < length / 4; ++i) {
      auto const entry = load_le<std::uint32_t>(piece.value().data() + i * 4);
      clusters_[first + i] = header_.decode_entry(entry, file_clusters);
      if (clusters_[first + i] == Header::bad_cluster)
        return failure(Errc::corrupt, path_ + ": block table entry " + std::to_string(first + i) +
                                          " points to no cluster of the file; 'pstorage-ploop "
                                          "check -F' clears it");
    }
    from += length;
  }
  return find_holes();
}

Outcome<void> Offline_delta::find_holes() {
  std::vector<std::uint32_t> used;
  for (auto const cluster : clusters_)
    if (cluster != 0) used.push_back(cluster);
  std::sort(used.begin(), used.end());
  end_ = header_.first_cluster;
  for (auto const cluster : used) {
    if (cluster < end_)
      return failure(Errc::corrupt, path_ +
                                        ": two block table entries have the same cluster; "
                                        "'pstorage-ploop check -f -c' names them");
    holes_.add(end_, cluster - end_);
    end_ = cluster + 1;
  }
  return success();
}

std::uint64_t Offline_delta::allocated() const {
  return static_cast<std::uint64_t>(
      std::count_if(clusters_.begin(), clusters_.end(), [](auto cluster) { return cluster != 0; }));
}

Outcome<void> Offline_delta::write_header() {
  auto bytes = Slice::allocate(header_bytes);
  encode_header(header_, bytes.mutable_bytes());
  if (auto const written = store_.write(0, bytes); !written)
    return failed("write the header", written.error());
  if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
  return success();
}

Outcome<void> Offline_delta::begin() {
  if (is_raw_) return success();
  header_.in_use = in_use_open;
  header_.flags &= ~flag_empty;
  header_.extension_sector = 0;
  return write_header();
}

Outcome<Slice> Offline_delta::read(std::uint32_t index) {
  PS_ASSERT(has(index));
  auto data = store_.read(place(index), header_.cluster_bytes());
  if (!data) return failed("read", data.error());
  return std::move(data.value());
}

Outcome<std::uint32_t> Offline_delta::take_place() {
  if (!holes_.empty()) return holes_.take_first();
  if (header_.version == Version::v1 &&
      (std::uint64_t{end_} + 1) * header_.cluster_sectors > 0xFFFFFFFF)
    return failure(Errc::no_space, path_ + ": a file of version 1 ends at 2 TiB");
  if (header_.offset_of(end_ + 1) > store_.size_bytes()) {
    auto const step = std::max<std::uint64_t>(extension_bytes, header_.cluster_bytes());
    if (auto const extended = store_.extend(header_.offset_of(end_) + step); !extended)
      return failed("extend", extended.error());
  }
  return end_++;
}

Outcome<void> Offline_delta::write(std::uint32_t index, Slice data) {
  PS_ASSERT(data.size() == header_.cluster_bytes());
  if (!has(index)) {
    PS_TRY(clusters_[index], take_place());
    dirty_pages_.insert(page_of(index));
  }
  if (auto const written = store_.write(place(index), std::move(data)); !written)
    return failed("write", written.error());
  return success();
}

void Offline_delta::drop(std::uint32_t index) {
  PS_ASSERT(!is_raw_ && has(index));
  dropped_.add(clusters_[index]);
  clusters_[index] = 0;
  dirty_pages_.insert(page_of(index));
}

Outcome<void> Offline_delta::write_page(std::uint32_t page) {
  auto slice = Slice::allocate(page_bytes);
  std::memset(slice.data(), 0, page_bytes);
  auto const from = std::uint64_t{page} * page_bytes;
  if (page == 0) encode_header(header_, slice.mutable_bytes());
  for (auto at = std::max<std::uint64_t>(from, header_bytes); at < from + page_bytes; at += 4) {
    auto const index = (at - header_bytes) / 4;
    if (index >= clusters_.size()) break;
    store_le(slice.data() + (at - from), header_.encode_entry(clusters_[index]));
  }
  if (auto const written = store_.write(from, slice); !written)
    return failed("write the block table", written.error());
  return success();
}

Outcome<void> Offline_delta::sync() {
  if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
  if (dirty_pages_.empty()) return success();
  for (auto const page : dirty_pages_) PS_CHECK(write_page(page));
  dirty_pages_.clear();
  if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
  for (auto const& [start, length] : dropped_.runs())
    if (auto const punched =
            store_.punch(header_.offset_of(start), std::uint64_t{length} * header_.cluster_bytes());
        !punched)
      return failed("punch", punched.error());
  holes_.add(dropped_.take_all());
  return success();
}

Outcome<void> Offline_delta::move(std::uint32_t index, std::uint32_t to) {
  PS_TRY(auto data, read(index));
  if (auto const written = store_.write(header_.offset_of(to), std::move(data)); !written)
    return failed("write", written.error());
  clusters_[index] = to;
  dirty_pages_.insert(page_of(index));
  return success();
}

/// Copies of what is in the way are durable before the entries change; the old places become
/// zeros, durably, before a header says that they are entries.
Outcome<void> Offline_delta::clear_table_space(std::uint32_t first_cluster) {
  Cluster_runs kept;  // holes that stay outside the table
  for (auto const& [start, length] : holes_.runs()) {
    auto const from = std::max(start, first_cluster);
    if (from < start + length) kept.add(from, start + length - from);
  }
  holes_ = std::move(kept);
  if (end_ < first_cluster) end_ = first_cluster;
  for (std::uint32_t index = 0; index < entries(); ++index) {
    if (clusters_[index] == 0 || clusters_[index] >= first_cluster) continue;
    PS_TRY(auto const to, take_place());
    PS_CHECK(move(index, to));
  }
  PS_CHECK(sync());
  auto const zeros_end = header_.offset_of(first_cluster);
  if (store_.size_bytes() < zeros_end)
    if (auto const extended = store_.extend(zeros_end); !extended)
      return failed("extend", extended.error());
  auto zeros = Slice::allocate(piece_bytes);
  std::memset(zeros.data(), 0, zeros.size());
  for (auto at = header_.offset_of(header_.first_cluster); at < zeros_end; at += piece_bytes) {
    auto const length = static_cast<std::size_t>(std::min(piece_bytes, zeros_end - at));
    if (auto const written = store_.write(at, zeros.part(0, length)); !written)
      return failed("write", written.error());
  }
  if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
  return success();
}

Outcome<void> Offline_delta::grow_raw(std::uint64_t size_bytes) {
  PS_TRY(header_, make_header(Version::v2, header_.cluster_bytes(), size_bytes));
  if (auto const extended = store_.extend(header_.size_bytes()); !extended)
    return failed("extend", extended.error());
  for (auto i = entries(); i < header_.entries; ++i) clusters_.push_back(i);
  return success();
}

Outcome<void> Offline_delta::grow(std::uint64_t size_bytes) {
  if (is_raw_) return grow_raw(size_bytes);
  auto made = make_header(header_.version, header_.cluster_bytes(), size_bytes);
  if (!made.has_value()) return failure(made.error().code, path_ + ": " + made.error().text);
  auto next = made.value();
  PS_ASSERT(next.size_sectors >= header_.size_sectors && header_.is_open());
  next.entries = std::max(next.entries, header_.entries);
  next.first_cluster = std::max(next.first_cluster, header_.first_cluster);
  next.in_use = header_.in_use;
  next.flags = header_.flags;
  PS_CHECK(sync());
  if (next.first_cluster > header_.first_cluster) PS_CHECK(clear_table_space(next.first_cluster));
  header_ = next;
  clusters_.resize(header_.entries);
  return write_header();
}

Outcome<void> Offline_delta::close_holes(Progress const& progress) {
  PS_ASSERT(!is_raw_);
  std::vector<std::pair<std::uint32_t, std::uint32_t>> by_place;  // place, index
  for (std::uint32_t index = 0; index < entries(); ++index)
    if (clusters_[index] != 0) by_place.emplace_back(clusters_[index], index);
  std::sort(by_place.rbegin(), by_place.rend());
  std::uint64_t moved = 0;
  for (auto const& [place, index] : by_place) {
    if (holes_.empty() || holes_.runs().begin()->first > place) break;
    PS_CHECK(move(index, holes_.take_first()));
    ++moved;
    progress(moved, moved + holes_.count());
  }
  return sync();
}

std::uint32_t Offline_delta::used_end() const {
  auto end = header_.first_cluster;
  for (auto const cluster : clusters_) end = std::max(end, cluster + 1);
  return end;
}

Outcome<void> Offline_delta::finish() {
  PS_CHECK(sync());
  if (is_raw_) return success();
  if (auto const cut = store_.truncate(header_.offset_of(used_end())); !cut)
    return failed("truncate", cut.error());
  header_.in_use = in_use_none;
  if (used_end() == header_.first_cluster) header_.flags |= flag_empty;
  return write_header();
}

}  // namespace pstorage::ploop
