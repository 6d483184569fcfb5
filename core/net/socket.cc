#include "core/net/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace pstorage {
namespace {

std::error_code last_error() { return {errno, std::generic_category()}; }

constexpr int unix_buffer_bytes = 256 << 10;
constexpr std::size_t vector_elements = 512;
static_assert(vector_elements <= 1024, "more than IOV_MAX");

template <typename Value>
bool set_option(int fd, int level, int name, Value const& value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

Failure listen_failure(Address const& at, std::error_code code) {
  if (code == std::errc::address_in_use)
    return failure(code, "cannot listen on " + at.text() +
                             ": the address is in use; stop the other program or give another -a");
  if (code == std::errc::address_not_available)
    return failure(code, "cannot listen on " + at.text() + ": this host has no such address");
  return failure(code, "cannot listen on " + at.text() + ": " + code.message());
}

/// Removes the socket file of a server that is gone.
Outcome<void> remove_stale(Address const& at, Endpoint const& endpoint) {
  struct stat status {};
  if (::lstat(at.unix_path.c_str(), &status) != 0) return success();
  if (!S_ISSOCK(status.st_mode))
    return failure(Errc::exists,
                   "cannot listen on " + at.text() + ": a file that is no socket is there");
  File_descriptor const probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return listen_failure(at, last_error());
  if (::connect(probe.get(), endpoint.get(), endpoint.size) == 0 || errno == EAGAIN)
    return failure(Errc::exists, "cannot listen on " + at.text() +
                                     ": another program listens there; stop it first");
  if (errno != ECONNREFUSED) return listen_failure(at, last_error());
  ::unlink(at.unix_path.c_str());
  return success();
}

Endpoint own_endpoint(int fd, bool peer) {
  Endpoint endpoint;
  endpoint.size = sizeof endpoint.storage;
  auto* const address = reinterpret_cast<sockaddr*>(&endpoint.storage);
  int const result = peer ? ::getpeername(fd, address, &endpoint.size)
                          : ::getsockname(fd, address, &endpoint.size);
  if (result != 0) endpoint.size = 0;
  return endpoint;
}

/// Host and port of an IP endpoint; an IPv4 address that came through an IPv6 socket as IPv4.
Address address_of(Endpoint const& endpoint) {
  Address address;
  char text[INET6_ADDRSTRLEN] = "";
  if (endpoint.storage.ss_family == AF_INET) {
    auto const* const v4 = reinterpret_cast<sockaddr_in const*>(&endpoint.storage);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    address.port = ntohs(v4->sin_port);
  } else if (endpoint.storage.ss_family == AF_INET6) {
    auto const* const v6 = reinterpret_cast<sockaddr_in6 const*>(&endpoint.storage);
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
      ::inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, text, sizeof text);
    else
      ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    address.port = ntohs(v6->sin6_port);
  }
  address.host = text;
  return address;
}

}  // namespace

Result<Endpoint> numeric_endpoint(Address const& address) {
  Endpoint endpoint;
  if (address.is_unix()) {
    auto* const path = reinterpret_cast<sockaddr_un*>(&endpoint.storage);
    if (address.unix_path.size() >= sizeof path->sun_path) return Errc::too_large;
    path->sun_family = AF_UNIX;
    std::memcpy(path->sun_path, address.unix_path.c_str(), address.unix_path.size() + 1);
    endpoint.size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.unix_path.size() + 1);
    return endpoint;
  }
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&endpoint.storage);
  if (::inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    endpoint.size = sizeof *v4;
    return endpoint;
  }
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&endpoint.storage);
  if (::inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    endpoint.size = sizeof *v6;
    return endpoint;
  }
  return Errc::not_found;
}

Outcome<std::vector<Endpoint>> resolve(Address const& address) {
  if (auto const numeric = numeric_endpoint(address); numeric)
    return std::vector<Endpoint>{numeric.value()};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  int const error =
      ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error != 0)
    return failure(Errc::not_found,
                   "cannot find the host '" + address.host + "': " + ::gai_strerror(error));
  std::vector<Endpoint> endpoints;
  for (auto const* entry = found; entry != nullptr; entry = entry->ai_next) {
    Endpoint endpoint;
    if (entry->ai_addrlen > sizeof endpoint.storage) continue;
    std::memcpy(&endpoint.storage, entry->ai_addr, entry->ai_addrlen);
    endpoint.size = entry->ai_addrlen;
    endpoints.push_back(endpoint);
  }
  ::freeaddrinfo(found);
  return endpoints;
}

Outcome<File_descriptor> listen_at(Address const& at, Address& real) {
  PS_TRY(auto const endpoints, resolve(at));
  auto const& endpoint = endpoints.front();
  if (at.is_unix()) PS_CHECK(remove_stale(at, endpoint));
  File_descriptor fd(
      ::socket(endpoint.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return listen_failure(at, last_error());
  if (!at.is_unix()) set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(fd.get(), endpoint.get(), endpoint.size) != 0) return listen_failure(at, last_error());
  // Before listen(): nobody can have connected under the wider permissions of the umask.
  if (at.is_unix() && ::chmod(at.unix_path.c_str(), 0600) != 0)
    return listen_failure(at, last_error());
  if (::listen(fd.get(), SOMAXCONN) != 0) return listen_failure(at, last_error());
  real = at;
  if (!at.is_unix()) real.port = address_of(own_endpoint(fd.get(), false)).port;
  return fd;
}

Result<File_descriptor> begin_connect(Endpoint const& to) {
  File_descriptor fd(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return last_error();
  tune_socket(fd.get());
  if (::connect(fd.get(), to.get(), to.size) != 0 && errno != EINPROGRESS) return last_error();
  return fd;
}

std::error_code socket_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return last_error();
  return {error, std::generic_category()};
}

Result<File_descriptor> accept_one(int listener) {
  File_descriptor fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) return last_error();
  return fd;
}

namespace {

using Descriptor_control = std::array<char, CMSG_SPACE(sizeof(int))>;

/// recvmsg(2). More than one descriptor is more than the protocol has: the kernel closes the rest.
ssize_t receive_with_descriptor(int fd, std::span<iovec> vector, File_descriptor& passed) {
  alignas(cmsghdr) Descriptor_control control;
  msghdr header{};
  header.msg_iov = vector.data();
  header.msg_iovlen = vector.size();
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  auto const got = ::recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  auto const* const first = CMSG_FIRSTHDR(&header);
  if (first == nullptr || first->cmsg_level != SOL_SOCKET || first->cmsg_type != SCM_RIGHTS ||
      first->cmsg_len != CMSG_LEN(sizeof(int)))
    return got;
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(first), sizeof descriptor);
  passed = File_descriptor(descriptor);
  return got;
}

void attach_descriptor(msghdr& header, Descriptor_control& control, int descriptor) {
  control.fill(0);
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  auto* const first = CMSG_FIRSTHDR(&header);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof descriptor);
  std::memcpy(CMSG_DATA(first), &descriptor, sizeof descriptor);
}

}  // namespace

Received receive_some(int fd, std::span<Mutable_bytes const> parts, File_descriptor* passed) {
  std::array<iovec, 2> vector;
  PS_ASSERT(parts.size() <= vector.size());
  std::size_t offered = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    vector[i] = {parts[i].data(), parts[i].size()};
    offered += parts[i].size();
  }
  for (;;) {
    auto const got = passed == nullptr
                         ? ::readv(fd, vector.data(), static_cast<int>(parts.size()))
                         : receive_with_descriptor(fd, {vector.data(), parts.size()}, *passed);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      return {.bytes = 0, .drained = true, .closed = false, .error = {}};
    if (got < 0) return {.bytes = 0, .drained = true, .closed = false, .error = last_error()};
    auto const bytes = static_cast<std::size_t>(got);
    // The kernel ends a read behind what a descriptor came with.
    bool const is_cut = passed != nullptr && *passed;
    return {
        .bytes = bytes, .drained = bytes < offered && !is_cut, .closed = bytes == 0, .error = {}};
  }
}

std::error_code send_queued(int fd, Send_queue& queue) {
  std::array<iovec, vector_elements> vector;
  while (!queue.empty()) {
    msghdr header{};
    header.msg_iov = vector.data();
    header.msg_iovlen = queue.gather(vector);
    alignas(cmsghdr) Descriptor_control control;
    if (int const descriptor = queue.first_fd(); descriptor >= 0)
      attach_descriptor(header, control, descriptor);
    std::size_t offered = 0;
    for (std::size_t i = 0; i < header.msg_iovlen; ++i) offered += vector[i].iov_len;
    auto const sent = ::sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return {};
    if (sent < 0) return last_error();
    queue.consume(static_cast<std::size_t>(sent));
    if (static_cast<std::size_t>(sent) < offered) return {};
  }
  return {};
}

void tune_socket(int fd) {
  // Every option is an improvement only: a kernel that refuses one still works.
  auto const family = own_endpoint(fd, false).storage.ss_family;
  if (family == AF_UNIX) {
    set_option(fd, SOL_SOCKET, SO_SNDBUF, unix_buffer_bytes);
    set_option(fd, SOL_SOCKET, SO_RCVBUF, unix_buffer_bytes);
    return;
  }
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  static constexpr char cubic[] = "cubic";
  static_cast<void>(::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cubic, sizeof cubic - 1));
}

std::string peer_text(int fd, std::string const& unix_path) {
  auto const peer = own_endpoint(fd, true);
  if (peer.storage.ss_family != AF_UNIX) return address_of(peer).text();
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) credentials.pid = 0;
  return "unix:" + unix_path + " (pid " + std::to_string(credentials.pid) + ")";
}

bool peer_is_local(int fd) {
  auto const own = own_endpoint(fd, false);
  if (own.storage.ss_family == AF_UNIX) return true;
  // The same address at both ends covers loopback and a host that talks to its own address.
  auto const host = address_of(own_endpoint(fd, true)).host;
  return host == address_of(own).host || host.starts_with("127.") || host == "::1";
}

std::string connect_failure_text(std::string const& address, std::error_code error) {
  if (error == std::errc::connection_refused)
    return "connection refused by " + address + ": is the server running?";
  if (error == std::errc::no_such_file_or_directory)
    return "there is no socket " + address + ": is the server running?";
  if (error == std::errc::timed_out)
    return "no answer from " + address + ": is the host up, does a firewall drop the port?";
  return "cannot connect to " + address + ": " + error.message();
}

}  // namespace pstorage
