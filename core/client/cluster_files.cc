// Cluster: readers, sizes and leases of open files; what clients ask of each other.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "core/client/cluster.h"

namespace pstorage::client {
namespace {

constexpr Duration answer_patience = std::chrono::seconds(30);
constexpr Duration reader_retry = std::chrono::milliseconds(50);
// Of a question about a volume of which only one file is open yet, or still.
constexpr Duration opening_patience = std::chrono::seconds(20);

}  // namespace

File_volume* Cluster::find(Volume const& volume) const {
  for (File_volume* known : volumes_)
    if (static_cast<Volume const*>(known) == &volume) return known;
  return nullptr;
}

void Cluster::open_reader(std::string const& path, Duration patience,
                          std::function<void(Outcome<std::unique_ptr<Volume>>)> done) {
  auto opening = std::make_shared<Opening>();
  opening->path = path;
  opening->options.patience = patience;
  opening->is_reader = true;
  opening->done = [done = std::move(done)](Outcome<Opened_file> opened) {
    if (opened.has_error()) return done(opened.error());
    done(std::unique_ptr<Volume>(std::move(opened).value().volume));
  };
  opening->give_up = clock_.now() + patience;
  ask_reading(opening);
}

void Cluster::ask_reading(std::shared_ptr<Opening> const& opening) {
  proto::Mds_request request;
  request.mutable_open_file()->set_path(opening->path);
  request.mutable_open_file()->set_read_only(true);
  session_.call(std::move(request),
                std::max(opening->options.patience, Duration(std::chrono::seconds(5))),
                [this, opening,
                 alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> const& answer) {
                  auto const token = alive.lock();
                  if (token != nullptr && *token) reader_answered(opening, answer);
                });
}

void Cluster::reader_answered(std::shared_ptr<Opening> const& opening,
                              Outcome<proto::Mds_reply> const& answer) {
  if (answer.has_error()) {
    Errc const code = errc_of(answer.error().code);
    if (code == Errc::busy && clock_.now() < opening->give_up) {  // somebody is opening it
      opening->again_at = clock_.now() + reader_retry;
      return retries_.push_back(opening);
    }
    if (code != Errc::refused) return opening->done(answer.error());
    // Its last writer left without closing it: made good by opening and closing it.
    return settle_file(opening->path, opening->options,
                       [this, opening](Outcome<void> const& settled) {
                         if (settled.has_value()) return ask_reading(opening);
                         opening->done(settled.error());
                       });
  }
  auto volume = std::make_unique<File_volume>(static_cast<Volume_host&>(*this), opening->path,
                                              answer.value().lease(), Volume_use::read);
  volumes_.push_back(volume.get());
  opening->done(Opened_file{std::move(volume), answer.value().lease().file(), true});
}

void Cluster::settle_file(std::string const& path, Open_options options,
                          std::function<void(Outcome<void>)> done) {
  options.grows = true;  // the chunk in which it ends is cleared to its end
  open_file(path, options, [this, done = std::move(done)](Outcome<Opened_file> opened) {
    if (opened.has_error()) return done(opened.error());
    settle_opened(std::move(opened).value(), done);
  });
}

void Cluster::settle_opened(Opened_file opened, std::function<void(Outcome<void>)> const& done) {
  File_volume* const volume = opened.volume.get();
  std::uint64_t const size = opened.file.size();
  std::uint64_t const chunk_bytes = opened.file.attributes().chunk_size();
  std::uint64_t const tail = (chunk_bytes - size % chunk_bytes) % chunk_bytes;
  bool const is_clean = opened.clean;
  settling_[volume] = std::move(opened);
  auto const close = [this, volume, done](Result<void> const& cleared) {
    if (!cleared) return end_settling(volume, cleared, done);
    volume->close(
        [this, volume, done](Result<void> const& closed) { end_settling(volume, closed, done); });
  };
  if (is_clean || tail == 0) return close(success());
  volume->zero(size, tail, false, false, close);
}

void Cluster::end_settling(File_volume* volume, Result<void> const& closed,
                           std::function<void(Outcome<void>)> const& done) {
  auto node = settling_.extract(volume);
  std::string const path = volume->path();
  // Not inside its own callback.
  executor_.defer([held = std::make_shared<Opened_file>(std::move(node.mapped()))] {});
  if (closed) return done(success());
  done(failure(closed.error(), path + ": " + closed.error().message()));
}

void Cluster::resize(Volume& volume, std::uint64_t size_bytes, Done done) {
  auto* const file = find(volume);
  PS_ASSERT(file != nullptr);
  proto::Mds_request request;
  *request.mutable_guard() = guard_of(volume);
  request.mutable_resize()->set_file(file->id().value);
  request.mutable_resize()->set_size(size_bytes);
  request.mutable_resize()->set_allow_shrink(true);
  session_.call(std::move(request), Duration{0},
                [this, &volume, size_bytes, done = std::move(done),
                 alive = std::weak_ptr<bool>(alive_)](Outcome<proto::Mds_reply> const& answer) {
                  auto const token = alive.lock();
                  if (token == nullptr || !*token) return;
                  auto* const known = find(volume);
                  if (known == nullptr) return;  // destroyed meanwhile: nobody waits
                  if (answer.has_error()) {
                    if (known->lost_with(answer.error())) return done(Errc::stale_epoch);
                    return done(answer.error().code);
                  }
                  known->set_size(size_bytes);
                  done(success());
                });
}

void Cluster::compare(Volume& volume, std::uint32_t index, Done done) {
  auto* const file = find(volume);
  PS_ASSERT(file != nullptr);
  file->compare(index, std::move(done));
}

void Cluster::freeze(Volume& volume, Done done) {
  auto* const file = find(volume);
  PS_ASSERT(file != nullptr);
  file->give_lease_back(std::move(done));
}

proto::Lease_guard Cluster::guard_of(Volume const& volume) const {
  auto const* const file = find(volume);
  PS_ASSERT(file != nullptr);
  proto::Lease_guard guard;
  guard.set_file(file->id().value);
  guard.set_epoch(file->lease_epoch().value);
  return guard;
}

void Cluster::ask_holder(std::string const& path, proto::Holder_request request, Duration patience,
                         std::function<void(Outcome<void>)> done) {
  proto::Mds_request ask;
  ask.mutable_ask_holder()->set_path(path);
  *ask.mutable_ask_holder()->mutable_request() = std::move(request);
  ask.mutable_ask_holder()->set_timeout_ms(static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(patience).count()));
  // The MDS answers by then; more only in case it is gone itself.
  session_.call(std::move(ask), patience + std::chrono::seconds(5),
                [done = std::move(done)](Outcome<proto::Mds_reply> const& answer) {
                  if (answer.has_error()) return done(answer.error());
                  done(success());
                });
}

void Cluster::asked(proto::Holder_question const& question) {
  if (!try_question(question)) questions_.push_back({question, clock_.now() + opening_patience});
}

void Cluster::try_questions() {
  for (auto& question : std::exchange(questions_, {})) {
    if (try_question(question.asked)) continue;
    if (clock_.now() < question.give_up)
      questions_.push_back(std::move(question));
    else
      answer_question(question.asked.question(),
                      failure(Errc::refused, "that is no volume that is served here"));
  }
}

bool Cluster::try_question(proto::Holder_question const& question) {
  auto answer = [this, id = question.question(),
                 alive = std::weak_ptr<bool>(alive_)](Outcome<void> const& result) {
    auto const token = alive.lock();
    if (token != nullptr && *token) answer_question(id, result);
  };
  File_volume* const volume = find(File_id{question.file()});
  if (question.request().has_compare_replicas()) {
    if (volume == nullptr) {
      answer(failure(Errc::not_found, "it was closed just now"));
      return true;
    }
    volume->compare(question.request().compare_replicas().index(),
                    [answer, path = volume->path()](Result<void> const& done) {
                      if (done) return answer(success());
                      answer(failure(done.error(), path + ": " + done.error().message()));
                    });
    return true;
  }
  if (on_question_) return on_question_(volume, question.request(), answer);
  answer(failure(Errc::busy,
                 "it is in use by " + options_.session.name + ", which works on it: try again"));
  return true;
}

void Cluster::answer_question(std::uint64_t question, Outcome<void> const& result) {
  proto::Mds_request request;
  auto& out = *request.mutable_holder_answer();
  out.set_question(question);
  if (result.has_error()) {
    out.set_status(static_cast<std::uint32_t>(errc_of(result.error().code)));
    out.set_text(result.error().text);
  }
  session_.call(std::move(request), answer_patience, [](Outcome<proto::Mds_reply> const&) {});
}

}  // namespace pstorage::client
