// What pstorage-iscsi does with LUNs: lun-add, lun-grow, lun-del, lun-limit, snapshot-*.
#include <chrono>
#include <cstdio>
#include <thread>

#include "blockdev/volume/snapshot_list.h"
#include "core/cli/output.h"
#include "core/disk/atomic_file.h"
#include "core/size.h"
#include "iscsi/tool/commands.h"

namespace pstorage::iscsi {
namespace {

constexpr std::uint64_t size_step = 4096;  // the cluster's block

Outcome<std::uint64_t> lun_size(std::string const& text) {
  PS_TRY(auto const size, parse_size(text));
  if (size == 0 || size % size_step != 0) {
    return failure(Errc::bad_request,
                   "bad size '" + text + "': a LUN has a positive multiple of 4096 bytes");
  }
  return size;
}

/// A random one, from the kernel.
Outcome<std::string> new_uuid() {
  PS_TRY(auto text, read_small_file("/proc/sys/kernel/random/uuid", 64));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

Outcome<volume::Volume_work> Commands::work() {
  if (!session_) {
    PS_TRY(session_, volume::Tool_session::connect(cluster_, options_.bootstrap));
  }
  return volume::Volume_work(*session_);
}

Outcome<Lun_with_size> Commands::known_lun(Target const& target, unsigned number) {
  auto const found = target.luns.find(number);
  if (found == target.luns.end()) {
    return failure(Errc::not_found,
                   "target " + target.iqn() + " has no LUN " + std::to_string(number));
  }
  PS_TRY(auto const volume, state_.volume(found->second.volume));
  return Lun_with_size{found->second, volume.size_bytes};
}

Outcome<void> Commands::make_volume(std::string const& name, std::uint64_t size) {
  volume::New_volume made;
  PS_TRY(made.name, volume::parse_plain_name(name));
  made.size_bytes = size;
  made.is_raw = options_.format == "raw";
  PS_TRY(auto work, work());
  return work.create(made);
}

Outcome<void> Commands::lun_add() {
  PS_TRY(auto const number, lun_number(options_.lun));
  if (options_.size.empty() == options_.volume.empty()) {
    return failure(Errc::bad_request, "give -s SIZE for a new volume or --volume NAME, not both");
  }
  std::uint64_t size = 0;
  if (!options_.size.empty()) {
    PS_TRY(size, lun_size(options_.size));
  }
  PS_TRY(auto const target, load());
  if (target.luns.contains(number) || target.luns.size() >= luns_max) {
    return failure(Errc::exists,
                   target.luns.contains(number)
                       ? "there is a LUN " + options_.lun + " already"
                       : "a target has at most " + std::to_string(luns_max) + " LUNs");
  }
  if (target.should_run) PS_CHECK(check_is_here(target));
  Lun_with_size added;
  added.lun.volume = options_.volume;
  if (options_.volume.empty()) {
    added.lun.volume = "iscsi/" + target.name + "/lun" + std::to_string(number);
    added.lun.is_owned = true;
    PS_CHECK(make_volume(added.lun.volume, size));
  }
  PS_TRY(auto const volume, state_.volume(added.lun.volume));
  added.lun.uuid = volume.uuid;
  added.size_bytes = volume.size_bytes;
  if (volume.uuid.empty()) {
    PS_TRY(added.lun.uuid, new_uuid());
    PS_CHECK(state_.set_volume_uuid(added.lun.volume, added.lun.uuid));
  }
  PS_CHECK(state_.ensure_reservations(added.lun.uuid));
  PS_CHECK(state_.save_lun(target.name, number, added.lun));
  if (runs_here(target)) return gateway(target).add_lun(number, added);
  return success();
}

Outcome<void> Commands::lun_grow() {
  PS_TRY(auto const number, lun_number(options_.lun));
  PS_TRY(auto const size, lun_size(options_.size));
  PS_TRY(auto const target, load());
  PS_TRY(auto const lun, known_lun(target, number));
  if (size < lun.size_bytes) {
    return failure(Errc::bad_request, "LUN " + options_.lun + " has " +
                                          format_size(lun.size_bytes) + ", it can only grow");
  }
  if (target.should_run) PS_CHECK(check_is_here(target));
  PS_TRY(auto work, work());
  PS_TRY(auto const name, volume::parse_plain_name(lun.lun.volume));
  PS_CHECK(work.resize(name, size, false));
  if (!runs_here(target)) return success();
  PS_TRY(auto const grown, known_lun(target, number));  // of a ploop volume: to whole clusters
  return gateway(target).control().grow_lun(number, grown.size_bytes);
}

Outcome<void> Commands::lun_del() {
  PS_TRY(auto const number, lun_number(options_.lun));
  PS_TRY(auto const target, load());
  auto const found = target.luns.find(number);
  if (found == target.luns.end()) {
    return failure(Errc::not_found, "target " + target.iqn() + " has no LUN " + options_.lun);
  }
  if (target.should_run) PS_CHECK(check_is_here(target));
  if (runs_here(target)) PS_CHECK(gateway(target).remove_lun(number));
  PS_CHECK(state_.forget_lun(target.name, number));
  auto const forgotten = state_.remove_reservations(found->second.uuid);
  // Busy: another target has the same volume as a LUN.
  if (!forgotten.has_value() && errc_of(forgotten.error().code) != Errc::busy) return forgotten;
  if (!found->second.is_owned || options_.keep) return success();
  PS_TRY(auto work, work());
  PS_TRY(auto const name, volume::parse_plain_name(found->second.volume));
  auto const removed = when_free([&] { return work.remove(name, true); });
  if (removed.has_value() || errc_of(removed.error().code) == Errc::not_found) return success();
  return failure(removed.error().code, "the LUN is gone, its volume '" + found->second.volume +
                                           "' is not: " + removed.error().text);
}

// ---------------------------------------------------------------- limits and snapshots

Outcome<volume::Volume_name> Commands::lun_volume(Target* loaded) {
  PS_TRY(auto const number, lun_number(options_.lun));
  PS_TRY(auto target, load());
  PS_TRY(auto const lun, known_lun(target, number));
  if (loaded != nullptr) *loaded = std::move(target);
  return volume::parse_plain_name(lun.lun.volume);
}

Outcome<void> Commands::lun_limit() {
  PS_TRY(auto const name, lun_volume());
  PS_TRY(auto work, work());
  PS_TRY(auto const limits, volume::change_limits(work, name, options_.limits));
  if (options_.json) {
    auto json = volume::limits_json(limits);
    json["volume"] = name.name;
    cli::print_json(json);
  } else {
    std::printf("%s: %s\n", name.name.c_str(), volume::limits_text(limits).c_str());
  }
  return success();
}

Outcome<void> Commands::snapshot_create() {
  PS_TRY(auto const name, lun_volume());
  PS_TRY(auto work, work());
  auto const created = volume::utc_text(session_->wall_ms());
  auto const snapshot = volume::snapshot_name(options_.name, created);
  PS_CHECK(work.snapshot(name, snapshot, created));
  if (options_.json) {
    cli::print_json({{"volume", name.name}, {"snapshot", snapshot}});
  } else {
    std::printf("%s@%s\n", name.name.c_str(), snapshot.c_str());
  }
  return success();
}

Outcome<void> Commands::snapshot_list() {
  PS_TRY(auto const name, lun_volume());
  PS_TRY(auto work, work());
  PS_TRY(auto const descriptor, work.descriptor(name));
  auto const list = volume::snapshot_list(descriptor);
  if (options_.json) {
    cli::print_json(list.json);
  } else {
    cli::print_table(list.headers, list.rows);
  }
  return success();
}

Outcome<void> Commands::snapshot_switch() {
  Target target;
  PS_TRY(auto name, lun_volume(&target));
  PS_CHECK(check_is_stopped(target));
  name.snapshot = options_.snapshot;
  PS_TRY(auto work, work());
  return when_free([&] { return work.roll_back(name); });
}

Outcome<void> Commands::snapshot_delete() {
  Target target;
  PS_TRY(auto name, lun_volume(&target));
  PS_CHECK(check_is_stopped(target));
  name.snapshot = options_.snapshot;
  PS_TRY(auto work, work());
  return when_free([&] { return work.remove_snapshot(name, [](std::uint64_t, std::uint64_t) {}); });
}

}  // namespace pstorage::iscsi
