#include "blockdev/mount/file_system.h"

#include <errno.h>

#include <algorithm>
#include <utility>

#include "blockdev/mount/errno_of.h"

namespace pstorage::mount {
namespace {

constexpr Duration names_patience = std::chrono::seconds(60);
constexpr Duration busy_retry = std::chrono::milliseconds(10);
constexpr std::size_t told_sizes_max = 1u << 18;

}  // namespace

File_system::File_system(client::Cluster& cluster, Clock& clock, Log& log,
                         Mount_options const& options, std::function<void(File_id)> on_lost,
                         Disk_view& disks)
    : cluster_(cluster),
      clock_(clock),
      log_(log),
      options_(options),
      disks_(disks),
      environment_{cluster, clock, log, options.busy_patience, std::move(on_lost)} {
  cluster_.set_wanted_handler([this](proto::Lease_wanted const& one) { wanted(one); });
}

File_system::~File_system() {
  *alive_ = false;
  cluster_.set_wanted_handler(nullptr);
}

// ------------------------------------------------------------------ the MDS

void File_system::ask(proto::Mds_request request,
                      std::function<void(Outcome<proto::Mds_reply>)> done) {
  ask_again(std::move(request), clock_.now() + options_.busy_patience, std::move(done));
}

void File_system::ask_again(proto::Mds_request request, Time_point give_up,
                            std::function<void(Outcome<proto::Mds_reply>)> done) {
  auto copy = request;
  // A lease that came too late would keep everybody from the new file.
  auto late = request.create().open() ? cluster_.unwanted_lease() : client::Mds_done{};
  cluster_.mds().call(
      std::move(request), names_patience,
      [this, alive = alive_, copy = std::move(copy), give_up,
       done = std::move(done)](Outcome<proto::Mds_reply> answer) mutable {
        if (!*alive) return;
        bool const is_busy = answer.has_error() && errc_of(answer.error().code) == Errc::busy;
        if (!is_busy) return done(std::move(answer));
        if (clock_.now() >= give_up) {
          log_.warn("refused", {{"reason", answer.error().text}});
          return done(std::move(answer));
        }
        again_.push_back({clock_.now() + busy_retry, [this, copy = std::move(copy), give_up,
                                                      done = std::move(done)]() mutable {
                            ask_again(std::move(copy), give_up, std::move(done));
                          }});
      },
      std::move(late));
}

void File_system::look_at(fuse_ino_t inode, std::function<void(int, proto::File)> done) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path_of(inode));
  ask(std::move(request), [this, done = std::move(done)](Outcome<proto::Mds_reply> answer) {
    if (answer.has_error()) {
      int const why = errno_of(answer.error().code);
      return done(why == ENOENT ? ESTALE : why, {});
    }
    auto file = answer.value().file();
    if (auto const* const open = find({file.id()})) open->correct(file);
    done(0, std::move(file));
  });
}

// ------------------------------------------------------------------ files that are open

Open_file* File_system::find(File_id id) {
  auto const found = files_.find(id);
  return found == files_.end() ? nullptr : found->second.get();
}

Open_file& File_system::file_of(File_id id) {
  auto& file = files_[id];
  if (file == nullptr) file = std::make_unique<Open_file>(environment_, id);
  return *file;
}

void File_system::forget_if_idle(File_id id) {
  auto const found = files_.find(id);
  if (found != files_.end() && found->second->can_go()) files_.erase(found);
}

void File_system::wanted(proto::Lease_wanted const& wanted) {
  if (auto* const file = find({wanted.file()})) file->wanted(wanted);
}

void File_system::file_was_removed(proto::File const& left) {
  if (left.id() == 0 || left.links() != 0) return;
  if (auto* const file = find({left.id()})) file->removed();
}

void File_system::on_tick() {
  auto const now = clock_.now();
  auto waiting = std::exchange(again_, {});
  for (auto& one : waiting) {
    if (now >= one.at)
      one.run();
    else
      again_.push_back(std::move(one));
  }
  for (auto place = files_.begin(); place != files_.end();) {
    place->second->on_tick();
    if (place->second->can_go())
      place = files_.erase(place);
    else
      ++place;
  }
  if (stopped_ && files_.empty()) std::exchange(stopped_, nullptr)();
}

void File_system::stop(std::function<void()> done) {
  stopped_ = std::move(done);
  for (auto& [_, file] : files_) file->stop();
}

// ------------------------------------------------------------------ replies

void File_system::remember_size(std::uint64_t inode, std::uint64_t size) {
  // Forgetting costs one more look-up at the next open.
  if (told_sizes_.size() >= told_sizes_max) told_sizes_.clear();
  told_sizes_[inode] = size;
}

fuse_entry_param File_system::entry_of(proto::File file) {
  fuse_entry_param entry = {};
  auto* const open = find({file.id()});
  if (open != nullptr) open->correct(file);
  auto const valid = validity_of(file.type(), open != nullptr && open->has_lease());
  entry.ino = file.id();
  entry.attr = stat_of(file, options_.defaults);
  entry.entry_timeout = valid.entry;
  entry.attr_timeout = valid.attributes;
  if (file.type() == proto::TYPE_FILE) remember_size(file.id(), file.size());
  return entry;
}

void File_system::reply_entry(fuse_req_t request, proto::File const& file) {
  auto const entry = entry_of(file);
  ::fuse_reply_entry(request, &entry);
}

void File_system::reply_attributes(fuse_req_t request, proto::File file) {
  auto const entry = entry_of(std::move(file));
  ::fuse_reply_attr(request, &entry.attr, entry.attr_timeout);
}

}  // namespace pstorage::mount
