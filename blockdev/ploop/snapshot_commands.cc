// snapshot, snapshot-list, -switch, -delete, -merge.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "blockdev/ploop/ploop_cli.h"

namespace pstorage::ploop {
namespace {

struct Options {
  std::string descriptor;
  std::string guid;
  std::string last_guid;
  std::vector<std::string> fields;
  bool all = false;
  bool no_header = false;
  bool snapshots_only = false;
};

/// One line of snapshot-list.
struct Row {
  std::string parent;
  bool is_current;
  std::string guid;
  std::string file;
};

Outcome<void> check_guid(std::string const& guid) {
  if (is_guid(guid)) return success();
  return exit_with(Exit::parameter, "incorrect uuid '" + guid +
                                        "': it looks like {01234567-89ab-cdef-0123-456789abcdef}");
}

/// A snapshot that is not there ends the command with `code`.
Outcome<void> need(Virtual_disk const& disk, std::string const& guid, Exit code) {
  PS_CHECK(check_guid(guid));
  if (disk.descriptor().find(guid) != nullptr) return success();
  return exit_with(code, "there is no snapshot " + guid);
}

Outcome<void> take(Ploop_cli& cli, Options const& options) {
  auto guid = options.guid;
  if (guid.empty()) guid = new_guid(cli.random());
  PS_CHECK(check_guid(guid));
  PS_TRY(auto const opened, open_disk(options.descriptor, true));
  PS_CHECK(opened.disk->snapshot(guid, cli.random()));
  std::printf("snapshot %s has been successfully created\n", guid.c_str());
  return success();
}

std::vector<Row> rows_of(Opened_disk const& opened, bool snapshots_only) {
  auto const& descriptor = opened.disk->descriptor();
  auto const& top = *descriptor.find(descriptor.top());
  std::vector<Row> rows;
  for (auto const& delta : descriptor.deltas()) {
    bool const is_top = delta.guid == top.guid;
    if (snapshots_only && is_top) continue;
    bool const is_current = snapshots_only ? delta.guid == top.parent : is_top;
    rows.push_back(
        {delta.parent, is_current, delta.guid, opened.directory->images().path_of(delta.file)});
  }
  return rows;
}

struct Column {
  char const* field;
  char const* header;
  int width;
  std::string (*value)(Row const&);
};
constexpr Column columns[] = {
    {"parent_uuid", "PARENT_UUID", 38, [](Row const& row) { return row.parent; }},
    {"current", "C", 1, [](Row const& row) { return std::string(row.is_current ? "*" : " "); }},
    {"uuid", "UUID", 38, [](Row const& row) { return row.guid; }},
    {"fname", "FNAME", 32, [](Row const& row) { return row.file; }},
};

Outcome<std::vector<Column const*>> chosen_columns(std::vector<std::string> const& fields) {
  std::vector<Column const*> chosen;
  if (fields.empty())
    for (auto const& column : columns) chosen.push_back(&column);
  for (auto const& field : fields) {
    auto const* const found = std::find_if(std::begin(columns), std::end(columns),
                                           [&](Column const& c) { return c.field == field; });
    if (found == std::end(columns))
      return exit_with(Exit::failed, "unknown field '" + field +
                                         "': there are parent_uuid, current, uuid and fname");
    chosen.push_back(found);
  }
  return chosen;
}

Outcome<void> list(Ploop_cli& cli, Options const& options) {
  PS_TRY(auto const chosen, chosen_columns(options.fields));
  PS_TRY(auto const opened, open_disk(options.descriptor, false));
  if (!options.guid.empty()) PS_CHECK(need(*opened.disk, options.guid, Exit::failed));
  auto const* const wanted = opened.disk->descriptor().find(options.guid);
  auto json = nlohmann::json::array();
  bool const has_header = !options.no_header && !cli.is_json();
  for (auto const* column : chosen)
    if (has_header) std::printf("%-*s ", column->width, column->header);
  if (has_header) std::printf("\n");
  for (auto const& row : rows_of(opened, options.snapshots_only)) {
    if (wanted != nullptr && row.guid != wanted->guid) continue;
    if (cli.is_json()) {
      json.push_back({{"parent_uuid", row.parent},
                      {"current", row.is_current},
                      {"uuid", row.guid},
                      {"fname", row.file}});
      continue;
    }
    for (auto const* column : chosen)
      std::printf(column == chosen.back() ? "%s\n" : "%s ", column->value(row).c_str());
  }
  if (cli.is_json()) std::printf("%s\n", json.dump(2).c_str());
  return success();
}

Outcome<void> go_back(Ploop_cli& cli, Options const& options) {
  PS_TRY(auto const opened, open_disk(options.descriptor, true));
  PS_CHECK(need(*opened.disk, options.guid, Exit::parameter));
  PS_CHECK(opened.disk->switch_to(options.guid, cli.random()));
  std::printf("switched to snapshot %s\n", options.guid.c_str());
  return success();
}

Outcome<void> remove(Ploop_cli& cli, Options const& options) {
  PS_TRY(auto const opened, open_disk(options.descriptor, true));
  PS_CHECK(need(*opened.disk, options.guid, Exit::no_snapshot));
  PS_CHECK(opened.disk->remove(options.guid, cli.random(), cli.progress("merging")));
  std::printf("snapshot %s has been successfully deleted\n", options.guid.c_str());
  return success();
}

/// What to merge into its parent, one after the other: each time the lower one of a pair is left.
Outcome<std::vector<std::string>> merges_of(Virtual_disk const& disk, Options const& options) {
  auto const& descriptor = disk.descriptor();
  if (options.guid.empty() && !options.last_guid.empty())
    return exit_with(Exit::parameter, "-U needs -u");
  if (options.all && !options.guid.empty())
    return exit_with(Exit::parameter, "-A merges everything: it goes with neither -u nor -U");
  auto const first = options.guid.empty() ? descriptor.top() : options.guid;
  auto const last = options.last_guid.empty() ? first : options.last_guid;
  PS_CHECK(need(disk, first, Exit::no_snapshot));
  PS_CHECK(need(disk, last, Exit::no_snapshot));
  std::vector<std::string> guids;
  for (auto const& delta : descriptor.chain_to(descriptor.find(last)->guid)) {
    bool const is_in_range =
        options.all || !guids.empty() || delta.guid == descriptor.find(first)->guid;
    if (is_in_range && delta.parent != no_guid) guids.push_back(delta.guid);
  }
  if (guids.empty())
    return exit_with(Exit::parameter,
                     "there is nothing to merge: " + last +
                         (options.last_guid.empty() ? " has no parent" : " is not above " + first));
  return guids;
}

Outcome<void> merge(Ploop_cli& cli, Options const& options) {
  PS_TRY(auto const opened, open_disk(options.descriptor, true));
  PS_TRY(auto const guids, merges_of(*opened.disk, options));
  for (auto const& guid : guids) {
    PS_CHECK(opened.disk->merge(guid, cli.random(), cli.progress("merging " + guid)));
    std::printf("snapshot %s has been successfully merged\n", guid.c_str());
  }
  return success();
}

}  // namespace

void add_snapshot_commands(Ploop_cli& cli) {
  auto const options = std::make_shared<Options>();
  auto const add = [&](char const* name, char const* what, auto action) {
    auto* const command =
        cli.add(name, what, [&cli, options, action] { return action(cli, *options); });
    command->add_option("DESCRIPTOR", options->descriptor, "The disk's DiskDescriptor.xml")
        ->required();
    return command;
  };
  add("snapshot", "Makes a snapshot", take)
      ->add_option("-u,--uuid", options->guid,
                   "UUID of the snapshot, in braces (default: a new one)");
  auto* const show = add("snapshot-list", "Lists deltas, or snapshots", list);
  show->add_flag("-H,--no-header", options->no_header, "No line with the names of the columns");
  show->add_option("-u,--uuid,--id", options->guid, "Only this one");
  show->add_flag("-s,--snapshot", options->snapshots_only,
                 "Without the top; the snapshot it is based on is the current one");
  show->add_option("-o,--output", options->fields, "FIELD,...: parent_uuid, current, uuid, fname")
      ->delimiter(',')
      ->allow_extra_args(false);
  cli.add_json(show);
  add("snapshot-switch", "Goes back to a snapshot; what was written since is lost", go_back)
      ->add_option("-u,--uuid", options->guid, "UUID of the snapshot")
      ->required();
  add("snapshot-delete", "Deletes a snapshot: merges it with its child, if it has one", remove)
      ->add_option("-u,--uuid", options->guid, "UUID of the snapshot")
      ->required();
  auto* const down = add("snapshot-merge", "Merges a snapshot into its parent", merge);
  down->add_option("-u,--uuid", options->guid, "UUID of the snapshot (default: the top)");
  down->add_option("-U,--uuid2", options->last_guid, "All from -u up to this one");
  down->add_flag("-A,--all", options->all, "All down to the base");
}

}  // namespace pstorage::ploop
