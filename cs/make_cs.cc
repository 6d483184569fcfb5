#include "cs/make_cs.h"

#include <cstring>
#include <filesystem>

#include "core/address.h"
#include "core/auth/key.h"
#include "core/disk/atomic_file.h"
#include "core/disk/posix_disk.h"
#include "core/size.h"
#include "cs/repository.h"

namespace pstorage::cs {
namespace {

constexpr std::uint32_t tier_max = 3;
constexpr std::uint64_t mebibyte = 1u << 20;
// Below that a chunk server would refuse its first chunk.
constexpr std::uint64_t free_bytes_min = 256 * mebibyte;

class System_random final : public Random {
 public:
  std::uint64_t next() override {
    auto const bytes = random_salt();
    return load_le<std::uint64_t>(bytes.data());
  }
};

struct Place {
  std::string directory;
  std::string name;
};

Outcome<void> check(Make_cs_options const& options) {
  if (options.tier > tier_max) return failure(Errc::bad_request, "tier: give 0 to 3");
  PS_CHECK(journal_ring_bytes(options.journal_mb));
  if (options.address.empty()) return success();
  PS_TRY(auto const address, Address::parse(options.address, 0));
  if (address.is_unix()) {
    return failure(Errc::bad_request, "address '" + options.address +
                                          "': give ADDR[:PORT], a network address of this host");
  }
  return success();
}

/// Where the journal goes; identity.journal is set when that is elsewhere.
Outcome<Place> journal_place(Make_cs_options const& options, Repository_identity& identity) {
  if (options.journal_path.empty()) return Place{options.directory, "journal"};
  PS_TRY(identity.journal, journal_path_for(options.journal_path, identity));
  std::filesystem::path const path = identity.journal;
  return Place{path.parent_path().string(), path.filename().string()};
}

Outcome<void> register_cs(Make_cs_options const& options, Mds_call const& call,
                          Repository_identity& identity) {
  proto::Mds_request request;
  proto::Create_cs& create = *request.mutable_create_cs();
  create.set_host_id(options.host.value);
  create.set_host_name(options.host_name);
  create.set_location(options.location);
  create.set_tier(options.tier);
  PS_TRY(auto const reply, call(std::move(request)));
  if (reply.created_cs().cs() == 0) {
    return failure(Errc::bad_request, "the MDS gave no number to the new chunk server");
  }
  identity.cs = {reply.created_cs().cs()};
  identity.cluster_uuid = reply.created_cs().cluster_uuid();
  return success();
}

}  // namespace

Outcome<std::uint64_t> journal_ring_bytes(std::uint64_t mb) {
  if (mb == 0 || mb > journal_bytes_max / mebibyte) {
    return failure(Errc::bad_request, "journal size: give 64 to 65536 (MB)");
  }
  std::uint64_t const bytes = mb * mebibyte;
  return (bytes + journal_unit_bytes - 1) / journal_unit_bytes * journal_unit_bytes;
}

Outcome<std::string> journal_path_for(std::string const& given,
                                      Repository_identity const& identity) {
  std::error_code error;
  auto path = std::filesystem::absolute(given, error);
  if (std::filesystem::is_directory(path, error)) {
    path /= "csd-" + identity.uuid.substr(0, 12) + ".journal";
  }
  if (!std::filesystem::is_directory(path.parent_path(), error)) {
    return failure(Errc::not_found, "journal: the directory " + path.parent_path().string() +
                                        " does not exist; make it first");
  }
  return path.string();
}

Outcome<void> check_journal_space(Disk& disk, std::string const& path, std::uint64_t needed) {
  auto const space = disk.space();
  if (space.has_error()) {
    return failure(space.error(),
                   "cannot ask for the free space of " + path + ": " + space.error().message());
  }
  if (space.value().free_bytes >= needed) return success();
  return failure(Errc::no_space, path + " has " + format_size(space.value().free_bytes) +
                                     " free, " + format_size(needed) +
                                     " are needed: free some space or give a smaller journal (-s)");
}

Outcome<Cs_id> make_cs(Make_cs_options const& options, Mds_call const& call) {
  PS_CHECK(check(options));
  System_random random;
  Repository_identity identity;
  identity.cluster = options.cluster;
  identity.tier = options.tier;
  identity.address = options.address;
  identity.bootstrap = options.bootstrap;
  randomize(identity, random);
  std::error_code error;
  bool const is_new = !std::filesystem::exists(options.directory, error);
  PS_TRY(auto const place, journal_place(options, identity));
  PS_CHECK(make_directories(options.directory));

  // Nothing asynchronous is asked of these disks, so nothing is ever posted.
  Io_pool pool;
  Post const post = [](std::function<void()>) {};
  PS_TRY(auto const disk, open_posix_disk(options.directory, pool, post));
  PS_TRY(auto const journal_disk, open_posix_disk(place.directory, pool, post));
  PS_TRY(std::uint64_t const ring, journal_ring_bytes(options.journal_mb));
  auto const undo = [&] {
    remove_contents(*disk, *journal_disk, place.name);
    if (is_new) std::filesystem::remove(options.directory, error);
  };
  auto done = prepare_directory(*disk);
  if (done.has_error()) return done.error();
  done = check_journal_space(*journal_disk, place.directory, ring);
  if (done.has_value()) {
    bool const inside = identity.journal.empty();
    done = check_journal_space(*disk, options.directory, free_bytes_min + (inside ? ring : 0));
  }
  if (done.has_error()) {
    undo();
    return done.error();
  }
  done = make_contents(*disk, *journal_disk, place.name, identity, ring, [&](std::uint64_t bytes) {
    if (options.progress) options.progress(bytes, ring);
  });
  if (done.has_error()) {
    if (is_new) std::filesystem::remove(options.directory, error);
    return done.error();
  }
  // The number is asked for last: a failure before this leaves no trace in the cluster.
  done = register_cs(options, call, identity);
  if (done.has_value()) done = finish_repository(*disk, identity);
  if (done.has_error()) {
    undo();
    return done.error();
  }
  return identity.cs;
}

}  // namespace pstorage::cs
