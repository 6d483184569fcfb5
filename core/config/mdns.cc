#include "core/config/mdns.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "core/disk/file_descriptor.h"
#include "core/runtime/real_clock.h"

namespace pstorage {
namespace {

using Bytes_out = std::vector<unsigned char>;

constexpr Duration patience = std::chrono::seconds(1);
constexpr Duration repeat_after = std::chrono::milliseconds(250);
constexpr Duration others_after = std::chrono::milliseconds(300);
constexpr std::size_t answers_max = 64;
constexpr std::uint32_t time_to_live = 10;  // s; what is cached longer would be old
constexpr std::uint16_t class_mask = 0x7fff;

std::string srv_domain(std::string const& cluster) { return srv_name(cluster) + ".local"; }
std::string clusters_domain() { return "pstorage_clusters.local"; }

void put16(Bytes_out& out, unsigned value) {
  out.push_back(static_cast<unsigned char>(value >> 8));
  out.push_back(static_cast<unsigned char>(value));
}
void put32(Bytes_out& out, std::uint32_t value) {
  put16(out, value >> 16);
  put16(out, value & 0xffff);
}
/// As labels, without compression.
void put_name(Bytes_out& out, std::string const& name) {
  for (std::size_t from = 0; from < name.size();) {
    auto const to = std::min(name.find('.', from), name.size());
    auto const size = std::min<std::size_t>(to - from, NS_MAXLABEL);
    out.push_back(static_cast<unsigned char>(size));
    out.insert(out.end(), name.begin() + static_cast<std::ptrdiff_t>(from),
               name.begin() + static_cast<std::ptrdiff_t>(from + size));
    from = to + 1;
  }
  out.push_back(0);
}

void put_record(Bytes_out& out, std::string const& name, std::uint16_t type,
                Bytes_out const& data) {
  put_name(out, name);
  put16(out, type);
  put16(out, ns_c_in);
  put32(out, time_to_live);
  put16(out, static_cast<unsigned>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
}

/// A host name for an address, so that the SRV record can name one.
std::string target_of(std::string const& host) {
  std::string name = "mds-" + host;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '.' || c == ':'; }, '-');
  return name + ".local";
}

struct Asked {
  std::string name;
  std::uint16_t type = 0;
};

/// The first question of a query that concerns us.
bool find_question(ns_msg const& message, Mdns_service const& service, Asked& asked) {
  for (int i = 0; i < std::min<int>(ns_msg_count(message, ns_s_qd), 32); ++i) {
    ns_rr question;
    ns_msg copy = message;
    if (::ns_parserr(&copy, ns_s_qd, i, &question) != 0) return false;
    if ((ns_rr_class(question) & class_mask) != ns_c_in) continue;
    auto const type = static_cast<std::uint16_t>(ns_rr_type(question));
    auto const asks = [&](std::string const& name, ns_type wanted) {
      return ::strcasecmp(ns_rr_name(question), name.c_str()) == 0 &&
             (type == wanted || type == ns_t_any);
    };
    if (asks(srv_domain(service.cluster), ns_t_srv))
      asked = {srv_domain(service.cluster), ns_t_srv};
    else if (asks(clusters_domain(), ns_t_txt))
      asked = {clusters_domain(), ns_t_txt};
    else
      continue;
    return true;
  }
  return false;
}

Bytes_out srv_data(Address const& address, std::string const& target) {
  Bytes_out data;
  put16(data, 0);  // priority
  put16(data, 1);  // weight
  put16(data, address.port);
  put_name(data, target);
  return data;
}

/// The address as a record's data and its type; no data: it is a name.
std::pair<ns_type, Bytes_out> address_data(std::string const& host) {
  std::array<unsigned char, 16> raw{};
  if (::inet_pton(AF_INET, host.c_str(), raw.data()) == 1)
    return {ns_t_a, Bytes_out(raw.begin(), raw.begin() + 4)};
  if (::inet_pton(AF_INET6, host.c_str(), raw.data()) == 1)
    return {ns_t_aaaa, Bytes_out(raw.begin(), raw.end())};
  return {ns_t_invalid, {}};
}

/// Puts the addresses that came along in the place of the names that they belong to.
void use_addresses(Bytes_out const& answer, std::vector<Dns_server>& servers) {
  ns_msg message;
  if (::ns_initparse(answer.data(), static_cast<int>(answer.size()), &message) != 0) return;
  for (int i = 0; i < std::min<int>(ns_msg_count(message, ns_s_ar), 64); ++i) {
    ns_rr record;
    if (::ns_parserr(&message, ns_s_ar, i, &record) != 0) return;
    bool const is_4 = ns_rr_type(record) == ns_t_a && ns_rr_rdlen(record) == 4;
    bool const is_6 = ns_rr_type(record) == ns_t_aaaa && ns_rr_rdlen(record) == 16;
    char text[INET6_ADDRSTRLEN];
    if ((!is_4 && !is_6) ||
        ::inet_ntop(is_4 ? AF_INET : AF_INET6, ns_rr_rdata(record), text, sizeof text) == nullptr)
      continue;
    for (auto& server : servers)
      if (::strcasecmp(server.host.c_str(), ns_rr_name(record)) == 0) server.host = text;
  }
}

/// Asks on every interface; `take` gets each answer and says whether it was of use.
void ask(std::string const& name, ns_type type,
         std::function<bool(Bytes_out const& answer)> const& take) {
  File_descriptor const socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return;
  constexpr std::uint16_t number = 0x7073;
  auto const question = mdns_question(name, type, number);
  sockaddr_in group{};
  group.sin_family = AF_INET;
  group.sin_port = htons(mdns_port);
  ::inet_pton(AF_INET, mdns_group, &group.sin_addr);
  Real_clock const clock;
  auto const begin = clock.now();
  auto end = begin + patience;
  auto send_at = begin;
  for (std::size_t answers = 0; answers < answers_max && clock.now() < end;) {
    if (clock.now() >= send_at) {
      send_at = send_at + repeat_after;
      for (auto const& one : mdns_interfaces()) {
        ip_mreqn const at{{}, {}, one.index};
        // One that cannot is left out; the others may.
        if (::setsockopt(socket.get(), IPPROTO_IP, IP_MULTICAST_IF, &at, sizeof at) == 0)
          (void)::sendto(socket.get(), question.data(), question.size(), 0,
                         reinterpret_cast<sockaddr const*>(&group), sizeof group);
      }
    }
    pollfd waiting{socket.get(), POLLIN, 0};
    auto const left = std::min(end, send_at) - clock.now();
    (void)::poll(&waiting, 1, std::max(1, static_cast<int>(left / std::chrono::milliseconds(1))));
    Bytes_out answer(mdns_bytes_max);
    auto const size = ::recv(socket.get(), answer.data(), answer.size(), 0);
    if (size <= 0) continue;
    ++answers;
    answer.resize(static_cast<std::size_t>(size));
    if (take(answer)) end = std::min(end, clock.now() + others_after);
  }
}

}  // namespace

std::vector<unsigned char> mdns_question(std::string const& name, std::uint16_t type,
                                         std::uint16_t number) {
  Bytes_out out;
  for (unsigned const field : {unsigned{number}, 0u, 1u, 0u, 0u, 0u}) put16(out, field);
  put_name(out, name);
  put16(out, type);
  put16(out, ns_c_in);
  return out;
}

std::vector<unsigned char> answer_mdns(std::vector<unsigned char> const& query,
                                       Mdns_service const& service, bool is_simple) {
  ns_msg message;
  Asked asked;
  if (query.size() > mdns_bytes_max ||
      ::ns_initparse(query.data(), static_cast<int>(query.size()), &message) != 0 ||
      ns_msg_getflag(message, ns_f_qr) != 0 || ns_msg_getflag(message, ns_f_opcode) != 0 ||
      !find_question(message, service, asked))
    return {};
  auto const [address_type, address] = address_data(service.address.host);
  bool const has_address = asked.type == ns_t_srv && !address.empty();
  auto const target = address.empty() ? service.address.host : target_of(service.address.host);
  Bytes_out out;
  put16(out, is_simple ? ns_msg_id(message) : 0);
  put16(out, 0x8400);  // an answer, by who knows
  for (unsigned const count : {is_simple ? 1u : 0u, 1u, 0u, has_address ? 1u : 0u})
    put16(out, count);
  if (is_simple) {
    put_name(out, asked.name);
    put16(out, asked.type);
    put16(out, ns_c_in);
  }
  Bytes_out text{static_cast<unsigned char>(service.cluster.size())};
  text.insert(text.end(), service.cluster.begin(), service.cluster.end());
  put_record(out, asked.name, asked.type,
             asked.type == ns_t_srv ? srv_data(service.address, target) : text);
  if (has_address) put_record(out, target, static_cast<std::uint16_t>(address_type), address);
  return out;
}

std::vector<Mdns_interface> mdns_interfaces() {
  std::vector<Mdns_interface> found;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return found;
  for (auto const* one = all; one != nullptr; one = one->ifa_next) {
    bool const is_usable = one->ifa_addr != nullptr && one->ifa_addr->sa_family == AF_INET &&
                           (one->ifa_flags & IFF_UP) != 0;
    auto const index = is_usable ? static_cast<int>(::if_nametoindex(one->ifa_name)) : 0;
    auto const is_known = [index](Mdns_interface const& other) { return other.index == index; };
    if (index == 0 || std::any_of(found.begin(), found.end(), is_known)) continue;
    sockaddr_in address{};
    std::memcpy(&address, one->ifa_addr, sizeof address);
    found.push_back({index, address.sin_addr.s_addr});
  }
  ::freeifaddrs(all);
  return found;
}

Outcome<std::vector<Dns_server>> find_servers_by_mdns(std::string const& cluster) {
  std::vector<Dns_server> servers;
  ask(srv_domain(cluster), ns_t_srv, [&servers](Bytes_out const& answer) {
    auto found = srv_records(answer);
    use_addresses(answer, found);
    for (auto& server : found) {
      bool const is_known =
          std::any_of(servers.begin(), servers.end(), [&server](Dns_server const& known) {
            return known.host == server.host && known.port == server.port;
          });
      if (!is_known) servers.push_back(std::move(server));
    }
    return !servers.empty();
  });
  if (!servers.empty()) return servers;
  return failure(Errc::not_found, "nobody answers by mDNS for " + srv_domain(cluster));
}

Outcome<std::vector<std::string>> find_clusters_by_mdns() {
  std::vector<std::string> names;
  ask(clusters_domain(), ns_t_txt, [&names](Bytes_out const& answer) {
    for (auto& name : txt_names(answer))
      if (std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(std::move(name));
    return false;  // others may follow
  });
  return names;
}

}  // namespace pstorage
