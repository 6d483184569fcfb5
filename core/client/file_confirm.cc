// File_volume: what is answered without a CS having checked our epoch: zeros of chunks that were
// never allocated, and reads, because a replica that was dropped at a take-over was never sealed.
// While the MDS confirms the lease nobody else serves the file. Without that, all replicas of one
// chunk must say, after the request was finished, that they know no newer writer: a take-over seals
// at least one that is in sync before it serves the chunk. That may be one that is still a newcomer
// to us: who does not hear the MDS does not hear that a sync has ended either.
#include <algorithm>
#include <utility>

#include "core/client/file_volume.h"

namespace pstorage::client {

/// The servers of a chunk, in sync or to be, all of whom can be asked now; empty: there is none.
std::vector<Cs_id> File_volume::confirming_servers() {
  // Readers beside others are not told when chunks move, and those who have them no more are not
  // sealed by the next writer: only the MDS can confirm.
  if (shared_) return {};
  bool is_wanted = false;
  auto const ask_all = [&](std::vector<Cs_id> const& servers) {
    bool const are_up = std::all_of(servers.begin(), servers.end(),
                                    [this](Cs_id cs) { return link_of(cs).is_up(); });
    if (servers.empty() || are_up) return !servers.empty();
    if (!std::exchange(is_wanted, true)) {
      for (Cs_id const cs : servers) link_of(cs).want();
    }
    return false;
  };
  std::vector<Cs_id> servers;
  for (auto const& [_, chunk] : chunks_) {
    servers.clear();
    for (auto const& replica : chunk->replicas())
      if (replica.state != proto::REPLICA_STALE) servers.push_back(replica.cs);
    if (ask_all(servers)) return servers;
  }
  for (auto const& [_, chunk] : untouched_) {
    servers.clear();
    for (auto const& replica : chunk.replicas())
      if (replica.state() != proto::REPLICA_STALE) servers.push_back({replica.cs()});
    if (ask_all(servers)) return servers;
  }
  return {};
}

void File_volume::confirm_requests() {
  if (dead_ != Errc::ok) return;
  if (is_leased()) return answer_confirmed(std::exchange(unconfirmed_, {}));
  auto const servers = confirming_servers();
  if (servers.empty()) return;
  confirmation_ = std::make_unique<Confirmation>();
  confirmation_->requests = std::exchange(unconfirmed_, {});
  confirmation_->pending.insert(servers.begin(), servers.end());
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
