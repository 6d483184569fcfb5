#include "blockdev/volume/attachment.h"

#include <fcntl.h>
#include <libnbd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "blockdev/nbd_protocol.h"
#include "core/disk/atomic_file.h"

namespace pstorage::volume {
namespace {

constexpr char const* notes_directory = "/run/pstorage/attached";
constexpr std::size_t note_bytes_max = 4096;
constexpr std::uint16_t nbd_port = 10809;
constexpr Duration negotiation_max = std::chrono::seconds(30);
constexpr Duration detach_max = std::chrono::seconds(30);
constexpr Duration growth_max = std::chrono::seconds(30);
constexpr Duration look_every = std::chrono::milliseconds(500);
constexpr auto pause = std::chrono::milliseconds(50);

std::string note_path(std::uint32_t index) {
  return std::string(notes_directory) + "/nbd" + std::to_string(index);
}

std::string in_sysfs(std::uint32_t index, char const* name) {
  return "/sys/block/nbd" + std::to_string(index) + "/" + name;
}

/// Is the device connected, or waiting to be again, and does it belong to this attachment?
bool is_attached(Attachment const& one) {
  std::error_code error;
  if (!std::filesystem::exists(in_sysfs(one.index, "pid"), error)) return false;
  auto const backend = read_small_file(in_sysfs(one.index, "backend"), note_bytes_max);
  if (!backend.has_value()) return true;  // a kernel before 5.14 does not tell
  return backend.value().substr(0, backend.value().find('\n')) == one.identifier();
}

std::optional<Attachment> read_note(std::uint32_t index) {
  auto const text = read_small_file(note_path(index), note_bytes_max);
  if (!text.has_value()) return std::nullopt;
  auto const json = nlohmann::json::parse(text.value(), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  Attachment found;
  found.index = index;
  found.cluster = json.value("cluster", "");
  found.volume = json.value("volume", "");
  found.server = json.value("server", "");
  found.keeper = json.value("keeper", 0);
  // Who is not root may not signal it, and learns that it is there all the same.
  found.is_kept = found.keeper > 0 && (::kill(found.keeper, 0) == 0 || errno == EPERM);
  return found;
}

Outcome<void> write_note(Attachment const& one) {
  PS_CHECK(make_directories(notes_directory));
  auto const text = nlohmann::json{
      {"cluster", one.cluster},
      {"volume", one.volume},
      {"server", one.server},
      {"keeper",
       one.keeper}}.dump();
  return write_file_atomically(note_path(one.index), std::as_bytes(std::span(text)), 0644);
}

struct Close_handle {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};

std::uint16_t flags_of(nbd_handle* handle) {
  std::uint16_t flags = nbd::can_has_flags;
  auto const add = [&](int answer, std::uint16_t flag) {
    if (answer > 0) flags |= flag;
  };
  add(nbd_is_read_only(handle), nbd::can_read_only);
  add(nbd_can_flush(handle), nbd::can_flush);
  add(nbd_can_fua(handle), nbd::can_fua);
  add(nbd_can_trim(handle), nbd::can_trim);
  add(nbd_can_multi_conn(handle), nbd::can_multi_conn);
  return flags;
}

Failure nbd_failure(std::string const& what) {
  char const* const said = nbd_get_error();
  return failure(Errc::io_error, what + ": " + (said == nullptr ? "no reason given" : said));
}

/// Until the server has said yes.
Outcome<void> await_ready(nbd_handle* handle, std::string const& what) {
  auto left = negotiation_max;
  while (nbd_aio_is_ready(handle) == 0) {
    if (nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0) return nbd_failure(what);
    if (left <= Duration{0}) return failure(Errc::timed_out, what + ": the server does not answer");
    int const events = nbd_poll(handle, static_cast<int>(pause.count()));
    if (events < 0) return nbd_failure(what);
    if (events == 0) left -= pause;
  }
  return success();
}

}  // namespace

std::string default_server(std::string const& cluster) {
  return "unix:/run/pstorage/" + cluster + "/nbd.sock";
}

std::vector<Attachment> attachments() {
  std::vector<Attachment> found;
  std::error_code error;
  for (auto const& entry : std::filesystem::directory_iterator(notes_directory, error)) {
    auto const index = device_index("/dev/" + entry.path().filename().string());
    if (!index) continue;
    auto note = read_note(*index);
    if (note && is_attached(*note))
      found.push_back(std::move(*note));
    else if (!note || !note->is_kept)  // a keeper removes its own
      ::unlink(entry.path().c_str());
  }
  std::sort(found.begin(), found.end(),
            [](Attachment const& a, Attachment const& b) { return a.index < b.index; });
  return found;
}

std::optional<std::uint32_t> device_index(std::string const& device) {
  std::string const front = "/dev/nbd";
  std::uint32_t index = 0;
  if (!device.starts_with(front)) return std::nullopt;
  auto const* const end = device.data() + device.size();
  auto const read = std::from_chars(device.data() + front.size(), end, index);
  if (read.ec != std::errc{} || read.ptr != end) return std::nullopt;
  return index;
}

Outcome<Negotiated> negotiate(Address const& server, std::string const& volume) {
  std::unique_ptr<nbd_handle, Close_handle> const handle(nbd_create());
  auto const what = "cannot connect to '" + volume + "' at " + server.text();
  if (!handle) return nbd_failure(what);
  // The kernel's client knows simple replies only.
  if (nbd_set_export_name(handle.get(), volume.c_str()) != 0 ||
      nbd_set_request_structured_replies(handle.get(), false) != 0)
    return nbd_failure(what);
  int const begun =
      server.is_unix()
          ? nbd_aio_connect_unix(handle.get(), server.unix_path.c_str())
          : nbd_aio_connect_tcp(handle.get(), server.host.c_str(),
                                std::to_string(server.port == 0 ? nbd_port : server.port).c_str());
  if (begun != 0) return nbd_failure(what);
  PS_CHECK(await_ready(handle.get(), what));
  Negotiated result;
  result.size_bytes = static_cast<std::uint64_t>(nbd_get_size(handle.get()));
  result.flags = flags_of(handle.get());
  result.socket = File_descriptor(::fcntl(nbd_aio_get_fd(handle.get()), F_DUPFD_CLOEXEC, 0));
  if (!result.socket) return failure(Errc::io_error, what + ": no descriptor is left");
  return result;
}

Outcome<Kept_device> Kept_device::attach(Attachment wanted, Attach_options const& options) {
  PS_TRY(auto kernel, Kernel_nbd::open());
  for (auto const& one : attachments()) {
    if (one.identifier() != wanted.identifier()) continue;
    bool const is_meant = !options.index || *options.index == one.index;
    if (one.is_kept || !is_meant)
      return failure(Errc::busy,
                     "'" + one.volume + "' is attached as " + one.device() + " already");
    wanted.index = one.index;
    return take_over(std::move(wanted), std::move(kernel));
  }
  PS_TRY(auto const server, Address::parse(wanted.server, nbd_port));
  PS_TRY(auto const connection, negotiate(server, wanted.volume));
  auto const read_only = options.is_read_only ? nbd::can_read_only : std::uint16_t{0};
  PS_TRY(wanted.index,
         kernel.connect({.size_bytes = connection.size_bytes,
                         .flags = static_cast<std::uint16_t>(connection.flags | read_only),
                         .timeout_s = options.timeout_s,
                         .patience_s = options.patience_s,
                         .identifier = wanted.identifier()},
                        connection.socket.get(), options.index));
  wanted.keeper = ::getpid();
  if (auto noted = write_note(wanted); !noted.has_value()) {
    PS_CHECK(kernel.disconnect(wanted.index));
    return noted.error();
  }
  return Kept_device(std::move(wanted), std::move(kernel));
}

Outcome<Kept_device> Kept_device::take_over(Attachment orphan, Kernel_nbd kernel) {
  Kept_device kept(std::move(orphan), std::move(kernel));
  auto& mine = kept.attachment_;
  PS_TRY(auto const server, Address::parse(mine.server, nbd_port));
  PS_TRY(auto const connection, negotiate(server, mine.volume));
  mine.keeper = ::getpid();
  PS_CHECK(write_note(mine));
  PS_CHECK(
      kept.kernel_.reconnect({.size_bytes = connection.size_bytes, .identifier = mine.identifier()},
                             connection.socket.get(), mine.index));
  return kept;
}

void Kept_device::keep() {
  std::error_code error;
  std::filesystem::current_path("/", error);  // else it keeps busy what it was started in
  bool is_broken = false;
  while (is_attached(attachment_)) {
    is_broken |= kernel_.wait_for_death(attachment_.index, look_every);
    if (is_broken && is_attached(attachment_) && connect_again()) is_broken = false;
  }
  auto const note = read_note(attachment_.index);
  if (note && note->keeper == ::getpid()) ::unlink(note_path(attachment_.index).c_str());
}

bool Kept_device::connect_again() {
  auto const server = Address::parse(attachment_.server, nbd_port);
  if (!server.has_value()) return false;
  auto const connection = negotiate(server.value(), attachment_.volume);
  if (!connection.has_value()) return false;  // and in a moment once more
  auto const done = kernel_.reconnect(
      {.size_bytes = connection.value().size_bytes, .identifier = attachment_.identifier()},
      connection.value().socket.get(), attachment_.index);
  return done.has_value();
}

Outcome<void> detach(Attachment const& attachment) {
  PS_TRY(auto kernel, Kernel_nbd::open());
  {
    // Refused while a file system, a device mapper or a swap has it.
    File_descriptor const device(
        ::open(attachment.device().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    if (!device && errno == EBUSY)
      return failure(Errc::busy, attachment.device() + " is in use: unmount it first");
  }
  if (auto flushed = make_durable(attachment.device()); !flushed.has_value())
    return failure(flushed.error().code, flushed.error().text + "; it stays attached");
  PS_CHECK(kernel.disconnect(attachment.index));
  return await_end(attachment);
}

Outcome<void> cut_off(Attachment const& attachment) {
  PS_TRY(auto kernel, Kernel_nbd::open());
  return kernel.disconnect(attachment.index);
}

Outcome<void> await_end(Attachment const& attachment) {
  for (auto left = detach_max; is_attached(attachment); left -= pause) {
    if (left <= Duration{0})
      return failure(Errc::timed_out, attachment.device() + " does not go away");
    std::this_thread::sleep_for(pause);
  }
  return success();
}

Outcome<void> show_growth(Attachment const& attachment, std::uint64_t size_bytes) {
  PS_TRY(auto kernel, Kernel_nbd::open());
  PS_TRY(auto const server, Address::parse(attachment.server, nbd_port));
  // The server lends a volume for the change, and knows of it once it has it back.
  for (auto left = growth_max;; left -= pause) {
    PS_TRY(auto const connection, negotiate(server, attachment.volume));
    if (connection.size_bytes >= size_bytes)
      return kernel.resize(attachment.identifier(), connection.size_bytes, attachment.index);
    if (left <= Duration{0})
      return failure(Errc::timed_out, "the server at " + server.text() + " does not see that '" +
                                          attachment.volume + "' has grown");
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace pstorage::volume
