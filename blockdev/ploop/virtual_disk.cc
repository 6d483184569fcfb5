#include "blockdev/ploop/virtual_disk.h"

#include <algorithm>

#include "blockdev/ploop/create.h"

namespace pstorage::ploop {
namespace {

Failure not_found(std::string const& guid) {
  return failure(Errc::not_found, "there is no snapshot " + guid +
                                      "; 'pstorage-ploop snapshot-list' shows those there are");
}

bool is_zero(Slice const& data) {
  auto const bytes = data.bytes();
  return bytes[0] == std::byte{0} && std::equal(bytes.begin() + 1, bytes.end(), bytes.begin());
}

}  // namespace

Outcome<Virtual_disk> Virtual_disk::create(Image_directory& directory, std::string const& name,
                                           std::string const& file, std::uint64_t size_bytes,
                                           Disk_format const& format) {
  if (directory.exists(name))
    return failure(Errc::exists, directory.path_of(name) + " exists already");
  PS_TRY(auto const header, make_header(format.version, format.cluster_bytes, size_bytes));
  PS_TRY(auto store, directory.create(file));
  if (format.is_raw) {
    if (auto const extended = store.extend(header.size_bytes()); !extended)
      return failure(extended.error(), "cannot make " + directory.path_of(file) + " " +
                                           std::to_string(header.size_bytes()) +
                                           " bytes large: " + extended.error().message());
  } else {
    PS_CHECK(create_image(store, header, format.is_preallocated));
  }
  auto const base_name = file.substr(file.rfind('/') + 1);
  Virtual_disk disk(directory, name,
                    Descriptor::make(header.size_sectors, header.cluster_sectors, base_name,
                                     format.is_raw, format.is_preallocated));
  PS_CHECK(disk.save());
  return disk;
}

Outcome<Virtual_disk> Virtual_disk::restore(Image_directory& directory, std::string const& name,
                                            std::string const& file,
                                            std::uint32_t raw_cluster_bytes) {
  if (directory.exists(name))
    return failure(Errc::exists, directory.path_of(name) + " exists already");
  PS_TRY(auto store, directory.open(file));
  PS_TRY(auto const delta,
         Offline_delta::open(std::move(store), directory.path_of(file), raw_cluster_bytes));
  Virtual_disk disk(directory, name,
                    Descriptor::make(delta.header().size_sectors, delta.header().cluster_sectors,
                                     file, delta.is_raw(), false));
  PS_CHECK(disk.save());
  return disk;
}

Outcome<Virtual_disk> Virtual_disk::open(Image_directory& directory, std::string const& name) {
  PS_TRY(auto const text, directory.read_text(name, descriptor_bytes_max));
  auto parsed = Descriptor::parse(text);
  if (!parsed.has_value())
    return failure(parsed.error().code, directory.path_of(name) + ": " + parsed.error().text);
  return Virtual_disk(directory, name, std::move(parsed).value());
}

Outcome<void> Virtual_disk::save() { return directory_->replace_text(name_, descriptor_.text()); }

Outcome<Delta> Virtual_disk::need(std::string const& guid) const {
  auto const* const found = descriptor_.find(guid);
  if (found == nullptr) return not_found(guid);
  return *found;
}

Outcome<Offline_delta> Virtual_disk::open_delta(Delta const& delta) {
  PS_TRY(auto store, directory_->open(delta.file));
  return Offline_delta::open(std::move(store), directory_->path_of(delta.file),
                             delta.is_raw ? descriptor_.cluster_sectors() * sector_bytes : 0);
}

Outcome<Header> Virtual_disk::header() {
  PS_TRY(auto const top, need(descriptor_.top()));
  if (top.is_raw)
    return make_header(Version::v2, descriptor_.cluster_sectors() * sector_bytes,
                       descriptor_.size_sectors() * sector_bytes);
  PS_TRY(auto store, directory_->open_to_read(top.file));
  auto const bytes = store.read(0, std::min<std::uint64_t>(header_bytes, store.size_bytes()));
  auto const path = directory_->path_of(top.file);
  if (!bytes) return failure(bytes.error(), path + ": cannot read: " + bytes.error().message());
  auto const decoded = decode_header(bytes.value().bytes());
  if (!decoded.has_value()) return failure(Errc::corrupt, path + ": " + decoded.error().text);
  return decoded.value();
}

Outcome<std::vector<Layer>> Virtual_disk::layers(std::string const& guid) {
  PS_TRY(auto const delta, need(guid));
  auto const chain = descriptor_.chain_to(delta.guid);
  if (chain.size() > levels_max)
    return failure(Errc::too_large, "the disk has a chain of " + std::to_string(chain.size()) +
                                        " deltas; 127 is the most");
  std::vector<Layer> layers;
  for (auto const& each : chain) {
    PS_TRY(auto store, directory_->open_to_read(each.file));
    layers.push_back({store.release(), each.is_raw, {}});
  }
  return layers;
}

/// An empty delta like the top. Its file has a name of its own, whatever a crash left behind.
Outcome<std::string> Virtual_disk::make_top_file(Random& random) {
  PS_TRY(auto const base, need(descriptor_.chain_to(descriptor_.top()).front().guid));
  PS_TRY(auto const like, header());
  PS_TRY(auto const header, make_header(like.version, like.cluster_bytes(), like.size_bytes()));
  auto const file = base.file + "." + new_guid(random);
  PS_TRY(auto store, directory_->create(file));
  PS_CHECK(create_image(store, header, false));
  return file;
}

Outcome<void> Virtual_disk::may_snapshot() const {
  if (descriptor_.chain_to(descriptor_.top()).size() >= levels_max ||
      descriptor_.deltas().size() >= deltas_max)
    return failure(Errc::too_large, "there are 126 snapshots already; merge or delete some");
  return success();
}

Outcome<void> Virtual_disk::snapshot(std::string const& guid, Random& random,
                                     std::string const& name, std::string const& created) {
  if (guid == top_guid || guid == no_guid)
    return failure(Errc::bad_request, guid + " has a meaning of its own; take another");
  if (descriptor_.find(guid) != nullptr)
    return failure(Errc::exists, "the snapshot " + guid + " exists already");
  PS_CHECK(may_snapshot());
  PS_TRY(auto const file, make_top_file(random));
  descriptor_.push_top(guid, file, name, created);
  return save();
}

Outcome<void> Virtual_disk::switch_to(std::string const& guid, Random& random) {
  PS_TRY(auto const target, need(guid));
  PS_TRY(auto const old_top, need(descriptor_.top()));
  if (target.guid == old_top.guid) return failure(Errc::refused, guid + " is the top already");
  if (old_top.parent == no_guid || !descriptor_.children_of(old_top.guid).empty())
    return failure(Errc::refused, "the top is the base of snapshots and cannot be thrown away");
  PS_TRY(auto const file, make_top_file(random));
  descriptor_.replace_top(target.guid, file);
  PS_CHECK(save());
  return directory_->remove(old_top.file);
}

Outcome<void> Virtual_disk::remove(std::string const& guid, Random& random,
                                   Progress const& progress) {
  PS_TRY(auto const delta, need(guid));
  auto const children = descriptor_.children_of(delta.guid);
  if (delta.guid == descriptor_.top())
    return failure(Errc::refused, "the top is in use; switch to a snapshot or merge it");
  if (children.size() > 1)
    return failure(Errc::refused, "the snapshot " + guid + " has " +
                                      std::to_string(children.size()) +
                                      " children; delete or merge all but one of them first");
  if (children.size() == 1) return merge(children.front()->guid, random, progress);
  if (delta.parent == no_guid) return failure(Errc::refused, "the base cannot be deleted");
  descriptor_.remove(delta.guid);
  PS_CHECK(save());
  return directory_->remove(delta.file);
}

/// Data durable, then entries, in portions: what is not yet in `to` is still in `from`.
Outcome<void> Virtual_disk::copy_into(Offline_delta& from, Offline_delta& to, bool drops_zeros,
                                      Progress const& progress) {
  constexpr std::uint64_t portion = 64;
  auto const all = from.allocated();
  std::uint64_t done = 0;
  for (std::uint32_t index = 0; index < from.entries(); ++index) {
    if (!from.has(index)) continue;
    PS_TRY(auto data, from.read(index));
    bool const skips = drops_zeros && !to.has(index) && is_zero(data);
    if (!skips) PS_CHECK(to.write(index, std::move(data)));
    progress(++done, all);
    if (done % portion == 0) PS_CHECK(to.sync());
  }
  return to.sync();
}

/// A private copy of a delta that other disks have, too, under a new name.
Outcome<void> Virtual_disk::unshare(Delta const& delta, Random& random, Progress const& progress) {
  auto const file =
      delta.file.substr(0, delta.file.find('.', delta.file.find('.') + 1)) + "." + new_guid(random);
  {
    PS_TRY(auto store, directory_->open_to_read(delta.file));
    PS_TRY(auto from,
           Offline_delta::open(std::move(store), directory_->path_of(delta.file),
                               delta.is_raw ? descriptor_.cluster_sectors() * sector_bytes : 0));
    auto const& like = from.header();
    PS_TRY(auto const header, make_header(like.version, like.cluster_bytes(), like.size_bytes()));
    PS_TRY(auto created, directory_->create(file));
    PS_CHECK(create_image(created, header, false));
    PS_TRY(auto to, Offline_delta::open(std::move(created), directory_->path_of(file)));
    PS_CHECK(to.begin());
    PS_CHECK(copy_into(from, to, delta.parent == no_guid, progress));
    PS_CHECK(to.finish());
  }
  descriptor_.set_file(delta.guid, file, false);
  PS_CHECK(save());
  return directory_->remove(delta.file);
}

Outcome<void> Virtual_disk::merge(std::string const& guid, Random& random,
                                  Progress const& progress) {
  PS_TRY(auto const child, need(guid));
  if (child.parent == no_guid)
    return failure(Errc::refused, "the base has no parent to be merged into");
  PS_TRY(auto parent, need(child.parent));
  if (descriptor_.children_of(parent.guid).size() > 1)
    return failure(Errc::refused, "the parent " + parent.guid +
                                      " has other children; merge or delete those first");
  PS_TRY(bool const is_shared, directory_->is_shared(parent.file));
  if (is_shared) {
    PS_CHECK(unshare(parent, random, progress));
    PS_TRY(parent, need(child.parent));
  }
  {
    PS_TRY(auto store, directory_->open_to_read(child.file));
    PS_TRY(auto from, Offline_delta::open(std::move(store), directory_->path_of(child.file)));
    PS_TRY(auto to, open_delta(parent));
    if (from.header().cluster_sectors != to.header().cluster_sectors)
      return failure(Errc::corrupt, "the deltas have different cluster sizes");
    PS_CHECK(to.begin());
    if (from.header().size_sectors > to.header().size_sectors)
      PS_CHECK(to.grow(from.header().size_bytes()));
    PS_CHECK(copy_into(from, to, parent.parent == no_guid, progress));
    PS_CHECK(to.finish());
  }
  descriptor_.merge_down(child.guid);
  PS_CHECK(save());
  return directory_->remove(child.file);
}

Outcome<void> Virtual_disk::grow(std::uint64_t size_bytes) {
  PS_TRY(auto const top, need(descriptor_.top()));
  PS_TRY(auto delta, open_delta(top));
  auto const now = delta.header().size_bytes();
  if (size_bytes < now)
    return failure(Errc::refused, "the new size is less than the present one (" +
                                      std::to_string(now / sector_bytes) +
                                      " sectors); a disk cannot shrink");
  PS_CHECK(delta.begin());
  PS_CHECK(delta.grow(size_bytes));
  PS_CHECK(delta.finish());
  descriptor_.set_size(delta.header().size_sectors);
  return save();
}

Outcome<void> Virtual_disk::compact(Progress const& progress) {
  PS_TRY(auto const top, need(descriptor_.top()));
  if (top.is_raw) return failure(Errc::refused, "a raw disk has no clusters to give up");
  PS_TRY(auto delta, open_delta(top));
  PS_CHECK(delta.begin());
  // Above another delta a cluster of zeros hides what is below.
  if (top.parent == no_guid) {
    auto const all = delta.allocated();
    std::uint64_t done = 0;
    for (std::uint32_t index = 0; index < delta.entries(); ++index) {
      if (!delta.has(index)) continue;
      PS_TRY(auto const data, delta.read(index));
      if (is_zero(data)) delta.drop(index);
      progress(++done, all);
    }
    PS_CHECK(delta.sync());
  }
  PS_CHECK(delta.close_holes(progress));
  return delta.finish();
}

}  // namespace pstorage::ploop
