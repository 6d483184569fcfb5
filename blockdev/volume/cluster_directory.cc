#include "blockdev/volume/cluster_directory.h"

#include "blockdev/ploop/descriptor.h"
#include "blockdev/volume/disk_files.h"

namespace pstorage::volume {
namespace {

constexpr int reads_max = 100;

}  // namespace

Cluster_directory::Cluster_directory(Tool_session& session, std::string path)
    : session_(session), path_(std::move(path)) {}

Cluster_directory::~Cluster_directory() {
  auto const closed = close();
  (void)closed;  // an error was reported by the close() that mattered
}

Outcome<void> Cluster_directory::lock(Duration busy_patience) {
  PS_TRY(lock_, session_.open(path_of(descriptor_file), busy_patience));
  return success();
}

proto::Lease_guard Cluster_directory::guard() const { return session_.cluster().guard_of(*lock_); }

Outcome<void> Cluster_directory::close() {
  Outcome<void> result = success();
  for (auto& [name, open] : std::exchange(files_, {}))
    if (auto closed = session_.close(std::move(open.file)); !closed.has_value()) result = closed;
  if (!lock_) return result;
  auto const closed = session_.close(std::exchange(lock_, nullptr));
  return result.has_value() ? closed : result;
}

Outcome<proto::Mds_reply> Cluster_directory::command(proto::Mds_request request) {
  if (lock_) *request.mutable_guard() = guard();
  return session_.call(std::move(request));
}

Outcome<std::vector<proto::File>> Cluster_directory::list() {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(path_);
  PS_TRY(auto const reply, session_.call(std::move(request)));
  auto const& files = reply.files().files();
  return std::vector<proto::File>(files.begin(), files.end());
}

Outcome<proto::File> Cluster_directory::look_up(std::string const& name) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path_of(name));
  PS_TRY(auto const reply, session_.call(std::move(request)));
  return reply.file();
}

ploop::Blocking_store Cluster_directory::store_over(std::shared_ptr<client::Volume> file) {
  return {make_store(session_.cluster(), std::move(file)), session_.turn()};
}

Outcome<ploop::Blocking_store> Cluster_directory::open(std::string const& name) {
  auto& known = files_[name];
  if (known.file && !known.is_writer) PS_CHECK(session_.close(std::exchange(known.file, nullptr)));
  if (!known.file) {
    PS_TRY(known.file, session_.open(path_of(name)));
    known.is_writer = true;
  }
  return store_over(known.file);
}

Outcome<ploop::Blocking_store> Cluster_directory::open_to_read(std::string const& name) {
  auto& known = files_[name];
  if (!known.file) {
    PS_TRY(known.file, session_.open_reader(path_of(name)));
  }
  return store_over(known.file);
}

/// With the lease first: from then on nobody can make another name for it.
Outcome<bool> Cluster_directory::is_shared(std::string const& name) {
  PS_TRY(auto const before, look_up(name));
  if (before.links() > 1) return true;
  PS_TRY(auto const store, open(name));
  PS_TRY(auto const now, look_up(name));
  return now.links() > 1;
}

Outcome<ploop::Blocking_store> Cluster_directory::create(std::string const& name) {
  proto::Mds_request request;
  request.mutable_create()->set_path(path_of(name));
  PS_CHECK(command(std::move(request)));
  return open(name);
}

bool Cluster_directory::exists(std::string const& name) { return look_up(name).has_value(); }

Outcome<void> Cluster_directory::remove(std::string const& name) {
  if (auto const known = files_.find(name); known != files_.end()) {
    auto const file = std::move(known->second.file);
    files_.erase(known);
    if (file) PS_CHECK(session_.close(file));
  }
  proto::Mds_request request;
  request.mutable_remove()->set_path(path_of(name));
  auto const removed = command(std::move(request));
  if (!removed.has_value() && errc_of(removed.error().code) != Errc::not_found)
    return removed.error();
  return success();
}

Outcome<std::string> Cluster_directory::read_text(std::string const& name, std::size_t bytes_max) {
  bool const is_mine = name == descriptor_file && lock_;
  for (int attempt = 1;; ++attempt) {
    auto text = read_once(name, bytes_max);
    if (text.has_value() || is_mine || attempt == reads_max) return text;
    // Between our look and our read somebody took the file, or put another in its place.
    auto const code = errc_of(text.error().code);
    if (code != Errc::stale_epoch && code != Errc::unavailable) return text;
  }
}

Outcome<std::string> Cluster_directory::read_once(std::string const& name, std::size_t bytes_max) {
  std::shared_ptr<client::Volume> file = name == descriptor_file ? lock_ : nullptr;
  if (!file) {
    PS_TRY(file, session_.open_reader(path_of(name)));
  }
  auto const size = file->size_bytes();
  if (size > bytes_max)
    return failure(Errc::too_large, path_of(name) + " is too large to be a descriptor");
  if (size == 0) return failure(Errc::corrupt, path_of(name) + " is empty");
  auto store = store_over(file);
  auto const bytes = store.read(0, size);
  if (!bytes)
    return failure(bytes.error(), "cannot read " + path_of(name) + ": " + bytes.error().message());
  return std::string(as_text(bytes.value().bytes()));
}

Outcome<void> Cluster_directory::replace_text(std::string const& name, std::string const& text) {
  auto const temporary = name + ".tmp-" + ploop::new_guid(session_.random());
  PS_TRY(auto store, create(temporary));
  auto const write = [&]() -> Result<void> {
    PS_CHECK(store.extend(text.size()));
    PS_CHECK(store.write(0, Slice::copy_of(as_bytes(text))));
    return store.flush();
  };
  if (auto const written = write(); !written)
    return failure(written.error(),
                   "cannot write " + path_of(temporary) + ": " + written.error().message());
  auto const file = files_[temporary].file;
  files_.erase(temporary);
  proto::Mds_request request;
  request.mutable_rename()->set_from(path_of(temporary));
  request.mutable_rename()->set_to(path_of(name));
  PS_CHECK(command(std::move(request)));
  if (name != descriptor_file) return session_.close(file);
  // The file that the old lock was for is gone, and its lease with it.
  lock_ = file;
  return success();
}

}  // namespace pstorage::volume
