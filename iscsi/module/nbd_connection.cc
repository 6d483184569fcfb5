#include "iscsi/module/nbd_connection.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "iscsi/module/tgt_abi.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint32_t hole_flag = 1;  // of base:allocation

std::string last_error() {
  char const* const text = nbd_get_error();
  return text == nullptr ? "unknown error" : text;
}

/// Errors that say that the server did not decide about the request.
bool is_unanswered(int error) { return error == ENOTCONN || error == ESHUTDOWN; }

}  // namespace

Nbd_connection::Nbd_connection(Nbd_connection_owner& owner) : owner_(owner) {}

Nbd_connection::~Nbd_connection() {
  is_dead_ = true;  // callbacks of nbd_close() find nobody
  if (watched_ != 0) tgt_event_del(fd_);
  if (handle_ != nullptr) nbd_close(handle_);
}

std::string Nbd_connection::start(std::string const& uri) {
  handle_ = nbd_create();
  if (handle_ == nullptr) return last_error();
  bool const ok = nbd_set_uri_allow_transports(handle_, LIBNBD_ALLOW_TRANSPORT_UNIX) == 0 &&
                  nbd_set_uri_allow_local_file(handle_, false) == 0 &&
                  nbd_set_strict_mode(handle_, LIBNBD_STRICT_COMMANDS | LIBNBD_STRICT_FLAGS |
                                                   LIBNBD_STRICT_BOUNDS) == 0 &&
                  nbd_set_pread_initialize(handle_, false) == 0 &&
                  nbd_add_meta_context(handle_, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
                  nbd_aio_connect_uri(handle_, uri.c_str()) == 0;
  if (!ok) return last_error();
  fd_ = nbd_aio_get_fd(handle_);
  if (fd_ < 0) return last_error();
  watch();
  if (watched_ == 0) return "cannot watch the socket";
  return {};
}

std::uint64_t Nbd_connection::size_bytes() const {
  auto const size = nbd_get_size(handle_);
  return size < 0 ? 0 : static_cast<std::uint64_t>(size);
}

void Nbd_connection::watch() {
  auto const direction = nbd_aio_get_direction(handle_);
  int wanted = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) wanted |= EPOLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) wanted |= EPOLLOUT;
  if (wanted == watched_ || wanted == 0) return;
  int const error = watched_ == 0 ? tgt_event_add(fd_, wanted, &Nbd_connection::on_event, this)
                                  : tgt_event_modify(fd_, wanted);
  if (error == 0) watched_ = wanted;
}

void Nbd_connection::on_event(int /*fd*/, int events, void* self) {
  auto& connection = *static_cast<Nbd_connection*>(self);
  if (connection.is_dead_) return;
  auto const seen = static_cast<unsigned>(events);
  auto const direction = nbd_aio_get_direction(connection.handle_);
  // EPOLLHUP and EPOLLERR come unasked: whichever way libnbd looks next finds out.
  bool const broken = (seen & (EPOLLHUP | EPOLLERR)) != 0;
  bool const reads = (direction & LIBNBD_AIO_DIRECTION_READ) != 0;
  if (reads && (broken || (seen & EPOLLIN) != 0)) {
    nbd_aio_notify_read(connection.handle_);
  } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 && (broken || (seen & EPOLLOUT) != 0)) {
    nbd_aio_notify_write(connection.handle_);
  }
  connection.look_at_state();
  connection.owner_.event_done();
}

bool Nbd_connection::is_gone() const {
  return nbd_aio_is_dead(handle_) > 0 || nbd_aio_is_closed(handle_) > 0;
}

void Nbd_connection::look_at_state() {
  if (is_dead_) return;
  if (is_gone()) {
    return die(is_ready_ ? "the server closed the connection" : last_error());
  }
  if (!is_ready_ && nbd_aio_is_ready(handle_) > 0) {
    is_ready_ = true;
    can_fua_ = nbd_can_fua(handle_) > 0;
    can_flush_ = nbd_can_flush(handle_) > 0;
    can_status_ = nbd_can_meta_context(handle_, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    owner_.connection_ready(*this);
  }
  if (!is_dead_) watch();
}

void Nbd_connection::die(std::string const& why) {
  is_dead_ = true;
  is_ready_ = false;
  if (watched_ != 0) tgt_event_del(fd_);
  watched_ = 0;
  for (auto const& slot : slots_) owner_.unanswered(*slot->request);
  // libnbd may still hold buffers and slots; it lets go of them in nbd_close().
  owner_.connection_lost(*this, why);
}

std::int64_t Nbd_connection::send(Slot& slot, bool flush) {
  auto const& request = *slot.request;
  nbd_completion_callback const done{
      .callback = &Nbd_connection::on_complete, .user_data = &slot, .free = nullptr};
  auto const operation = flush ? Store_operation::flush : request.operation;
  std::uint32_t const fua = request.fua && can_fua_ ? LIBNBD_CMD_FLAG_FUA : 0;
  switch (operation) {
    case Store_operation::read:
      return nbd_aio_pread(handle_, request.data, request.length, request.offset, done, 0);
    case Store_operation::write:
      return nbd_aio_pwrite(handle_, request.data, request.length, request.offset, done, fua);
    case Store_operation::zero:
      return nbd_aio_zero(handle_, request.length, request.offset, done, fua);
    case Store_operation::flush:
      return nbd_aio_flush(handle_, done, 0);
    case Store_operation::status: {
      nbd_extent_callback const extent{
          .callback = &Nbd_connection::on_extent, .user_data = &slot, .free = nullptr};
      return nbd_aio_block_status(handle_, request.length, request.offset, extent, done, 0);
    }
  }
  return -1;
}

void Nbd_connection::issue(Store_request& request) {
  if (request.operation == Store_operation::status) {
    request.extents.clear();
    if (!can_status_) {
      request.extents.push_back({request.length, false});
      return owner_.answered(request, 0);
    }
  }
  if (request.operation == Store_operation::flush && !can_flush_) {
    return owner_.answered(request, 0);  // such a server has nothing to flush
  }
  if (free_slots_.empty()) free_slots_.push_back(std::make_unique<Slot>());
  auto& slot = *slots_.emplace_back(std::move(free_slots_.back()));
  free_slots_.pop_back();
  slot = {this, &request, slots_.size() - 1, request.fua && !can_fua_ && can_flush_};
  if (send(slot, false) < 0 && slot.request != nullptr) {
    int const error = nbd_get_errno();
    remove(slot);
    if (is_gone()) {
      owner_.unanswered(request);
    } else {
      owner_.answered(request, error == 0 ? EINVAL : error);
    }
  }
  if (!is_gone()) return watch();
  // libnbd has closed the socket: no event will come, and its number may be another's soon.
  is_ready_ = false;
  if (watched_ != 0) tgt_event_del(fd_);
  watched_ = 0;
}

int Nbd_connection::on_complete(void* slot, int* error) {
  auto& one = *static_cast<Slot*>(slot);
  if (!one.connection->is_dead_) one.connection->complete(one, *error);
  return 1;  // retire
}

void Nbd_connection::complete(Slot& slot, int error) {
  auto& request = *slot.request;
  if (error == 0 && slot.wants_flush) {
    slot.wants_flush = false;
    if (send(slot, true) >= 0) return;
    error = ENOTCONN;
  }
  remove(slot);
  if (is_unanswered(error)) {
    owner_.unanswered(request);
  } else {
    owner_.answered(request, error);
  }
}

void Nbd_connection::remove(Slot& slot) {
  auto const index = slot.index;
  slot.request = nullptr;
  std::swap(slots_[index], slots_.back());
  slots_[index]->index = index;
  free_slots_.push_back(std::move(slots_.back()));
  slots_.pop_back();
}

int Nbd_connection::on_extent(void* slot, char const* /*context*/, std::uint64_t offset,
                              std::uint32_t* entries, std::size_t count, int* /*error*/) {
  auto& one = *static_cast<Slot*>(slot);
  if (one.connection->is_dead_ || one.request == nullptr) return 0;
  auto& request = *one.request;
  auto left = request.offset + request.length - std::max(offset, request.offset);
  for (std::size_t i = 0; i + 1 < count && left != 0; i += 2) {
    auto const length = std::min<std::uint64_t>(entries[i], left);
    request.extents.push_back({length, (entries[i + 1] & hole_flag) != 0});
    left -= length;
  }
  return 0;
}

}  // namespace pstorage::iscsi
