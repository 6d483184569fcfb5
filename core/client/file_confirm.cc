// File_volume: what is answered without a CS having checked our epoch: zeros of chunks that were
// never allocated, and reads, because a replica that was dropped at a take-over was never sealed.
// While the MDS confirms the lease nobody else serves the file. Without that, all replicas of each
// chunk in question must say, after the request was finished, that they know no newer writer: a
// take-over seals at least one that is in sync before it serves the chunk, and may reach none of
// another. That may be one that is still a newcomer to us: who does not hear the MDS does not hear
// that a sync has ended either. For a chunk that nobody had, all servers of the file are asked.
#include <algorithm>
#include <utility>

#include "core/client/file_volume.h"

namespace pstorage::client {

/// Adds those who have the chunk, in sync or to be. False: nobody has it.
bool File_volume::add_members(std::uint32_t index, std::set<Cs_id>& servers) const {
  bool has_any = false;
  auto const add = [&](Cs_id cs, proto::Replica_state state) {
    if (state == proto::REPLICA_STALE) return;
    servers.insert(cs);
    has_any = true;
  };
  if (auto const used = chunks_.find(index); used != chunks_.end()) {
    for (auto const& replica : used->second->replicas()) add(replica.cs, replica.state);
  } else if (auto const known = untouched_.find(index); known != untouched_.end()) {
    for (auto const& replica : known->second.replicas()) add({replica.cs()}, replica.state());
  }
  return has_any;
}

/// Adds the servers that have to confirm a finished request. False: not all of them can be asked
/// now.
bool File_volume::can_confirm(Request const& request, std::set<Cs_id>& servers) {
  if (request.length == 0) return true;
  std::set<Cs_id> needed;
  bool is_mapped = true;
  std::uint64_t const last = (request.offset + request.length - 1) / chunk_bytes_;
  for (std::uint64_t index = request.offset / chunk_bytes_; index <= last; ++index)
    is_mapped = add_members(static_cast<std::uint32_t>(index), needed) && is_mapped;
  if (!is_mapped) {
    // Whoever has allocated it since has sealed a replica of some other chunk, of any.
    for (auto const& [index, _] : chunks_) add_members(index, needed);
    for (auto const& [index, _] : untouched_) add_members(index, needed);
    if (needed.empty()) return false;
  }
  bool are_up = true;
  for (Cs_id const cs : needed) {
    if (link_of(cs).is_up()) continue;
    are_up = false;
    link_of(cs).want();
  }
  if (are_up) servers.merge(needed);
  return are_up;
}

void File_volume::confirm_requests() {
  if (dead_ != Errc::ok) return;
  if (is_leased()) return answer_confirmed(std::exchange(unconfirmed_, {}));
  // Readers beside others are not told when chunks move, and those who have them no more are not
  // sealed by the next writer: only the MDS can confirm.
  if (shared_) return;
  auto confirmation = std::make_unique<Confirmation>();
  std::erase_if(unconfirmed_, [&](Request* request) {
    bool const can_be = can_confirm(*request, confirmation->pending);
    if (can_be) confirmation->requests.push_back(request);
    return can_be;
  });
  if (confirmation->pending.empty()) return answer_confirmed(std::move(confirmation->requests));
  auto const servers = confirmation->pending;
  confirmation_ = std::move(confirmation);
  ++confirmations_;
  for (Cs_id const cs : servers) ask_for_confirmation(cs);
}

void File_volume::ask_for_confirmation(Cs_id cs) {
  proto::Cs_request request;
  request.mutable_seal()->set_file(file_.value);
  request.mutable_seal()->set_epoch(epoch_.value);
  request.mutable_seal()->set_only_ask(true);
  link_of(cs).call(request, [this, cs, number = confirmations_,
                             alive = std::weak_ptr<bool>(alive_)](Message* message) {
    auto const token = alive.lock();
    if (token == nullptr || !*token || confirmation_ == nullptr || number != confirmations_) return;
    proto::Cs_reply reply;
    bool const parsed =
        message != nullptr &&
        reply.ParseFromArray(message->meta.data(), static_cast<int>(message->meta.size()));
    auto const status = parsed ? static_cast<Errc>(reply.status()) : Errc::unavailable;
    if (status == Errc::stale_epoch) return lease_lost();
    if (status != Errc::ok) return give_up_confirmation();  // the tick asks again
    confirmation_->pending.erase(cs);
    if (!confirmation_->pending.empty()) return;
    auto const done = std::move(confirmation_);
    answer_confirmed(std::move(done->requests));
    end_of_event();
  });
}

void File_volume::give_up_confirmation() {
  if (confirmation_ == nullptr) return;
  auto const given_up = std::move(confirmation_);
  unconfirmed_.insert(unconfirmed_.begin(), given_up->requests.begin(), given_up->requests.end());
}

void File_volume::answer_confirmed(std::vector<Request*> requests) {
  for (Request* const request : requests) {
    answer_later([this, request] { answer_request(*request); });
  }
}

}  // namespace pstorage::client
