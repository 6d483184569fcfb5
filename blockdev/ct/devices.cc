#include "blockdev/ct/devices.h"

#include <fcntl.h>

#include <filesystem>

#include "blockdev/ct/tools.h"
#include "core/net/socket.h"

namespace pstorage::ct {
namespace {

constexpr std::uint16_t no_port = 0;  // a unix socket has none

std::optional<volume::Attachment> attachment_of(std::string const& path) {
  for (auto const& one : volume::attachments())
    if (one.device() == path) return one;
  return std::nullopt;
}

std::optional<Loop_device> loop_of(std::string const& path) {
  for (auto const& one : loop_devices())
    if (one.path == path) return one;
  return std::nullopt;
}

bool has_file(Loop_device const& loop) {
  std::error_code error;
  return std::filesystem::exists(loop.backing_file, error);
}

/// Does somebody listen there now?
bool is_listening(std::string const& server) {
  auto const address = Address::parse(server, no_port);
  if (!address.has_value()) return false;
  auto const endpoint = numeric_endpoint(address.value());
  return endpoint.has_value() && begin_connect(endpoint.value()).has_value();
}

/// The first line of what a program said, without its name.
std::string first_line(std::string const& output) {
  auto line = output.substr(0, output.find('\n'));
  std::string const name = "pstorage: ";
  return line.starts_with(name) ? line.substr(name.size()) : line;
}

}  // namespace

std::optional<std::string> snapshot_in_view(std::string const& backing_file,
                                            std::string const& disk) {
  std::string const view = "/.disks/";
  auto const at = backing_file.rfind(view);
  if (at == std::string::npos) return std::nullopt;
  return snapshot_attached(backing_file.substr(at + view.size()), disk);
}

std::optional<std::string> snapshot_attached(std::string const& volume, std::string const& disk) {
  if (volume == disk) return "";
  if (!volume.starts_with(disk + "@")) return std::nullopt;
  return volume.substr(disk.size() + 1);
}

std::vector<Device> Devices::find(std::string const& disk) const {
  std::vector<Device> found;
  for (auto const& loop : loop_devices()) {
    auto const snapshot = snapshot_in_view(loop.backing_file, disk);
    if (snapshot) found.push_back({loop.path, *snapshot, !has_file(loop)});
  }
  for (auto const& one : volume::attachments()) {
    if (one.cluster != cluster_) continue;
    auto const snapshot = snapshot_attached(one.volume, disk);
    if (snapshot) found.push_back({one.device(), *snapshot, !one.is_kept});
  }
  return found;
}

Outcome<Way> Devices::choose(std::optional<Way> wish) const {
  Host_ways host;
  // Not even loaded, where nobody wants it.
  host.has_kernel_nbd = wish != Way::fuse && volume::Kernel_nbd::open().has_value();
  host.has_nbd_server = is_listening(volume::default_server(cluster_));
  host.view = find_cluster_mount(read_text("/proc/self/mounts"), cluster_);
  return choose_way(wish, host, cluster_);
}

Outcome<std::string> Devices::attach(Way way, std::string const& volume, bool read_only) const {
  if (way == Way::nbd) return attach_to_kernel(volume, volume::default_server(cluster_), read_only);
  auto const view = find_cluster_mount(read_text("/proc/self/mounts"), cluster_);
  auto const path = view + "/.disks/" + volume;
  // losetup takes a busy file for a busy device, and tries for two minutes.
  File_descriptor const file(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!file) {
    std::error_code const error(errno, std::system_category());
    return failure(error, "cannot open " + path + ": " + error.message());
  }
  std::vector<std::string> command = {"losetup", "--find", "--show", "--direct-io=on"};
  if (read_only) command.push_back("--read-only");
  command.push_back(path);
  std::string output;
  PS_TRY(int const code, run_status(command, output));
  if (code != 0) return failure(Errc::io_error, "losetup failed: " + first_line(output));
  return first_line(output);
}

/// The command, and not its function: who keeps the device connected outlives this program, and has
/// nothing of it.
Outcome<std::string> Devices::attach_to_kernel(std::string const& volume, std::string const& server,
                                               bool read_only) const {
  std::error_code error;
  auto const here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  std::vector<std::string> command = {here / "pstorage", "-c",   cluster_,   "volume",
                                      "attach",          volume, "--server", server};
  if (read_only) command.push_back("--read-only");
  std::string output;
  PS_TRY(int const code, run_status(command, output));
  if (code != 0) return failure(Errc::io_error, first_line(output));
  return first_line(output);
}

Outcome<void> Devices::detach(std::string const& path) const {
  if (auto const one = attachment_of(path)) return volume::detach(*one);
  PS_CHECK(run({"losetup", "--detach", path}));
  return success();
}

Outcome<void> Devices::grow(std::string const& path, std::uint64_t size_bytes) const {
  if (auto const one = attachment_of(path)) return volume::show_growth(*one, size_bytes);
  PS_CHECK(run({"losetup", "--set-capacity", path}));
  return success();
}

bool Devices::is_served(std::string const& path) const {
  if (auto const one = attachment_of(path)) {
    auto const server = Address::parse(one->server, no_port);
    return server.has_value() && volume::negotiate(server.value(), one->volume).has_value();
  }
  auto const loop = loop_of(path);
  return loop && has_file(*loop);
}

bool Devices::revive(std::string const& path) const {
  auto const one = attachment_of(path);
  return one && attach_to_kernel(one->volume, one->server, false).has_value();
}

Outcome<void> Devices::remove(std::string const& path) const {
  auto const one = attachment_of(path);
  // First: what the file system has still to write would wait for a server that may never come.
  if (one) PS_CHECK(volume::cut_off(*one));
  for (auto const& place : find_mounts(read_text("/proc/self/mounts"), path))
    PS_CHECK(run({"umount", "--lazy", place}));
  return one ? volume::await_end(*one) : detach(path);
}

}  // namespace pstorage::ct
