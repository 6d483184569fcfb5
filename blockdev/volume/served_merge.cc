// Served_volume: a snapshot of a disk in use goes. A property of the volume says which, so that
// whoever serves the volume next goes on. What the top lacks of the frozen delta below it is copied
// into the top, some clusters at a time, with pauses; then the descriptor is replaced by one
// without that delta. The delta itself is never changed: clones may have it, too.
#include <algorithm>
#include <utility>

#include "blockdev/volume/served_volume.h"
#include "blockdev/volume/volume_opener.h"

namespace pstorage::volume {
namespace {

// Then clients have the disk for themselves, as long as these took.
constexpr std::uint32_t copies_at_a_time = 16;
constexpr std::uint32_t entries_at_a_time = 1u << 20;
constexpr Duration note_every = std::chrono::milliseconds(500);
constexpr Duration note_patience = std::chrono::seconds(10);

}  // namespace

struct Served_volume::Merge_run {
  std::string guid;
  std::uint32_t next = 0;  // clusters of the disk below it need no copy any more
  bool is_under_way = false;
  Time_point at{};                              // when to go on
  Time_point note_at{};                         // when to tell how far it is
  std::optional<ploop::Descriptor> descriptor;  // the new one
  std::string descriptor_path;                  // where it is written first
  std::string file;                             // that goes
  std::shared_ptr<client::Volume> lock;
};

void Served_volume::look_at_merge(std::map<std::string, std::string> const& properties) {
  if (is_read_only_ || is_closing_ || merge_ || parts_.image == nullptr) return;
  auto const property = properties.find(merge_property);
  if (property == properties.end()) return;
  auto const note = merge_note(property->second);
  if (note.guid.empty() || !note.why.empty()) return;
  merge_ = std::make_shared<Merge_run>();
  merge_->guid = note.guid;
}

void Served_volume::note_merge(std::string const& text) {
  proto::Mds_request request;
  *request.mutable_guard() = opener_.cluster_.guard_of(*parts_.lock);
  request.mutable_set_attributes()->set_path(path_);
  (*request.mutable_set_attributes()->mutable_properties())[merge_property] = text;
  opener_.cluster_.mds().call(std::move(request), note_patience,
                              [this, alive = alive_](Outcome<proto::Mds_reply> const& answer) {
                                if (*alive && !answer.has_value())
                                  opener_.log_.warn(
                                      "cannot note how far the removal of a snapshot is",
                                      {{"volume", name_.name}, {"reason", answer.error().text}});
                              });
}

/// It is over, one way or the other; who opens the volume next must not begin it again.
void Served_volume::end_merge(std::string const& why) {
  auto const run = std::exchange(merge_, nullptr);
  if (!why.empty())
    opener_.log_.warn("cannot remove a snapshot", {{"volume", name_.name}, {"reason", why}});
  note_merge(why.empty() ? std::string() : Merge_note{run->guid, 0, 0, why}.text());
}

void Served_volume::advance_merge() {
  bool const waits = merge_->is_under_way || answer_ || gone_ || is_away_ || gate_ != Gate::open ||
                     opener_.clock_.now() < merge_->at;
  if (waits) return;
  auto const& descriptor = *parts_.descriptor;
  if (descriptor.find(merge_->guid) == nullptr) return end_merge({});  // somebody did it
  if (descriptor.find(descriptor.top())->parent != merge_->guid ||
      descriptor.children_of(merge_->guid).size() != 1)
    return end_merge("'" + name_.name +
                     "' is in use: only its newest snapshot can be removed now, and only when "
                     "nothing else goes back to it; close the volume first");
  auto const all = parts_.image->map().size();
  if (opener_.clock_.now() >= merge_->note_at) {
    merge_->note_at = opener_.clock_.now() + note_every;
    note_merge(Merge_note{merge_->guid, merge_->next, all, {}}.text());
  }
  if (merge_->next < all) return copy_some(merge_);
  begin_drop(merge_);
}

void Served_volume::copy_some(std::shared_ptr<Merge_run> const& run) {
  auto const& map = parts_.image->map();
  auto const below = static_cast<ploop::Level>(parts_.image->levels() - 2);
  auto const last = run->next + std::min(entries_at_a_time, map.size() - run->next);
  auto end = run->next;
  for (std::uint32_t copies = 0; end < last && copies < copies_at_a_time; ++end)
    if (map.level(end) == below) ++copies;
  run->is_under_way = true;
  auto const done = [this, run, end, begun = opener_.clock_.now()](Result<void> const& result) {
    run->is_under_way = false;
    if (merge_ != run) return;
    if (!result) {
      if (errc_of(result.error()) == Errc::closed) return;  // who opens it next goes on
      return end_merge("cannot copy what the snapshot has: " + result.error().message());
    }
    run->next = end;
    auto const now = opener_.clock_.now();
    run->at = now + (now - begun);
  };
  parts_.image->copy_up_from_below(run->next, end - run->next, counted(done));
}

/// Like a snapshot: all that can be is done before requests are held.
void Served_volume::begin_drop(std::shared_ptr<Merge_run> const& run) {
  auto parsed = ploop::Descriptor::parse(parts_.descriptor->text());  // a copy
  if (!parsed.has_value()) return end_merge(parsed.error().text);
  run->is_under_way = true;
  answer_ = [](Outcome<void> const&) {};  // nobody asked; others have to wait
  run->descriptor = std::move(parsed).value();
  run->file = run->descriptor->find(run->guid)->file;
  run->descriptor->merge_up(run->guid);
  run->descriptor_path = path_ + "/" + descriptor_file + ".tmp-" + run->guid + "-" +
                         std::to_string(opener_.clock_.wall_ms());
  parts_.image->flush(counted([this, run](Result<void> const& flushed) {
    if (!flushed) return drop_failed(run, flushed.error());
    write_new_file(opener_.cluster_, run->descriptor_path, run->descriptor->text(),
                   [this, run, alive = alive_](Outcome<std::unique_ptr<client::Volume>> file) {
                     if (!*alive) return;
                     if (!file.has_value()) return drop_failed(run, file.error().code);
                     run->lock = std::move(file).value();
                     gate_ = Gate::closed;
                     when_quiet_ = [this, run] { drop_quiet(run); };
                     changed();
                   });
  }));
}

void Served_volume::drop_quiet(std::shared_ptr<Merge_run> const& run) {
  parts_.image->drop_layer_below(
      [this, run](client::Done done) { commit_descriptor(run->descriptor_path, std::move(done)); },
      [this, run](Result<void> const& result) { dropped(run, result); });
}

void Served_volume::dropped(std::shared_ptr<Merge_run> const& run, Result<void> const& result) {
  let_go();
  if (!result) return drop_failed(run, result.error());
  auto const old_lock = std::exchange(parts_.lock, run->lock);
  parts_.descriptor = std::move(run->descriptor);
  opener_.executor_.defer([old_lock] {});  // its file is gone, and its lease
  opener_.log_.info("removed a snapshot", {{"volume", name_.name}, {"snapshot", run->guid}});
  proto::Mds_request remove;
  remove.mutable_remove()->set_path(path_ + "/" + run->file);
  // Should it stay: the next work on the disk at rest removes what the descriptor does not name.
  opener_.cluster_.mds().call(std::move(remove), note_patience,
                              [](Outcome<proto::Mds_reply> const&) {});
  end_merge({});
  end_operation(success());
}

/// The descriptor that nobody names is left to the next work on the disk at rest.
void Served_volume::drop_failed(std::shared_ptr<Merge_run> const& run, std::error_code why) {
  run->is_under_way = false;
  auto const finish = [this, run, why, alive = alive_] {
    if (!*alive) return;
    // While it was lent some of the copies were thrown away: once more, from the beginning.
    if (errc_of(why) == Errc::refused)
      run->next = 0;
    else
      end_merge("cannot go on without the snapshot: " + why.message());
    end_operation(success());
  };
  if (!run->lock) return finish();
  auto const lock = std::exchange(run->lock, nullptr);
  lock->close([this, lock, finish](Result<void> const&) {
    opener_.executor_.defer([lock] {});
    finish();
  });
}

}  // namespace pstorage::volume
