// get-attr, set-attr.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "core/cli/attribute_text.h"
#include "core/cli/commands.h"
#include "core/cli/output.h"
#include "core/cli/paths.h"

namespace pstorage::cli {
namespace {

struct Attribute_options {
  std::string path;
  bool is_inside = false;
  bool is_recursive = false;
  std::vector<std::string> changes;
};

void print_attributes(Cli const& cli, std::string const& cluster, std::string const& path,
                      proto::File const& file) {
  if (cli.is_json()) {
    auto out = to_json(file.attributes());
    out["path"] = path;
    out["type"] = file.type() == proto::TYPE_DIRECTORY ? "directory" : "file";
    print_json(out);
    return;
  }
  std::printf("Path: 'pstorage://%s%s'\nAttributes:\n  %s\n", cluster.c_str(), path.c_str(),
              file.type() == proto::TYPE_DIRECTORY ? "directory" : "file");
  for (auto const& line : attribute_lines(file.attributes())) {
    std::printf("  %s\n", line.c_str());
  }
}

Outcome<void> get_attributes(Cli& cli, Attribute_options const& options) {
  PS_TRY(auto const cluster, cli.cluster());
  PS_TRY(auto const path, cluster_path(cluster, options.path, options.is_inside));
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path);
  PS_TRY(auto const reply, cli.call(std::move(request)));
  print_attributes(cli, cluster, path, reply.file());
  return success();
}

Outcome<void> set_attributes(Cli& cli, Attribute_options const& options) {
  PS_TRY(auto const cluster, cli.cluster());
  PS_TRY(auto const path, cluster_path(cluster, options.path, options.is_inside));
  proto::Mds_request request;
  auto& command = *request.mutable_set_attributes();
  command.set_path(path);
  command.set_recursive(options.is_recursive);
  for (auto const& change : options.changes) {
    PS_CHECK(parse_attribute(change, *command.mutable_attributes()));
  }
  PS_TRY(auto const reply, cli.call(std::move(request)));
  if (cli.is_json()) print_attributes(cli, cluster, path, reply.file());
  return success();
}

}  // namespace

void add_attribute_commands(Cli& cli) {
  auto const options = std::make_shared<Attribute_options>();
  auto* const get = cli.add_command("get-attr", "Prints the attributes of a file or directory",
                                    [&cli, options] { return get_attributes(cli, *options); });
  get->add_flag("-p", options->is_inside, "PATH is inside the cluster; no mount is needed");
  get->add_option("PATH", options->path, "File or directory")->required();
  cli.add_json(get);
  auto* const set = cli.add_command("set-attr", "Changes attributes of a file or directory",
                                    [&cli, options] { return set_attributes(cli, *options); });
  set->add_flag("-R,--recursive", options->is_recursive, "Also everything below the directory");
  set->add_flag("-p", options->is_inside, "PATH is inside the cluster; no mount is needed");
  set->add_option("PATH", options->path, "File or directory")->required();
  set->add_option("ATTRIBUTE", options->changes,
                  "replicas=NORM[:MIN], failure-domain=disk|host|rack|row|room, tier=0..3, "
                  "chunk-size=SIZE, on-full=error|wait, client-ssd-cache=0|1")
      ->required();
  cli.add_json(set);
}

}  // namespace pstorage::cli
