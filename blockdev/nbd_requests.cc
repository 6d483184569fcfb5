// Nbd_session: requests to the volume and their answers.
#include <algorithm>

#include "blockdev/nbd_session.h"
#include "core/assert.h"

namespace pstorage::nbd {
namespace {

// CACHE and WRITE_ZEROES with NO_HOLE may name the whole volume: done in steps of this size.
constexpr std::uint64_t step_bytes = 4u << 20;
// Likewise TRIM and WRITE_ZEROES, which cost a request a chunk.
constexpr std::uint64_t zero_step_bytes = 4ull << 30;
constexpr std::uint64_t step_alignment = 64u << 20;
// BLOCK_STATUS with extended headers goes on so far, as long as its reply has room.
constexpr std::uint64_t status_bytes_max = 64ull << 30;
// What a client says is behind a refused header is skipped up to here; then it is hung up on.
constexpr std::uint64_t skipped_bytes_max = 1ull << 32;
constexpr std::size_t zeros_bytes = 64u << 10;
constexpr std::size_t extents_max = 1024;  // in one reply; the client asks on from where it ends

/// Flags a command may carry; FUA on a command that does not write is meaningless but legal.
std::uint16_t allowed_flags(Command command, bool structured, bool extended) {
  switch (command) {
    case Command::write:
      return static_cast<std::uint16_t>(command_fua | (extended ? command_payload : 0));
    case Command::read:
      return static_cast<std::uint16_t>(command_fua | (structured ? command_df : 0));
    case Command::write_zeroes:
      return command_fua | command_no_hole | command_fast_zero;
    case Command::block_status:
      return command_fua | command_req_one;
    default:
      return command_fua;
  }
}

bool is_known(std::uint16_t command) {
  return command <= static_cast<std::uint16_t>(Command::block_status);
}

}  // namespace

bool Nbd_session::parse_request() {
  if (large_write_) {
    if (!input_.large_is_complete()) return false;
    large_write_ = false;
    take_request(large_header_, input_.take_large());
    return true;
  }
  auto const view = input_.view();
  if (view.size() < header_bytes()) {
    input_.want(header_bytes());
    return false;
  }
  auto const header =
      extended_ ? decode_extended_request(view.data()) : decode_request(view.data());
  if (!header) {
    end("malformed request");
    return false;
  }
  if (header.value().command == static_cast<std::uint16_t>(Command::write))
    return take_write(header.value());
  if (extended_ && (header.value().flags & command_payload) != 0)
    return skip_payload(header.value());
  input_.skip(header_bytes());
  if (header.value().command == static_cast<std::uint16_t>(Command::disconnect)) {
    finish();
    return false;
  }
  take_request(header.value(), {});
  return true;
}

/// Refuses a request together with the data behind it.
bool Nbd_session::skip_payload(Request_header const& header) {
  if (header.length > skipped_bytes_max) {
    end("a request with far too much data behind it");
    return false;
  }
  input_.skip(header_bytes());
  skipping_ = header.length;
  reply_error(header, Error::invalid);
  return true;
}

bool Nbd_session::take_write(Request_header const& header) {
  if (header.length > payload_bytes_max) return skip_payload(header);
  auto const length = static_cast<std::size_t>(header.length);
  auto const there = input_.view().size() - header_bytes();
  if (there >= length) {
    auto payload = input_.part(header_bytes(), length);
    input_.skip(header_bytes() + length);
    take_request(header, std::move(payload));
    return true;
  }
  if (length >= large_payload_bytes) {
    large_write_ = true;
    large_header_ = header;
    input_.skip(header_bytes());
    input_.begin_large(length);
  } else {
    input_.want(header_bytes() + length);
  }
  return false;
}

Error Nbd_session::check(Request_header const& header) const {
  if (lost_) return Error::shutdown;
  if (!is_known(header.command)) return Error::invalid;
  auto const command = static_cast<Command>(header.command);
  if ((header.flags & ~allowed_flags(command, structured_, extended_)) != 0) return Error::invalid;
  if (command == Command::flush)
    return header.offset == 0 && header.length == 0 ? Error::none : Error::invalid;
  bool const changes =
      command == Command::write || command == Command::write_zeroes || command == Command::trim;
  if (changes && volume_->is_read_only()) return Error::perm;
  // As large as it is now: a kernel's client is told of growth without connecting again.
  if (!in_bounds(header.offset, header.length, volume_->size_bytes())) {
    bool const writes = command == Command::write || command == Command::write_zeroes;
    return writes ? Error::no_space : Error::invalid;
  }
  if (command == Command::read && header.length > payload_bytes_max) return Error::invalid;
  if (command == Command::block_status && (!meta_context_ || header.length == 0))
    return Error::invalid;
  // Zeros that take space have to be written like data.
  if ((header.flags & command_fast_zero) != 0 && (header.flags & command_no_hole) != 0)
    return Error::unsupported;
  return Error::none;
}

void Nbd_session::take_request(Request_header const& header, Slice payload) {
  if (auto const error = check(header); error != Error::none) return reply_error(header, error);
  auto const command = static_cast<Command>(header.command);
  bool const nothing_to_do = header.length == 0 && command != Command::flush;
  bool const has_payload = command == Command::read || command == Command::write;
  auto& request = new_request(header, has_payload ? static_cast<std::uint32_t>(header.length) : 0);
  if (nothing_to_do) {
    if (command == Command::read) return read_done(request, std::vector<Slice>{});
    return request_done(request, success());
  }
  submit(request, std::move(payload));
}

Nbd_session::Request& Nbd_session::new_request(Request_header const& header,
                                               std::uint32_t charged) {
  if (free_ == nullptr) {
    free_ = &requests_.emplace_back();
    free_->session = this;
  }
  Request& request = *free_;
  free_ = request.next_free;
  request.cookie = header.cookie;
  request.begin = request.offset = header.offset;
  request.left = request.length = header.length;
  request.charged = charged;
  request.command = static_cast<Command>(header.command);
  request.flags = header.flags;
  request.begun = clock_.now();
  ++in_flight_;
  bytes_in_flight_ += charged;
  return request;
}

void Nbd_session::free_request(Request& request) {
  --in_flight_;
  bytes_in_flight_ -= request.charged;
  request.extents.clear();
  request.next_free = free_;
  free_ = &request;
}

void Nbd_session::submit(Request& request, Slice payload) {
  bool const fua = (request.flags & command_fua) != 0;
  auto const done = [r = &request](Result<void> const& result) {
    r->session->request_done(*r, result);
  };
  switch (request.command) {
    case Command::read:
      return volume_->read(request.offset, request.length,
                           [r = &request](Result<std::vector<Slice>> result) {
                             r->session->read_done(*r, std::move(result));
                           });
    case Command::write: {
      std::vector<Slice> data;
      data.push_back(std::move(payload));
      return volume_->write(request.offset, std::move(data), fua, done);
    }
    case Command::flush:
      return volume_->flush(done);
    case Command::trim:
    case Command::write_zeroes:
    case Command::cache:
    case Command::block_status:
      return submit_step(request);
    case Command::disconnect:
      break;
  }
  PS_ASSERT(false);
}

/// The next part of what may be too much for one request to the volume.
void Nbd_session::submit_step(Request& request) {
  if (request.command == Command::cache) return submit_cache(request);
  if (request.command == Command::block_status) return submit_status(request);
  bool const plain = (request.flags & command_no_hole) != 0;
  if (request.command == Command::write_zeroes && plain) return submit_plain_zeros(request);
  submit_zeros(request);
}

void Nbd_session::submit_zeros(Request& request) {
  auto step = std::min(request.left, zero_step_bytes);
  // A block or cluster that lies in two steps would be whole in neither, and TRIM would leave it.
  if (step < request.left) step -= (request.offset + step) % step_alignment;
  auto const offset = request.offset;
  request.offset += step;
  request.left -= step;
  volume_->zero(offset, step, request.command == Command::trim, (request.flags & command_fua) != 0,
                [r = &request](Result<void> const& result) { r->session->step_done(*r, result); });
}

// Reading is what brings the blocks into the caches; the bytes themselves are not wanted.
void Nbd_session::submit_cache(Request& request) {
  auto const step = std::min(request.left, step_bytes);
  auto const offset = request.offset;
  request.offset += step;
  request.left -= step;
  volume_->read(offset, step, [r = &request](Result<std::vector<Slice>> const& result) {
    if (result)
      r->session->step_done(*r, success());
    else
      r->session->step_done(*r, result.error());
  });
}

void Nbd_session::submit_plain_zeros(Request& request) {
  if (zeros_.empty()) {
    zeros_ = Slice::allocate(zeros_bytes);
    std::fill_n(zeros_.data(), zeros_bytes, std::byte{0});
  }
  auto const step = std::min(request.left, step_bytes);
  std::vector<Slice> data;
  for (std::uint64_t filled = 0; filled < step;) {
    auto const take = std::min<std::uint64_t>(step - filled, zeros_bytes);
    data.push_back(zeros_.part(0, static_cast<std::size_t>(take)));
    filled += take;
  }
  auto const offset = request.offset;
  request.offset += step;
  request.left -= step;
  volume_->write(offset, std::move(data), (request.flags & command_fua) != 0,
                 [r = &request](Result<void> const& result) { r->session->step_done(*r, result); });
}

void Nbd_session::step_done(Request& request, Result<void> result) {
  if (!result || request.left == 0 || phase_ == Phase::over) return request_done(request, result);
  submit_step(request);
}

void Nbd_session::submit_status(Request& request) {
  bool const one = (request.flags & command_req_one) != 0;
  volume_->extents(request.offset, request.left, one ? 1 : extents_max - request.extents.size(),
                   [r = &request](Result<std::vector<client::Extent>> result) {
                     r->session->status_done(*r, std::move(result));
                   });
}

void Nbd_session::read_done(Request& request, Result<std::vector<Slice>> result) {
  if (!result) return request_done(request, result.error());
  auto& slices = result.value();
  if (!gone_) {
    std::uint64_t total = 0;
    for (auto const& slice : slices) total += slice.size();
    PS_ASSERT(total == request.length);
    Reply_head head;
    if (structured_ && request.length == 0) {
      put_chunk(head, Chunk_type::none, request.cookie, request.begin, 0);
    } else if (structured_) {
      put_chunk(head, Chunk_type::offset_data, request.cookie, request.begin, 8 + request.length);
      head.put(request.begin);
    } else {
      head.put(magic_simple_reply).put(std::uint32_t{0}).put(request.cookie);
    }
    auto const take = [&slices](std::size_t i) {
      return i < slices.size() ? std::move(slices[i]) : Slice{};
    };
    output_.push(head.bytes(), take(0), take(1));
    for (std::size_t i = 2; i < slices.size(); i += 2) output_.push({}, take(i), take(i + 1));
  }
  finish_request(request);
}

void Nbd_session::status_done(Request& request, Result<std::vector<client::Extent>> result) {
  if (!result) return request_done(request, result.error());
  auto& found = request.extents;
  for (auto const& extent : result.value()) {
    PS_ASSERT(extent.length <= request.left);
    request.offset += extent.length;
    request.left -= extent.length;
    if (!found.empty() && found.back().hole == extent.hole)
      found.back().length += extent.length;
    else
      found.push_back(extent);
  }
  PS_ASSERT(!found.empty() && found.size() <= extents_max);
  bool const one = (request.flags & command_req_one) != 0;
  bool const has_room = one ? found.size() == 1 : found.size() < extents_max;
  if (extended_ && request.left != 0 && has_room && phase_ != Phase::over &&
      request.offset - request.begin < status_bytes_max)
    return submit_status(request);
  if (one) found.resize(1);
  if (!gone_) reply_status(request);
  finish_request(request);
}

void Nbd_session::reply_status(Request const& request) {
  auto const count = request.extents.size();
  Reply_head head;
  if (extended_) {
    put_chunk(head, Chunk_type::block_status_extended, request.cookie, request.begin,
              8 + 16 * count);
    head.put(allocation_context).put(static_cast<std::uint32_t>(count));
  } else {
    put_chunk(head, Chunk_type::block_status, request.cookie, request.begin, 4 + 8 * count);
    head.put(allocation_context);
  }
  auto runs = Slice::allocate((extended_ ? 16 : 8) * count);
  auto* to = runs.data();
  for (auto const& extent : request.extents) {
    std::uint32_t const flags = extent.hole ? status_hole | status_zero : 0;
    if (extended_) {
      store_be(to, extent.length);
      store_be(to + 8, std::uint64_t{flags});
      to += 16;
    } else {
      store_be(to, static_cast<std::uint32_t>(extent.length));
      store_be(to + 4, flags);
      to += 8;
    }
  }
  output_.push(head.bytes(), std::move(runs));
}

void Nbd_session::request_done(Request& request, Result<void> const& result) {
  if (!result) {
    ++io_->errors;
    note_failure(result.error());
  }
  if (!gone_) {
    if (result)
      reply_success(request);
    else
      reply_error({.flags = 0,
                   .command = static_cast<std::uint16_t>(request.command),
                   .cookie = request.cookie,
                   .offset = request.begin,
                   .length = 0},
                  error_of(result.error()));
  }
  finish_request(request);
}

void Nbd_session::count(Request const& request) {
  Duration const took = clock_.now() - request.begun;
  switch (request.command) {
    case Command::read:
      return io_->reads.add(took, request.length);
    case Command::write:
      return io_->writes.add(took, request.length);
    case Command::flush:
      return io_->flushes.add(took, 0);
    case Command::trim:
    case Command::write_zeroes:
      return io_->discards.add(took, request.length);
    default:
      return;
  }
}

void Nbd_session::finish_request(Request& request) {
  bool const was_blocked = !wants_input();
  count(request);
  free_request(request);
  if (lost_ && in_flight_ == 0 && phase_ != Phase::over)
    end("the volume has been taken over by another client");
  // From inside parse() this returns at once; the loop there goes on by itself.
  if (was_blocked && phase_ != Phase::over) parse();
  changed();
}

void Nbd_session::note_failure(std::error_code const& code) {
  auto const errc = errc_of(code);
  if (errc != Errc::stale_epoch && errc != Errc::session_expired) return;
  lost_ = true;
  exports_.mark_lost(*volume_);
}

void Nbd_session::put_chunk(Reply_head& head, Chunk_type type, std::uint64_t cookie,
                            std::uint64_t begin, std::uint64_t payload) const {
  head.put(extended_ ? magic_extended_reply : magic_chunk)
      .put(chunk_done)
      .put(static_cast<std::uint16_t>(type))
      .put(cookie);
  if (extended_)
    head.put(begin).put(payload);
  else
    head.put(static_cast<std::uint32_t>(payload));
}

void Nbd_session::reply_success(Request const& request) {
  Reply_head head;
  if (extended_)
    put_chunk(head, Chunk_type::none, request.cookie, request.begin, 0);
  else
    head.put(magic_simple_reply).put(std::uint32_t{0}).put(request.cookie);
  output_.push(head.bytes());
}

void Nbd_session::reply_error(Request_header const& header, Error error) {
  // With structured replies only these two must be answered by chunks; all else may be simple.
  auto const command = static_cast<Command>(header.command);
  bool const chunk =
      extended_ || (structured_ && (command == Command::read || command == Command::block_status));
  Reply_head head;
  if (chunk) {
    put_chunk(head, Chunk_type::error, header.cookie, header.offset, 6);
    head.put(static_cast<std::uint32_t>(error)).put(std::uint16_t{0});
  } else {
    head.put(magic_simple_reply).put(static_cast<std::uint32_t>(error)).put(header.cookie);
  }
  output_.push(head.bytes());
}

}  // namespace pstorage::nbd
