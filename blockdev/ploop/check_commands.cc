// check, info, list.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "blockdev/ploop/ploop_cli.h"
#include "core/size.h"

namespace pstorage::ploop {
namespace {

struct Options {
  std::string path;
  std::string guid;
  std::string directory = ".";
  std::uint32_t block_sectors = 0;
  bool force = false;
  bool hard_force = false;
  bool duplicates = false;
  bool read_only = false;
  bool is_silent = false;
  bool drop_in_use = false;
  bool is_raw = false;
  bool short_form = false;
};

bool is_descriptor(std::string const& path) { return path.ends_with(".xml"); }

nlohmann::json json_of(std::string const& path, Check_report const& report) {
  auto faults = nlohmann::json::array();
  for (auto const& fault : report.faults)
    faults.push_back({{"text", fault.text}, {"fatal", fault.is_fatal}, {"fixed", fault.is_fixed}});
  return {{"file", path},
          {"clean", report.is_clean()},
          {"in_use", report.is_in_use},
          {"allocated_clusters", report.allocated},
          {"unused_clusters", report.holes},
          {"tail_bytes", report.tail_bytes},
          {"faults", faults}};
}

void print_faults(Check_report const& report, bool is_silent) {
  for (auto const& fault : report.faults) {
    if (is_silent && !fault.is_fatal) continue;
    std::fprintf(stderr, "%s%s%s\n", fault.is_fatal ? "error: " : "", fault.text.c_str(),
                 fault.is_fixed ? " (fixed)" : "");
  }
}

/// The verdict of one image as ploop's exit code.
Outcome<void> verdict(std::string const& path, Check_report const& report) {
  if (report.fatal > 0)
    return exit_with(Exit::format, path + ": " + std::to_string(report.fatal) +
                                       " fatal errors, nothing was repaired; -F repairs them, "
                                       "which may lose data");
  if (report.is_in_use)
    return exit_with(Exit::in_use, path +
                                       ": it is marked as in use; if nobody has it open, -d drops "
                                       "the mark");
  if (report.has_wrong_empty_flag)
    return exit_with(Exit::write,
                     path + ": its flag 'empty' is wrong; check without -r corrects it");
  return success();
}

/// Is a look at every entry called for? A clean image has been closed by somebody who knew.
Outcome<bool> needs_check(Blocking_store& store, std::string const& path, Options const& options) {
  auto const bytes = store.read(0, std::min<std::uint64_t>(header_bytes, store.size_bytes()));
  if (!bytes) return exit_with(Exit::read, path + ": cannot read: " + bytes.error().message());
  auto const header = decode_header(bytes.value().bytes());
  if (!header.has_value()) {
    bool const is_short = bytes.value().size() < header_bytes;
    return exit_with(is_short ? Exit::read : Exit::format, path + ": " + header.error().text);
  }
  return options.force || options.hard_force || header.value().is_open();
}

Outcome<void> check_delta(Ploop_cli& cli, Image_directory& directory, std::string const& name,
                          Options const& options, nlohmann::json& json) {
  auto const path = directory.path_of(name);
  PS_TRY(auto store, directory.open(name));
  PS_TRY(auto const is_needed, needs_check(store, path, options));
  if (!is_needed) {
    if (!options.is_silent && !cli.is_json())
      std::printf("%s: the image is clean, check is skipped\n", path.c_str());
    return success();
  }
  Check_options const how{.is_read_only = options.read_only,
                          .may_fix_fatal = options.hard_force,
                          .drop_in_use = options.drop_in_use};
  auto const checked = check_image(store, how);
  if (!checked.has_value())
    return failure(checked.error().code, path + ": " + checked.error().text);
  json.push_back(json_of(path, checked.value()));
  if (!cli.is_json()) print_faults(checked.value(), options.is_silent);
  return verdict(path, checked.value());
}

Outcome<void> check_raw(Image_directory& directory, std::string const& name,
                        std::uint32_t block_sectors) {
  PS_TRY(auto const store, directory.open(name));
  auto const block = block_sectors == 0 ? cluster_bytes_default : block_sectors * sector_bytes;
  if (store.size_bytes() > 0 && store.size_bytes() % block == 0) return success();
  return exit_with(Exit::format, directory.path_of(name) + ": the size of the raw image, " +
                                     std::to_string(store.size_bytes()) +
                                     ", is no multiple of the block size " + std::to_string(block));
}

Outcome<void> check_disk(Ploop_cli& cli, Options options, nlohmann::json& json) {
  PS_TRY(auto const opened, open_disk(options.path, !options.read_only));
  auto const& descriptor = opened.disk->descriptor();
  auto const guid = options.guid.empty() ? descriptor.top() : options.guid;
  if (descriptor.find(guid) == nullptr)
    return exit_with(Exit::no_snapshot, "there is no snapshot " + guid);
  // As ploop does for a whole disk: what a crash left is repaired.
  options.drop_in_use = !options.read_only;
  options.is_silent = true;
  auto& images = opened.directory->images();
  for (auto const& delta : descriptor.chain_to(descriptor.find(guid)->guid)) {
    if (delta.is_raw)
      PS_CHECK(check_raw(images, delta.file, descriptor.cluster_sectors()));
    else
      PS_CHECK(check_delta(cli, images, delta.file, options, json));
  }
  return success();
}

Outcome<void> check(Ploop_cli& cli, Options const& options) {
  auto json = nlohmann::json::array();
  auto const checked = [&]() -> Outcome<void> {
    if (is_descriptor(options.path)) return check_disk(cli, options, json);
    if (!options.guid.empty())
      return exit_with(Exit::parameter, "-u goes with a DiskDescriptor.xml");
    auto const [directory, name] = split_path(options.path);
    PS_TRY(auto const local, Local_directory::open(directory));
    if (options.is_raw) return check_raw(local->images(), name, options.block_sectors);
    return check_delta(cli, local->images(), name, options, json);
  }();
  if (cli.is_json()) std::printf("%s\n", json.dump(2).c_str());
  return checked;
}

Outcome<std::uint64_t> allocated_bytes(Opened_disk& opened, Delta const& delta) {
  auto& images = opened.directory->images();
  PS_TRY(auto store, images.open(delta.file));
  if (delta.is_raw) return store.size_bytes();
  auto const report = check_image(store, Check_options{});
  if (!report.has_value())
    return failure(report.error().code, images.path_of(delta.file) + ": " + report.error().text);
  return report.value().allocated * report.value().header.cluster_bytes();
}

Outcome<void> info(Ploop_cli& cli, Options const& options) {
  PS_TRY(auto opened, open_disk(options.path, false));
  PS_TRY(auto const header, opened.disk->header());
  auto const version = header.version == Version::v1 ? 1 : 2;
  if (options.short_form && !cli.is_json()) {
    std::printf("size:\t\t%llu\nblocksize:\t%u\nfmt_version:\t%d\n",
                static_cast<unsigned long long>(header.size_sectors), header.cluster_sectors,
                version);
    return success();
  }
  auto const& descriptor = opened.disk->descriptor();
  nlohmann::json json = {{"size_bytes", header.size_bytes()},
                         {"cluster_bytes", header.cluster_bytes()},
                         {"version", version},
                         {"in_use", header.is_open()},
                         {"snapshots", descriptor.deltas().size() - 1}};
  std::uint64_t allocated = 0;
  for (auto const& delta : descriptor.deltas()) {
    PS_TRY(auto const bytes, allocated_bytes(opened, delta));
    allocated += bytes;
  }
  json["allocated_bytes"] = allocated;
  if (cli.is_json()) {
    std::printf("%s\n", json.dump(2).c_str());
    return success();
  }
  std::printf(
      "Size: %s (%llu bytes)\nAllocated: %s\nCluster: %s\nVersion: %d\nSnapshots: %zu\n"
      "In use: %s\n",
      format_size(header.size_bytes()).c_str(),
      static_cast<unsigned long long>(header.size_bytes()), format_size(allocated).c_str(),
      format_size(header.cluster_bytes()).c_str(), version, descriptor.deltas().size() - 1,
      header.is_open() ? "yes" : "no");
  return success();
}

Outcome<void> list(Ploop_cli& cli, Options const& options) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(options.directory, error), end;
       !error && entry != end; entry.increment(error))
    if (entry->path().filename() == "DiskDescriptor.xml") found.push_back(entry->path());
  if (error)
    return exit_with(Exit::open, "cannot list " + options.directory + ": " + error.message());
  std::sort(found.begin(), found.end());
  auto json = nlohmann::json::array();
  for (auto const& path : found) {
    PS_TRY(auto opened, open_disk(path, false));
    auto const& descriptor = opened.disk->descriptor();
    auto const size = descriptor.size_sectors() * sector_bytes;
    auto const base =
        opened.directory->images().path_of(descriptor.chain_to(descriptor.top()).front().file);
    json.push_back({{"descriptor", path},
                    {"base", base},
                    {"size_bytes", size},
                    {"snapshots", descriptor.deltas().size() - 1}});
    if (!cli.is_json())
      std::printf("%-8s %3zu  %s  %s\n", format_size(size).c_str(), descriptor.deltas().size() - 1,
                  path.c_str(), base.c_str());
  }
  if (cli.is_json()) std::printf("%s\n", json.dump(2).c_str());
  return success();
}

}  // namespace

void add_check_commands(Ploop_cli& cli) {
  auto const options = std::make_shared<Options>();
  auto* const look = cli.add("check", "Checks and repairs an image, or all of a disk",
                             [&cli, options] { return check(cli, *options); });
  look->add_option("PATH", options->path, "DiskDescriptor.xml or an image file")->required();
  look->add_option("-u,--uuid", options->guid,
                   "With a descriptor: up to this snapshot (default: the top)");
  look->add_flag("-f,--force", options->force, "Check even an image that was closed");
  look->add_flag("-F,--hard-force", options->hard_force,
                 "As -f, and repair fatal errors: entries that point nowhere are cleared, clusters "
                 "used twice are copied");
  look->add_flag("-c,--check", options->duplicates,
                 "Accepted for ploop's sake: clusters used twice and holes are always looked for");
  look->add_flag("-r,--ro", options->read_only, "Change nothing");
  look->add_flag("-s,--silent", options->is_silent, "Say only what is fatal");
  look->add_flag("-d,--drop-inuse", options->drop_in_use, "Drop the mark 'in use'");
  look->add_flag("-R,--raw", options->is_raw, "The image is raw: check its size");
  look->add_option("-b,--blocksize", options->block_sectors,
                   "Cluster size in sectors, for a raw image (default 2048)");
  cli.add_json(look);
  auto* const show =
      cli.add("info", "Shows a disk", [&cli, options] { return info(cli, *options); });
  show->add_option("DESCRIPTOR", options->path, "The disk's DiskDescriptor.xml")->required();
  show->add_flag("-s,--spec", options->short_form, "Size and cluster size in sectors, version");
  cli.add_json(show);
  auto* const all = cli.add("list", "Lists the disks below a directory: size, snapshots, names",
                            [&cli, options] { return list(cli, *options); });
  all->add_option("DIRECTORY", options->directory, "Where to look (default: here)");
  cli.add_json(all);
}

}  // namespace pstorage::ploop
