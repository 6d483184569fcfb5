// Snapshots, clones, sizes.
#include <algorithm>

#include "blockdev/ploop/create.h"
#include "blockdev/volume/disk_files.h"
#include "blockdev/volume/volume_work.h"

namespace pstorage::volume {
namespace {

constexpr int attempts = 5;  // a holder may come or go between two questions
constexpr Duration turn_max = std::chrono::milliseconds(10);
constexpr Duration look_every = std::chrono::milliseconds(100);
// A server that was killed may be started again, and waits for the old one's lease.
constexpr Duration server_patience = std::chrono::seconds(60);
constexpr Duration lent_patience = std::chrono::seconds(5);

bool is_busy(Failure const& why) { return errc_of(why.code) == Errc::busy; }
bool has_gone(Failure const& why) { return errc_of(why.code) == Errc::not_found; }

bool is_good_snapshot_name(std::string const& name) {
  return !name.empty() && name.size() <= 100 && name.front() != '{' &&
         std::none_of(name.begin(), name.end(), [](char c) {
           return static_cast<unsigned char>(c) <= 0x20 || c == 0x7F || c == '@' || c == '/';
         });
}

}  // namespace

Outcome<ploop::Descriptor> Volume_work::descriptor(Volume_name const& name) {
  PS_TRY(auto const file, look_up(name));
  if (file.type() == proto::TYPE_FILE)
    return failure(Errc::refused, "'" + name.name + "' is a raw volume: it has no snapshots");
  Cluster_directory directory(session_, name.path());
  auto const text = directory.read_text(descriptor_file, ploop::descriptor_bytes_max);
  if (!text.has_value() && errc_of(text.error().code) == Errc::not_found)
    return failure(Errc::is_directory, "'" + name.name + "' is a directory of volumes");
  PS_CHECK(text);
  return ploop::Descriptor::parse(text.value());
}

Outcome<void> Volume_work::snapshot(Volume_name const& name, std::string const& snapshot,
                                    std::string const& created) {
  if (!is_good_snapshot_name(snapshot))
    return failure(Errc::bad_request, "bad snapshot name '" + snapshot +
                                          "': no spaces, '/' or '@', at most 100 characters");
  PS_TRY(auto const now, descriptor(name));
  if (find_snapshot(now, snapshot) != nullptr)
    return failure(Errc::exists, "'" + name.name + "' has a snapshot '" + snapshot + "' already");
  auto const guid = ploop::new_guid(session_.random());
  for (int attempt = 1;; ++attempt) {
    auto opened = Offline_disk::open(session_, name);
    if (opened.has_value()) {
      PS_CHECK(opened.value()->disk().snapshot(guid, session_.random(), snapshot, created));
      return opened.value()->close();
    }
    if (!is_busy(opened.error())) return std::move(opened).error();
    auto done = snapshot_in_use(name, guid, snapshot, created);
    if (done.has_value() || !has_gone(done.error()) || attempt == attempts) return done;
  }
}

/// The holder does it; the new delta is made here, where nobody waits for it.
Outcome<void> Volume_work::snapshot_in_use(Volume_name const& name, std::string const& guid,
                                           std::string const& snapshot,
                                           std::string const& created) {
  std::string file;
  {
    Cluster_directory directory(session_, name.path());
    PS_TRY(auto disk, ploop::Virtual_disk::open(directory, descriptor_file));
    PS_CHECK(disk.may_snapshot());
    PS_TRY(file, disk.make_top_file(session_.random()));
    PS_CHECK(directory.close());
  }
  proto::Holder_request request;
  auto& take = *request.mutable_take_snapshot();
  take.set_guid(guid);
  take.set_name(snapshot);
  take.set_file(file);
  take.set_created(created);
  auto const path = name.path() + "/";
  auto done = session_.ask_holder(path + descriptor_file, std::move(request));
  if (done.has_value()) return done;
  // Without an answer nobody knows whether it is named by now: the next work on the disk at rest
  // looks.
  auto const code = errc_of(done.error().code);
  if (code != Errc::timed_out && code != Errc::unavailable) PS_CHECK(remove_path(path + file));
  return done;
}

Outcome<void> Volume_work::roll_back(Volume_name const& name) {
  PS_TRY(auto const opened, Offline_disk::open(session_, name));
  auto& disk = opened->disk();
  auto const* const snapshot = find_snapshot(disk.descriptor(), name.snapshot);
  if (snapshot == nullptr) return unknown_snapshot(disk.descriptor(), name.snapshot);
  PS_CHECK(disk.switch_to(snapshot->guid, session_.random()));
  PS_TRY(auto const header, disk.header());
  auto const guard = opened->directory().guard();
  PS_CHECK(note_size(name, header.size_bytes(), &guard));
  return opened->close();
}

Outcome<void> Volume_work::remove_snapshot(Volume_name const& name,
                                           ploop::Progress const& progress) {
  PS_TRY(auto const now, descriptor(name));
  auto const* const snapshot = find_snapshot(now, name.snapshot);
  if (snapshot == nullptr) return unknown_snapshot(now, name.snapshot);
  auto const guid = snapshot->guid;
  for (int attempt = 1;; ++attempt) {
    auto opened = Offline_disk::open(session_, name);
    if (opened.has_value()) {
      auto& disk = opened.value()->disk();
      // By whoever served it until now.
      if (disk.descriptor().find(guid) == nullptr) return opened.value()->close();
      PS_CHECK(disk.remove(guid, session_.random(), progress));
      return opened.value()->close();
    }
    if (!is_busy(opened.error())) return std::move(opened).error();
    auto done = remove_in_use(name, guid, progress);
    if (done.has_value() || !has_gone(done.error()) || attempt == attempts) return done;
  }
}

Outcome<void> Volume_work::note_merge(Volume_name const& name, std::string const& note) {
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path(name.path());
  (*request.mutable_set_attributes()->mutable_properties())[merge_property] = note;
  PS_CHECK(session_.call(std::move(request)));
  return success();
}

/// Whoever serves the volume does it, also when that is another one meanwhile. Errors: not_found:
/// nobody serves it any more.
Outcome<void> Volume_work::remove_in_use(Volume_name const& name, std::string const& guid,
                                         ploop::Progress const& progress) {
  auto const path = name.path() + "/" + descriptor_file;
  PS_CHECK(note_merge(name, guid));
  proto::Holder_request request;
  request.mutable_reload_limits();
  auto const told = session_.ask_holder(path, std::move(request));
  auto const code = told.has_value() ? Errc::ok : errc_of(told.error().code);
  if (code != Errc::ok && code != Errc::timed_out) {
    PS_CHECK(note_merge(name, {}));
    return told.error();
  }
  auto const begun = session_.runtime().clock().now();
  for (auto look_at = begun;;) {
    session_.runtime().run_turn(turn_max);
    auto const now = session_.runtime().clock().now();
    if (now < look_at) continue;
    look_at = now + look_every;
    PS_TRY(auto const file, look_up(name));
    auto const property = file.properties().find(merge_property);
    if (property == file.properties().end()) break;
    auto const note = merge_note(property->second);
    if (!note.why.empty()) {
      PS_CHECK(note_merge(name, {}));
      return failure(Errc::refused, note.why);
    }
    if (note.all > 0) progress(note.done, note.all);
    PS_TRY(bool const is_served, has_holder(path));
    if (is_served && (note.all > 0 || now < begun + server_patience)) continue;
    PS_CHECK(note_merge(name, {}));
    if (!is_served) return failure(Errc::not_found, "nobody serves the volume any more");
    return failure(Errc::refused,
                   "the server that has '" + name.name + "' does not remove snapshots: update it");
  }
  PS_TRY(auto const after, descriptor({name.name, {}}));
  if (after.find(guid) == nullptr) return success();
  return failure(Errc::busy, "somebody else gave the removal up: try again");
}

Outcome<bool> Volume_work::has_holder(std::string const& path) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path);
  PS_TRY(auto const reply, session_.call(std::move(request)));
  return !reply.file().holder().empty();
}

/// Names for the frozen deltas up to `guid`. While they are made a merge may be going on in one of
/// them: then either the link is refused, or the descriptor is another one afterwards.
Outcome<void> Volume_work::link_chain(Volume_name const& source, std::string const& guid,
                                      Cluster_directory& target, std::vector<ploop::Delta>& chain) {
  PS_TRY(auto const before, descriptor(source));
  if (before.find(guid) == nullptr)
    return failure(Errc::not_found, "the snapshot was removed meanwhile");
  chain = before.chain_to(guid);
  for (auto const& delta : chain) {
    proto::Mds_request request;
    request.mutable_link()->set_from(source.path() + "/" + delta.file);
    request.mutable_link()->set_to(target.path_of(delta.file));
    request.mutable_link()->set_not_leased(true);
    PS_CHECK(session_.call(std::move(request)));
  }
  PS_TRY(auto const after, descriptor(source));
  auto const now = after.find(guid) == nullptr ? std::vector<ploop::Delta>() : after.chain_to(guid);
  bool const is_same =
      std::equal(chain.begin(), chain.end(), now.begin(), now.end(),
                 [](auto const& a, auto const& b) { return a.guid == b.guid && a.file == b.file; });
  if (is_same) return success();
  return failure(Errc::busy,
                 "the snapshots of '" + source.name + "' were changed meanwhile: try again");
}

Outcome<void> Volume_work::clone(Volume_name const& source, Volume_name const& target,
                                 std::string const& created) {
  if (auto const found = look_up(target); found.has_value())
    return failure(Errc::exists, "the volume '" + target.name + "' exists already");
  auto from = source;
  if (from.snapshot.empty()) {
    from.snapshot = "clone-" + ploop::new_guid(session_.random()).substr(1, 8);
    PS_CHECK(snapshot({source.name, {}}, from.snapshot, created));
  }
  PS_TRY(auto const origin, descriptor({source.name, {}}));
  auto const* const snapshot = find_snapshot(origin, from.snapshot);
  if (snapshot == nullptr) return unknown_snapshot(origin, from.snapshot);
  auto const guid = snapshot->guid;
  PS_TRY(auto const directory, look_up({source.name, {}}));
  return build(
      target, directory.attributes(), [&](Cluster_directory& made) -> Outcome<std::uint64_t> {
        std::vector<ploop::Delta> chain;
        PS_CHECK(link_chain({source.name, {}}, guid, made, chain));
        auto const& top = chain.back();
        std::uint64_t size = origin.size_sectors() * ploop::sector_bytes;
        auto cluster = origin.cluster_sectors() * ploop::sector_bytes;
        auto version = ploop::Version::v2;
        if (!top.is_raw) {
          PS_TRY(auto store, made.open_to_read(top.file));
          auto const bytes = store.read(0, ploop::header_bytes);
          if (!bytes)
            return failure(bytes.error(), made.path_of(top.file) + ": " + bytes.error().message());
          PS_TRY(auto const header, ploop::decode_header(bytes.value().bytes()));
          size = header.size_bytes();
          cluster = header.cluster_bytes();
          version = header.version;
        }
        PS_TRY(auto const header, ploop::make_header(version, cluster, size));
        auto const file = std::string(base_file) + "." + ploop::new_guid(session_.random());
        PS_TRY(auto store, made.create(file));
        PS_CHECK(ploop::create_image(store, header, false));
        auto described = ploop::Descriptor::make(header.size_sectors, header.cluster_sectors,
                                                 chain.front().file, chain.front().is_raw, false);
        for (std::size_t i = 0; i < chain.size(); ++i)
          described.push_top(chain[i].guid, i + 1 < chain.size() ? chain[i + 1].file : file,
                             chain[i].name, chain[i].created);
        PS_CHECK(made.replace_text(descriptor_file, described.text()));
        return size;
      });
}

Outcome<void> Volume_work::grow(Volume_name const& name, std::uint64_t size_bytes,
                                Duration busy_patience) {
  PS_TRY(auto const opened, Offline_disk::open(session_, name, busy_patience));
  PS_CHECK(opened->disk().grow(size_bytes));
  auto const size = opened->disk().descriptor().size_sectors() * ploop::sector_bytes;
  auto const guard = opened->directory().guard();
  PS_CHECK(note_size(name, size, &guard));
  return opened->close();
}

Outcome<void> Volume_work::resize(Volume_name const& name, std::uint64_t size_bytes,
                                  bool may_shrink) {
  PS_TRY(auto const file, look_up(name));
  if (file.type() == proto::TYPE_FILE) {
    proto::Mds_request request;
    request.mutable_resize()->set_path(name.path());
    request.mutable_resize()->set_size(size_bytes);
    request.mutable_resize()->set_allow_shrink(may_shrink);
    auto reply = session_.call(std::move(request));
    if (reply.has_value()) return success();
    if (errc_of(reply.error().code) != Errc::refused) return std::move(reply).error();
    return failure(Errc::refused, reply.error().text + "; --shrink allows it");
  }
  PS_TRY(auto const before, descriptor(name));
  if (size_bytes < before.size_sectors() * ploop::sector_bytes)
    return failure(Errc::refused,
                   "a ploop volume cannot shrink; discarded space returns by itself");
  PS_CHECK(ploop::make_header(ploop::Version::v2, before.cluster_sectors() * ploop::sector_bytes,
                              size_bytes));
  for (int attempt = 1;; ++attempt) {
    auto done = grow(name, size_bytes, attempt == 1 ? Duration{0} : lent_patience);
    if (done.has_value() || !is_busy(done.error()) || attempt == attempts) return done;
    // The holder closes it, waits, and goes on with the larger one.
    proto::Holder_request request;
    request.mutable_lend();
    auto const lent = session_.ask_holder(name.path() + "/" + descriptor_file, std::move(request));
    if (!lent.has_value() && !has_gone(lent.error())) return lent.error();
  }
}

}  // namespace pstorage::volume
