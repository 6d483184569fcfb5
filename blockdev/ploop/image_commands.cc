// init, grow, resize, convert, copy, compact, restore-descriptor.
#include <cstdio>

#include "blockdev/ploop/ploop_cli.h"

namespace pstorage::ploop {
namespace {

constexpr char const* descriptor_name = "DiskDescriptor.xml";

struct Options {
  std::string path;
  std::string size;
  std::string format;
  std::string file_system = "none";
  std::string source;
  std::string target;
  int version = 0;
  std::uint32_t block_sectors = 0;
};

Outcome<std::uint32_t> cluster_of(Options const& options) {
  auto const sectors = options.block_sectors;
  if (sectors == 0) return cluster_bytes_default;
  if (sectors > cluster_bytes_max / sector_bytes)
    return exit_with(Exit::parameter, "bad block size " + std::to_string(sectors) +
                                          ": 64 to 131072 sectors are possible");
  return sectors * sector_bytes;
}

Outcome<void> init(Options const& options) {
  PS_TRY(auto const size, parse_sectors(options.size));
  Disk_format format;
  PS_TRY(format.cluster_bytes, cluster_of(options));
  format.version = options.version == 1 ? Version::v1 : Version::v2;
  format.is_raw = options.format == "raw";
  format.is_preallocated = options.format == "preallocated";
  auto const [directory, name] = split_path(options.path);
  PS_TRY(auto const local, Local_directory::open(directory));
  PS_TRY(auto const disk,
         Virtual_disk::create(local->images(), descriptor_name, name, size, format));
  return success();
}

bool is_descriptor(std::string const& path) { return path.ends_with(".xml"); }

Outcome<void> grow_image(Options const& options, std::uint64_t size) {
  auto const [directory, name] = split_path(options.path);
  PS_TRY(auto const local, Local_directory::open(directory));
  PS_TRY(auto store, local->images().open(name));
  PS_TRY(auto const cluster, cluster_of(options));
  PS_TRY(auto delta, Offline_delta::open(std::move(store), options.path,
                                         options.format == "raw" ? cluster : 0));
  if (size < delta.header().size_bytes())
    return exit_with(Exit::parameter, "the new size is less than the present one (" +
                                          std::to_string(delta.header().size_sectors) +
                                          " sectors)");
  PS_CHECK(delta.begin());
  PS_CHECK(delta.grow(size));
  return delta.finish();
}

Outcome<void> grow(Options const& options) {
  PS_TRY(auto const size, parse_sectors(options.size));
  if (!is_descriptor(options.path)) return grow_image(options, size);
  PS_TRY(auto const opened, open_disk(options.path, true));
  return opened.disk->grow(size);
}

Outcome<void> convert(Ploop_cli& cli, Options const& options) {
  bool const has_format = !options.format.empty();
  if (has_format == (options.version != 0))
    return exit_with(Exit::parameter, "give either -f or -v");
  PS_TRY(auto const opened, open_disk(options.path, true));
  if (has_format)
    return opened.disk->convert_format(options.format == "raw", options.format == "preallocated",
                                       cli.random(), cli.progress("converting"));
  return opened.disk->convert_version(options.version == 1 ? Version::v1 : Version::v2);
}

/// Every byte, also zeros: ploop refuses images with sparse clusters.
Outcome<void> copy_bytes(Ploop_cli& cli, Blocking_store& from, Blocking_store& to,
                         std::string const& target) {
  constexpr std::uint64_t piece = 1u << 20;
  auto const size = from.size_bytes();
  auto const progress = cli.progress("copying");
  auto const failed = [&](std::error_code const& code) {
    return exit_with(Exit::write, "cannot write " + target + ": " + code.message());
  };
  if (auto const extended = to.extend(size); !extended) return failed(extended.error());
  for (std::uint64_t at = 0; at < size; at += piece) {
    auto data = from.read(at, std::min(piece, size - at));
    if (!data) return exit_with(Exit::read, "cannot read the source: " + data.error().message());
    if (auto const written = to.write(at, std::move(data.value())); !written)
      return failed(written.error());
    progress(std::min(at + piece, size), size);
  }
  if (auto const flushed = to.flush(); !flushed) return failed(flushed.error());
  return success();
}

Outcome<void> copy(Ploop_cli& cli, Options const& options) {
  auto source = options.source;
  std::unique_ptr<Opened_disk> disk;  // keeps the lock
  bool is_raw = false;
  if (is_descriptor(source)) {
    PS_TRY(auto opened, open_disk(source, true));
    auto const& top = *opened.disk->descriptor().find(opened.disk->descriptor().top());
    source = opened.directory->images().path_of(top.file);
    is_raw = top.is_raw;
    disk = std::make_unique<Opened_disk>(std::move(opened));
  }
  auto const [directory, name] = split_path(source);
  PS_TRY(auto const from, Local_directory::open(directory));
  if (!is_raw) {  // no copy of what somebody is writing, or of something else
    PS_TRY(auto store, from->images().open(name));
    PS_TRY(auto const delta, Offline_delta::open(std::move(store), source));
  }
  PS_TRY(auto store, from->images().open(name));
  auto const [target_directory, target_name] = split_path(options.target);
  PS_TRY(auto const to, Local_directory::open(target_directory));
  PS_TRY(auto target, to->images().create(target_name));
  return copy_bytes(cli, store, target, options.target);
}

Outcome<void> compact(Ploop_cli& cli, Options const& options) {
  PS_TRY(auto const opened, open_disk(options.path, true));
  return opened.disk->compact(cli.progress("compacting"));
}

/// For a raw image of unknown cluster size: the largest that divides it, as ploop chooses.
Outcome<std::uint32_t> raw_cluster(Local_directory& local, std::string const& file,
                                   Options const& options) {
  if (options.block_sectors != 0) return cluster_of(options);
  PS_TRY(auto const store, local.images().open(file));
  auto cluster = cluster_bytes_default;
  while (cluster > cluster_bytes_min && store.size_bytes() % cluster != 0) cluster /= 2;
  return cluster;
}

Outcome<void> restore(Options const& options) {
  auto const directory = split_path(options.target + "/" + descriptor_name).directory;
  PS_TRY(auto const local, Local_directory::open(directory));
  auto const image = split_path(options.path);
  auto const file = image.directory == directory ? image.name : image.directory + "/" + image.name;
  std::uint32_t raw_cluster_bytes = 0;
  if (options.format == "raw") {
    PS_TRY(raw_cluster_bytes, raw_cluster(*local, file, options));
  }
  PS_TRY(auto const disk,
         Virtual_disk::restore(local->images(), descriptor_name, file, raw_cluster_bytes));
  return success();
}

void add_disk(CLI::App* command, std::shared_ptr<Options> const& options) {
  command->add_option("DESCRIPTOR", options->path, "The disk's DiskDescriptor.xml")->required();
}

void add_block_size(CLI::App* command, std::shared_ptr<Options> const& options,
                    char const* text = "Cluster size in sectors of 512 bytes (default 2048)") {
  command->add_option("-b,--blocksize", options->block_sectors, text);
}

void add_making(Ploop_cli& cli, std::shared_ptr<Options> const& options) {
  auto* const make = cli.add("init", "Makes an image and its DiskDescriptor.xml",
                             [options] { return init(*options); });
  make->add_option("DELTA", options->path, "Path of the new image, e.g. root.hdd/root.hds")
      ->required();
  make->add_option("-s,--size", options->size, "Size of the disk")->required();
  make->add_option("-f,--format", options->format,
                   "expanded (grows as it is written; also: ploop1), preallocated or raw")
      ->check(CLI::IsMember({"expanded", "ploop1", "preallocated", "raw"}));
  make->add_option("-v,--version", options->version, "1, or 2 (the default)")
      ->check(CLI::Range(1, 2));
  make->add_option("-t,--fstype", options->file_system,
                   "none: file systems are made on the attached disk")
      ->check(CLI::IsMember({"none"}));
  add_block_size(make, options);
  auto* const again =
      cli.add("restore-descriptor", "Makes the DiskDescriptor.xml of a base image anew",
              [options] { return restore(*options); });
  again->add_option("IMAGE_DIR", options->target, "Where DiskDescriptor.xml goes")->required();
  again->add_option("BASE_DELTA", options->path, "The image")->required();
  again->add_option("-f,--format", options->format, "raw, or ploop1 (the default)")
      ->check(CLI::IsMember({"raw", "ploop1"}));
  add_block_size(again, options,
                 "For a raw image: cluster size in sectors (default: the largest possible)");
}

}  // namespace

void add_image_commands(Ploop_cli& cli) {
  auto const options = std::make_shared<Options>();
  add_making(cli, options);
  auto* const larger = cli.add("grow", "Makes a disk larger", [options] { return grow(*options); });
  larger->add_option("PATH", options->path, "DiskDescriptor.xml or an image file")->required();
  larger->add_option("-s,--size", options->size, "New size")->required();
  larger->add_option("-f,--format", options->format, "raw: the image file is one")
      ->check(CLI::IsMember({"raw"}));
  add_block_size(larger, options, "Cluster size in sectors, for a raw image (default 2048)");
  auto* const resize =
      cli.add("resize", "Makes a disk larger; the file system in it is resized by its owner",
              [options] { return grow(*options); });
  add_disk(resize, options);
  resize->add_option("-s,--size", options->size, "New size")->required();
  auto* const change = cli.add("convert", "Converts a disk's format, or its version",
                               [&cli, options] { return convert(cli, *options); });
  add_disk(change, options);
  change->add_option("-f,--format", options->format, "raw, preallocated or expanded; no snapshots")
      ->check(CLI::IsMember({"raw", "preallocated", "expanded"}));
  change->add_option("-v,--version", options->version, "1 or 2")->check(CLI::Range(1, 2));
  auto* const clone = cli.add("copy", "Copies an image file, or the top of a disk",
                              [&cli, options] { return copy(cli, *options); });
  clone->add_option("-s,--source", options->source, "Image file or DiskDescriptor.xml")->required();
  clone->add_option("-d,--destination", options->target, "New file")->required();
  add_disk(cli.add("compact", "Gives unused clusters back: zeros, and holes in the file",
                   [&cli, options] { return compact(cli, *options); }),
           options);
}

}  // namespace pstorage::ploop
