#include "core/net/mdns_responder.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace pstorage {
namespace {

constexpr Duration join_interval = std::chrono::seconds(5);
constexpr int queries_a_turn = 32;
constexpr int hops = 255;

sockaddr_in group_address() {
  sockaddr_in group{};
  group.sin_family = AF_INET;
  group.sin_port = htons(mdns_port);
  ::inet_pton(AF_INET, mdns_group, &group.sin_addr);
  return group;
}

}  // namespace

Mdns_responder::Mdns_responder(Event_loop& loop, Clock& clock, Mdns_service service)
    : clock_(clock), service_(std::move(service)), socket_(loop, *this) {}

Outcome<void> Mdns_responder::start() {
  File_descriptor fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int const on = 1;
  auto const group = group_address();
  auto const set = [&fd](int level, int name, int const& value) {
    return ::setsockopt(fd.get(), level, name, &value, sizeof value) == 0;
  };
  // Others of this host (avahi, another mdsd) hear the same group at the same port.
  bool const is_ready =
      fd && set(SOL_SOCKET, SO_REUSEADDR, on) && set(SOL_SOCKET, SO_REUSEPORT, on) &&
      set(IPPROTO_IP, IP_PKTINFO, on) && set(IPPROTO_IP, IP_MULTICAST_TTL, hops) &&
      ::bind(fd.get(), reinterpret_cast<sockaddr const*>(&group), sizeof group) == 0;
  if (!is_ready) {
    auto const error = std::error_code(errno, std::system_category());
    return failure(error, "--mdns: cannot listen at " + std::string(mdns_group) + ":" +
                              std::to_string(mdns_port) + ": " + error.message());
  }
  socket_.open(std::move(fd));
  on_tick();
  return success();
}

void Mdns_responder::on_tick() {
  auto const now = clock_.now();
  if (joined_at_ != Time_point{} && now - joined_at_ < join_interval) return;
  joined_at_ = now;
  join_everywhere();
}

void Mdns_responder::join_everywhere() {
  for (auto const& one : mdns_interfaces()) {
    ip_mreqn const membership{group_address().sin_addr, {}, one.index};
    // Joined already, or one that cannot: nothing is lost by asking.
    (void)::setsockopt(socket_.fd(), IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership);
  }
}

void Mdns_responder::on_ready(Readiness) {
  for (int i = 0; i < queries_a_turn; ++i)
    if (!answer_one()) return;
  socket_.again();
}

/// False: there is no other query.
bool Mdns_responder::answer_one() {
  std::vector<unsigned char> query(mdns_bytes_max + 1);
  sockaddr_in from{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in_pktinfo))> control{};
  iovec part{query.data(), query.size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  auto const size = ::recvmsg(socket_.fd(), &message, 0);
  if (size < 0) return errno == EINTR;
  query.resize(static_cast<std::size_t>(size));
  bool const is_simple = ntohs(from.sin_port) != mdns_port;
  auto answer = answer_mdns(query, service_, is_simple);
  if (answer.empty()) return true;
  // To whoever asks simply, to the group otherwise; by the interface that the query came from.
  auto const group = group_address();
  if (!is_simple) std::memcpy(&from, &group, sizeof from);
  part = {answer.data(), answer.size()};
  if (auto* const header = CMSG_FIRSTHDR(&message); header != nullptr) {
    in_pktinfo arrived;
    std::memcpy(&arrived, CMSG_DATA(header), sizeof arrived);
    in_pktinfo const leaving{arrived.ipi_ifindex, {}, {}};
    std::memcpy(CMSG_DATA(header), &leaving, sizeof leaving);
  }
  message.msg_flags = 0;
  (void)::sendmsg(socket_.fd(), &message, MSG_DONTWAIT);  // lost ones are asked for again
  return true;
}

}  // namespace pstorage
