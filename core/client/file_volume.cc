#include "core/client/file_volume.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

// Larger requests are cut: a CS answers others between two pieces, and a resend stays small.
constexpr std::uint32_t piece_bytes_max = 1u << 20;
// Of a file that grows: the MDS takes no larger size.
constexpr std::uint64_t file_bytes_max = 1ull << 50;

constexpr std::uint64_t round_down(std::uint64_t value) {
  return value / block_bytes * block_bytes;
}
constexpr std::uint64_t round_up(std::uint64_t value) {
  return round_down(value + block_bytes - 1);
}

/// [offset, offset + length) of `parts` laid one behind the other.
std::vector<Slice> cut(std::vector<Slice> const& parts, std::uint64_t offset,
                       std::uint64_t length) {
  std::vector<Slice> result;
  for (Slice const& part : parts) {
    if (length == 0) break;
    if (offset >= part.size()) {
      offset -= part.size();
      continue;
    }
    std::uint64_t const take = std::min<std::uint64_t>(part.size() - offset, length);
    result.push_back(part.part(offset, take));
    offset = 0;
    length -= take;
  }
  PS_ASSERT(length == 0);
  return result;
}

Slice joined(std::vector<Slice> const& parts, std::size_t size) {
  if (parts.size() == 1) return parts.front();
  Slice whole = Slice::allocate(size);
  std::byte* to = whole.data();
  for (Slice const& part : parts) {
    std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
  return whole;
}

/// Does it read as zeros? A damaged block without data has the flag of a hole, too.
bool is_hole(Block_record const& record) {
  return (record.flags & (block_hole | block_corrupt)) == block_hole;
}

bool grows(Volume_use use) { return use == Volume_use::grow || use == Volume_use::settle; }

}  // namespace

File_volume::File_volume(Volume_host& host, std::string path, proto::Lease const& lease,
                         Volume_use use)
    : host_(host),
      path_(std::move(path)),
      file_{lease.file().id()},
      epoch_{lease.epoch()},
      size_(grows(use) || lease.shared() ? file_bytes_max : lease.file().size()),
      shared_(lease.shared()),
      grows_(grows(use)),
      leaves_none_behind_(use == Volume_use::settle),
      chunk_bytes_(lease.file().attributes().chunk_size()),
      replicas_min_(std::max(1u, lease.file().attributes().replicas_min())),
      waits_when_full_(lease.file().attributes().on_full() == "wait"),
      is_settled_(lease.clean() || use == Volume_use::read),
      serving_(use == Volume_use::read),
      reader_(use == Volume_use::read) {
  PS_ASSERT(chunk_bytes_ >= block_bytes && chunk_bytes_ % block_bytes == 0);
  if (lease.fence_ms() != 0) fence_end_ = now() + std::chrono::milliseconds(lease.fence_ms());
  adopt_map(lease.map());
}

File_volume::~File_volume() {
  *alive_ = false;
  chunks_.clear();  // cancels what is under way at the links
  for (auto& [_, link] : links_) link->remove_user(*this);
  host_.volume_closed(*this);
}

Cs_link& File_volume::link_of(Cs_id cs) {
  auto& known = links_[cs];
  if (known == nullptr) {
    known = &host_.link_of(cs);
    known->add_user(*this);
  }
  return *known;
}

Chunk_io& File_volume::chunk_at(std::uint32_t index) {
  auto& chunk = chunks_[index];
  if (chunk == nullptr) {
    chunk = std::make_unique<Chunk_io>(static_cast<Chunk_host&>(*this), index);
    if (auto const known = untouched_.find(index); known != untouched_.end()) {
      Chunk_io& made = *chunk;  // adopt() may look up other chunks and move the table
      proto::Chunk const mapped = std::move(known->second);
      untouched_.erase(known);
      made.adopt(mapped, false);
      return made;
    }
  }
  return *chunk;
}

void File_volume::adopt_map(proto::File_map const& map) {
  if (dead_ != Errc::ok) return;
  host_.learn_servers(map);
  ++batching_;
  if (!map.on_full().empty()) waits_when_full_ = map.on_full() == "wait";
  if (map.replicas_min() != 0 && map.replicas_min() != replicas_min_) {
    replicas_min_ = map.replicas_min();
    for (auto& [_, chunk] : chunks_) chunk->on_tick();  // some may go on now
  }
  for (auto const& one : map.chunks()) {
    bool const has_joiner =
        std::any_of(one.replicas().begin(), one.replicas().end(),
                    [](auto const& replica) { return replica.state() == proto::REPLICA_SYNCING; });
    auto const open = chunks_.find(one.index());
    if (open != chunks_.end()) {
      open->second->adopt(one, false);
      continue;
    }
    auto& known = untouched_[one.index()];
    if (known.version() <= one.version()) known = one;
    // A newcomer waits for its writer, even when nobody uses the chunk.
    if (has_joiner && serving_ && !is_reader()) chunk_at(one.index());
  }
  --batching_;
  end_of_event();
}

// ------------------------------------------------------------------ requests

Errc File_volume::check(std::uint64_t offset, std::uint64_t length) const {
  if (dead_ != Errc::ok) return dead_;
  if (closing_) return Errc::closed;
  return in_bounds(offset, length, size_) ? Errc::ok : Errc::bad_request;
}

Request& File_volume::new_request(Request_kind kind, std::uint64_t offset, std::uint64_t length) {
  if (free_requests_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    free_requests_.push_back(requests_.back().get());
  }
  Request& request = *free_requests_.back();
  free_requests_.pop_back();
  request.kind = kind;
  request.offset = offset;
  request.length = length;
  request.fua = false;
  request.error = Errc::ok;
  request.has_done_piece = false;
  request.losses = losses_;
  request.submitted = now();
  request.pieces_left = 1;  // held until every piece has been submitted
  ++requests_open_;
  return request;
}

Piece& File_volume::new_piece() {
  if (free_pieces_.empty()) {
    pieces_.push_back(std::make_unique<Piece>());
    free_pieces_.push_back(pieces_.back().get());
  }
  Piece& piece = *free_pieces_.back();
  free_pieces_.pop_back();
  piece.serial = next_serial_++;
  return piece;
}

void File_volume::free_piece(Piece& piece) {
  PS_ASSERT(!piece.is_linked());
  piece = Piece{};
  free_pieces_.push_back(&piece);
}

Piece& File_volume::add_piece(Request& request, Piece_kind kind, std::uint64_t offset,
                              std::uint64_t length) {
  Piece& piece = new_piece();
  std::uint64_t const in_chunk = offset % chunk_bytes_;
  piece.kind = kind;
  piece.request = &request;
  piece.part_offset = static_cast<std::uint32_t>(offset / chunk_bytes_);  // until submitted
  piece.user_offset = static_cast<std::uint32_t>(in_chunk);
  piece.user_length = static_cast<std::uint32_t>(length);
  piece.offset = static_cast<std::uint32_t>(round_down(in_chunk));
  piece.length = static_cast<std::uint32_t>(round_up(in_chunk + length)) - piece.offset;
  ++request.pieces_left;
  return piece;
}

void File_volume::submit_piece(Piece& piece) {
  auto const index = std::exchange(piece.part_offset, 0);
  chunk_at(index).submit(piece);
}

/// Cuts a change into pieces. `data` null: zeros, whose edges are merged.
void File_volume::submit_range(Request& request, std::uint64_t offset, std::uint64_t length,
                               std::vector<Slice> const* data) {
  std::uint64_t done = 0;
  while (done < length) {
    std::uint64_t const at = offset + done;
    std::uint64_t take = std::min(length - done, chunk_bytes_ - at % chunk_bytes_);
    bool const aligned_start = at % block_bytes == 0;
    bool merge = false;
    if (data != nullptr) {
      take = std::min<std::uint64_t>(take, piece_bytes_max);
      merge = !aligned_start || take % block_bytes != 0;
    } else if (!aligned_start || take < block_bytes) {
      take = std::min(take, round_up(at + 1) - at);
      merge = true;
    } else {
      take = round_down(take);
    }
    Piece_kind const kind = merge             ? Piece_kind::merge
                            : data != nullptr ? Piece_kind::write
                                              : Piece_kind::zero;
    Piece& piece = add_piece(request, kind, at, take);
    if (merge && data != nullptr)
      piece.user_data = cut(*data, done, take);
    else if (data != nullptr && data->size() == 1)
      piece.data = data->front().part(done, take);
    else if (data != nullptr)
      piece.data = joined(cut(*data, done, take), take);
    submit_piece(piece);
    done += take;
  }
}

void File_volume::submitted(Request& request) {
  if (--request.pieces_left == 0) answer_later([this, &request] { complete_request(request); });
  if (!completed_.empty()) defer_completions();
  send_allocations();
  send_reports();
}

void File_volume::read(std::uint64_t offset, std::uint64_t length, Read_done done) {
  if (Errc const error = check(offset, length); error != Errc::ok)
    return answer_later([done = std::move(done), error] { done(make_error_code(error)); });
  ++counters_.reads;
  counters_.read_bytes += length;
  if (is_cached(offset, length)) return read_cached(offset, length, std::move(done));
  Request& request = new_request(Request_kind::read, offset, length);
  request.read_done = std::move(done);
  submit_read(request, offset, length);
  submitted(request);
}

void File_volume::submit_read(Request& request, std::uint64_t offset, std::uint64_t length) {
  note_read(request, offset, length);
  std::uint64_t const end = offset + length;
  for (std::uint64_t at = offset; at < end;) {
    std::uint64_t take =
        std::min({end - at, chunk_bytes_ - at % chunk_bytes_, piece_bytes_max - at % block_bytes});
    Piece& piece = add_piece(request, Piece_kind::read, at, take);
    piece.part = static_cast<std::uint32_t>(request.parts.size());
    request.parts.emplace_back();
    submit_piece(piece);
    at += take;
  }
}

Errc File_volume::check_change(std::uint64_t offset, std::uint64_t length) const {
  Errc const error = check(offset, length);
  return error == Errc::ok && is_reader() ? Errc::read_only : error;
}

void File_volume::write(std::uint64_t offset, std::vector<Slice> data, bool fua, Done done) {
  std::uint64_t length = 0;
  for (Slice const& part : data) length += part.size();
  if (Errc const error = check_change(offset, length); error != Errc::ok)
    return answer_later([done = std::move(done), error] { done(make_error_code(error)); });
  ++counters_.writes;
  counters_.write_bytes += length;
  Request& request = new_request(Request_kind::write, offset, length);
  request.done = std::move(done);
  request.fua = fua;
  note_change(request, offset, length);
  submit_range(request, offset, length, &data);
  submitted(request);
}

void File_volume::zero(std::uint64_t offset, std::uint64_t length, bool only_whole_blocks, bool fua,
                       Done done) {
  if (Errc const error = check_change(offset, length); error != Errc::ok)
    return answer_later([done = std::move(done), error] { done(make_error_code(error)); });
  Request& request = new_request(Request_kind::zero, offset, length);
  request.done = std::move(done);
  request.fua = fua;
  std::uint64_t end = offset + length;
  if (only_whole_blocks) {
    // The file's last, incomplete block has nothing behind it that could be harmed.
    if (end != size_) end = round_down(end);
    offset = std::min(round_up(offset), end);
  }
  note_change(request, offset, end - offset);
  submit_range(request, offset, end - offset, nullptr);
  submitted(request);
}

void File_volume::extents(std::uint64_t offset, std::uint64_t length, std::size_t extents_max,
                          Extents_done done) {
  Errc error = check(offset, length);
  if (error == Errc::ok && (length == 0 || extents_max == 0)) error = Errc::bad_request;
  if (error != Errc::ok)
    return answer_later([done = std::move(done), error] { done(make_error_code(error)); });
  // One chunk an answer: the asker goes on behind it, and a table is 16 bytes a block.
  length = std::min(length, chunk_bytes_ - offset % chunk_bytes_);
  Request& request = new_request(Request_kind::extents, offset, length);
  request.extents_done = [done = std::move(done), offset, length, extents_max](Request& finished) {
    if (finished.error != Errc::ok) return done(make_error_code(finished.error));
    std::vector<Extent> runs;
    Slice const& records = finished.parts.front();
    std::size_t const blocks = records.size() / sizeof(Block_record);
    if (blocks == 0) return done(std::vector<Extent>{{.length = length, .hole = true}});
    std::uint64_t covered = 0;
    std::uint64_t const skip = offset % block_bytes;
    for (std::size_t i = 0; i < blocks && covered < length; ++i) {
      auto const record = load_le<Block_record>(records.data() + i * sizeof(Block_record));
      bool const hole = is_hole(record);
      std::uint64_t const take = std::min(length - covered, block_bytes - (i == 0 ? skip : 0));
      if (runs.empty() || runs.back().hole != hole) {
        if (runs.size() == extents_max) break;
        runs.push_back({.length = 0, .hole = hole});
      }
      runs.back().length += take;
      covered += take;
    }
    done(std::move(runs));
  };
  request.parts.emplace_back();
  submit_piece(add_piece(request, Piece_kind::table, offset, length));
  submitted(request);
}

// ------------------------------------------------------------------ answers

void File_volume::piece_done(Piece& piece, Errc status) { completed_.emplace_back(&piece, status); }

void File_volume::answer_later(std::function<void()> answer) {
  finished_.push_back(std::move(answer));
  defer_completions();
}

void File_volume::defer_completions() {
  if (std::exchange(completion_deferred_, true)) return;
  host_.executor().defer([this, alive = std::weak_ptr<bool>(alive_)] {
    auto const token = alive.lock();
    if (token == nullptr || !*token) return;
    completion_deferred_ = false;
    end_of_event();
  });
}

void File_volume::end_of_event() {
  if (batching_ > 0) return;
  auto const token = alive_;
  send_allocations();
  send_reports();
  run_completions();
  if (!*token) return;  // closed by the user in a callback
  if (!unconfirmed_.empty() && confirmation_ == nullptr) confirm_requests();
  if (std::exchange(flush_changed_, false)) continue_flushes();
}

void File_volume::run_completions() {
  if (std::exchange(completing_, true)) return;
  auto const token = alive_;
  while (*token && (!completed_.empty() || !finished_.empty())) {
    if (!completed_.empty()) {
      auto const [piece, status] = completed_.front();
      completed_.pop_front();
      complete_piece(*piece, status);
      continue;
    }
    auto answers = std::exchange(finished_, {});
    for (auto& answer : answers)
      if (*token) answer();
  }
  if (*token) completing_ = false;
}

void File_volume::complete_piece(Piece& piece, Errc status) {
  Request* request = piece.request;
  if (request == nullptr) return free_piece(piece);
  if (status == Errc::corrupt && piece.kind == Piece_kind::read && piece.length > block_bytes)
    return split_read(piece);
  if (status != Errc::ok && request->error == Errc::ok) request->error = status;
  if (!std::exchange(request->has_done_piece, true)) request->losses = losses_;
  if (status == Errc::ok && piece.kind == Piece_kind::read && piece.into_part)
    std::memcpy(request->parts[piece.part].data() + piece.part_offset, piece.data.data(),
                piece.data.size());
  else if (status == Errc::ok && !is_change(piece))
    request->parts[piece.part] = std::move(piece.data);
  free_piece(piece);
  if (--request->pieces_left == 0) complete_request(*request);
}

/// Every replica has some bad block in the range, but perhaps not the same one: block by block.
void File_volume::split_read(Piece& piece) {
  Request& request = *piece.request;
  std::uint64_t const base =
      static_cast<std::uint64_t>(piece.owner->index()) * chunk_bytes_ + piece.user_offset;
  request.parts[piece.part] = Slice::allocate(piece.user_length);
  for (std::uint32_t done = 0; done < piece.user_length;) {
    std::uint64_t const at = base + done;
    auto const take = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(piece.user_length - done, round_up(at + 1) - at));
    Piece& share = add_piece(request, Piece_kind::read, at, take);
    share.part = piece.part;
    share.into_part = true;
    share.part_offset = done;
    piece.owner->submit(share);
    done += take;
  }
  free_piece(piece);
  --request.pieces_left;
}

void File_volume::complete_request(Request& request) {
  note_end(request);
  bool const is_checked = request.kind == Request_kind::write || request.error != Errc::ok ||
                          reader_ || (shared_ && PS_MUTANT(believe_a_share));
  if (is_checked || is_leased()) return answer_request(request);
  unconfirmed_.push_back(&request);
}

void File_volume::answer_request(Request& request) {
  Errc const error = request.error;
  Request_kind const kind = request.kind;
  if (auto const end = now(); kind == Request_kind::read || kind == Request_kind::write) {
    host_.io_latency().add(end, end - request.submitted);
  }
  Done done = std::exchange(request.done, nullptr);
  Read_done read_done = std::exchange(request.read_done, nullptr);
  auto extents_done = std::exchange(request.extents_done, nullptr);
  std::vector<Slice> parts;
  if (kind == Request_kind::extents) {
    extents_done(request);
    request.parts.clear();
  } else {
    parts = std::exchange(request.parts, {});
  }
  bool const fua = request.fua;
  std::uint64_t const losses = request.losses;
  --requests_open_;
  free_requests_.push_back(&request);
  if (kind == Request_kind::extents) return;
  if (kind == Request_kind::read) {
    if (error != Errc::ok) return read_done(make_error_code(error));
    return read_done(std::move(parts));
  }
  if (error != Errc::ok) return done(make_error_code(error));
  // Some of its pieces may have been acknowledged and lost before the last one was there.
  if (losses != losses_) return done(make_error_code(Errc::lost_writes));
  if (fua) return start_flush(std::move(done), Errc::ok);
  done(success());
}

}  // namespace pstorage::client
