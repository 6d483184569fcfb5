#include "blockdev/cluster_provider.h"

#include <algorithm>

namespace pstorage::nbd {
struct Cluster_provider::Listing {
  std::vector<std::string> directories;  // below the root, still to be listed
  std::vector<Volume_description> found;
  List_done done;
};

Cluster_provider::Cluster_provider(client::Cluster& cluster, volume::Volume_opener& opener,
                                   Executor& executor, Duration patience)
    : cluster_(cluster), opener_(opener), executor_(executor), patience_(patience) {}

Cluster_provider::~Cluster_provider() { *alive_ = false; }

void Cluster_provider::list(List_done done) {
  auto listing = std::make_shared<Listing>();
  listing->directories.push_back("");
  listing->done = std::move(done);
  list_next(listing);
}

void Cluster_provider::list_next(std::shared_ptr<Listing> const& listing) {
  if (listing->directories.empty()) {
    auto& found = listing->found;
    std::sort(found.begin(), found.end(),
              [](auto const& a, auto const& b) { return a.name < b.name; });
    return listing->done(std::move(found));
  }
  auto const directory = std::move(listing->directories.back());
  listing->directories.pop_back();
  auto const root = std::string(volume::volumes_root);
  auto const path = directory.empty() ? root : root + "/" + directory;
  cluster_.list(
      path, patience_,
      [this, listing, directory, alive = alive_](Outcome<std::vector<proto::File>> files) {
        if (!*alive) return;
        if (files) return listed(listing, directory, files.value());
        // A cluster without volumes yet, or a directory removed meanwhile.
        if (errc_of(files.error().code) == Errc::not_found) return list_next(listing);
        listing->done(files.error());
      });
}

void Cluster_provider::listed(std::shared_ptr<Listing> const& listing, std::string const& directory,
                              std::vector<proto::File> const& files) {
  bool const is_disk =
      !directory.empty() && std::any_of(files.begin(), files.end(), [](proto::File const& file) {
        return file.name() == volume::descriptor_file;
      });
  auto const add = [&](std::string const& name, std::uint64_t size) {
    if (listing->found.size() < volumes_max) listing->found.push_back({name, size, false});
  };
  if (is_disk) {
    add(directory, 0);
    return list_next(listing);
  }
  for (auto const& file : files) {
    if (file.name().starts_with('.')) continue;
    auto const name = directory.empty() ? file.name() : directory + "/" + file.name();
    if (file.type() == proto::TYPE_FILE)
      add(name, file.size());
    else if (file.properties().contains(volume::format_property))
      add(name, volume::noted_size(file));
    else if (file.type() == proto::TYPE_DIRECTORY)
      listing->directories.push_back(name);
  }
  list_next(listing);
}

void Cluster_provider::describe(std::string const& name, Describe_done done) {
  auto const parsed = volume::parse_volume_name(name);
  if (!parsed.has_value()) {
    executor_.defer([name, alive = alive_, done = std::move(done)] {
      if (*alive) done(failure(Errc::not_found, "there is no volume '" + name + "'"));
    });
    return;
  }
  if (!parsed.value().snapshot.empty()) return describe_disk(parsed.value(), std::move(done));
  proto::Mds_request request;
  request.mutable_lookup()->set_path(parsed.value().path());
  cluster_.mds().call(
      std::move(request), patience_,
      [name, alive = alive_, done = std::move(done)](Outcome<proto::Mds_reply> const& answer) {
        if (!*alive) return;
        if (!answer) return done(answer.error());
        auto const& file = answer.value().file();
        if (file.type() == proto::TYPE_FILE)
          return done(Volume_description{name, file.size(), false});
        if (auto const size = volume::noted_size(file); size != 0)
          return done(Volume_description{name, size, false});
        done(failure(Errc::is_directory, "'" + name + "' is a directory of volumes"));
      });
}

/// Only whoever opens a snapshot knows how large it is.
void Cluster_provider::describe_disk(volume::Volume_name const& name, Describe_done done) {
  auto const text = name.name + "@" + name.snapshot;
  volume::open_parts(
      cluster_, executor_, name, patience_,
      [this, text, alive = alive_, done = std::move(done)](Outcome<volume::Disk_parts> parts) {
        if (!*alive) return;
        if (!parts.has_value()) return done(parts.error());
        Volume_description const found{text, parts.value().disk->size_bytes(), true};
        // It goes outside its own callbacks.
        executor_.defer([gone = std::make_shared<volume::Disk_parts>(std::move(parts).value())] {});
        done(found);
      });
}

void Cluster_provider::open(std::string const& name, Open_done done) {
  opener_.open(
      name, patience_,
      [alive = alive_, done = std::move(done)](Outcome<std::unique_ptr<client::Volume>> volume) {
        if (*alive) done(std::move(volume));
      });
}

}  // namespace pstorage::nbd
