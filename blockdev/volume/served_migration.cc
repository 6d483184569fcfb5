// Served_volume: live migration. Two hosts' servers have the volume open; one of them has the disk,
// whole and alone (its lease), the other one is away. A request on the side that is away asks for
// it: the holder finishes what is under way, flushes, closes and gives the lease back. What was
// answered is on the disk then, so that reads on either side see it. The side that a migration
// brought the volume to refuses to give it back once it has changed it: the other one is over.
#include <utility>

#include "blockdev/volume/served_volume.h"
#include "blockdev/volume/volume_opener.h"

namespace pstorage::volume {
namespace {

// A holder finishes what is under way, which may wait for the cluster.
constexpr Duration ask_patience = std::chrono::seconds(20);
constexpr Duration open_patience = std::chrono::seconds(2);
// Before the disk is asked back: whoever asked for it has its requests answered first.
constexpr Duration ask_back_after = std::chrono::milliseconds(100);

}  // namespace

void Served_volume::hand_over(std::string const& migration) {
  if (migration == migration_ && !is_origin_ && is_changed_)
    return end_operation(failure(Errc::refused, "'" + name_.name +
                                                    "' was migrated to another host and changed "
                                                    "there"));
  if (migration != migration_) is_origin_ = true;
  migration_ = migration;
  gate_ = Gate::closed;
  when_quiet_ = [this] {
    size_ = parts_.disk->size_bytes();
    parts_.disk->close([this](Result<void> const& closed) {
      if (!parts_.lock) return handed_over(closed);
      parts_.lock->close([this, closed](Result<void> const& unlocked) {
        handed_over(closed ? unlocked : closed);
      });
    });
  };
  changed();
}

void Served_volume::handed_over(Result<void> const& closed) {
  // Not inside their own callbacks.
  opener_.executor_.defer([parts = std::make_shared<Disk_parts>(std::move(parts_))] {});
  parts_ = {};
  is_away_ = true;
  if (!held_.empty()) fetch_at_ = opener_.clock_.now() + ask_back_after;
  opener_.log_.info("handed a volume over", {{"volume", name_.name}});
  end_operation(
      closed ? Outcome<void>(success())
             : failure(closed.error(), "cannot close the disk: " + closed.error().message()));
}

void Served_volume::fetch() {
  fetch_at_ = {};
  is_fetching_ = true;
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path_);
  // A volume in its directory has the lease of its descriptor; a raw one its own.
  opener_.cluster_.mds().call(std::move(request), ask_patience,
                              [this, alive = alive_](Outcome<proto::Mds_reply> const& found) {
                                if (!*alive) return;
                                if (!found.has_value()) return fetch_asked(found.error());
                                bool const is_raw = found.value().file().type() == proto::TYPE_FILE;
                                proto::Holder_request wanted;
                                wanted.mutable_hand_over()->set_migration(migration_);
                                opener_.cluster_.ask_holder(
                                    is_raw ? path_ : path_ + "/" + descriptor_file,
                                    std::move(wanted), ask_patience,
                                    [this, alive](Outcome<void> const& answer) {
                                      if (*alive) fetch_asked(answer);
                                    });
                              });
}

void Served_volume::fetch_asked(Outcome<void> const& answer) {
  auto const code = answer.has_value() ? Errc::not_found : errc_of(answer.error().code);
  if (code == Errc::refused) {
    opener_.log_.error("a volume is served elsewhere now",
                       {{"volume", name_.name}, {"reason", answer.error().text}});
    gone_ = make_error_code(Errc::stale_epoch);
    return end_fetch();
  }
  if (code != Errc::not_found) {  // the holder is busy or cannot be reached: once more
    is_fetching_ = false;
    if (closing_) return end_operation(success());
    fetch_at_ = opener_.clock_.now() + ask_back_after;
    return;
  }
  open_parts(opener_.cluster_, opener_.executor_, name_, open_patience,
             [this, alive = alive_](Outcome<Disk_parts> parts) {
               if (*alive) fetched(std::move(parts));
             });
}

void Served_volume::fetched(Outcome<Disk_parts> parts) {
  if (!parts.has_value()) return fetch_asked(failure(Errc::busy, parts.error().text));
  parts_ = std::move(parts).value();
  limiter_.set(limits_of(parts_.properties), opener_.clock_.now());
  merge_ = nullptr;  // from the beginning: the disk may be another one
  look_at_merge(parts_.properties);
  is_away_ = false;
  is_changed_ = false;
  opener_.log_.info("took a volume over", {{"volume", name_.name}});
  end_fetch();
}

void Served_volume::end_fetch() {
  is_fetching_ = false;
  auto const alive = alive_;
  if (gone_) is_away_ = false;
  let_go();
  if (*alive) end_operation(success());
}

// ------------------------------------------------------------------ the opener

/// The volume is in use. One that may be migrated is served all the same, from a distance.
void Volume_opener::open_in_use(Volume_name const& name, Duration patience, Failure const& why,
                                Volume_opened done) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(name.path());
  cluster_.mds().call(
      std::move(request), std::max<Duration>(patience, std::chrono::seconds(1)),
      [this, name, patience, why, alive = alive_,
       done = std::move(done)](Outcome<proto::Mds_reply> const& found) mutable {
        if (!*alive) return;
        if (!found.has_value()) return done(found.error());
        auto const& file = found.value().file();
        auto const property = file.properties().find(migration_property);
        auto const migration = property == file.properties().end()
                                   ? std::string()
                                   : migration_in(property->second, clock_.wall_ms());
        auto const size =
            file.type() == proto::TYPE_FILE ? file.size() : noted_size(found.value().file());
        if (!migration.empty() && size != 0)
          return done(std::make_unique<Served_volume>(*this, name, size, migration));
        if (patience <= Duration{0}) return done(why);
        open_parts(cluster_, executor_, name, patience,
                   [this, name, alive, done = std::move(done)](Outcome<Disk_parts> parts) {
                     if (!*alive) return;
                     if (!parts.has_value()) return done(std::move(parts).error());
                     done(std::make_unique<Served_volume>(*this, name, std::move(parts).value()));
                   });
      });
}

}  // namespace pstorage::volume
