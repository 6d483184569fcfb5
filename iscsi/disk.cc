#include "iscsi/disk.h"

#include <algorithm>
#include <cerrno>

#include "iscsi/big_endian.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint64_t pattern_bytes = 1u << 20;      // of a WRITE SAME that is not zeros
constexpr std::size_t scratch_kept_bytes = 64u << 10;  // by a command that is used again
constexpr std::size_t unmap_header = 8;
constexpr std::size_t unmap_descriptor = 16;
constexpr std::size_t status_header = 8;
constexpr std::size_t status_descriptor = 16;

void fail(Io& io, Sense sense) {
  io.status = Status::check_condition;
  io.sense = sense;
}

/// EIO is the store's word for "no replica has valid data": the one true medium error.
Sense sense_of(int error, Store_operation operation) {
  switch (error) {
    case EAGAIN:
      return sense::becoming_ready;
    case ENOSPC:
      return sense::space_exhausted;
    case EPERM:
    case EROFS:
      return sense::write_protected;
    case EIO:
      return operation == Store_operation::read ? sense::unrecovered_read : sense::hardware_error;
    default:
      return sense::hardware_error;
  }
}

/// Compares; false: io has the sense data of a miscompare.
bool matches(Io& io, std::span<std::uint8_t const> disk, std::span<std::uint8_t const> given) {
  auto const different = std::mismatch(disk.begin(), disk.end(), given.begin(), given.end()).first;
  if (different == disk.end()) return true;
  fail(io, sense::miscompare);
  io.information = static_cast<std::uint64_t>(different - disk.begin());
  return false;
}

bool is_zero(std::span<std::uint8_t const> data) {
  return std::all_of(data.begin(), data.end(), [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

void Io::store_done(int error) { disk_->advance(*this, error); }

Disk::Disk(Store& store, Io_listener& listener, Geometry geometry)
    : store_(store), listener_(listener), geometry_(geometry) {}

bool Disk::is_drained(std::uint64_t mark) const {
  return std::none_of(running_.begin(), running_.end(),
                      [mark](Io const* io) { return io->serial_ < mark; });
}

bool Disk::plan_unmap(Io& io) {
  auto const bytes = std::min<std::size_t>(io.command.parameter_bytes, io.out.size());
  auto const list = std::span<std::uint8_t const>(io.out).first(bytes);
  if (list.empty()) return true;
  if (list.size() < unmap_header) {
    fail(io, sense::parameter_length);
    return true;
  }
  auto const named = std::min<std::size_t>(get_be<2>(list, 2), list.size() - unmap_header);
  auto const count = named / unmap_descriptor;
  std::uint64_t total = 0;
  io.lock_.begin = geometry_.size;
  for (std::size_t i = count; i-- > 0;) {
    auto const at = unmap_header + i * unmap_descriptor;
    auto const lba = get_be<8>(list, at);
    auto const blocks = get_be<4>(list, at + 8);
    total += blocks;
    if (count > unmap_ranges_max || total > unmap_blocks_max) {
      fail(io, sense::invalid_field_in_parameters);
      return true;
    }
    if (blocks > geometry_.blocks() || lba > geometry_.blocks() - blocks) {
      fail(io, sense::lba_out_of_range);
      return true;
    }
    if (blocks == 0) continue;
    io.more_ranges_.push_back({lba * geometry_.block, blocks * geometry_.block});
    io.lock_.begin = std::min(io.lock_.begin, lba * geometry_.block);
    io.lock_.end = std::max(io.lock_.end, (lba + blocks) * geometry_.block);
  }
  if (io.more_ranges_.empty()) return true;
  io.range_ = io.more_ranges_.back();
  io.more_ranges_.pop_back();
  io.plan_ = {Io::Phase::clear, Io::Phase::end};
  return false;
}

void Disk::plan_write_same(Io& io) {
  if (io.command.blocks == 0) io.range_.length = geometry_.size - io.range_.offset;
  if (io.command.has_no_data || is_zero(io.out.first(geometry_.block))) {
    io.plan_ = {Io::Phase::clear, Io::Phase::end};
    return;
  }
  io.scratch_.resize(std::min(pattern_bytes, io.range_.length));
  for (std::size_t at = 0; at < io.scratch_.size(); at += geometry_.block) {
    std::copy_n(io.out.begin(), geometry_.block,
                io.scratch_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  io.put_from_ = io.scratch_.data();
  io.put_period_ = io.scratch_.size();
  io.plan_ = {Io::Phase::put, Io::Phase::end};
}

/// Sets phases, range and buffers. True: nothing is to be done.
bool Disk::plan(Io& io) {
  using Phase = Io::Phase;
  auto const& command = io.command;
  auto const bytes = command.blocks * geometry_.block;
  io.range_ = {command.lba * geometry_.block, bytes};
  io.put_from_ = io.out.data();
  switch (command.operation) {
    case Operation::read:
      io.in_bytes = bytes;
      io.range_.length = std::min<std::uint64_t>(bytes, io.in.size());
      io.fetch_to_ = io.in.data();
      io.plan_ = {Phase::fetch, Phase::end};
      break;
    case Operation::write:
      io.range_.length = std::min<std::uint64_t>(bytes, io.out.size());
      io.plan_ = {Phase::put, Phase::end};
      break;
    case Operation::write_and_verify:
    case Operation::or_write:
    case Operation::verify:
      if (command.operation == Operation::verify && !command.compares) return true;
      io.range_.length = std::min<std::uint64_t>(bytes, io.out.size());
      io.scratch_.resize(io.range_.length);
      io.fetch_to_ = io.scratch_.data();
      if (command.operation == Operation::write_and_verify) {
        io.command.fua = true;
        io.plan_ = {Phase::put, Phase::fetch, Phase::end};
      } else if (command.operation == Operation::or_write) {
        io.put_from_ = io.scratch_.data();
        io.plan_ = {Phase::fetch, Phase::put, Phase::end};
      } else {
        io.plan_ = {Phase::fetch, Phase::end};
      }
      break;
    case Operation::compare_and_write:
      if (io.out.size() != 2 * bytes) {
        fail(io, sense::invalid_field_in_cdb);
        return true;
      }
      io.scratch_.resize(bytes);
      io.fetch_to_ = io.scratch_.data();
      io.put_from_ = io.out.data() + bytes;
      io.plan_ = {Phase::fetch, Phase::put, Phase::end};
      break;
    case Operation::write_same:
      plan_write_same(io);
      break;
    case Operation::unmap:
      if (plan_unmap(io)) return true;
      break;
    case Operation::prefetch:
      return true;  // nothing is kept here that could be fetched early
    case Operation::synchronize_cache:
      io.range_ = {};
      io.plan_ = {Phase::flush, Phase::end};
      break;
    case Operation::get_lba_status:
      io.range_.length = std::min(geometry_.size - io.range_.offset, store_range_max);
      io.plan_ = {Phase::ask, Phase::end};
      break;
  }
  bool const has_range = io.plan_[0] != Phase::flush;
  return has_range && io.range_.length == 0;
}

bool Disk::start(Io& io) {
  io.disk_ = this;
  io.status = Status::good;
  io.information.reset();
  io.in_bytes = io.position_ = io.put_period_ = 0;
  io.phase_ = 0;
  io.more_ranges_.clear();
  io.lock_ = {};
  io.lock_.io = &io;
  if (auto const refused = check(io.command, geometry_, io.out.size())) {
    fail(io, *refused);
    return true;
  }
  if (plan(io)) return true;
  io.serial_ = next_serial_++;
  io.running_index_ = running_.size();
  running_.push_back(&io);
  if (io.command.operation != Operation::unmap) {
    io.lock_.begin = io.range_.offset;
    io.lock_.end = io.range_.offset + io.range_.length;
  }
  io.lock_.is_exclusive = is_write(io.command.operation);
  if (lock_.acquire(io.lock_)) submit_piece(io);
  return false;
}

void Disk::submit_piece(Io& io) {
  auto const left = io.range_.length - io.position_;
  io.offset = io.range_.offset + io.position_;
  io.fua = false;
  switch (io.plan_[io.phase_]) {
    case Io::Phase::fetch:
      io.operation = Store_operation::read;
      io.length = std::min(left, store_bytes_max);
      io.data = io.fetch_to_ + io.position_;
      break;
    case Io::Phase::put:
      io.operation = Store_operation::write;
      io.length = std::min(left, io.put_period_ != 0 ? io.put_period_ : store_bytes_max);
      io.data = io.put_from_ + (io.put_period_ != 0 ? 0 : io.position_);
      io.fua = io.command.fua;
      break;
    case Io::Phase::clear:
      io.operation = Store_operation::zero;
      io.length = std::min(left, store_range_max);
      break;
    case Io::Phase::flush:
      io.operation = Store_operation::flush;
      io.length = 0;
      break;
    case Io::Phase::ask:
      io.operation = Store_operation::status;
      io.length = left;
      break;
    case Io::Phase::end:
      break;
  }
  store_.submit(io);
}

/// After the last piece of a phase. False: the command ends here.
bool Disk::finish_phase(Io& io) {
  auto const phase = io.plan_[io.phase_];
  auto const given = std::span<std::uint8_t const>(io.out);
  if (phase == Io::Phase::fetch) {
    switch (io.command.operation) {
      case Operation::verify:
      case Operation::write_and_verify:
      case Operation::compare_and_write:
        if (!matches(io, io.scratch_, given.first(io.scratch_.size()))) return false;
        break;
      case Operation::or_write:
        std::transform(
            io.scratch_.begin(), io.scratch_.end(), given.begin(), io.scratch_.begin(),
            [](std::uint8_t a, std::uint8_t b) { return static_cast<std::uint8_t>(a | b); });
        break;
      default:
        break;
    }
  }
  if (phase == Io::Phase::ask) answer_status(io);
  io.position_ = 0;
  if (!io.more_ranges_.empty()) {
    io.range_ = io.more_ranges_.back();
    io.more_ranges_.pop_back();
    return true;
  }
  ++io.phase_;
  return io.plan_[io.phase_] != Io::Phase::end;
}

void Disk::advance(Io& io, int error) {
  if (error != 0) {
    fail(io, sense_of(error, io.operation));
    return finish(io);
  }
  io.position_ += io.length;
  bool const is_last = io.position_ >= io.range_.length;
  if (is_last && !finish_phase(io)) return finish(io);
  submit_piece(io);
}

void Disk::answer_status(Io& io) {
  auto const block = geometry_.block;
  std::uint64_t const first = io.range_.offset / block;
  std::uint64_t const wanted = std::min<std::uint64_t>(io.command.parameter_bytes, io.in.size());
  auto const room =
      wanted < status_header + status_descriptor ? 1 : (wanted - status_header) / status_descriptor;
  std::vector<std::uint8_t> page(status_header);
  std::uint64_t end_bytes = 0;
  std::uint64_t begin = 0;  // block, from `first`
  for (std::size_t i = 0; i < io.extents.size(); ++i) {
    end_bytes += io.extents[i].length;
    bool const is_hole = io.extents[i].is_hole;
    bool const goes_on = i + 1 < io.extents.size() && io.extents[i + 1].is_hole == is_hole;
    if (goes_on) continue;
    // A block that is a hole in part only is mapped.
    auto const end = is_hole ? end_bytes / block : (end_bytes + block - 1) / block;
    if (end <= begin) continue;
    auto const at = page.size();
    if ((at - status_header) / status_descriptor == room) break;
    page.resize(at + status_descriptor);
    put_be<8>(page, at, first + begin);
    put_be<4>(page, at + 8, end - begin);
    page[at + 12] = is_hole ? 1 : 0;
    begin = end;
  }
  put_be<4>(page, 0, page.size() - 4);
  io.in_bytes = std::min<std::uint64_t>(page.size(), wanted);
  std::copy_n(page.begin(), io.in_bytes, io.in.begin());
}

void Disk::finish(Io& io) {
  if (io.scratch_.capacity() > scratch_kept_bytes) std::vector<std::uint8_t>().swap(io.scratch_);
  running_[io.running_index_] = running_.back();
  running_[io.running_index_]->running_index_ = io.running_index_;
  running_.pop_back();
  // Not a member's buffer: what is granted may finish other commands before this loop ends.
  std::vector<Lock_range*> granted;
  granted.swap(granted_);
  lock_.release(io.lock_, granted);
  for (auto* const range : granted) submit_piece(*static_cast<Io::Lock*>(range)->io);
  granted.clear();
  granted_.swap(granted);
  listener_.io_finished(io);
}

}  // namespace pstorage::iscsi
