// check: reads every replica of a file and compares them.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>

#include "core/cli/commands.h"
#include "core/cli/cs_call.h"
#include "core/cli/output.h"
#include "core/cli/paths.h"

namespace pstorage::cli {
namespace {

// Reading a chunk of 1 GiB from a slow disk, and having it repaired.
constexpr Duration patience = std::chrono::seconds(120);

struct Check_options {
  std::string path;
  bool is_inside = false;
  bool repairs = false;
};

struct Findings {
  std::uint64_t replicas = 0;
  std::uint64_t blocks = 0;
  std::uint64_t bad = 0;
  std::uint64_t repaired = 0;
  std::uint64_t differing = 0;    // chunks
  std::uint64_t unreachable = 0;  // replicas
  std::vector<std::string> lines;
};

proto::Cs_address const* address_of(proto::File_map const& map, std::uint32_t cs) {
  for (auto const& server : map.servers()) {
    if (server.cs() == cs) return &server;
  }
  return nullptr;
}

Outcome<proto::Checked_chunk> check_replica(Cs_caller& servers, proto::Cs_address const& server,
                                            std::uint64_t chunk, bool repairs) {
  proto::Cs_request request;
  request.mutable_check_chunk()->set_chunk(chunk);
  request.mutable_check_chunk()->set_repair(repairs);
  PS_TRY(auto const reply, servers.call(server, request, patience));
  return reply.checked();
}

std::string bad_text(proto::Checked_chunk const& checked, std::uint32_t left, bool repairs) {
  auto text = std::to_string(checked.bad()) + " damaged blocks";
  if (repairs)
    text += ", " + std::to_string(checked.bad() - std::min(left, checked.bad())) + " repaired";
  return text;
}

/// Checks one chunk on all its up-to-date replicas.
void check_chunk(Cs_caller& servers, proto::File_map const& map, proto::Chunk const& chunk,
                 bool repairs, Findings& findings) {
  auto const name = "chunk " + std::to_string(chunk.chunk());
  std::optional<std::uint32_t> table;
  bool differs = false;
  for (auto const& replica : chunk.replicas()) {
    if (replica.state() != proto::REPLICA_IN_SYNC) continue;
    auto const* const server = address_of(map, replica.cs());
    ++findings.replicas;
    auto const where = name + " on CS#" + std::to_string(replica.cs()) + ": ";
    if (server == nullptr) continue;
    auto checked = check_replica(servers, *server, chunk.chunk(), repairs);
    // A replica that nothing was ever written to need not have a file.
    if (checked.has_error()) {
      ++findings.unreachable;
      findings.lines.push_back(where + checked.error().text);
      continue;
    }
    auto const& found = checked.value();
    findings.blocks += found.blocks();
    findings.bad += found.bad();
    if (found.bad() != 0) {
      std::uint32_t left = found.bad();
      if (repairs) {
        auto const again = check_replica(servers, *server, chunk.chunk(), false);
        if (again.has_value()) left = again.value().bad();
        findings.repaired += found.bad() - std::min(left, found.bad());
      }
      findings.lines.push_back(where + bad_text(found, left, repairs));
    }
    if (table && *table != found.table_crc()) differs = true;
    table = found.table_crc();
  }
  if (!differs) return;
  ++findings.differing;
  findings.lines.push_back(name + ": its replicas differ (or it is being written just now)");
}

void print(Cli const& cli, Findings const& findings) {
  if (cli.is_json()) {
    return print_json({{"replicas", findings.replicas},
                       {"blocks", findings.blocks},
                       {"bad_blocks", findings.bad},
                       {"repaired_blocks", findings.repaired},
                       {"differing_chunks", findings.differing},
                       {"unreachable_replicas", findings.unreachable},
                       {"messages", findings.lines}});
  }
  for (auto const& line : findings.lines) std::printf("%s\n", line.c_str());
  std::printf(
      "%llu blocks of %llu replicas read: %llu damaged, %llu repaired; %llu chunks differ\n",
      static_cast<unsigned long long>(findings.blocks),
      static_cast<unsigned long long>(findings.replicas),
      static_cast<unsigned long long>(findings.bad),
      static_cast<unsigned long long>(findings.repaired),
      static_cast<unsigned long long>(findings.differing));
}

Outcome<void> check(Cli& cli, Check_options const& options) {
  PS_TRY(auto const cluster, cli.cluster());
  PS_TRY(auto const path,
         cluster_path(cluster, options.path, options.is_inside || options.path.starts_with('/')));
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path(path);
  PS_TRY(auto const file, cli.call(std::move(lookup)));
  if (file.file().type() == proto::TYPE_DIRECTORY) {
    return failure(Errc::is_directory, "'" + path + "' is a directory: check takes a file");
  }
  proto::Mds_request request;
  request.mutable_get_map()->set_file(file.file().id());
  PS_TRY(auto const map, cli.call(std::move(request)));
  PS_TRY(auto const servers, Cs_caller::make(cluster));
  Findings findings;
  for (auto const& chunk : map.map().chunks()) {
    check_chunk(*servers, map.map(), chunk, options.repairs, findings);
  }
  print(cli, findings);
  if (findings.bad == findings.repaired && findings.differing == 0 && findings.unreachable == 0) {
    return success();
  }
  return failure(Errc::corrupt, options.repairs ? "not everything could be repaired"
                                                : "there are faults: 'pstorage check --repair'");
}

}  // namespace

void add_check_commands(Cli& cli) {
  auto const options = std::make_shared<Check_options>();
  auto* const command =
      cli.add_command("check", "Reads all replicas of a file, verifies and compares them",
                      [&cli, options] { return check(cli, *options); });
  command->add_option("PATH", options->path, "A file")->required();
  command->add_flag("-p", options->is_inside, "PATH is inside the cluster");
  command->add_flag("--repair", options->repairs, "Replace damaged blocks from another replica");
  cli.add_json(command);
}

}  // namespace pstorage::cli
