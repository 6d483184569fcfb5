#include "iscsi/tool/tgtd_control.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/disk/file_descriptor.h"

namespace pstorage::iscsi {
namespace {

constexpr std::int32_t target_id = 1;  // one target a process
constexpr time_t answer_seconds = 10;

enum Mode : std::uint32_t { system_mode = 0, target_mode = 1, device_mode = 2, account_mode = 7 };
enum Verb : std::uint32_t { add = 0, remove = 1, show = 2, bind = 3, unbind = 4, update = 5 };
constexpr std::uint32_t user_exists = 14;
constexpr std::uint32_t lun_is_active = 20;

/// tgtd's words for its error numbers that can happen here.
std::string reason_of(std::uint32_t error) {
  switch (error) {
    case 4:
      return "it has no such target";
    case 5:
      return "it has no such LUN";
    case 9:
    case 10:
      return "it exists already";
    case 15:
      return "it knows no such account";
    case 17:
      return "it calls the request invalid; its log says why";
    case lun_is_active:
      return "the LUN is in use";
    default:
      return "error " + std::to_string(error);
  }
}

File_descriptor connect_to(std::string const& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return File_descriptor(-1);
  std::copy(path.begin(), path.end(), address.sun_path);
  File_descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval const limit{.tv_sec = answer_seconds, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (::connect(fd.get(), reinterpret_cast<sockaddr const*>(&address), sizeof(address)) != 0) {
    return File_descriptor(-1);
  }
  return fd;
}

}  // namespace

struct Tgtd_control::Request {  // as tgtd reads it
  std::uint32_t mode = 0;
  std::uint32_t verb = 0;
  std::array<char, 64> driver{'i', 's', 'c', 's', 'i'};
  std::uint32_t bytes = 0;
  std::int32_t target = target_id;
  std::uint64_t session = 0;
  std::uint64_t lun = 0;
  std::uint32_t connection = 0;
  std::uint32_t host = 0;
  std::uint32_t device_type = 0;  // disk
  std::uint32_t is_outgoing = 0;
  std::uint32_t pack = 0;
  std::uint32_t force = 0;
};

Outcome<void> Tgtd_control::send(Request const& request, std::string const& parameters) const {
  static_assert(sizeof(Request) == 120);
  auto const silent = failure(Errc::unavailable, "tgtd does not answer at " + socket_);
  auto const fd = connect_to(socket_);
  if (!fd) return silent;
  Request head = request;
  auto const text_bytes = parameters.size() + 1;  // tgtd takes it for a C string
  head.bytes = static_cast<std::uint32_t>(sizeof(head) + text_bytes);
  std::string message(sizeof(head), '\0');
  std::memcpy(message.data(), &head, sizeof(head));
  message.append(parameters.c_str(), text_bytes);
  for (std::size_t sent = 0; sent < message.size();) {
    auto const done = ::send(fd.get(), message.data() + sent, message.size() - sent, MSG_NOSIGNAL);
    if (done <= 0) return silent;
    sent += static_cast<std::size_t>(done);
  }
  std::array<std::uint32_t, 2> answer{};  // error, length
  if (::recv(fd.get(), answer.data(), sizeof(answer), MSG_WAITALL) !=
      static_cast<ssize_t>(sizeof(answer))) {
    return silent;
  }
  if (answer[0] == 0) return success();
  auto const code = answer[0] == user_exists     ? Errc::exists
                    : answer[0] == lun_is_active ? Errc::busy
                                                 : Errc::refused;
  return failure(code, "tgtd refused: " + reason_of(answer[0]));
}

bool Tgtd_control::is_up() const {
  return send({.mode = system_mode, .verb = show}, "").has_value();
}

Outcome<void> Tgtd_control::add_target(std::string const& iqn) const {
  return send({.mode = target_mode, .verb = add}, "targetname=" + iqn);
}

Outcome<void> Tgtd_control::set_parameter(std::string const& name, std::string const& value) const {
  return send({.mode = target_mode, .verb = update}, name + "=" + value);
}

Outcome<void> Tgtd_control::add_lun(unsigned number, std::string const& uri,
                                    std::string const& options) const {
  return send({.mode = device_mode, .verb = add, .lun = number},
              "path=" + uri + ",bstype=pstorage,bsopts=" + options);
}

Outcome<void> Tgtd_control::remove_lun(unsigned number) const {
  return send({.mode = device_mode, .verb = remove, .lun = number}, "");
}

Outcome<void> Tgtd_control::grow_lun(unsigned number, std::uint64_t bytes) const {
  return send({.mode = device_mode, .verb = update, .lun = number},
              "targetOps pst_size=" + std::to_string(bytes) + ",");
}

Outcome<void> Tgtd_control::activate_lun(unsigned number) const {
  return send({.mode = device_mode, .verb = update, .lun = number}, "targetOps pst_state=active,");
}

Outcome<void> Tgtd_control::add_account(std::string const& user, std::string const& secret) const {
  auto done = send({.mode = account_mode, .verb = add}, "user=" + user + ",password=" + secret);
  if (!done.has_value() && errc_of(done.error().code) == Errc::exists) return success();
  return done;
}

Outcome<void> Tgtd_control::bind_account(std::string const& user, bool is_outgoing,
                                         bool binds) const {
  return send(
      {.mode = account_mode, .verb = binds ? bind : unbind, .is_outgoing = is_outgoing ? 1u : 0u},
      "user=" + user);
}

Outcome<void> Tgtd_control::allow(std::string const& initiator, bool allows) const {
  bool const is_name =
      initiator.find_first_not_of("0123456789abcdef.:/") != std::string::npos && initiator != "ALL";
  return send({.mode = target_mode, .verb = allows ? bind : unbind},
              (is_name ? "initiator-name=" : "initiator-address=") + initiator);
}

}  // namespace pstorage::iscsi
