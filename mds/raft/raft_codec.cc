#include "mds/raft/raft_codec.h"

#include <utility>

namespace pstorage::mds::raft {

void encode(Raft_message const& message, raft_wire::Raft& to) {
  to.set_kind(static_cast<std::uint32_t>(message.kind));
  to.set_term(message.term);
  to.set_index(message.index);
  to.set_log_term(message.log_term);
  to.set_commit(message.commit);
  to.set_context(message.context);
  to.set_is_reject(message.is_reject);
  to.set_is_transfer(message.is_transfer);
  to.set_has_lost(message.has_lost);
  to.set_hint(message.hint);
  to.set_hint_term(message.hint_term);
  for (auto const& entry : message.entries) {
    auto& added = *to.add_entries();
    added.set_term(entry.term);
    added.set_kind(static_cast<std::uint32_t>(entry.kind));
    added.set_content(entry.bytes.data(), entry.bytes.size());
  }
}

std::optional<Raft_message> decode(raft_wire::Raft& from) {
  constexpr auto kind_max = static_cast<std::uint32_t>(Message_kind::timeout_now);
  if (from.kind() == 0 || from.kind() > kind_max) return std::nullopt;
  Raft_message message;
  message.kind = static_cast<Message_kind>(from.kind());
  message.term = from.term();
  message.index = from.index();
  message.log_term = from.log_term();
  message.commit = from.commit();
  message.context = from.context();
  message.is_reject = from.is_reject();
  message.is_transfer = from.is_transfer();
  message.has_lost = from.has_lost();
  message.hint = from.hint();
  message.hint_term = from.hint_term();
  auto index = from.index();
  for (auto const& entry : from.entries()) {
    if (entry.kind() < 1 || entry.kind() > 3) return std::nullopt;
    message.entries.push_back({++index, entry.term(), static_cast<Entry_kind>(entry.kind()),
                               Slice::copy_of(as_bytes(entry.content()))});
  }
  return message;
}

Message to_message(raft_wire::Packet const& packet, Slice data) {
  Message message;
  message.meta = Slice::allocate(packet.ByteSizeLong());
  (void)packet.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
  message.data = std::move(data);
  return message;
}

std::optional<raft_wire::Packet> to_packet(Message const& message) {
  raft_wire::Packet packet;
  bool const is_parsed =
      message.header.operation == Operation::control &&
      packet.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()));
  return is_parsed ? std::optional(std::move(packet)) : std::nullopt;
}

}  // namespace pstorage::mds::raft
