#include "blockdev/ploop/open_image.h"

#include <algorithm>

#include "blockdev/ploop/slices.h"

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t piece_bytes = 1u << 20;

/// Reads one delta after the other. Owned by the callback it waits for.
class Loader : public std::enable_shared_from_this<Loader> {
 public:
  Loader(std::vector<Layer> layers, std::string path, Open_options options, Load_done done)
      : path_(std::move(path)), options_(options), done_(std::move(done)) {
    image_.layers = std::move(layers);
    image_.is_writable = options.is_writable;
  }

  /// The size of the map is the top's: its header comes first, then everything from the base up.
  void start() {
    read_header(image_.layers.size() - 1, [this] { read_next_header(0); });
  }

 private:
  void fail(Errc code, std::string const& what) { done_(failure(code, path_ + ": " + what)); }
  void fail(std::error_code const& code, std::string const& what) {
    done_(failure(code, path_ + ": " + what + ": " + code.message()));
  }
  Layer& layer(std::size_t level) { return image_.layers[level]; }
  std::string name_of(std::size_t level) const {
    return image_.layers.size() == 1 ? "" : "delta " + std::to_string(level) + ": ";
  }

  void read_header(std::size_t level, std::function<void()> next) {
    if (layer(level).is_raw) return next();
    if (layer(level).store->size_bytes() < header_bytes)
      return fail(Errc::corrupt, name_of(level) + "the file is shorter than a ploop header");
    layer(level).store->read(
        0, header_bytes,
        [self = shared_from_this(), level, next](Result<std::vector<Slice>> const& result) {
          if (!result) return self->fail(result.error(), "cannot read the header");
          self->take_header(level, gathered(result.value()), next);
        });
  }

  void take_header(std::size_t level, Slice const& bytes, std::function<void()> const& next) {
    auto const header = decode_header(bytes.bytes());
    if (!header.has_value()) return fail(Errc::corrupt, name_of(level) + header.error().text);
    auto const& found = layer(level).header = header.value();
    if ((found.flags & flag_converting) != 0)
      return fail(Errc::corrupt, name_of(level) +
                                     "a conversion of its version was interrupted; run "
                                     "'pstorage-ploop convert -v' again");
    if (found.offset_of(found.first_cluster) > layer(level).store->size_bytes())
      return fail(Errc::corrupt, name_of(level) + "the file ends inside its block table");
    next();
  }

  void read_next_header(std::size_t level) {
    auto const top = image_.layers.size() - 1;
    if (level < top) return read_header(level, [this, level] { read_next_header(level + 1); });
    if (auto const fault = fault_of_chain(); !fault.empty()) return fail(Errc::corrupt, fault);
    auto const& header = layer(top).header;
    if (options_.is_writable && header.is_open() && !options_.may_recover)
      return fail(Errc::busy,
                  "it is marked as in use: somebody has it open, or a crash left it so; then "
                  "'pstorage-ploop check -d' repairs it");
    image_.map = Image_map(header.entries);
    read_bat(0, 0);
  }

  std::string fault_of_chain() {
    auto const& top = image_.layers.back();
    if (top.is_raw) return "a raw image is no chain of deltas";
    for (std::size_t level = 0; level + 1 < image_.layers.size(); ++level) {
      auto& lower = layer(level);
      if (lower.is_raw) {
        lower.header.cluster_sectors = top.header.cluster_sectors;
        if (level != 0) return "delta " + std::to_string(level) + " is raw; only the base may be";
        if (lower.store->size_bytes() % top.header.cluster_bytes() != 0)
          return "the size of its raw base is no multiple of the cluster size";
      } else if (lower.header.cluster_sectors != top.header.cluster_sectors) {
        return "its deltas have different cluster sizes";
      }
    }
    return {};
  }

  void read_bat(std::size_t level, std::uint32_t index) {
    if (level == image_.layers.size()) return finish();
    auto const& header = layer(level).header;
    if (layer(level).is_raw) return take_raw(level);
    auto const entries = std::min(header.entries, image_.map.size());
    if (index == entries) return read_bat(level + 1, 0);
    // The first piece is shorter, so that the others are aligned.
    auto const from = header_bytes + std::uint64_t{index} * 4;
    auto const length = std::min(piece_bytes - from % piece_bytes,
                                 header_bytes + std::uint64_t{entries} * 4 - from);
    layer(level).store->read(
        from, length,
        [self = shared_from_this(), level, index](Result<std::vector<Slice>> const& result) {
          if (!result) return self->fail(result.error(), "cannot read the block table");
          self->take_bat(level, index, gathered(result.value()));
        });
  }

  void take_raw(std::size_t level) {
    auto const clusters = layer(level).store->size_bytes() / layer(level).header.cluster_bytes();
    auto const count =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(clusters, image_.map.size()));
    for (std::uint32_t i = 0; i < count; ++i) image_.map.set(i, static_cast<Level>(level), i);
    read_bat(level + 1, 0);
  }

  void take_bat(std::size_t level, std::uint32_t index, Slice const& bytes) {
    auto const& header = layer(level).header;
    auto const file_clusters = layer(level).store->size_bytes() / header.cluster_bytes();
    auto const count = static_cast<std::uint32_t>(bytes.size() / 4);
    for (std::uint32_t i = 0; i < count; ++i) {
      auto const entry = load_le<std::uint32_t>(bytes.data() + std::size_t{i} * 4);
      auto const cluster = header.decode_entry(entry, file_clusters);
      if (cluster == Header::bad_cluster)
        return fail(Errc::corrupt,
                    name_of(level) + "block table entry " + std::to_string(index + i) + " (" +
                        std::to_string(entry) +
                        ") points to no cluster of the file; 'pstorage-ploop check -F' clears it");
      if (cluster != 0) image_.map.set(index + i, static_cast<Level>(level), cluster);
    }
    read_bat(level, index + count);
  }

  void finish() {
    if (options_.is_writable) {
      auto const top = static_cast<Level>(image_.layers.size() - 1);
      if (!find_holes(image_.map, top, layer(top).header, options_.extension_bytes, image_))
        return fail(Errc::corrupt,
                    "two block table entries have the same cluster; 'pstorage-ploop check -f -c' "
                    "names them");
    }
    done_(std::move(image_));
  }

  /// The clusters that the top does not use, and its tail. False: one is used twice.
  static bool find_holes(Image_map const& map, Level top, Header const& header,
                         std::uint32_t extension_bytes, Loaded_image& image) {
    auto tail = header.first_cluster;
    std::uint32_t used = 0;
    for (std::uint32_t i = 0; i < map.size(); ++i) {
      if (map.level(i) != top) continue;
      ++used;
      tail = std::max(tail, map.cluster(i) + 1);
    }
    image.space = Cluster_space(tail, std::max(extension_bytes / header.cluster_bytes(), 1u));
    std::uint32_t next = header.first_cluster;
    bool is_unique = true;
    auto const take = [&](std::uint32_t cluster) {
      if (cluster < next) is_unique = false;
      if (cluster > next) image.holes.add(next, cluster - next);
      next = cluster + 1;
    };
    // A bitmap unless the file is much larger than what it holds: then the memory would follow the
    // file's size and not the BAT's.
    if (tail / 64 <= map.size()) {
      std::vector<bool> seen(tail);
      for (std::uint32_t i = 0; i < map.size(); ++i) {
        if (map.level(i) != top) continue;
        if (seen[map.cluster(i)]) return false;
        seen[map.cluster(i)] = true;
      }
      if (tail - header.first_cluster == used) return true;
      for (auto cluster = header.first_cluster; cluster < tail; ++cluster)
        if (seen[cluster]) take(cluster);
    } else {
      std::vector<std::uint32_t> clusters;
      clusters.reserve(used);
      for (std::uint32_t i = 0; i < map.size(); ++i)
        if (map.level(i) == top) clusters.push_back(map.cluster(i));
      std::sort(clusters.begin(), clusters.end());
      for (auto const cluster : clusters) take(cluster);
    }
    return is_unique;
  }

  std::string path_;
  Open_options options_;
  Load_done done_;
  Loaded_image image_;
};

}  // namespace

void load_image(std::vector<Layer> layers, std::string path, Open_options options, Load_done done) {
  PS_ASSERT(!layers.empty() && layers.size() <= levels_max);
  auto const loader =
      std::make_shared<Loader>(std::move(layers), std::move(path), options, std::move(done));
  loader->start();
}

void open_image(std::vector<Layer> layers, std::string path, Open_options options,
                Executor& executor, Open_image_done done) {
  load_image(std::move(layers), path, options,
             [path, options, &executor, done = std::move(done)](Outcome<Loaded_image> loaded) {
               if (!loaded.has_value()) return done(std::move(loaded).error());
               auto& value = loaded.value();
               auto* const top = value.layers.back().store.get();
               auto const end = value.layers.back().header.offset_of(value.space.tail());
               auto const image = std::make_shared<std::unique_ptr<Ploop_image>>(
                   std::make_unique<Ploop_image>(std::move(value), path, executor));
               if (!options.is_writable) return done(std::move(*image));
               auto const begun = [image, path, done](Result<void> const& result) {
                 if (result) return done(std::move(*image));
                 done(failure(result.error(), path + ": cannot mark the image as open: " +
                                                  result.error().message()));
               };
               if (top->size_bytes() == end) return (*image)->begin(begun);
               // Nobody refers to what is behind the last used cluster; new space must be zeros.
               top->truncate(end, [image, begun](Result<void> const& result) {
                 if (!result) return begun(result);
                 (*image)->begin(begun);
               });
             });
}

}  // namespace pstorage::ploop
