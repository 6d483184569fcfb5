#include "cs/repository.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "cs/journal.h"

namespace pstorage::cs {
namespace {

// Made first and renamed last: its presence tells an interrupted make-cs from foreign files.
constexpr char const* identity_new_name = "repository.json.new";
constexpr std::uint32_t format_version = 1;
constexpr std::uint64_t identity_bytes_max = 64u << 10;

std::string hex(std::uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

bool is_ours(std::string const& name) {
  return name == identity_new_name || name == "chunks" || name == "journal" || name == "lock" ||
         name == "logs";
}

Result<void> write_identity(Disk& disk, std::string const& text) {
  PS_TRY(auto const file, disk.open(identity_new_name, Open_mode{.create = true}));
  PS_CHECK(file->truncate(0));
  PS_CHECK(file->write(0, as_bytes(text)));
  PS_CHECK(file->sync());
  return success();
}

Result<void> make_all(Disk& disk, Disk& journal_disk, std::string const& journal_name,
                      Repository_identity const& identity, std::uint64_t ring_bytes,
                      std::function<void(std::uint64_t)> const& progress) {
  PS_CHECK(write_identity(disk, ""));
  PS_CHECK(disk.sync_directory(""));
  PS_CHECK(disk.make_directory("chunks"));
  Open_mode const mode{.create = true, .exclusive = true};
  PS_TRY(auto const journal, journal_disk.open(journal_name, mode));
  PS_CHECK(Journal::format(*journal, ring_bytes, identity.salt, progress));
  PS_CHECK(journal_disk.sync_directory(""));
  return disk.sync_directory("");
}

std::string encode(Repository_identity const& identity) {
  nlohmann::json const json = {{"format", format_version},
                               {"cluster", identity.cluster},
                               {"cluster_uuid", identity.cluster_uuid},
                               {"cs", identity.cs.value},
                               {"repository_uuid", identity.uuid},
                               {"journal_salt", hex(identity.salt)},
                               {"journal", identity.journal},
                               {"tier", identity.tier},
                               {"address", identity.address},
                               {"bootstrap", identity.bootstrap}};
  return json.dump(2) + "\n";
}

Outcome<Repository_identity> decode(std::string const& text) {
  Failure const damaged = failure(Errc::corrupt, std::string(identity_name) +
                                                     " is damaged: this chunk server cannot start; "
                                                     "make a new one with make-cs");
  try {
    auto const json = nlohmann::json::parse(text);
    if (json.at("format").get<std::uint32_t>() != format_version) {
      return failure(Errc::wrong_version,
                     "the repository was made by another version of pstorage; use that one");
    }
    Repository_identity identity;
    identity.cluster = json.at("cluster").get<std::string>();
    identity.cluster_uuid = json.at("cluster_uuid").get<std::string>();
    identity.cs = {json.at("cs").get<std::uint32_t>()};
    identity.uuid = json.at("repository_uuid").get<std::string>();
    identity.salt = std::stoull(json.at("journal_salt").get<std::string>(), nullptr, 16);
    identity.journal = json.at("journal").get<std::string>();
    identity.tier = json.at("tier").get<std::uint32_t>();
    identity.address = json.at("address").get<std::string>();
    identity.bootstrap = json.at("bootstrap").get<std::string>();
    if (!identity.cs || identity.uuid.empty()) return damaged;
    return identity;
  } catch (std::exception const&) {
    return damaged;
  }
}

}  // namespace

void randomize(Repository_identity& identity, Random& random) {
  identity.uuid = hex(random.next()) + hex(random.next());
  identity.salt = random.next();
}

Outcome<Repository_identity> load_identity(Disk& disk) {
  auto const file = disk.open(identity_name, {});
  if (file.has_error()) {
    return failure(file.error(), errc_of(file.error()) == Errc::not_found
                                     ? "this directory is not a chunk server's repository (no "
                                       "repository.json); make one with: pstorage make-cs"
                                     : "cannot open repository.json: " + file.error().message());
  }
  auto const size = file.value()->size();
  if (size.has_error() || size.value() > identity_bytes_max) return decode("");
  std::string text(size.value(), '\0');
  auto const read = file.value()->read(0, {reinterpret_cast<std::byte*>(text.data()), text.size()});
  if (read.has_error()) {
    return failure(read.error(), "cannot read repository.json: " + read.error().message());
  }
  return decode(text);
}

Outcome<void> prepare_directory(Disk& disk) {
  auto const names = disk.list("");
  if (names.has_error()) {
    return failure(names.error(), "cannot list the directory: " + names.error().message());
  }
  bool const interrupted = disk.exists(identity_new_name);
  for (std::string const& name : names.value()) {
    if (name == "lost+found" || name == "lock") continue;
    if (name == identity_name) {
      return failure(Errc::exists, "the directory already holds a chunk server's repository");
    }
    if (!interrupted || !is_ours(name)) {
      return failure(Errc::not_empty, "the directory is not empty (it has '" + name +
                                          "'): give an empty one; lost+found may stay");
    }
  }
  if (interrupted) remove_contents(disk, disk, "journal");
  return success();
}

Outcome<void> make_contents(Disk& disk, Disk& journal_disk, std::string const& journal_name,
                            Repository_identity const& identity, std::uint64_t ring_bytes,
                            std::function<void(std::uint64_t)> const& progress) {
  PS_ASSERT(ring_bytes % block_bytes == 0 && ring_bytes >= journal_bytes_min);
  if (journal_disk.exists(journal_name)) {
    return failure(Errc::exists, "the journal file '" + journal_name +
                                     "' exists already: it may belong to another chunk server");
  }
  auto const made = make_all(disk, journal_disk, journal_name, identity, ring_bytes, progress);
  if (made.has_value()) return success();
  remove_contents(disk, journal_disk, journal_name);
  return failure(made.error(), "cannot make the repository: " + made.error().message());
}

Outcome<void> finish_repository(Disk& disk, Repository_identity const& identity) {
  auto result = write_identity(disk, encode(identity));
  if (result.has_value()) result = disk.rename(identity_new_name, identity_name);
  if (result.has_value()) result = disk.sync_directory("");
  if (result.has_error()) {
    return failure(result.error(), "cannot write repository.json: " + result.error().message());
  }
  return success();
}

void remove_contents(Disk& disk, Disk& journal_disk, std::string const& journal_name) {
  // As far as it goes: the marker, removed last, lets the next make-cs finish the work.
  if (journal_disk.exists(journal_name)) static_cast<void>(journal_disk.remove(journal_name));
  if (disk.exists("chunks")) static_cast<void>(disk.remove("chunks"));
  if (!disk.exists("chunks") && disk.exists(identity_new_name)) {
    static_cast<void>(disk.remove(identity_new_name));
  }
  static_cast<void>(disk.sync_directory(""));
}

}  // namespace pstorage::cs
