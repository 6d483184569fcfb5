// volume create, ls, info, rm, resize; revoke.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "core/cli/attribute_text.h"
#include "core/cli/commands.h"
#include "core/cli/output.h"
#include "core/cli/paths.h"
#include "core/size.h"

namespace pstorage::cli {
namespace {

constexpr std::uint64_t sector_bytes = 512;

struct Volume_options {
  std::string name;
  std::string size;
  std::string replicas;
  std::string tier;
  std::string failure_domain;
  std::string chunk_size;
  bool may_shrink = false;
};

Outcome<std::uint64_t> volume_size(std::string const& text) {
  PS_TRY(auto const size, parse_size(text));
  if (size == 0 || size % sector_bytes != 0) {
    return failure(Errc::bad_request,
                   "bad size '" + text + "': a volume has a positive multiple of 512 bytes");
  }
  return size;
}

Outcome<void> create_volume(Cli& cli, Volume_options const& options) {
  proto::Mds_request request;
  auto& command = *request.mutable_create();
  PS_TRY(auto const path, volume_path(options.name));
  PS_TRY(auto const size, volume_size(options.size));
  command.set_path(path);
  command.set_size(size);
  command.set_parents(true);
  auto& attributes = *command.mutable_attributes();
  if (!options.replicas.empty()) PS_CHECK(parse_replicas(options.replicas, attributes));
  if (!options.tier.empty()) PS_CHECK(parse_attribute("tier=" + options.tier, attributes));
  attributes.set_failure_domain(options.failure_domain);
  if (!options.chunk_size.empty()) {
    PS_CHECK(parse_attribute("chunk-size=" + options.chunk_size, attributes));
  }
  PS_TRY(auto const reply, cli.call(std::move(request)));
  if (cli.is_json()) print_json(to_json(reply.file()));
  return success();
}

std::string replicas_text(proto::Attributes const& attributes) {
  return std::to_string(attributes.replicas_norm()) + ":" +
         std::to_string(attributes.replicas_min());
}

std::uint64_t allocated_bytes(proto::File const& file) {
  return file.allocated_chunks() * file.attributes().chunk_size();
}

Outcome<void> list_volumes(Cli& cli) {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path("/volumes");
  auto answer = cli.call(std::move(request));
  // Before the first volume there is no directory: an empty list, not an error.
  if (!answer.has_value() && errc_of(answer.error().code) != Errc::not_found) {
    return std::move(answer).error();
  }
  proto::Mds_reply const reply = answer.has_value() ? answer.value() : proto::Mds_reply();
  std::vector<std::vector<std::string>> rows;
  auto list = nlohmann::json::array();
  for (auto const& file : reply.files().files()) {
    if (file.type() != proto::TYPE_FILE) continue;
    list.push_back(to_json(file));
    rows.push_back({file.name(), format_size(file.size()), format_size(allocated_bytes(file)),
                    replicas_text(file.attributes()), std::to_string(file.attributes().tier()),
                    file.attributes().failure_domain()});
  }
  if (cli.is_json()) {
    print_json(list);
  } else {
    print_table({"NAME", ">SIZE", ">MAPPED", "REPLICAS", "TIER", "DOMAIN"}, rows);
  }
  return success();
}

void print_volume(std::string const& name, proto::File const& file, proto::File_map const& map) {
  auto const& attributes = file.attributes();
  std::uint64_t healthy = 0;
  std::uint64_t blocked = 0;
  std::uint64_t syncing = 0;
  for (auto const& chunk : map.chunks()) {
    std::uint32_t in_sync = 0;
    for (auto const& replica : chunk.replicas()) {
      in_sync += replica.state() == proto::REPLICA_IN_SYNC ? 1 : 0;
      syncing += replica.state() == proto::REPLICA_SYNCING ? 1 : 0;
    }
    healthy += in_sync >= attributes.replicas_norm() ? 1 : 0;
    blocked += in_sync < attributes.replicas_min() ? 1 : 0;
  }
  auto const total = static_cast<std::uint64_t>(map.chunks_size());
  std::printf("Volume: %s\nSize: %s (%llu bytes)\n", name.c_str(), format_size(file.size()).c_str(),
              static_cast<unsigned long long>(file.size()));
  std::printf("Chunks: %llu mapped, %llu healthy, %llu degraded, %llu blocked, %llu replicating\n",
              static_cast<unsigned long long>(total), static_cast<unsigned long long>(healthy),
              static_cast<unsigned long long>(total - healthy - blocked),
              static_cast<unsigned long long>(blocked), static_cast<unsigned long long>(syncing));
  std::printf("Attributes:\n");
  for (auto const& line : attribute_lines(attributes)) std::printf("  %s\n", line.c_str());
  for (auto const& [key, value] : file.properties()) {
    std::printf("  %s: %s\n", key.c_str(), value.c_str());
  }
}

Outcome<void> show_volume(Cli& cli, Volume_options const& options) {
  PS_TRY(auto const path, volume_path(options.name));
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path(path);
  PS_TRY(auto const found, cli.call(std::move(lookup)));
  proto::Mds_request get_map;
  get_map.mutable_get_map()->set_file(found.file().id());
  PS_TRY(auto const map, cli.call(std::move(get_map)));
  if (cli.is_json()) {
    auto out = to_json(found.file());
    out["map"] = to_json(map.map());
    print_json(out);
  } else {
    print_volume(options.name, found.file(), map.map());
  }
  return success();
}

Outcome<void> remove_volume(Cli& cli, Volume_options const& options) {
  PS_TRY(auto const path, volume_path(options.name));
  proto::Mds_request request;
  request.mutable_remove()->set_path(path);
  PS_TRY(auto const reply, cli.call(std::move(request)));
  return success();
}

Outcome<void> resize_volume(Cli& cli, Volume_options const& options) {
  PS_TRY(auto const path, volume_path(options.name));
  PS_TRY(auto const size, volume_size(options.size));
  proto::Mds_request request;
  request.mutable_resize()->set_path(path);
  request.mutable_resize()->set_size(size);
  request.mutable_resize()->set_allow_shrink(options.may_shrink);
  auto reply = cli.call(std::move(request));
  if (!reply.has_value() && errc_of(reply.error().code) == Errc::refused) {
    return failure(Errc::refused, reply.error().text + "; --shrink allows it");
  }
  if (!reply.has_value()) return std::move(reply).error();
  if (cli.is_json()) print_json(to_json(reply.value().file()));
  return success();
}

Outcome<void> revoke(Cli& cli, std::string const& given) {
  proto::Mds_request request;
  request.mutable_revoke()->set_path(given.starts_with('/') ? given : "/" + given);
  PS_TRY(auto const reply, cli.call(std::move(request)));
  return success();
}

}  // namespace

void add_volume_commands(Cli& cli) {
  auto const options = std::make_shared<Volume_options>();
  auto* const group = cli.add_group("volume", "Volumes: virtual disks of the cluster");

  auto* const create = cli.add_command(
      "create", "Makes a volume", [&cli, options] { return create_volume(cli, *options); }, group);
  create->add_option("NAME", options->name, "Name of the volume")->required();
  create->add_option("-s,--size", options->size, "Size: a number with K M G T P")->required();
  create->add_option("--replicas", options->replicas, "NORM[:MIN] (default: the directory's)");
  create->add_option("--tier", options->tier, "0..3 (default: the directory's)");
  create->add_option("--failure-domain", options->failure_domain, "disk, host, rack, row or room");
  create->add_option("--chunk-size", options->chunk_size, "Power of two, 4K to 1G");
  cli.add_json(create);

  cli.add_json(cli.add_command(
      "ls", "Lists the volumes", [&cli] { return list_volumes(cli); }, group));

  auto* const info = cli.add_command(
      "info", "Shows a volume", [&cli, options] { return show_volume(cli, *options); }, group);
  info->add_option("NAME", options->name, "Name of the volume")->required();
  cli.add_json(info);

  auto* const remove = cli.add_command(
      "rm", "Deletes a volume and its data",
      [&cli, options] { return remove_volume(cli, *options); }, group);
  remove->add_option("NAME", options->name, "Name of the volume")->required();

  auto* const resize = cli.add_command(
      "resize", "Changes the size of a volume",
      [&cli, options] { return resize_volume(cli, *options); }, group);
  resize->add_option("NAME", options->name, "Name of the volume")->required();
  resize->add_option("-s,--size", options->size, "New size")->required();
  resize->add_flag("--shrink", options->may_shrink, "Allow a smaller size; what is behind is lost");
  cli.add_json(resize);

  auto const path = std::make_shared<std::string>();
  auto* const end = cli.add_command("revoke", "Ends the lease of a file by force",
                                    [&cli, path] { return revoke(cli, *path); });
  end->add_option("PATH", *path, "File inside the cluster, e.g. /volumes/vm1")->required();
}

}  // namespace pstorage::cli
