// Served_volume: a snapshot of a disk in use. Everything that can be is prepared before requests
// are held: the new top, marked as open, and the new descriptor. Then: quiet, old top closed
// durably, descriptor replaced, on.
#include <utility>

#include "blockdev/ploop/bat_writer.h"
#include "blockdev/ploop/slices.h"
#include "blockdev/volume/served_volume.h"
#include "blockdev/volume/volume_opener.h"

namespace pstorage::volume {
namespace {

constexpr Duration file_patience = std::chrono::seconds(10);

}  // namespace

struct Served_volume::Snapshot_run {
  proto::Take_snapshot request;
  std::optional<ploop::Descriptor> descriptor;  // the new one
  std::string descriptor_path;                  // where it is written first
  std::shared_ptr<client::Volume> top;
  std::shared_ptr<client::Volume> lock;
  ploop::Header header;
  Time_point held_since;
};

void Served_volume::take_snapshot(proto::Take_snapshot const& request) {
  auto const& descriptor = *parts_.descriptor;
  if (descriptor.find(request.guid()) != nullptr) return end_operation(success());  // asked again
  bool const is_sane = ploop::is_guid(request.guid()) && !request.file().empty() &&
                       request.file().find('/') == std::string::npos;
  if (!is_sane) return end_operation(failure(Errc::bad_request, "a malformed question"));
  if (merge_)
    return end_operation(failure(Errc::busy, "a snapshot of '" + name_.name +
                                                 "' is being removed: try again when it is gone"));
  if (find_snapshot(descriptor, request.name()) != nullptr)
    return end_operation(failure(
        Errc::exists, "'" + name_.name + "' has a snapshot '" + request.name() + "' already"));
  if (descriptor.chain_to(descriptor.top()).size() >= ploop::levels_max)
    return end_operation(failure(Errc::too_large, "there are 126 snapshots already; remove some"));
  auto const run = std::make_shared<Snapshot_run>();
  run->request = request;
  auto parsed = ploop::Descriptor::parse(descriptor.text());  // a copy
  if (!parsed.has_value()) return end_operation(parsed.error());
  run->descriptor = std::move(parsed).value();
  run->descriptor->push_top(request.guid(), request.file(), request.name(), request.created());
  run->descriptor_path = path_ + "/" + descriptor_file + ".tmp-" + request.guid();
  opener_.cluster_.open(path_ + "/" + request.file(), {.force = false, .patience = file_patience},
                        [this, run, alive = alive_](Outcome<std::unique_ptr<client::Volume>> file) {
                          if (!*alive) return;
                          if (!file.has_value()) return snapshot_failed(run, file.error());
                          run->top = std::move(file).value();
                          snapshot_top_opened(run);
                        });
}

void Served_volume::snapshot_top_opened(std::shared_ptr<Snapshot_run> const& run) {
  if (run->top->size_bytes() < ploop::page_bytes)
    return snapshot_failed(run, failure(Errc::corrupt, "the new delta is no ploop image"));
  run->top->read(
      0, ploop::page_bytes, [this, run, alive = alive_](Result<std::vector<Slice>> const& result) {
        if (!*alive) return;
        if (!result)
          return snapshot_failed(run, failure(result.error(), "cannot read the new delta"));
        snapshot_header_read(run, ploop::gathered(result.value()));
      });
}

void Served_volume::snapshot_header_read(std::shared_ptr<Snapshot_run> const& run,
                                         Slice const& bytes) {
  auto decoded = ploop::decode_header(bytes.bytes().first(ploop::header_bytes));
  if (!decoded.has_value()) return snapshot_failed(run, decoded.error());
  run->header = decoded.value();
  auto const& mine = parts_.image->header();
  bool const is_empty = (run->header.flags & ploop::flag_empty) != 0 &&
                        run->top->size_bytes() == run->header.offset_of(run->header.first_cluster);
  if (!is_empty || run->header.size_bytes() != mine.size_bytes() ||
      run->header.cluster_bytes() != mine.cluster_bytes())
    return snapshot_failed(run, failure(Errc::corrupt, "the new delta does not fit the disk"));
  run->header.in_use = ploop::in_use_open;
  run->header.flags &= ~ploop::flag_empty;
  auto page = Slice::copy_of(bytes.bytes());
  ploop::encode_header(run->header, page.mutable_bytes().first(ploop::header_bytes));
  run->top->write(0, {page}, true, [this, run, alive = alive_](Result<void> const& written) {
    if (!*alive) return;
    if (!written)
      return snapshot_failed(run, failure(written.error(), "cannot write the new delta"));
    write_new_file(opener_.cluster_, run->descriptor_path, run->descriptor->text(),
                   [this, run, alive](Outcome<std::unique_ptr<client::Volume>> file) {
                     if (!*alive) return;
                     if (!file.has_value()) return snapshot_failed(run, file.error());
                     run->lock = std::move(file).value();
                     snapshot_descriptor_written(run);
                   });
  });
}

void Served_volume::snapshot_descriptor_written(std::shared_ptr<Snapshot_run> const& run) {
  run->held_since = opener_.clock_.now();
  gate_ = Gate::no_changes;
  when_quiet_ = [this, run] { snapshot_quiet(run); };
  changed();
}

void Served_volume::snapshot_quiet(std::shared_ptr<Snapshot_run> const& run) {
  parts_.image->push_layer(
      make_store(opener_.cluster_, run->top), run->header,
      [this, run](client::Done done) { commit_descriptor(run->descriptor_path, std::move(done)); },
      [this, run](Result<void> const& result) { snapshot_done(run, result); });
}

/// Replaces the descriptor, only while its lease is ours; the new one's lease is ours already.
/// Waits for the MDS as long as it takes: whether it was done must be known.
void Served_volume::commit_descriptor(std::string const& written_at, client::Done done) {
  proto::Mds_request request;
  *request.mutable_guard() = opener_.cluster_.guard_of(*parts_.lock);
  request.mutable_rename()->set_from(written_at);
  request.mutable_rename()->set_to(path_ + "/" + descriptor_file);
  opener_.cluster_.mds().call(
      std::move(request), Duration{0},
      [done = std::move(done), alive = alive_](Outcome<proto::Mds_reply> const& answer) {
        if (!*alive) return;
        if (answer.has_value()) return done(success());
        done(answer.error().code);
      });
}

void Served_volume::snapshot_done(std::shared_ptr<Snapshot_run> const& run,
                                  Result<void> const& result) {
  if (!result) {
    let_go();
    return snapshot_failed(
        run, failure(result.error(), "the snapshot failed: " + result.error().message()));
  }
  auto const old_lock = std::exchange(parts_.lock, run->lock);
  auto const old_top = std::exchange(parts_.top, run->top);
  parts_.descriptor = std::move(run->descriptor);
  auto const pause = opener_.clock_.now() - run->held_since;
  opener_.log_.info(
      "took a snapshot",
      {{"volume", name_.name},
       {"snapshot", run->request.name()},
       {"held_us", std::chrono::duration_cast<std::chrono::microseconds>(pause).count()}});
  let_go();
  opener_.executor_.defer([old_lock] {});  // its file is gone, and its lease
  // From now on others may read it, too: clones.
  opener_.cluster_.freeze(*old_top, [this, alive = alive_](Result<void> const& frozen) {
    if (!*alive) return;
    if (frozen) return end_operation(success());
    end_operation(failure(frozen.error(), "the lease of the old top cannot be given back: " +
                                              frozen.error().message()));
  });
}

/// The files that nobody names are left to the asker.
void Served_volume::snapshot_failed(std::shared_ptr<Snapshot_run> const& run, Failure const& why) {
  auto const finish = [this, run, why, alive = alive_] {
    if (*alive) end_operation(why);
  };
  auto const close_top = [this, run, finish](Result<void> const&) {
    opener_.executor_.defer([run] {});
    if (!run->top) return finish();
    run->top->close([this, run, finish](Result<void> const&) {
      opener_.executor_.defer([run] {});
      finish();
    });
  };
  if (!run->lock) return close_top(success());
  run->lock->close(close_top);
}

}  // namespace pstorage::volume
