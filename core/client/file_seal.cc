// File_volume: the take-over. Every reachable CS of the file stores the new epoch before the first
// request is served; the MDS drops the others. All or nothing: DESIGN 4.
#include <utility>

#include "core/client/file_volume.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

// A CS that has not answered by then is left behind; it is resynced when it returns.
constexpr Duration seal_patience = std::chrono::seconds(4);

}  // namespace

void File_volume::seal(std::function<void(Outcome<void>)> done) {
  sealing_ = std::make_unique<Sealing>();
  sealing_->done = std::move(done);
  sealing_->started = now();
  for (auto const& [_, chunk] : untouched_)
    for (auto const& replica : chunk.replicas())
      if (replica.state() != proto::REPLICA_STALE) sealing_->pending.insert({replica.cs()});
  for (Cs_id const cs : sealing_->pending) link_of(cs).want();
  advance_sealing();
  end_of_event();
}

void File_volume::serve() {
  serving_ = true;
  if (!shared_) join_newcomers();
  end_of_event();
}

// Newcomers that were syncing under the former writer wait for this one to join them.
void File_volume::join_newcomers() {
  std::vector<std::uint32_t> joiners;
  for (auto const& [index, chunk] : untouched_)
    for (auto const& replica : chunk.replicas())
      if (replica.state() == proto::REPLICA_SYNCING) joiners.push_back(index);
  for (std::uint32_t const index : joiners) chunk_at(index);
}

void File_volume::advance_sealing() {
  if (sealing_ == nullptr || sealing_->finishing) return;
  bool const late = now() - sealing_->started > seal_patience;
  for (auto place = sealing_->pending.begin(); place != sealing_->pending.end();) {
    Cs_id const cs = *place;
    Cs_link& link = link_of(cs);
    if (late || link.is_unreachable()) {
      host_.log().warn("a chunk server cannot be reached for the take-over",
                       {{"file", path_}, {"cs", cs}, {"reason", link.last_failure()}});
      sealing_->unreachable.insert(cs);
      place = sealing_->pending.erase(place);
      continue;
    }
    if (link.is_up() && sealing_->asked.insert(cs).second) send_seal(cs);
    ++place;
  }
  if (PS_MUTANT(skip_the_seal)) sealing_->pending.clear();
  if (sealing_->pending.empty() && now() >= fence_end_) finish_sealing();
}

void File_volume::send_seal(Cs_id cs) {
  proto::Cs_request request;
  request.mutable_seal()->set_file(file_.value);
  request.mutable_seal()->set_epoch(epoch_.value);
  link_of(cs).call(request, [this, cs, alive = std::weak_ptr<bool>(alive_)](Message* reply) {
    auto const token = alive.lock();
    if (token == nullptr || !*token || sealing_ == nullptr) return;
    if (reply == nullptr) {
      sealing_->asked.erase(cs);  // link_down follows: unreachable, or asked again
      return;
    }
    seal_answered(cs, *reply);
    end_of_event();
  });
}

void File_volume::seal_answered(Cs_id cs, Message& message) {
  proto::Cs_reply reply;
  bool const parsed =
      reply.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()));
  auto const status = parsed ? static_cast<Errc>(reply.status()) : Errc::bad_request;
  if (status == Errc::stale_epoch) return lose_lease("a newer writer has overtaken this one");
  if (status != Errc::ok) {
    host_.log().warn("a chunk server refuses the take-over",
                     {{"cs", cs}, {"reason", message_of(status)}});
    sealing_->unreachable.insert(cs);
  }
  sealing_->pending.erase(cs);
  advance_sealing();
}

void File_volume::finish_sealing() {
  if (leaves_none_behind_ && !sealing_->unreachable.empty()) {
    // What is called may destroy this.
    host_.executor().defer([path = path_, sealing = std::shared_ptr<Sealing>(std::move(sealing_))] {
      sealing->done(
          failure(Errc::unavailable, path + ": not all of its chunk servers can be reached"));
    });
    return abort_all(Errc::unavailable);
  }
  sealing_->finishing = true;
  proto::Mds_request request;
  auto& finish = *request.mutable_finish_seal();
  finish.set_file(file_.value);
  finish.set_epoch(epoch_.value);
  for (Cs_id const cs : sealing_->unreachable) finish.add_unreachable(cs.value);
  host_.mds().call(std::move(request), std::chrono::seconds(30),
                   [this, alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> answer) {
                     auto const token = alive.lock();
                     if (token == nullptr || !*token || sealing_ == nullptr) return;
                     auto sealing = std::move(sealing_);
                     unsealed_ = sealing->unreachable.size();
                     if (answer.has_error()) {
                       abort_all(Errc::stale_epoch);
                       return sealing->done(answer.error());
                     }
                     serving_ = true;
                     adopt_map(answer.value().map());
                     join_newcomers();
                     end_of_event();
                     sealing->done(success());
                   });
}

}  // namespace pstorage::client
