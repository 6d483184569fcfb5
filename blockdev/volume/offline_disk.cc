// A disk of the cluster at rest: the lock, and what a crash may have left.
#include "blockdev/ploop/open_image.h"
#include "blockdev/volume/disk_files.h"
#include "blockdev/volume/volume_work.h"

namespace pstorage::volume {

Outcome<std::unique_ptr<Offline_disk>> Offline_disk::open(Tool_session& session,
                                                          Volume_name const& name,
                                                          Duration busy_patience) {
  std::unique_ptr<Offline_disk> opened(new Offline_disk(session, name.path()));
  auto const locked = opened->directory_.lock(busy_patience);
  if (!locked.has_value() && errc_of(locked.error().code) == Errc::not_found)
    return failure(Errc::not_found, "there is no volume '" + name.name + "' with a disk");
  if (!locked.has_value() && errc_of(locked.error().code) == Errc::not_directory)
    return failure(Errc::refused, "'" + name.name + "' is a raw volume");
  PS_CHECK(locked);
  PS_CHECK(opened->settle());
  return opened;
}

Outcome<void> Offline_disk::settle() {
  PS_TRY(auto disk, ploop::Virtual_disk::open(directory_, descriptor_file));
  disk_ = std::make_unique<ploop::Virtual_disk>(std::move(disk));
  auto const& descriptor = disk_->descriptor();
  auto const chain = descriptor.chain_to(descriptor.top());
  for (auto const& delta : descriptor.deltas()) {
    if (delta.is_raw) continue;
    PS_TRY(auto store, directory_.open_to_read(delta.file));
    auto const bytes = store.read(0, ploop::header_bytes);
    if (!bytes)
      return failure(bytes.error(),
                     directory_.path_of(delta.file) + ": " + bytes.error().message());
    PS_TRY(auto const header, ploop::decode_header(bytes.value().bytes()));
    if (!header.is_open()) continue;
    if (delta.guid == descriptor.top()) {
      PS_CHECK(recover_top(chain));
      continue;
    }
    // A merge into it was interrupted; what was merged is valid, the rest is still in its child.
    PS_TRY(auto writable, directory_.open(delta.file));
    PS_TRY(auto const report,
           ploop::check_image(writable, {.is_read_only = false, .drop_in_use = true}));
    if (!report.is_clean())
      return failure(Errc::corrupt, directory_.path_of(delta.file) +
                                        " was not closed and is damaged: 'pstorage volume check' "
                                        "says what is wrong");
  }
  return sweep();
}

/// Opened and closed, as whoever served it would have done.
Outcome<void> Offline_disk::recover_top(std::vector<ploop::Delta> const& chain) {
  std::vector<ploop::Layer> layers;
  for (auto const& delta : chain) {
    bool const is_top = &delta == &chain.back();
    PS_TRY(auto store, is_top ? directory_.open(delta.file) : directory_.open_to_read(delta.file));
    layers.push_back({store.release(), delta.is_raw, {}});
  }
  std::shared_ptr<ploop::Ploop_image> image;
  auto const opened = ploop::wait_for_answer<Result<void>>(session_.turn(), [&](client::Done done) {
    ploop::open_image(std::move(layers), directory_.path(),
                      {.is_writable = true, .may_recover = true}, session_.executor(),
                      [&image, done](Outcome<std::unique_ptr<ploop::Ploop_image>> result) {
                        if (!result.has_value()) return done(result.error().code);
                        image = std::move(result).value();
                        done(success());
                      });
  });
  if (!opened)
    return failure(opened.error(), directory_.path() + " was not closed and cannot be recovered (" +
                                       opened.error().message() +
                                       "): 'pstorage volume check' says what is wrong");
  auto const closed = ploop::wait_for_answer<Result<void>>(
      session_.turn(), [&](client::Done done) { image->close(std::move(done)); });
  for (auto const& delta : chain) directory_.closed_elsewhere(delta.file);
  image.reset();
  if (!closed)
    return failure(closed.error(),
                   "cannot close " + directory_.path() + ": " + closed.error().message());
  return success();
}

/// Files that nothing names: of snapshots and merges that a crash has cut off. Those that somebody
/// is just making are in use, and stay.
Outcome<void> Offline_disk::sweep() {
  PS_TRY(auto const files, directory_.list());
  for (auto const& file : files) {
    auto const& name = file.name();
    bool const is_ours = name.starts_with(std::string(base_file) + ".{") ||
                         name.starts_with(std::string(descriptor_file) + ".tmp");
    bool is_named = false;
    for (auto const& delta : disk_->descriptor().deltas()) is_named |= delta.file == name;
    if (!is_ours || is_named) continue;
    auto const removed = directory_.remove(name);
    if (!removed.has_value() && errc_of(removed.error().code) != Errc::busy) return removed;
  }
  return success();
}

}  // namespace pstorage::volume
