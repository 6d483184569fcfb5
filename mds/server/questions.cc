// What one client asks of another that holds a lease: passed on, and the answer passed back. Kept
// in memory: when another server leads, the asker asks again, and every request can be repeated.
#include <algorithm>

#include "mds/server/metadata_server.h"

namespace pstorage::mds {
namespace {

constexpr Duration patience_max = std::chrono::minutes(10);

}  // namespace

void Metadata_server::ask_holder(Connection_id connection, std::uint64_t request_id,
                                 proto::Ask_holder const& ask) {
  auto& database = state_->database();
  auto const inode = resolve_file(database, ask.path());
  if (!inode.has_value()) return refuse(connection, request_id, inode.error());
  auto const file = inode.value().id;
  auto const lease = load_lease(database, file);
  if (!lease || !lease->user()) {
    return refuse(connection, request_id,
                  failure(Errc::not_found, "'" + ask.path() + "' is not in use by anybody"));
  }
  auto const name = describe_session(database, lease->session);
  auto const holder = tables_.holder_connection(file);
  if (!holder) {
    return refuse(connection, request_id,
                  failure(Errc::timed_out, "'" + ask.path() + "' is in use by " + name +
                                               ", which cannot be reached now"));
  }
  if (questions_.size() >= questions_max) {
    return refuse(connection, request_id,
                  failure(Errc::unavailable, "the MDS passes on too many questions: try again"));
  }
  auto const now = clock_.now();
  Question question;
  question.asker = connection;
  question.request_id = request_id;
  question.holder = holder;
  question.holder_name = name;
  question.patience = std::min<Duration>(std::chrono::milliseconds(ask.timeout_ms()), patience_max);
  question.give_up = now + question.patience;
  auto const id = next_question_++;
  questions_.emplace(id, std::move(question));
  proto::Mds_push push;
  push.mutable_question()->set_question(id);
  push.mutable_question()->set_file(file.value);
  *push.mutable_question()->mutable_request() = ask.request();
  send(holder, 0, push);
}

void Metadata_server::holder_answered(Connection_id connection, std::uint64_t request_id,
                                      proto::Holder_answer const& answer) {
  proto::Mds_reply thanks;
  reply(connection, request_id, thanks);
  auto const found = questions_.find(answer.question());
  if (found == questions_.end() || found->second.holder != connection) return;
  auto const question = std::move(found->second);
  questions_.erase(found);
  proto::Mds_reply answered;
  answered.set_status(answer.status());
  answered.set_text(answer.text());
  reply(question.asker, question.request_id, answered);
}

void Metadata_server::expire_questions(Time_point now) {
  for (auto at = questions_.begin(); at != questions_.end();) {
    auto const& question = at->second;
    bool const is_gone = !peers_.contains(question.holder);
    if (!is_gone && now < question.give_up) {
      ++at;
      continue;
    }
    auto const seconds =
        std::chrono::duration_cast<std::chrono::seconds>(question.patience).count();
    if (peers_.contains(question.asker)) {
      refuse(question.asker, question.request_id,
             failure(Errc::timed_out, is_gone
                                          ? question.holder_name + " went away before it answered"
                                          : question.holder_name + " did not answer within " +
                                                std::to_string(seconds) + " s: look at that host"));
    }
    at = questions_.erase(at);
  }
}

}  // namespace pstorage::mds
