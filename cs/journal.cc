#include "cs/journal.h"

#include <algorithm>
#include <cstring>

#include "core/crc32c.h"

namespace pstorage::cs {
namespace {

// Kept free for the records that make room (seals, removals) and for padding.
constexpr std::uint64_t reserve_bytes = 32u << 10;

}  // namespace

Journal::~Journal() = default;

// ---------------------------------------------------------------- appending

bool Journal::has_room(std::uint64_t bytes) const {
  std::uint64_t const used = head_ - super_.tail;
  // Twice: a record that does not fit before the end of the ring leaves that part unused.
  return used + 2 * bytes + reserve_bytes <= super_.ring_bytes;
}

std::byte* Journal::take(std::size_t bytes) {
  PS_ASSERT(bytes <= arena_bytes - arena_used_);
  std::byte* const taken = arena_.get() + arena_used_;
  arena_used_ += (bytes + 15) / 16 * 16;
  return taken;
}

void Journal::add_piece(Bytes piece) {
  // Neighbours in memory become one piece: a short I/O vector costs the kernel less.
  if (!pieces_.empty() && pieces_.back().data() + pieces_.back().size() == piece.data()) {
    pieces_.back() = {pieces_.back().data(), pieces_.back().size() + piece.size()};
  } else {
    pieces_.push_back(piece);
  }
}

void Journal::skip(std::uint64_t bytes) {
  PS_ASSERT(bytes % record_alignment == 0);
  if (bytes >= record_header_bytes) {
    Record_header header;
    header.record.type = Record_type::pad;
    header.record.length = static_cast<std::uint32_t>(bytes);
    header.lsn = head_;
    header.durable = durable_;
    std::byte* const to = take(record_header_bytes);
    encode_record(header, {}, super_.salt, to);
    add_piece({to, record_header_bytes});
  }
  head_ += bytes;
}

Lsn Journal::append(Record const& record, Bytes body, Slice data) {
  Record_header header;
  header.record = record;
  header.body_bytes = static_cast<std::uint32_t>(body.size());
  header.data_bytes = static_cast<std::uint32_t>(data.size());
  PS_ASSERT(body.size() <= body_bytes_max && data.size() <= inline_bytes_max);
  std::uint64_t const total = header.total_bytes();
  PS_ASSERT(head_ + total - super_.tail <= super_.ring_bytes);

  std::size_t const needed = total - data.size() + 2 * record_header_bytes;
  bool const is_full = pieces_.size() >= pieces_max || arena_bytes - arena_used_ < needed;
  if (is_full || to_ring_end(head_) < total) static_cast<void>(write_out());  // error_ remembers
  if (to_ring_end(head_) < total) {
    skip(to_ring_end(head_));
    static_cast<void>(write_out());
    written_ = head_;  // less than a header's room at the end has no record
  }
  header.lsn = head_;
  header.durable = durable_;
  std::size_t const front = record_header_bytes + body.size();
  std::byte* const to = take(front);
  if (!body.empty()) std::memcpy(to + record_header_bytes, body.data(), body.size());
  encode_record(header, body, super_.salt, to);
  add_piece({to, front});
  if (!data.empty()) add_piece(data.bytes());
  if (std::size_t const fill = total - front - data.size(); fill != 0) {
    std::byte* const zeros = take(fill);
    std::memset(zeros, 0, fill);
    add_piece({zeros, fill});
  }
  if (!data.empty()) held_.push_back(std::move(data));
  head_ += total;
  return head_;
}

Result<void> Journal::write_out() {
  if (!error_ && !pieces_.empty()) {
    auto const result = file_->write(physical(written_), pieces_);
    if (result.has_error()) fail(result.error());
  }
  pieces_.clear();
  held_.clear();
  arena_used_ = 0;
  written_ = head_;
  if (error_) return error_;
  return success();
}

void Journal::pad_to_block() {
  // What is durable shares no disk block with what comes later: rewriting it could tear it.
  std::uint64_t fill = (block_bytes - head_ % block_bytes) % block_bytes;
  if (fill == 0) return;
  if (fill < record_header_bytes && to_ring_end(head_) > fill) fill += block_bytes;
  if (head_ + fill - super_.tail > super_.ring_bytes) return;  // only when brim-full
  skip(fill);
}

void Journal::commit() {
  wanted_ = head_;
  if (!committing_) start_commit();
}

void Journal::probe() {
  auto const fill = std::min<std::uint64_t>(block_bytes, to_ring_end(head_));
  if (committing_ || error_ || used_bytes() + fill + reserve_bytes > super_.ring_bytes) return;
  skip(fill);
  commit();
}

void Journal::start_commit() {
  if (error_ || (wanted_ <= durable_ && !super_changed_)) return;
  pad_to_block();
  if (write_out().has_error()) return;
  bool const with_super = super_changed_;
  if (with_super) {
    auto const result = write_super(next_super_);
    if (result.has_error()) return fail(result.error());
    super_changed_ = false;
  }
  committing_ = true;
  frozen_ = head_;
  file_->sync_async([this, target = head_, with_super, super = next_super_](Result<void> result) {
    if (with_super && result.has_value()) super_ = super;
    commit_done(target, with_super, result);
  });
}

void Journal::commit_done(Lsn target, bool with_super, Result<void> const& result) {
  committing_ = false;
  if (result.has_error()) return fail(result.error());
  if (error_) return;
  ++commits_;
  durable_ = target;
  if (wanted_ > durable_ || super_changed_) start_commit();
  if (listener_ != nullptr) listener_->on_durable(durable_);
  static_cast<void>(with_super);
}

void Journal::fail(std::error_code error) {
  if (error_) return;
  error_ = error;
  if (listener_ != nullptr) listener_->on_journal_failed(error);
}

void Journal::set_tail(Lsn tail) {
  PS_ASSERT(tail >= next_super_.tail && tail <= durable_);
  next_super_.tail = tail;
  ++next_super_.generation;
  super_changed_ = true;
}

Result<void> Journal::write_super(Journal_super const& super) {
  std::array<std::byte, super_bytes> bytes;
  encode_super(super, bytes.data());
  return file_->write(super.generation % 2 * super_bytes, Bytes(bytes));
}

// ---------------------------------------------------------------- start and stop

Result<void> Journal::format(File& file, std::uint64_t ring_bytes, std::uint64_t salt,
                             std::function<void(std::uint64_t)> const& progress, Lsn first) {
  std::vector<std::byte> zeros(1u << 20);
  std::uint64_t const total = ring_offset + ring_bytes;
  for (std::uint64_t at = 0; at < total;) {
    auto const take = std::min<std::uint64_t>(zeros.size(), total - at);
    PS_CHECK(file.write(at, Bytes(zeros.data(), take)));
    at += take;
    if (progress) progress(at);
  }
  Journal_super super;
  super.salt = salt;
  super.ring_bytes = ring_bytes;
  super.tail = first;
  super.clean = true;
  std::array<std::byte, super_bytes> bytes;
  encode_super(super, bytes.data());
  PS_CHECK(file.write(0, Bytes(bytes)));
  return file.sync();
}

Result<void> Journal::open(std::uint64_t salt) {
  bool found = false;
  for (std::uint64_t slot = 0; slot < 2; ++slot) {
    std::array<std::byte, super_bytes> bytes;
    PS_CHECK(file_->read(slot * super_bytes, bytes));
    auto const super = decode_super(bytes.data());
    if (super.has_error() || super.value().salt != salt) continue;
    if (!found || super.value().generation > super_.generation) super_ = super.value();
    found = true;
  }
  if (!found) return Errc::corrupt;
  next_super_ = super_;
  head_ = written_ = durable_ = frozen_ = wanted_ = super_.tail;
  return success();
}

Result<void> Journal::restart(Lsn scanned_end, std::uint32_t damage) {
  // Records that were cut off may still lie in the ring, with LSNs up to a ring ahead; a lap
  // further none of them can be taken for the continuation of what is written from now on.
  Lsn const fresh = (scanned_end / super_.ring_bytes + 2) * super_.ring_bytes;
  next_super_ = super_;
  next_super_.tail = fresh;
  next_super_.clean = false;
  next_super_.damage = damage;
  ++next_super_.generation;
  PS_CHECK(write_super(next_super_));
  PS_CHECK(file_->sync());
  super_ = next_super_;
  head_ = written_ = durable_ = frozen_ = wanted_ = fresh;
  return success();
}

Result<void> Journal::mark_clean() {
  PS_ASSERT(next_super_.tail == head_);
  if (error_) return error_;
  next_super_.clean = true;
  ++next_super_.generation;
  PS_CHECK(write_super(next_super_));
  PS_CHECK(file_->sync());
  super_ = next_super_;
  return success();
}

}  // namespace pstorage::cs
