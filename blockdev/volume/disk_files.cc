#include "blockdev/volume/disk_files.h"

#include <charconv>
#include <utility>

#include "blockdev/ploop/open_image.h"
#include "blockdev/ploop/slices.h"
#include "blockdev/ploop/volume_store.h"

namespace pstorage::volume {
namespace {

constexpr Duration answer_patience = std::chrono::seconds(10);
constexpr int reads_max = 100;

/// One opening. Owned by the callback it waits for.
class Opening : public std::enable_shared_from_this<Opening> {
 public:
  Opening(client::Cluster& cluster, Executor& executor, Volume_name name, Duration patience,
          Parts_opened done)
      : cluster_(cluster),
        executor_(executor),
        name_(std::move(name)),
        path_(name_.path()),
        patience_(patience),
        done_(std::move(done)) {}

  void start() {
    proto::Mds_request request;
    request.mutable_lookup()->set_path(path_);
    cluster_.mds().call(std::move(request), std::max(patience_, answer_patience),
                        [self = shared_from_this()](Outcome<proto::Mds_reply> const& answer) {
                          if (!answer.has_value()) return self->fail(answer.error());
                          self->found(answer.value().file());
                        });
  }

 private:
  bool is_snapshot() const { return !name_.snapshot.empty(); }
  std::string file_path(std::string const& file) const { return path_ + "/" + file; }

  void found(proto::File const& file) {
    for (auto const& [key, value] : file.properties()) parts_.properties[key] = value;
    if (file.type() == proto::TYPE_DIRECTORY) return open_descriptor();
    if (is_snapshot())
      return fail(
          failure(Errc::not_found, "'" + name_.name + "' is a raw volume: it has no snapshots"));
    cluster_.open(path_, {.force = false, .patience = patience_},
                  [self = shared_from_this()](Outcome<std::unique_ptr<client::Volume>> volume) {
                    if (!volume.has_value()) return self->fail(volume.error());
                    self->parts_.disk = std::move(volume).value();
                    self->succeed();
                  });
  }

  void open_descriptor() {
    auto opened = [self = shared_from_this()](Outcome<std::unique_ptr<client::Volume>> volume) {
      if (!volume.has_value()) return self->no_descriptor(volume.error());
      self->parts_.lock = std::move(volume).value();
      self->read_descriptor();
    };
    auto const path = file_path(descriptor_file);
    if (is_snapshot()) return cluster_.open_reader(path, patience_, std::move(opened));
    cluster_.open(path, {.force = false, .patience = patience_}, std::move(opened));
  }

  void no_descriptor(Failure const& why) {
    if (errc_of(why.code) == Errc::not_found)
      return fail(failure(Errc::is_directory, "'" + name_.name + "' is a directory of volumes"));
    fail(why);
  }

  void read_descriptor() {
    auto const size = parts_.lock->size_bytes();
    if (size == 0 || size > ploop::descriptor_bytes_max)
      return fail(failure(Errc::corrupt, file_path(descriptor_file) + " is no disk descriptor"));
    parts_.lock->read(0, size, [self = shared_from_this()](Result<std::vector<Slice>> result) {
      // Read without a lease, it may have been taken or replaced meanwhile.
      bool const is_stale = !result && errc_of(result.error()) == Errc::stale_epoch;
      if (is_stale && self->is_snapshot() && ++self->reads_ < reads_max) {
        self->executor_.defer([old = self->parts_.lock] {});
        return self->open_descriptor();
      }
      if (!result) return self->fail_with(result.error(), "cannot read the disk descriptor");
      auto parsed =
          ploop::Descriptor::parse(std::string(as_text(ploop::gathered(result.value()).bytes())));
      if (!parsed.has_value()) return self->fail(parsed.error());
      self->parts_.descriptor = std::move(parsed).value();
      self->choose_chain();
    });
  }

  void choose_chain() {
    auto const& descriptor = *parts_.descriptor;
    auto guid = descriptor.top();
    if (is_snapshot()) {
      auto const* const snapshot = find_snapshot(descriptor, name_.snapshot);
      if (snapshot == nullptr) return fail(unknown_snapshot(descriptor, name_.snapshot));
      guid = snapshot->guid;
    }
    chain_ = descriptor.chain_to(guid);
    if (chain_.size() > ploop::levels_max)
      return fail(failure(Errc::too_large, path_ + " has too many snapshots"));
    if (chain_.back().is_raw)
      return fail(failure(Errc::corrupt, path_ +
                                             " is a raw image in a disk directory: convert it with "
                                             "'pstorage-ploop convert -f expanded'"));
    for (auto const& delta : chain_)
      if (delta.file.find('/') != std::string::npos)
        return fail(failure(Errc::corrupt, path_ + ": the delta '" + delta.file +
                                               "' is not in the directory of the volume"));
    open_next();
  }

  void open_next() {
    auto const level = layers_.size();
    if (level == chain_.size()) return open_image();
    bool const is_top = !is_snapshot() && level + 1 == chain_.size();
    auto opened = [self = shared_from_this(),
                   is_top](Outcome<std::unique_ptr<client::Volume>> volume) {
      if (!volume.has_value()) return self->fail(volume.error());
      std::shared_ptr<client::Volume> file = std::move(volume).value();
      if (is_top) self->parts_.top = file;
      self->layers_.push_back(
          {make_store(self->cluster_, file), self->chain_[self->layers_.size()].is_raw, {}});
      self->open_next();
    };
    auto const path = file_path(chain_[level].file);
    if (!is_top) return cluster_.open_reader(path, patience_, std::move(opened));
    cluster_.open(path, {.force = false, .patience = patience_}, std::move(opened));
  }

  void open_image() {
    ploop::Open_options options;
    options.is_writable = options.may_recover = !is_snapshot();
    auto const shown = is_snapshot() ? path_ + "@" + name_.snapshot : path_;
    ploop::open_image(
        std::move(layers_), shown, options, executor_,
        [self = shared_from_this()](Outcome<std::unique_ptr<ploop::Ploop_image>> image) {
          if (!image.has_value()) return self->fail(image.error());
          self->parts_.image = image.value().get();
          self->parts_.disk = std::move(image).value();
          self->succeed();
        });
  }

  void succeed() { done_(std::move(parts_)); }

  void fail_with(std::error_code const& code, std::string const& what) {
    fail(failure(code, path_ + ": " + what + ": " + code.message()));
  }
  /// What was opened for writing is given back, so that others can try.
  void fail(Failure why) {
    std::vector<std::shared_ptr<client::Volume>> open;
    if (parts_.top) open.push_back(parts_.top);
    if (parts_.lock) open.push_back(parts_.lock);
    close_next(std::move(open), std::move(why));
  }
  void close_next(std::vector<std::shared_ptr<client::Volume>> open, Failure why) {
    if (open.empty()) return done_(std::move(why));
    auto const volume = open.front();
    open.erase(open.begin());
    volume->close([self = shared_from_this(), volume, open = std::move(open),
                   why = std::move(why)](Result<void> const&) mutable {
      self->executor_.defer([volume] {});  // it goes outside its own callback
      self->close_next(std::move(open), std::move(why));
    });
  }

  client::Cluster& cluster_;
  Executor& executor_;
  Volume_name name_;
  std::string path_;
  Duration patience_;
  Parts_opened done_;
  Disk_parts parts_;
  int reads_ = 0;
  std::vector<ploop::Delta> chain_;
  std::vector<ploop::Layer> layers_;
};

}  // namespace

void open_parts(client::Cluster& cluster, Executor& executor, Volume_name const& name,
                Duration patience, Parts_opened done) {
  std::make_shared<Opening>(cluster, executor, name, patience, std::move(done))->start();
}

std::unique_ptr<ploop::Image_store> make_store(client::Cluster& cluster,
                                               std::shared_ptr<client::Volume> file) {
  auto* const volume = file.get();
  return std::make_unique<ploop::Volume_store>(
      std::move(file), [&cluster, volume](std::uint64_t size_bytes, client::Done done) {
        cluster.resize(*volume, size_bytes, std::move(done));
      });
}

std::uint64_t noted_size(proto::File const& file) {
  auto const found = file.properties().find(size_property);
  std::uint64_t size = 0;
  if (found == file.properties().end()) return 0;
  auto const& text = found->second;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  return error == std::errc{} && end == text.data() + text.size() ? size : 0;
}

ploop::Delta const* find_snapshot(ploop::Descriptor const& descriptor, std::string const& text) {
  for (auto const& delta : descriptor.deltas())
    if (delta.guid != descriptor.top() && !delta.name.empty() && delta.name == text) return &delta;
  auto const* const found = descriptor.find(text);
  return found != nullptr && found->guid != descriptor.top() ? found : nullptr;
}

Failure unknown_snapshot(ploop::Descriptor const& descriptor, std::string const& text) {
  std::string known;
  for (auto const& delta : descriptor.deltas()) {
    if (delta.guid == descriptor.top()) continue;
    known += (known.empty() ? "" : ", ") + (delta.name.empty() ? delta.guid : delta.name);
  }
  return failure(Errc::not_found,
                 "there is no snapshot '" + text + "'; " +
                     (known.empty() ? "the volume has none" : "there are: " + known));
}

void write_new_file(client::Cluster& cluster, std::string const& path, std::string const& text,
                    std::function<void(Outcome<std::unique_ptr<client::Volume>>)> done) {
  proto::Mds_request create;
  create.mutable_create()->set_path(path);
  create.mutable_create()->set_size(text.size());
  auto written = [path, done](std::shared_ptr<std::unique_ptr<client::Volume>> const& file,
                              Result<void> const& result) {
    if (result) return done(std::move(*file));
    done(failure(result.error(), "cannot write " + path + ": " + result.error().message()));
  };
  auto opened = [text, done, written](Outcome<std::unique_ptr<client::Volume>> volume) {
    if (!volume.has_value()) return done(std::move(volume).error());
    auto const file = std::make_shared<std::unique_ptr<client::Volume>>(std::move(volume).value());
    std::vector<Slice> data;
    data.push_back(Slice::copy_of(as_bytes(text)));
    (*file)->write(0, std::move(data), true,
                   [file, written](Result<void> const& result) { written(file, result); });
  };
  cluster.mds().call(std::move(create), Duration{0},
                     [&cluster, path, done, opened](Outcome<proto::Mds_reply> const& answer) {
                       if (!answer.has_value()) return done(answer.error());
                       cluster.open(path, {.force = false, .patience = answer_patience}, opened);
                     });
}

}  // namespace pstorage::volume
