#include "blockdev/cluster_provider.h"

#include <algorithm>

namespace pstorage::nbd {

struct Cluster_provider::Listing {
  std::vector<std::string> directories;  // below root, still to be listed
  std::vector<Volume_description> found;
  List_done done;
};

Outcome<std::string> volume_path(std::string const& name) {
  auto const bad = failure(Errc::not_found, "there is no volume '" + name + "'");
  if (name.empty()) return bad;
  for (std::size_t from = 0; from <= name.size();) {
    auto const to = std::min(name.find('/', from), name.size());
    auto const part = name.substr(from, to - from);
    if (part.empty() || part == "." || part == "..") return bad;
    from = to + 1;
  }
  return Cluster_provider::root + ("/" + name);
}

Cluster_provider::Cluster_provider(client::Cluster& cluster, Executor& executor, Duration patience)
    : cluster_(cluster), executor_(executor), patience_(patience) {}

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
  auto const path = directory.empty() ? std::string(root) : std::string(root) + "/" + directory;
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
  for (auto const& file : files) {
    auto const name = directory.empty() ? file.name() : directory + "/" + file.name();
    if (file.type() == proto::TYPE_DIRECTORY)
      listing->directories.push_back(name);
    else if (file.type() == proto::TYPE_FILE && listing->found.size() < volumes_max)
      listing->found.push_back({name, file.size()});
  }
  list_next(listing);
}

void Cluster_provider::describe(std::string const& name, Describe_done done) {
  auto const path = volume_path(name);
  if (!path) {
    executor_.defer([alive = alive_, done = std::move(done), why = path.error()] {
      if (*alive) done(why);
    });
    return;
  }
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path.value());
  cluster_.mds().call(
      std::move(request), patience_,
      [name, alive = alive_, done = std::move(done)](Outcome<proto::Mds_reply> const& answer) {
        if (!*alive) return;
        if (!answer) return done(answer.error());
        auto const& file = answer.value().file();
        if (file.type() == proto::TYPE_DIRECTORY)
          return done(failure(Errc::is_directory, "'" + name + "' is a directory of volumes"));
        done(Volume_description{name, file.size()});
      });
}

void Cluster_provider::open(std::string const& name, Open_done done) {
  auto const path = volume_path(name);
  if (!path) {
    executor_.defer([alive = alive_, done = std::move(done), why = path.error()] {
      if (*alive) done(why);
    });
    return;
  }
  client::Open_options options;
  options.patience = patience_;
  cluster_.open(
      path.value(), options,
      [alive = alive_, done = std::move(done)](Outcome<std::unique_ptr<client::Volume>> volume) {
        if (*alive) done(std::move(volume));
      });
}

}  // namespace pstorage::nbd
