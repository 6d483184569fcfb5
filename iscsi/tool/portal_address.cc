#include "iscsi/tool/portal_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "blockdev/volume/child_process.h"
#include "core/disk/file_descriptor.h"

namespace pstorage::iscsi {
namespace {

/// Address and family as bytes; empty: not numeric.
std::string binary(std::string const& address) {
  in6_addr six{};
  in_addr four{};
  if (::inet_pton(AF_INET, address.c_str(), &four) == 1) {
    return {reinterpret_cast<char const*>(&four), sizeof four};
  }
  if (::inet_pton(AF_INET6, address.c_str(), &six) == 1) {
    return {reinterpret_cast<char const*>(&six), sizeof six};
  }
  return {};
}

std::string binary(sockaddr const& address) {
  if (address.sa_family == AF_INET) {
    auto const& four = reinterpret_cast<sockaddr_in const&>(address).sin_addr;
    return {reinterpret_cast<char const*>(&four), sizeof four};
  }
  if (address.sa_family == AF_INET6) {
    auto const& six = reinterpret_cast<sockaddr_in6 const&>(address).sin6_addr;
    return {reinterpret_cast<char const*>(&six), sizeof six};
  }
  return {};
}

/// Whoever has the address of the gateway before us in its ARP table learns ours (RFC 5227 3). An
/// improvement only: without it the entry ages.
void announce(std::string const& address, std::string const& device) {
  in_addr four{};
  if (::inet_pton(AF_INET, address.c_str(), &four) != 1) return;
  File_descriptor const socket(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ARP)));
  if (!socket) return;
  ifreq request{};
  std::strncpy(request.ifr_name, device.c_str(), IFNAMSIZ - 1);
  if (::ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0) return;
  ether_arp packet{};
  packet.ea_hdr.ar_hrd = htons(ARPHRD_ETHER);
  packet.ea_hdr.ar_pro = htons(ETH_P_IP);
  packet.ea_hdr.ar_hln = ETH_ALEN;
  packet.ea_hdr.ar_pln = sizeof four;
  packet.ea_hdr.ar_op = htons(ARPOP_REQUEST);
  std::memcpy(packet.arp_sha, request.ifr_hwaddr.sa_data, ETH_ALEN);
  std::memcpy(packet.arp_spa, &four, sizeof four);
  std::memcpy(packet.arp_tpa, &four, sizeof four);
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(ETH_P_ARP);
  to.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
  to.sll_halen = ETH_ALEN;
  std::memset(to.sll_addr, 0xff, ETH_ALEN);
  for (int times = 0; times < 3; ++times) {
    static_cast<void>(::sendto(socket.get(), &packet, sizeof packet, 0,
                               reinterpret_cast<sockaddr const*>(&to), sizeof to));
  }
}

std::string with_prefix(std::string const& address) {
  return address + (address.find(':') == std::string::npos ? "/32" : "/128");
}

}  // namespace

Outcome<bool> host_has_address(std::string const& address) {
  auto const wanted = binary(address);
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) {
    return failure(Errc::io_error,
                   std::string("cannot list the addresses of this host: ") + std::strerror(errno));
  }
  std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> const all(first, &::freeifaddrs);
  for (auto const* one = first; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr != nullptr && !wanted.empty() && binary(*one->ifa_addr) == wanted)
      return true;
  }
  return false;
}

Outcome<void> bring_address(std::string const& address, std::string const& device,
                            std::function<void()> const& turn) {
  PS_TRY(bool const is_here, host_has_address(address));
  if (!is_here) {
    PS_CHECK(
        volume::run_program({"ip", "address", "add", with_prefix(address), "dev", device}, turn));
  }
  announce(address, device);
  return success();
}

Outcome<void> drop_address(std::string const& address, std::string const& device,
                           std::function<void()> const& turn) {
  PS_TRY(bool const is_here, host_has_address(address));
  if (!is_here) return success();
  PS_CHECK(
      volume::run_program({"ip", "address", "del", with_prefix(address), "dev", device}, turn));
  return success();
}

}  // namespace pstorage::iscsi
