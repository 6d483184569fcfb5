// Nbd_session: requests to the volume and their answers.
#include <algorithm>

#include "blockdev/nbd_session.h"
#include "core/assert.h"

namespace pstorage::nbd {
namespace {

// CACHE and WRITE_ZEROES with NO_HOLE may name up to 4 GiB: done in steps of this size.
constexpr std::uint64_t step_bytes = 4u << 20;
constexpr std::size_t zeros_bytes = 64u << 10;
constexpr std::size_t extents_max = 1024;  // in one reply; the client asks on from where it ends

/// Flags a command may carry; FUA on a command that does not write is meaningless but legal.
std::uint16_t allowed_flags(Command command, bool structured) {
  switch (command) {
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
  if (view.size() < request_bytes) {
    input_.want(request_bytes);
    return false;
  }
  auto const header = decode_request(view.data());
  if (!header) {
    end("malformed request");
    return false;
  }
  if (header.value().command == static_cast<std::uint16_t>(Command::write))
    return take_write(header.value());
  input_.skip(request_bytes);
  if (header.value().command == static_cast<std::uint16_t>(Command::disconnect)) {
    finish();
    return false;
  }
  take_request(header.value(), {});
  return true;
}

bool Nbd_session::take_write(Request_header const& header) {
  std::size_t const length = header.length;
  auto const there = input_.view().size() - request_bytes;
  if (length > payload_bytes_max) {
    input_.skip(request_bytes);
    skipping_ = length;
    reply_error(Command::write, header.cookie, Error::invalid);
    return true;
  }
  if (there >= length) {
    auto payload = input_.part(request_bytes, length);
    input_.skip(request_bytes + length);
    take_request(header, std::move(payload));
    return true;
  }
  if (length >= large_payload_bytes) {
    large_write_ = true;
    large_header_ = header;
    input_.skip(request_bytes);
    input_.begin_large(length);
  } else {
    input_.want(request_bytes + length);
  }
  return false;
}

Error Nbd_session::check(Request_header const& header) const {
  if (lost_) return Error::shutdown;
  if (!is_known(header.command)) return Error::invalid;
  auto const command = static_cast<Command>(header.command);
  if ((header.flags & ~allowed_flags(command, structured_)) != 0) return Error::invalid;
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
  auto const command = static_cast<Command>(header.command);
  if (auto const error = check(header); error != Error::none)
    return reply_error(command, header.cookie, error);
  bool const nothing_to_do = header.length == 0 && command != Command::flush;
  bool const has_payload = command == Command::read || command == Command::write;
  auto& request = new_request(header, has_payload ? header.length : 0);
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
  request.offset = header.offset;
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
      return volume_->zero(request.offset, request.length, true, fua, done);
    case Command::write_zeroes:
      if ((request.flags & command_no_hole) != 0) return submit_plain_zeros(request);
      return volume_->zero(request.offset, request.length, false, fua, done);
    case Command::cache:
      return submit_cache(request);
    case Command::block_status:
      return submit_status(request);
    case Command::disconnect:
      break;
  }
  PS_ASSERT(false);
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
  if (request.command == Command::cache)
    submit_cache(request);
  else
    submit_plain_zeros(request);
}

void Nbd_session::submit_status(Request& request) {
  bool const one = (request.flags & command_req_one) != 0;
  volume_->extents(request.offset, request.length, one ? 1 : extents_max,
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
    Encoder<28> head;
    if (structured_ && request.length == 0)
      head.put(magic_chunk)
          .put(chunk_done)
          .put(static_cast<std::uint16_t>(Chunk_type::none))
          .put(request.cookie)
          .put(std::uint32_t{0});
    else if (structured_)
      head.put(magic_chunk)
          .put(chunk_done)
          .put(static_cast<std::uint16_t>(Chunk_type::offset_data))
          .put(request.cookie)
          .put(std::uint32_t{8} + request.length)
          .put(request.offset);
    else
      head.put(magic_simple_reply).put(std::uint32_t{0}).put(request.cookie);
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
  auto const& extents = result.value();
  std::uint64_t total = 0;
  for (auto const& extent : extents) total += extent.length;
  PS_ASSERT(!extents.empty() && extents.size() <= extents_max && total <= request.length);
  if (!gone_) {
    Encoder<24> head;
    head.put(magic_chunk)
        .put(chunk_done)
        .put(static_cast<std::uint16_t>(Chunk_type::block_status))
        .put(request.cookie)
        .put(static_cast<std::uint32_t>(4 + 8 * extents.size()))
        .put(allocation_context);
    auto runs = Slice::allocate(8 * extents.size());
    auto* to = runs.data();
    for (auto const& extent : extents) {
      store_be(to, static_cast<std::uint32_t>(extent.length));
      store_be(to + 4, extent.hole ? status_hole | status_zero : std::uint32_t{0});
      to += 8;
    }
    output_.push(head.bytes(), std::move(runs));
  }
  finish_request(request);
}

void Nbd_session::request_done(Request& request, Result<void> const& result) {
  if (!result) {
    ++io_->errors;
    note_failure(result.error());
  }
  if (!gone_) {
    if (result)
      reply_simple(request.cookie, Error::none);
    else
      reply_error(request.command, request.cookie, error_of(result.error()));
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

void Nbd_session::reply_simple(std::uint64_t cookie, Error error) {
  Encoder<16> head;
  head.put(magic_simple_reply).put(static_cast<std::uint32_t>(error)).put(cookie);
  output_.push(head.bytes());
}

void Nbd_session::reply_error(Command command, std::uint64_t cookie, Error error) {
  // With structured replies only these two must be answered by chunks; all else may be simple.
  bool const chunk = structured_ && (command == Command::read || command == Command::block_status);
  if (!chunk) return reply_simple(cookie, error);
  Encoder<26> head;
  head.put(magic_chunk)
      .put(chunk_done)
      .put(static_cast<std::uint16_t>(Chunk_type::error))
      .put(cookie)
      .put(std::uint32_t{6})
      .put(static_cast<std::uint32_t>(error))
      .put(std::uint16_t{0});
  output_.push(head.bytes());
}

}  // namespace pstorage::nbd
