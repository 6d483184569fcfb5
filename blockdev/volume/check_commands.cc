// check: reads every replica of a file, compares them and makes them agree.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>

#include "blockdev/volume/tool_session.h"
#include "core/cli/commands.h"
#include "core/cli/cs_call.h"
#include "core/cli/output.h"
#include "core/cli/paths.h"

namespace pstorage::volume {
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
  std::uint64_t agreed = 0;       // of these, in the end
  std::uint64_t unreachable = 0;  // replicas
  std::vector<std::string> lines;
};

proto::Cs_address const* address_of(proto::File_map const& map, std::uint32_t cs) {
  for (auto const& server : map.servers()) {
    if (server.cs() == cs) return &server;
  }
  return nullptr;
}

Outcome<proto::Checked_chunk> check_replica(cli::Cs_caller& servers,
                                            proto::Cs_address const& server, std::uint64_t chunk,
                                            bool repairs) {
  proto::Cs_request request;
  request.mutable_check_chunk()->set_chunk(chunk);
  request.mutable_check_chunk()->set_repair(repairs);
  PS_TRY(auto const reply, servers.call(server, request, patience));
  return reply.checked();
}

/// What one pass over the up-to-date replicas of a chunk has found.
struct Pass {
  struct One {
    std::uint32_t cs = 0;
    std::uint32_t blocks = 0;
    std::uint32_t bad = 0;
  };
  std::vector<One> replicas;
  std::vector<std::string> unreachable;
  bool differs = false;
};

std::string place_of(proto::Chunk const& chunk, std::uint32_t cs) {
  return "chunk " + std::to_string(chunk.chunk()) + " on CS#" + std::to_string(cs) + ": ";
}

Pass read_replicas(cli::Cs_caller& servers, proto::File_map const& map, proto::Chunk const& chunk,
                   bool repairs) {
  Pass pass;
  std::optional<std::uint32_t> table;
  for (auto const& replica : chunk.replicas()) {
    if (replica.state() != proto::REPLICA_IN_SYNC) continue;
    auto const* const server = address_of(map, replica.cs());
    if (server == nullptr) continue;
    auto const checked = check_replica(servers, *server, chunk.chunk(), repairs);
    // A replica that nothing was ever written to need not have a file.
    if (checked.has_error()) {
      pass.unreachable.push_back(place_of(chunk, replica.cs()) + checked.error().text);
      continue;
    }
    auto const& found = checked.value();
    pass.replicas.push_back({replica.cs(), found.blocks(), found.bad()});
    pass.differs = pass.differs || (table && *table != found.table_crc());
    table = found.table_crc();
  }
  return pass;
}

/// Whoever writes the file does it, for only there it is known what is on its way. Of a file that
/// nobody writes anybody may: what is written later is safe behind its writer's seal.
Outcome<void> make_replicas_agree(Tool_session& session, std::string const& path,
                                  std::uint32_t index) {
  proto::Holder_request request;
  request.mutable_compare_replicas()->set_index(index);
  auto asked = session.ask_holder(path, std::move(request));
  if (asked.has_value() || errc_of(asked.error().code) != Errc::not_found) return asked;
  PS_TRY(auto const volume, session.open_reader(path));
  auto const compared = session.compare(*volume, index);
  PS_CHECK(session.close(volume));
  return compared;
}

struct Check_work {
  Tool_session& session;
  cli::Cs_caller& servers;
  std::string path;
  bool repairs;
  proto::File_map map;
  Findings findings;
};

void count_damage(Check_work& work, proto::Chunk const& chunk, Pass const& pass, bool was_mended) {
  auto& findings = work.findings;
  bool const is_damaged = std::any_of(pass.replicas.begin(), pass.replicas.end(),
                                      [](Pass::One const& one) { return one.bad != 0; });
  Pass after;
  if (work.repairs && (is_damaged || was_mended))
    after = read_replicas(work.servers, work.map, chunk, false);
  for (auto const& one : pass.replicas) {
    findings.blocks += one.blocks;
    findings.bad += one.bad;
    if (one.bad == 0) continue;
    auto text = place_of(chunk, one.cs) + std::to_string(one.bad) + " damaged blocks";
    auto const left = std::find_if(after.replicas.begin(), after.replicas.end(),
                                   [&](Pass::One const& again) { return again.cs == one.cs; });
    if (left != after.replicas.end()) {
      auto const repaired = one.bad - std::min(left->bad, one.bad);
      findings.repaired += repaired;
      text += ", " + std::to_string(repaired) + " repaired";
    }
    findings.lines.push_back(text);
  }
}

/// Checks one chunk on all its up-to-date replicas.
void check_chunk(Check_work& work, proto::Chunk const& chunk) {
  auto& findings = work.findings;
  auto const name = "chunk " + std::to_string(chunk.chunk());
  auto const pass = read_replicas(work.servers, work.map, chunk, work.repairs);
  findings.replicas += pass.replicas.size() + pass.unreachable.size();
  findings.unreachable += pass.unreachable.size();
  findings.lines.insert(findings.lines.end(), pass.unreachable.begin(), pass.unreachable.end());
  if (pass.differs) ++findings.differing;
  bool was_mended = false;
  if (pass.differs && work.repairs) {
    auto const agreed = make_replicas_agree(work.session, work.path, chunk.index());
    was_mended = agreed.has_value();
    findings.agreed += was_mended ? 1 : 0;
    findings.lines.push_back(
        name + (was_mended ? ": its replicas differed, and agree now"
                           : ": its replicas differ, and stay so: " + agreed.error().text));
  } else if (pass.differs) {
    findings.lines.push_back(name + ": its replicas differ (or it is being written just now)");
  }
  count_damage(work, chunk, pass, was_mended);
}

void print(cli::Cli const& cli, Findings const& findings) {
  if (cli.is_json()) {
    return cli::print_json({{"replicas", findings.replicas},
                            {"blocks", findings.blocks},
                            {"bad_blocks", findings.bad},
                            {"repaired_blocks", findings.repaired},
                            {"differing_chunks", findings.differing},
                            {"repaired_chunks", findings.agreed},
                            {"unreachable_replicas", findings.unreachable},
                            {"messages", findings.lines}});
  }
  for (auto const& line : findings.lines) std::printf("%s\n", line.c_str());
  std::printf(
      "%llu blocks of %llu replicas read: %llu damaged, %llu repaired; %llu chunks differ, %llu "
      "repaired\n",
      static_cast<unsigned long long>(findings.blocks),
      static_cast<unsigned long long>(findings.replicas),
      static_cast<unsigned long long>(findings.bad),
      static_cast<unsigned long long>(findings.repaired),
      static_cast<unsigned long long>(findings.differing),
      static_cast<unsigned long long>(findings.agreed));
}

Outcome<void> check(cli::Cli& cli, Check_options const& options) {
  PS_TRY(auto const cluster, cli.cluster());
  PS_TRY(auto const path, cli::cluster_path(cluster, options.path,
                                            options.is_inside || options.path.starts_with('/')));
  proto::Mds_request lookup;
  lookup.mutable_lookup()->set_path(path);
  PS_TRY(auto const file, cli.call(std::move(lookup)));
  if (file.file().type() == proto::TYPE_DIRECTORY) {
    return failure(Errc::is_directory, "'" + path + "' is a directory: check takes a file");
  }
  proto::Mds_request request;
  request.mutable_get_map()->set_file(file.file().id());
  PS_TRY(auto const map, cli.call(std::move(request)));
  PS_TRY(auto const servers, cli::Cs_caller::make(cluster));
  PS_TRY(auto const session, Tool_session::connect(cluster, cli.options().bootstrap));
  Check_work work{*session, *servers, path, options.repairs, map.map(), {}};
  for (auto const& chunk : map.map().chunks()) check_chunk(work, chunk);
  auto const& findings = work.findings;
  print(cli, findings);
  if (findings.bad == findings.repaired && findings.differing == findings.agreed &&
      findings.unreachable == 0) {
    return success();
  }
  return failure(Errc::corrupt, options.repairs ? "not everything could be repaired"
                                                : "there are faults: 'pstorage check --repair'");
}

}  // namespace
}  // namespace pstorage::volume

namespace pstorage::cli {

void add_check_commands(Cli& cli) {
  auto const options = std::make_shared<volume::Check_options>();
  auto* const command =
      cli.add_command("check", "Reads all replicas of a file, verifies and compares them",
                      [&cli, options] { return volume::check(cli, *options); });
  command->add_option("PATH", options->path, "A file")->required();
  command->add_flag("-p", options->is_inside, "PATH is inside the cluster");
  command->add_flag("--repair", options->repairs,
                    "Replace damaged blocks from another replica, make replicas that differ agree");
  cli.add_json(command);
}

}  // namespace pstorage::cli
