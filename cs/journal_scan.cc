// Reading the journal back at start: which records are there, and what is damage.
#include <algorithm>
#include <cstring>

#include "core/crc32c.h"
#include "cs/journal.h"

namespace pstorage::cs {
namespace {

constexpr std::size_t record_bytes_max = record_header_bytes + body_bytes_max + inline_bytes_max;

bool blocks_match(Bytes data, Bytes body) {
  std::size_t const count = data.size() / block_bytes;
  if (data.size() % block_bytes != 0 || body.size() != count * sizeof(std::uint32_t)) return false;
  for (std::size_t i = 0; i < count; ++i) {
    if (crc32c(data.subspan(i * block_bytes, block_bytes)) !=
        load_le<std::uint32_t>(body.data() + i * sizeof(std::uint32_t))) {
      return false;
    }
  }
  return true;
}

bool records_match(Bytes data, Bytes body) {
  if (body.size() % sizeof(Block_record) != 0) return false;
  for (std::size_t at = 0; at < body.size(); at += sizeof(Block_record)) {
    auto const record = load_le<Block_record>(body.data() + at);
    if ((record.flags & block_hole) != 0) continue;
    if (data.size() < block_bytes || crc32c(data.first(block_bytes)) != record.crc) return false;
    data = data.subspan(block_bytes);
  }
  return data.empty();
}

}  // namespace

bool Journal::data_matches(Visited const& visited) const {
  switch (visited.header.record.type) {
    case Record_type::write:
      return blocks_match(visited.data, visited.body);
    case Record_type::repair:
      return records_match(visited.data, visited.body);
    default:
      return visited.data.empty();
  }
}

bool Journal::read_ring(std::uint64_t at, Mutable_bytes to) {
  if (to.empty()) return true;
  auto const result = file_->read(at, to);
  if (result.has_error()) scan_error_ = result.error();
  return result.has_value();
}

bool Journal::read_record(Lsn lsn, Visited& visited, std::vector<std::byte>& buffer) {
  buffer.resize(record_bytes_max);
  std::uint64_t const left = to_ring_end(lsn);
  if (left < record_header_bytes) return false;
  if (!read_ring(physical(lsn), Mutable_bytes(buffer.data(), record_header_bytes))) return false;
  auto const header = decode_record(buffer.data());
  if (header.has_error() || header.value().lsn != lsn || header.value().total_bytes() > left) {
    return false;
  }
  visited.header = header.value();
  std::size_t const rest = std::size_t{visited.header.body_bytes} + visited.header.data_bytes;
  visited.data_at = physical(lsn) + record_header_bytes + visited.header.body_bytes;
  if (!read_ring(physical(lsn) + record_header_bytes,
                 Mutable_bytes(buffer.data() + record_header_bytes, rest))) {
    return false;
  }
  visited.body = {buffer.data() + record_header_bytes, visited.header.body_bytes};
  visited.data = {visited.body.data() + visited.body.size(), visited.header.data_bytes};
  visited.end = lsn + visited.header.total_bytes();
  return verify_record(buffer.data(), visited.body, super_.salt) && data_matches(visited);
}

// The first valid record behind the lost one at `lost`, if some record there says that `lost` had
// been durable when it was written. 0: nobody says so; then the log simply ends, torn by the crash.
Lsn Journal::find_later(Lsn lost) {
  constexpr std::size_t window = 1u << 20;
  std::vector<std::byte> ring(window + record_header_bytes);
  std::vector<std::byte> buffer;
  Lsn first = 0;
  for (std::uint64_t ahead = record_alignment; ahead < super_.ring_bytes;) {
    Lsn const at = lost + ahead;
    std::uint64_t const take =
        std::min<std::uint64_t>({window, to_ring_end(at), super_.ring_bytes - ahead});
    if (!read_ring(physical(at), Mutable_bytes(ring.data(), take))) return 0;
    for (std::uint64_t i = 0; i + record_header_bytes <= take; i += record_alignment) {
      auto const header = decode_record(ring.data() + i);
      if (header.has_error() || header.value().lsn != at + i) continue;
      Visited visited;
      if (!read_record(at + i, visited, buffer)) continue;
      if (first == 0) first = at + i;
      if (visited.header.durable > lost) return first;
    }
    // A header that straddles two windows is found again at the start of the next one.
    ahead += take > record_header_bytes && take == window ? take - record_header_bytes : take;
  }
  return 0;
}

Result<Journal::Scan_result> Journal::scan(std::function<void(Visited const&)> const& visit) {
  // What is replayed gets applied to chunk files, and those may only hold what is durable here.
  PS_CHECK(file_->sync());
  Scan_result result;
  std::vector<std::byte> buffer;
  Lsn lsn = super_.tail;
  Lsn const limit = super_.tail + super_.ring_bytes;
  while (lsn < limit) {
    if (to_ring_end(lsn) < record_header_bytes) {
      lsn += to_ring_end(lsn);
      continue;
    }
    Visited visited;
    if (!read_record(lsn, visited, buffer)) {
      Lsn const later = find_later(lsn);
      if (scan_error_) return scan_error_;
      if (later == 0 || later >= limit) break;
      ++result.damaged;
      lsn = later;
      continue;
    }
    ++result.records;
    lsn = visited.end;
    if (visited.header.record.type != Record_type::pad) visit(visited);
  }
  result.end = lsn;
  return result;
}

Result<void> Journal::read_data(std::uint64_t data_at, Mutable_bytes to) {
  return file_->read(data_at, to);
}

}  // namespace pstorage::cs
