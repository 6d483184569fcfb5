#include "blockdev/volume/kernel_nbd.h"

#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <span>
#include <thread>

#include "blockdev/volume/child_process.h"

namespace pstorage::volume {
namespace {

constexpr std::size_t answer_max = 16384;

std::size_t padded(std::size_t size) { return NLMSG_ALIGN(size); }

Failure netlink_failure(std::string const& what, int number) {
  std::error_code const code(number, std::generic_category());
  return failure(code, what + ": " + code.message());
}

template <typename T>
T value_at(std::span<std::byte const> bytes, std::size_t at = 0) {
  T value{};
  if (at + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// Calls `each` with type and content of every attribute. Stops at what is no attribute.
void for_each_attribute(
    std::span<std::byte const> bytes,
    std::function<void(std::uint16_t, std::span<std::byte const>)> const& each) {
  while (bytes.size() >= sizeof(nlattr)) {
    auto const head = value_at<nlattr>(bytes);
    if (head.nla_len < sizeof(nlattr) || head.nla_len > bytes.size()) return;
    auto const content = bytes.first(head.nla_len).subspan(sizeof(nlattr));
    each(head.nla_type & static_cast<std::uint16_t>(NLA_TYPE_MASK), content);
    bytes = bytes.subspan(std::min(padded(head.nla_len), bytes.size()));
  }
}

struct Received {
  nlmsghdr head{};
  std::span<std::byte const> body;  // behind the head

  std::uint8_t command() const { return value_at<genlmsghdr>(body).cmd; }
  std::span<std::byte const> attributes() const {
    return body.subspan(std::min(body.size(), std::size_t{GENL_HDRLEN}));
  }
};

/// The messages of one datagram.
std::vector<Received> split(std::span<std::byte const> bytes) {
  std::vector<Received> found;
  while (bytes.size() >= sizeof(nlmsghdr)) {
    auto const head = value_at<nlmsghdr>(bytes);
    if (head.nlmsg_len < sizeof(nlmsghdr) || head.nlmsg_len > bytes.size()) break;
    found.push_back({head, bytes.first(head.nlmsg_len).subspan(sizeof(nlmsghdr))});
    bytes = bytes.subspan(std::min(padded(head.nlmsg_len), bytes.size()));
  }
  return found;
}

/// Receives until the kernel's verdict has come; `each` gets what else it says. Returns its errno.
int await_verdict(int socket, std::function<void(Received const&)> const& each) {
  std::vector<std::byte> buffer(answer_max);
  while (true) {
    auto const got = ::recv(socket, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    for (auto const& message : split({buffer.data(), static_cast<std::size_t>(got)})) {
      if (message.head.nlmsg_type == NLMSG_ERROR) return -value_at<int>(message.body);
      each(message);
    }
  }
}

Outcome<File_descriptor> open_socket() {
  File_descriptor made(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC));
  if (!made) return netlink_failure("cannot ask the kernel", errno);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (::bind(made.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) != 0)
    return netlink_failure("cannot ask the kernel", errno);
  return made;
}

}  // namespace

// ------------------------------------------------------------------ messages

Netlink_message::Netlink_message(std::uint16_t family, std::uint8_t command, std::uint16_t flags)
    : bytes_(NLMSG_HDRLEN + GENL_HDRLEN) {
  nlmsghdr head{};
  head.nlmsg_type = family;
  head.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  genlmsghdr generic{};
  generic.cmd = command;
  generic.version = 1;
  std::memcpy(bytes_.data(), &head, sizeof head);
  std::memcpy(bytes_.data() + NLMSG_HDRLEN, &generic, sizeof generic);
}

void Netlink_message::add_bytes(std::uint16_t type, void const* data, std::size_t size) {
  nlattr const head{static_cast<std::uint16_t>(sizeof(nlattr) + size), type};
  auto const at = bytes_.size();
  bytes_.resize(at + padded(sizeof head + size));
  std::memcpy(bytes_.data() + at, &head, sizeof head);
  if (size != 0) std::memcpy(bytes_.data() + at + sizeof head, data, size);
}

void Netlink_message::add(std::uint16_t type, std::uint32_t value) {
  add_bytes(type, &value, sizeof value);
}

void Netlink_message::add(std::uint16_t type, std::uint64_t value) {
  add_bytes(type, &value, sizeof value);
}

void Netlink_message::add(std::uint16_t type, std::string const& value) {
  add_bytes(type, value.c_str(), value.size() + 1);
}

std::size_t Netlink_message::begin(std::uint16_t type) {
  auto const at = bytes_.size();
  add_bytes(static_cast<std::uint16_t>(type | NLA_F_NESTED), nullptr, 0);
  return at;
}

void Netlink_message::end(std::size_t at) {
  auto const length = static_cast<std::uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &length, sizeof length);
}

std::vector<std::byte> const& Netlink_message::bytes() {
  auto const length = static_cast<std::uint32_t>(bytes_.size());
  std::memcpy(bytes_.data(), &length, sizeof length);
  return bytes_;
}

// ------------------------------------------------------------------ the kernel

Outcome<Kernel_nbd> Kernel_nbd::open() {
  if (::geteuid() != 0)
    return failure(Errc::refused, "devices of the kernel are made by root: run this as root");
  Kernel_nbd kernel;
  PS_TRY(kernel.requests_, open_socket());
  PS_TRY(kernel.events_, open_socket());
  auto found = kernel.find_family();
  if (!found.has_value() && has_program("modprobe")) {
    // What modprobe says about a kernel without the module is no news: the line below says it.
    auto const loaded = run_program({"modprobe", "--quiet", "nbd"}, [] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    if (loaded.has_value()) found = kernel.find_family();
  }
  if (!found.has_value())
    return failure(Errc::refused,
                   "this kernel has no NBD client (module nbd): use the volume as a file below "
                   "pstorage-mount's .disks, or over NBD from a program (see pstorage-nbd(1))");
  if (::setsockopt(kernel.events_.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &kernel.group_,
                   sizeof kernel.group_) != 0)
    return netlink_failure("cannot listen to the kernel", errno);
  return kernel;
}

Outcome<void> Kernel_nbd::find_family() {
  Netlink_message message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK);
  message.add(CTRL_ATTR_FAMILY_NAME, std::string(NBD_GENL_FAMILY_NAME));
  auto const& bytes = message.bytes();
  if (::send(requests_.get(), bytes.data(), bytes.size(), 0) < 0)
    return netlink_failure("cannot ask the kernel", errno);
  int const verdict = await_verdict(requests_.get(), [this](Received const& answer) {
    for_each_attribute(answer.attributes(), [this](std::uint16_t type, auto const& content) {
      if (type == CTRL_ATTR_FAMILY_ID) family_ = value_at<std::uint16_t>(content);
      if (type != CTRL_ATTR_MCAST_GROUPS) return;
      for_each_attribute(content, [this](std::uint16_t, auto const& group) {
        for_each_attribute(group, [this](std::uint16_t part, auto const& value) {
          if (part == CTRL_ATTR_MCAST_GRP_ID) group_ = value_at<std::uint32_t>(value);
        });
      });
    });
  });
  if (verdict != 0 || family_ == 0) return netlink_failure("the kernel has no NBD", ENOENT);
  return success();
}

Outcome<void> Kernel_nbd::call(Netlink_message& message, std::string const& what,
                               std::uint32_t* index) {
  auto const& bytes = message.bytes();
  if (::send(requests_.get(), bytes.data(), bytes.size(), 0) < 0)
    return netlink_failure(what, errno);
  int const verdict = await_verdict(requests_.get(), [index](Received const& answer) {
    for_each_attribute(answer.attributes(), [index](std::uint16_t type, auto const& content) {
      if (index != nullptr && type == NBD_ATTR_INDEX) *index = value_at<std::uint32_t>(content);
    });
  });
  if (verdict == 0) return success();
  if (verdict == EBUSY) return failure(Errc::busy, what + ": the device is in use");
  return netlink_failure(what, verdict);
}

namespace {

void add_socket(Netlink_message& message, int socket) {
  auto const sockets = message.begin(NBD_ATTR_SOCKETS);
  auto const item = message.begin(NBD_SOCK_ITEM);
  message.add(NBD_SOCK_FD, static_cast<std::uint32_t>(socket));
  message.end(item);
  message.end(sockets);
}

// Partition tables count in these: as hypervisors and pstorage-mount show the disk.
constexpr std::uint64_t sector_bytes = 512;

}  // namespace

Outcome<std::uint32_t> Kernel_nbd::connect(Kernel_connection const& connection, int socket,
                                           std::optional<std::uint32_t> index) {
  Netlink_message message(family_, NBD_CMD_CONNECT, NLM_F_ACK);
  if (index) message.add(NBD_ATTR_INDEX, *index);
  message.add(NBD_ATTR_SIZE_BYTES, connection.size_bytes);
  message.add(NBD_ATTR_BLOCK_SIZE_BYTES, sector_bytes);
  message.add(NBD_ATTR_TIMEOUT, connection.timeout_s);
  message.add(NBD_ATTR_DEAD_CONN_TIMEOUT, connection.patience_s);
  message.add(NBD_ATTR_SERVER_FLAGS, std::uint64_t{connection.flags});
  message.add(NBD_ATTR_BACKEND_IDENTIFIER, connection.identifier);
  add_socket(message, socket);
  auto made = index.value_or(0);
  PS_CHECK(call(
      message,
      index ? "cannot attach to /dev/nbd" + std::to_string(*index) : "no device can be attached to",
      &made));
  return made;
}

Outcome<void> Kernel_nbd::reconnect(Kernel_connection const& connection, int socket,
                                    std::uint32_t index) {
  Netlink_message message(family_, NBD_CMD_RECONFIGURE, NLM_F_ACK);
  message.add(NBD_ATTR_INDEX, index);
  message.add(NBD_ATTR_SIZE_BYTES, connection.size_bytes);
  message.add(NBD_ATTR_BACKEND_IDENTIFIER, connection.identifier);
  add_socket(message, socket);
  return call(message, "cannot connect /dev/nbd" + std::to_string(index) + " again");
}

Outcome<void> Kernel_nbd::resize(std::string const& identifier, std::uint64_t size_bytes,
                                 std::uint32_t index) {
  Netlink_message message(family_, NBD_CMD_RECONFIGURE, NLM_F_ACK);
  message.add(NBD_ATTR_INDEX, index);
  message.add(NBD_ATTR_SIZE_BYTES, size_bytes);
  message.add(NBD_ATTR_BACKEND_IDENTIFIER, identifier);
  return call(message, "cannot change the size of /dev/nbd" + std::to_string(index));
}

Outcome<void> Kernel_nbd::disconnect(std::uint32_t index) {
  Netlink_message message(family_, NBD_CMD_DISCONNECT, NLM_F_ACK);
  message.add(NBD_ATTR_INDEX, index);
  return call(message, "cannot detach /dev/nbd" + std::to_string(index));
}

bool Kernel_nbd::wait_for_death(std::uint32_t index, Duration patience) {
  pollfd ready{events_.get(), POLLIN, 0};
  auto const limit = std::chrono::duration_cast<std::chrono::milliseconds>(patience).count();
  if (::poll(&ready, 1, static_cast<int>(limit)) <= 0) return false;
  std::vector<std::byte> buffer(answer_max);
  auto const got = ::recv(events_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0) return errno == ENOBUFS;  // messages were lost, perhaps this one
  bool is_dead = false;
  for (auto const& message : split({buffer.data(), static_cast<std::size_t>(got)})) {
    if (message.head.nlmsg_type != family_ || message.command() != NBD_CMD_LINK_DEAD) continue;
    for_each_attribute(message.attributes(), [&](std::uint16_t type, auto const& content) {
      if (type == NBD_ATTR_INDEX) is_dead |= value_at<std::uint32_t>(content) == index;
    });
  }
  return is_dead;
}

}  // namespace pstorage::volume
