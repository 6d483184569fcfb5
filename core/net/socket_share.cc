// Socket_connection: payloads that are not sent but shown, to a peer on this host.
#include <utility>

#include "core/net/socket_connection.h"

namespace pstorage {

bool Socket_connection::show(Message& message) {
  if (!shares_ || message.data.size() < shared_payload_bytes_min) return false;
  Shared_arena* const arena = network_.payloads_.arena_of(message.data);
  if (arena == nullptr) return false;
  if (shown_generation_ != network_.payloads_.generation()) {
    auto descriptor = arena->descriptor();
    if (!descriptor) return false;
    Header header;
    header.operation = Operation::share;
    header.request_id = arena->size();
    queue_.push(header, std::move(descriptor).value());
    shown_generation_ = network_.payloads_.generation();
  }
  if (free_tickets_.empty()) {
    free_tickets_.push_back(static_cast<std::uint32_t>(lent_.size()));
    lent_.emplace_back();
  }
  Shared_reference reference;
  reference.ticket = free_tickets_.back();
  free_tickets_.pop_back();
  reference.offset = arena->offset_of(message.data);
  reference.size = static_cast<std::uint32_t>(message.data.size());
  lent_[reference.ticket] = std::exchange(message.data, {});
  queue_.push(std::move(message), reference);
  return true;
}

bool Socket_connection::take_share(Header const& header) {
  if (!shares_ || !passed_) return false;
  auto const view = Shared_view::open(std::exchange(passed_, {}), header.request_id,
                                      [this](std::uint32_t ticket) { give_back(ticket); });
  if (!view) return false;
  if (view_ != nullptr) view_->abandon();
  view_ = view.value();
  return true;
}

void Socket_connection::give_back(std::uint32_t ticket) {
  if (stage_ != Stage::open) return;
  Message message;
  message.header.operation = Operation::give_back;
  message.header.request_id = ticket;
  queue_.push(std::move(message));
  mark_dirty();
}

bool Socket_connection::take_back(Header const& header) {
  if (header.request_id >= lent_.size()) return false;
  auto const ticket = static_cast<std::uint32_t>(header.request_id);
  if (lent_[ticket].empty()) return false;
  lent_[ticket] = {};
  free_tickets_.push_back(ticket);
  return true;
}

bool Socket_connection::take_shown(Message& message) {
  auto found = view_ == nullptr ? std::nullopt : view_->find(reader_.reference());
  if (!found) return false;
  message.data = std::move(*found);
  return true;
}

void Socket_connection::end_sharing() {
  shares_ = false;
  if (view_ != nullptr) std::exchange(view_, nullptr)->abandon();
  // The peer may be stopped in the middle of one of them and go on after we have used its memory
  // for something else.
  for (Slice& slice : std::exchange(lent_, {}))
    if (auto* const arena = network_.payloads_.arena_of(slice); arena != nullptr)
      arena->lose(std::move(slice));
}

}  // namespace pstorage
