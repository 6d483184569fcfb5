// volume create, ls, info, resize, rename, du, check.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>

#include "blockdev/volume/transfer_note.h"
#include "blockdev/volume/volume_cli.h"
#include "core/cli/attribute_text.h"
#include "core/cli/output.h"
#include "core/size.h"

namespace pstorage::volume {
namespace {

Outcome<std::uint64_t> volume_size(std::string const& text) {
  PS_TRY(auto const size, parse_size(text));
  if (size == 0 || size % ploop::sector_bytes != 0)
    return failure(Errc::bad_request,
                   "bad size '" + text + "': a volume has a positive multiple of 512 bytes");
  return size;
}

Outcome<proto::Attributes> attributes_of(Volume_options const& options) {
  proto::Attributes attributes;
  if (!options.replicas.empty()) PS_CHECK(cli::parse_replicas(options.replicas, attributes));
  if (!options.tier.empty()) PS_CHECK(cli::parse_attribute("tier=" + options.tier, attributes));
  attributes.set_failure_domain(options.failure_domain);
  if (!options.chunk_size.empty())
    PS_CHECK(cli::parse_attribute("chunk-size=" + options.chunk_size, attributes));
  return attributes;
}

std::string replicas_text(proto::Attributes const& attributes) {
  return std::to_string(attributes.replicas_norm()) + ":" +
         std::to_string(attributes.replicas_min());
}

nlohmann::json json_of(Listed_volume const& volume) {
  auto out = cli::to_json(volume.file);
  out["name"] = volume.name;
  out["size"] = volume.size_bytes;
  out["mapped_bytes"] = volume.mapped_bytes;
  out["format"] = volume.is_raw ? "raw" : "ploop";
  auto const& properties = volume.file.properties();
  if (auto const found = properties.find(import_property); found != properties.end())
    if (auto const note = parse_note(found->second); note.has_value())
      out["importing"] = {{"source", note.value().source}, {"done", note.value().done_bytes}};
  if (auto const found = properties.find(merge_property); found != properties.end()) {
    auto const note = merge_note(found->second);
    out["removing"] = {{"snapshot", note.guid}, {"done", note.done}, {"all", note.all}};
  }
  return out;
}

Outcome<void> create(Volume_cli& cli, Volume_options const& options) {
  New_volume volume;
  PS_TRY(volume.name, parse_plain_name(options.name));
  PS_TRY(volume.size_bytes, volume_size(options.size));
  PS_TRY(volume.attributes, attributes_of(options));
  volume.is_raw = options.format == "raw";
  if (!options.cluster.empty()) {
    if (volume.is_raw) return failure(Errc::bad_request, "a raw volume has no clusters");
    PS_TRY(auto const cluster, parse_size(options.cluster));
    if (cluster > ploop::cluster_bytes_max)
      return failure(Errc::bad_request, "a cluster has 32K to 64M, a power of two");
    volume.cluster_bytes = static_cast<std::uint32_t>(cluster);
  }
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  PS_CHECK(work.create(volume));
  if (!cli.cli().is_json()) return success();
  PS_TRY(auto const file, work.look_up(volume.name));
  auto const size = volume.is_raw ? file.size() : volume.size_bytes;
  cli.print_json(json_of({volume.name.name, file, volume.is_raw, size, 0}));
  return success();
}

Outcome<void> list(Volume_cli& cli) {
  PS_TRY(auto* const session, cli.session());
  PS_TRY(auto const volumes, Volume_work(*session).list());
  std::vector<std::vector<std::string>> rows;
  auto json = nlohmann::json::array();
  for (auto const& volume : volumes) {
    auto const& attributes = volume.file.attributes();
    json.push_back(json_of(volume));
    rows.push_back({volume.name, format_size(volume.size_bytes), format_size(volume.mapped_bytes),
                    volume.is_raw ? "raw" : "ploop", replicas_text(attributes),
                    std::to_string(attributes.tier()), attributes.failure_domain()});
  }
  if (cli.cli().is_json())
    cli.print_json(json);
  else
    cli.print_table({"NAME", ">SIZE", ">MAPPED", "FORMAT", "REPLICAS", "TIER", "DOMAIN"}, rows);
  return success();
}

struct Chunk_counts {
  std::uint64_t total = 0, healthy = 0, blocked = 0, syncing = 0;
};

Outcome<void> count_chunks(Tool_session& session, proto::File const& file, Chunk_counts& counts,
                           nlohmann::json& maps) {
  proto::Mds_request request;
  request.mutable_get_map()->set_file(file.id());
  PS_TRY(auto const reply, session.call(std::move(request)));
  maps.push_back(cli::to_json(reply.map()));
  for (auto const& chunk : reply.map().chunks()) {
    std::uint32_t in_sync = 0;
    for (auto const& replica : chunk.replicas()) {
      in_sync += replica.state() == proto::REPLICA_IN_SYNC ? 1 : 0;
      counts.syncing += replica.state() == proto::REPLICA_SYNCING ? 1 : 0;
    }
    ++counts.total;
    counts.healthy += in_sync >= file.attributes().replicas_norm() ? 1 : 0;
    counts.blocked += in_sync < file.attributes().replicas_min() ? 1 : 0;
  }
  return success();
}

void print_info(Listed_volume const& volume, std::string const& holder, std::size_t snapshots,
                Chunk_counts const& chunks) {
  auto const& attributes = volume.file.attributes();
  std::printf("Volume: %s\nSize: %s (%llu bytes)\nFormat: %s\n", volume.name.c_str(),
              format_size(volume.size_bytes).c_str(),
              static_cast<unsigned long long>(volume.size_bytes), volume.is_raw ? "raw" : "ploop");
  std::printf("In use by: %s\n", holder.empty() ? "nobody" : holder.c_str());
  if (!volume.is_raw) std::printf("Snapshots: %zu\n", snapshots);
  std::printf("Chunks: %llu mapped, %llu healthy, %llu degraded, %llu blocked, %llu replicating\n",
              static_cast<unsigned long long>(chunks.total),
              static_cast<unsigned long long>(chunks.healthy),
              static_cast<unsigned long long>(chunks.total - chunks.healthy - chunks.blocked),
              static_cast<unsigned long long>(chunks.blocked),
              static_cast<unsigned long long>(chunks.syncing));
  std::printf("Attributes:\n");
  for (auto const& line : cli::attribute_lines(attributes)) std::printf("  %s\n", line.c_str());
  for (auto const& [key, value] : volume.file.properties())
    std::printf("  %s: %s\n", key.c_str(), value.c_str());
}

Outcome<void> info(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  PS_TRY(auto const file, work.look_up(name));
  Listed_volume volume{name.name, file, file.type() == proto::TYPE_FILE, file.size(), 0};
  auto holder = file.holder();
  std::size_t snapshots = 0;
  std::vector<proto::File> files = {file};
  if (!volume.is_raw) {
    PS_TRY(auto const descriptor, work.descriptor(name));
    volume.size_bytes = descriptor.size_sectors() * ploop::sector_bytes;
    snapshots = descriptor.deltas().size() - 1;
    Cluster_directory directory(*session, name.path());
    PS_TRY(files, directory.list());
    proto::Mds_request lookup;
    lookup.mutable_lookup()->set_path(directory.path_of(descriptor_file));
    PS_TRY(auto const lock, session->call(std::move(lookup)));
    holder = lock.file().holder();
  }
  Chunk_counts chunks;
  auto maps = nlohmann::json::array();
  for (auto const& one : files) {
    volume.mapped_bytes += one.allocated_chunks() * one.attributes().chunk_size();
    PS_CHECK(count_chunks(*session, one, chunks, maps));
  }
  if (!cli.cli().is_json()) {
    cli.cli().greet();
    print_info(volume, holder, snapshots, chunks);
    return success();
  }
  auto out = json_of(volume);
  out["holder"] = holder;
  out["snapshots"] = snapshots;
  out["maps"] = maps;
  if (volume.is_raw) out["map"] = maps[0];
  cli.print_json(out);
  return success();
}

Outcome<void> resize(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto const size, volume_size(options.size));
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  PS_CHECK(work.resize(name, size, options.may_shrink));
  if (!cli.cli().is_json()) return success();
  PS_TRY(auto const file, work.look_up(name));
  bool const is_raw = file.type() == proto::TYPE_FILE;
  cli.print_json(json_of({name.name, file, is_raw, is_raw ? file.size() : size, 0}));
  return success();
}

Outcome<void> rename(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const from, parse_plain_name(options.name));
  PS_TRY(auto const to, parse_plain_name(options.other));
  PS_TRY(auto* const session, cli.session());
  return Volume_work(*session).rename(from, to);
}

Outcome<void> usage(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto* const session, cli.session());
  Volume_work work(*session);
  std::vector<std::string> names;
  if (options.name.empty()) {
    PS_TRY(auto const all, work.list());
    for (auto const& volume : all) names.push_back(volume.name);
  } else {
    names.push_back(options.name);
  }
  std::vector<std::vector<std::string>> rows;
  auto json = nlohmann::json::array();
  for (auto const& text : names) {
    PS_TRY(auto const name, parse_plain_name(text));
    PS_TRY(auto const found, work.usage(name));
    rows.push_back({text, format_size(found.virtual_bytes), format_size(found.allocated_bytes),
                    format_size(found.exclusive_bytes)});
    json.push_back({{"name", text},
                    {"virtual_bytes", found.virtual_bytes},
                    {"allocated_bytes", found.allocated_bytes},
                    {"exclusive_bytes", found.exclusive_bytes}});
  }
  if (cli.cli().is_json())
    cli.print_json(json);
  else
    cli.print_table({"NAME", ">VIRTUAL", ">ALLOCATED", ">EXCLUSIVE"}, rows);
  return success();
}

Outcome<void> check(Volume_cli& cli, Volume_options const& options) {
  PS_TRY(auto const name, parse_plain_name(options.name));
  PS_TRY(auto* const session, cli.session());
  PS_TRY(auto const results, Volume_work(*session).check(name, options.repairs));
  auto json = nlohmann::json::array();
  std::uint64_t bad = 0;
  for (auto const& [file, report] : results) {
    bad += report.is_clean() ? 0 : 1;
    auto faults = nlohmann::json::array();
    for (auto const& fault : report.faults) faults.push_back(fault.text);
    json.push_back({{"file", file},
                    {"clean", report.is_clean()},
                    {"allocated", report.allocated},
                    {"holes", report.holes},
                    {"faults", faults}});
    if (cli.cli().is_json()) continue;
    cli.cli().greet();
    std::printf("%s: %s, %llu clusters\n", file.c_str(), report.is_clean() ? "clean" : "NOT CLEAN",
                static_cast<unsigned long long>(report.allocated));
    for (auto const& fault : report.faults) std::printf("  %s\n", fault.text.c_str());
    if (report.is_in_use) std::printf("  it was not closed: the next start recovers it\n");
  }
  if (cli.cli().is_json()) cli.print_json(json);
  if (bad == 0) return success();
  return failure(Errc::corrupt, std::to_string(bad) + " of " + std::to_string(results.size()) +
                                    " deltas are not clean" +
                                    (options.repairs ? "" : "; --repair repairs what can be"));
}

void add_size_and_place(CLI::App* command, Volume_options& options) {
  command->add_option("--format", options.format, "ploop (snapshots, clones) or raw")
      ->check(CLI::IsMember({"ploop", "raw"}))
      ->capture_default_str();
  command->add_option("--cluster", options.cluster, "Cluster of a ploop volume, 32K to 64M (1M)");
  command->add_option("--replicas", options.replicas, "NORM[:MIN] (default: the directory's)");
  command->add_option("--tier", options.tier, "0..3 (default: the directory's)");
  command->add_option("--failure-domain", options.failure_domain, "disk, host, rack, row or room");
  command->add_option("--chunk-size", options.chunk_size, "Power of two, 4K to 1G");
}

}  // namespace

std::string utc_text(std::uint64_t wall_ms) {
  auto const seconds = static_cast<std::time_t>(wall_ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  auto const size = std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return {text, size};
}

Outcome<Tool_session*> Volume_cli::session() {
  if (session_) return session_.get();
  // Finds out whether the cluster can be reached, and says so.
  proto::Mds_request hello;
  hello.mutable_lookup()->set_path("/");
  PS_CHECK(cli_.ask(std::move(hello)));
  PS_TRY(auto const name, cli_.cluster());
  PS_TRY(session_, Tool_session::connect(name, cli_.options().bootstrap));
  return session_.get();
}

void Volume_cli::print_json(nlohmann::json const& json) { cli::print_json(json); }

void Volume_cli::print_line(std::string const& text) {
  cli_.greet();
  std::printf("%s\n", text.c_str());
}

void Volume_cli::print_table(std::vector<std::string> const& headers,
                             std::vector<std::vector<std::string>> const& rows) {
  cli_.greet();
  cli::print_table(headers, rows);
}

void add_basic_commands(Shared_cli const& cli, Shared_options const& options, CLI::App* group) {
  auto const add = [&](char const* name, char const* description,
                       Outcome<void> (*action)(Volume_cli&, Volume_options const&)) {
    return cli->cli().add_command(
        name, description,
        [cli, options, action] { return cli->run([&] { return action(*cli, *options); }); }, group);
  };
  auto* const create_command = add("create", "Makes a volume", create);
  create_command->add_option("NAME", options->name, "Name of the volume")->required();
  create_command->add_option("-s,--size", options->size, "Size: a number with K M G T P")
      ->required();
  add_size_and_place(create_command, *options);
  cli->cli().add_json(create_command);

  cli->cli().add_json(cli->cli().add_command(
      "ls", "Lists the volumes", [cli] { return cli->run([&] { return list(*cli); }); }, group));

  auto* const info_command = add("info", "Shows a volume", info);
  info_command->add_option("NAME", options->name, "Name of the volume")->required();
  cli->cli().add_json(info_command);

  auto* const resize_command = add("resize", "Changes the size of a volume, also in use", resize);
  resize_command->add_option("NAME", options->name, "Name of the volume")->required();
  resize_command->add_option("-s,--size", options->size, "New size")->required();
  resize_command->add_flag("--shrink", options->may_shrink,
                           "Allow a raw volume to become smaller; what is behind is lost");
  cli->cli().add_json(resize_command);

  for (auto const* const verb : {"rename", "mv"}) {
    auto* const rename_command = add(verb, "Gives a volume another name, or moves it", rename);
    rename_command->add_option("NAME", options->name, "Name of the volume")->required();
    rename_command->add_option("NEW", options->other, "New name")->required();
  }

  auto* const usage_command = add("du", "Shows what volumes take", usage);
  usage_command->add_option("NAME", options->name, "Name of the volume (default: all)");
  cli->cli().add_json(usage_command);

  auto* const check_command = add("check", "Checks the image of a volume that nobody uses", check);
  check_command->add_option("NAME", options->name, "Name of the volume")->required();
  check_command->add_flag("--repair", options->repairs, "Repair what can be repaired");
  cli->cli().add_json(check_command);
}

}  // namespace pstorage::volume

namespace pstorage::cli {

void add_volume_commands(Cli& cli) {
  auto const shared = std::make_shared<volume::Volume_cli>(cli);
  auto const options = std::make_shared<volume::Volume_options>();
  auto* const group = cli.add_group("volume", "Volumes: virtual disks of the cluster");
  volume::add_basic_commands(shared, options, group);
  volume::add_snapshot_commands(shared, options, group);
  volume::add_trash_commands(shared, options, group);
  volume::add_transfer_commands(shared, options, group);
  volume::add_limit_commands(shared, options, group);
  volume::add_attach_commands(shared, options, group);
  volume::add_migration_commands(shared, options, group);
}

}  // namespace pstorage::cli
