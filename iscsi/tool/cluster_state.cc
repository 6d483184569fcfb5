#include "iscsi/tool/cluster_state.h"

#include <chrono>
#include <thread>

#include "blockdev/volume/disk_files.h"
#include "blockdev/volume/volume_work.h"
#include "core/cli/revoke.h"
#include "iscsi/volume_reservation_store.h"

namespace pstorage::iscsi {
namespace {

constexpr char const* root = "/iscsi";
constexpr std::string_view account_prefix = "account.";
constexpr int free_attempts = 30;
constexpr auto free_pause = std::chrono::milliseconds(500);

std::string path_of(std::string const& target) { return std::string(root) + "/" + target; }
std::string volume_path_of(std::string const& name) { return "/volumes/" + name; }

Properties properties_of(proto::File const& file) {
  return {file.properties().begin(), file.properties().end()};
}

std::uint64_t mapped_bytes(proto::File const& file) {
  return file.allocated_chunks() * file.attributes().chunk_size();
}

template <typename T>
bool is(Outcome<T> const& outcome, Errc code) {
  return !outcome.has_value() && errc_of(outcome.error().code) == code;
}

}  // namespace

Outcome<void> when_free(std::function<Outcome<void>()> const& work) {
  for (int attempt = 1;; ++attempt) {
    auto const done = work();
    if (!is(done, Errc::busy) || attempt == free_attempts) return done;
    std::this_thread::sleep_for(free_pause);
  }
}

std::string owner_path(std::string const& target) { return path_of(target) + "/owner"; }

Outcome<proto::File> Cluster_state::look_up(std::string const& path) {
  proto::Mds_request request;
  request.mutable_lookup()->set_path(path);
  PS_TRY(auto const reply, call_(std::move(request)));
  return reply.file();
}

Outcome<void> Cluster_state::make_directory(std::string const& path, Properties const& properties) {
  proto::Mds_request request;
  auto& create = *request.mutable_create();
  create.set_path(path);
  create.set_type(proto::TYPE_DIRECTORY);
  create.set_parents(true);
  create.mutable_properties()->insert(properties.begin(), properties.end());
  PS_TRY(auto const reply, call_(std::move(request)));
  return success();
}

Outcome<void> Cluster_state::set_properties(std::string const& path, Properties const& properties) {
  proto::Mds_request request;
  auto& set = *request.mutable_set_attributes();
  set.set_path(path);
  set.mutable_properties()->insert(properties.begin(), properties.end());
  PS_TRY(auto const reply, call_(std::move(request)));
  return success();
}

Outcome<void> Cluster_state::remove_path(std::string const& path) {
  proto::Mds_request request;
  request.mutable_remove()->set_path(path);
  PS_TRY(auto const reply, call_(std::move(request)));
  return success();
}

Outcome<std::vector<std::string>> Cluster_state::target_names() {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(root);
  auto const reply = call_(std::move(request));
  std::vector<std::string> names;
  if (is(reply, Errc::not_found)) return names;  // before the first target
  if (!reply.has_value()) return reply.error();
  for (auto const& file : reply.value().files().files()) {
    if (file.type() == proto::TYPE_DIRECTORY) names.push_back(file.name());
  }
  return names;
}

Outcome<Target> Cluster_state::load(std::string const& name) {
  auto const directory = look_up(path_of(name));
  if (is(directory, Errc::not_found)) {
    return failure(Errc::not_found, "there is no target " + std::string(iqn_prefix) + name +
                                        "; 'pstorage-iscsi list -a' shows those there are");
  }
  if (!directory.has_value()) return directory.error();
  PS_TRY(auto target, from_properties(name, properties_of(directory.value())));
  auto const owner = look_up(owner_path(name));
  if (owner.has_value()) {
    auto const properties = properties_of(owner.value());
    auto const host = properties.find("host");
    if (host != properties.end()) target.host = host->second;
    target.holder = owner.value().holder();
  } else if (!is(owner, Errc::not_found)) {
    return owner.error();
  }
  return target;
}

Outcome<void> Cluster_state::create(Target const& target) {
  auto const made = make_directory(path_of(target.name), to_properties(target));
  if (is(made, Errc::exists)) {
    return failure(Errc::exists, "there is a target " + target.iqn() + " already");
  }
  return made;
}

Outcome<void> Cluster_state::save(Target const& target) {
  auto const all = to_properties(target);
  return set_properties(path_of(target.name), {{"target", all.at("target")}});
}

Outcome<void> Cluster_state::save_lun(std::string const& target, unsigned number, Lun const& lun) {
  Target one;
  one.luns[number] = lun;
  auto const property = lun_property(number);
  return set_properties(path_of(target), {{property, to_properties(one).at(property)}});
}

Outcome<void> Cluster_state::forget_lun(std::string const& target, unsigned number) {
  return set_properties(path_of(target), {{lun_property(number), ""}});
}

Outcome<void> Cluster_state::remove(std::string const& target) {
  auto const unregistered = unregister(target);
  if (!unregistered.has_value()) return unregistered;
  return remove_path(path_of(target));
}

Outcome<void> Cluster_state::register_on(std::string const& target, std::string const& host) {
  proto::Mds_request request;
  auto& create = *request.mutable_create();
  create.set_path(owner_path(target));
  create.set_type(proto::TYPE_FILE);
  (*create.mutable_properties())["host"] = host;
  auto const made = call_(std::move(request));
  if (made.has_value()) return success();
  if (!is(made, Errc::exists)) return made.error();
  PS_TRY(auto const current, load(target));
  if (current.host == host) return success();
  return failure(Errc::busy, "target " + current.iqn() + " is registered on host " + current.host +
                                 ": run 'pstorage-iscsi unregister -t " + target + "' there first");
}

Outcome<void> Cluster_state::unregister(std::string const& target) {
  auto const removed = when_free([&] { return remove_path(owner_path(target)); });
  return is(removed, Errc::not_found) ? Outcome<void>(success()) : removed;
}

Outcome<void> Cluster_state::move(std::string const& target, std::string const& host,
                                  proto::Lease_guard const& guard) {
  proto::Mds_request request;
  auto& set = *request.mutable_set_attributes();
  set.set_path(owner_path(target));
  (*set.mutable_properties())["host"] = host;
  *request.mutable_guard() = guard;
  PS_TRY(auto const reply, call_(std::move(request)));
  return success();
}

Outcome<bool> Cluster_state::is_in_use(std::string const& volume) {
  auto const path = volume_path_of(volume);
  auto file = look_up(path);
  if (file.has_value() && file.value().type() == proto::TYPE_DIRECTORY) {
    file = look_up(path + "/" + volume::descriptor_file);
  }
  if (is(file, Errc::not_found)) return false;
  if (!file.has_value()) return file.error();
  return !file.value().holder().empty();
}

Outcome<void> Cluster_state::revoke_volume(std::string const& name) {
  auto const revoked = cli::revoke(call_, volume_path_of(name));
  if (revoked.has_value() || is(revoked, Errc::not_found)) return success();
  return revoked.error();
}

Outcome<std::map<std::string, std::string>> Cluster_state::accounts() {
  std::map<std::string, std::string> found;
  auto const directory = look_up(root);
  if (is(directory, Errc::not_found)) return found;
  if (!directory.has_value()) return directory.error();
  for (auto const& [name, value] : properties_of(directory.value())) {
    if (name.starts_with(account_prefix)) found[name.substr(account_prefix.size())] = value;
  }
  return found;
}

Outcome<void> Cluster_state::save_account(std::string const& user, std::string const& secret) {
  if (auto const made = make_directory(root, {}); !made.has_value() && !is(made, Errc::exists)) {
    return made;
  }
  return set_properties(root, {{std::string(account_prefix) + user, secret}});
}

Outcome<Replayed> Cluster_state::replayed(Target const& target) {
  Replayed what;
  for (auto const& [number, lun] : target.luns) {
    PS_TRY(auto const info, volume(lun.volume));
    what.luns[number] = {lun, info.size_bytes};
  }
  PS_TRY(what.accounts, accounts());
  return what;
}

Outcome<Volume_info> Cluster_state::volume(std::string const& name) {
  auto const file = look_up(volume_path_of(name));
  if (is(file, Errc::not_found)) {
    return failure(Errc::not_found, "there is no volume '" + name + "'");
  }
  if (!file.has_value()) return file.error();
  auto const properties = properties_of(file.value());
  Volume_info info;
  info.is_raw = file.value().type() == proto::TYPE_FILE;
  info.limits = volume::limits_of(properties);
  auto const uuid = properties.find("uuid");
  if (uuid != properties.end()) info.uuid = uuid->second;
  if (info.is_raw) {
    info.size_bytes = file.value().size();
    info.mapped_bytes = mapped_bytes(file.value());
    return info;
  }
  info.size_bytes = volume::noted_size(file.value());
  if (info.size_bytes == 0) {
    return failure(Errc::is_directory, "'" + name + "' is a directory of volumes");
  }
  PS_TRY(info.mapped_bytes, mapped_below(volume_path_of(name)));
  return info;
}

Outcome<std::uint64_t> Cluster_state::mapped_below(std::string const& path) {
  proto::Mds_request request;
  request.mutable_list_directory()->set_path(path);
  PS_TRY(auto const reply, call_(std::move(request)));
  std::uint64_t mapped = 0;
  for (auto const& file : reply.files().files()) mapped += mapped_bytes(file);
  return mapped;
}

Outcome<void> Cluster_state::set_volume_uuid(std::string const& name, std::string const& uuid) {
  return set_properties(volume_path_of(name), {{"uuid", uuid}});
}

std::string reservations_volume(std::string const& uuid) { return "iscsi-reservations/" + uuid; }

Outcome<void> Cluster_state::ensure_reservations(std::string const& uuid) {
  proto::Mds_request request;
  auto& create = *request.mutable_create();
  create.set_path(volume_path_of(reservations_volume(uuid)));
  create.set_type(proto::TYPE_FILE);
  create.set_size(reservation_volume_bytes);
  create.set_parents(true);
  auto const made = call_(std::move(request));
  if (made.has_value() || is(made, Errc::exists)) return success();
  return made.error();
}

Outcome<void> Cluster_state::remove_reservations(std::string const& uuid) {
  auto const path = volume_path_of(reservations_volume(uuid));
  auto const removed = when_free([&] { return remove_path(path); });
  return is(removed, Errc::not_found) ? Outcome<void>(success()) : removed;
}

}  // namespace pstorage::iscsi
