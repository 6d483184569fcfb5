#include "core/config/etc.h"

#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "core/assert.h"
#include "core/config/dns.h"
#include "core/config/mdns.h"
#include "core/disk/atomic_file.h"

namespace pstorage {
namespace {

constexpr std::size_t small_file_bytes_max = 64u << 10;
constexpr std::size_t servers_max = 64;
constexpr std::size_t name_characters_max = 63;

std::string trimmed(std::string const& text) {
  auto const first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::vector<std::string> split(std::string const& text, char const* separators) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  while (from <= text.size()) {
    auto const to = std::min(text.find_first_of(separators, from), text.size());
    if (auto part = trimmed(text.substr(from, to - from)); !part.empty())
      parts.push_back(std::move(part));
    from = to + 1;
  }
  return parts;
}

std::string bootstrap_path(std::string const& cluster) {
  return cluster_directory(cluster) + "/bs.list";
}

Outcome<Address> client_address(std::string const& text) {
  PS_TRY(auto address, Address::parse(text, mds_port_default));
  if (address.is_unix()) return address;
  if (address.port == 0 || address.port == 65535)
    return failure(Errc::bad_request,
                   "bad port in '" + text + "': clients use the port above it, give 1 to 65534");
  ++address.port;
  return address;
}

std::string mds_text(Address address) {
  if (!address.is_unix()) --address.port;
  return address.text();
}

Outcome<std::vector<Address>> parse_servers(std::vector<std::string> const& texts,
                                            std::string const& source) {
  std::vector<Address> servers;
  for (auto const& text : texts) {
    PS_TRY(auto address, client_address(text));
    if (std::find(servers.begin(), servers.end(), address) == servers.end())
      servers.push_back(std::move(address));
  }
  if (servers.empty())
    return failure(Errc::bad_request, source + " names no metadata server: give ADDR[:PORT]");
  if (servers.size() > servers_max)
    return failure(Errc::too_large, source + " names more than " + std::to_string(servers_max) +
                                        " metadata servers");
  return servers;
}

Outcome<Host_id> parse_host_id(std::string const& text, std::string const& path) {
  auto const digits = trimmed(text);
  std::uint64_t value = 0;
  auto const* end = digits.data() + digits.size();
  auto const [stop, error] = std::from_chars(digits.data(), end, value, 16);
  if (digits.size() != 16 || error != std::errc{} || stop != end || value == 0)
    return failure(Errc::corrupt, path + " is damaged: it must hold 16 hexadecimal digits");
  return Host_id{value};
}

std::string hex16(std::uint64_t value) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) text[i] = digits[value & 15];
  return text;
}

}  // namespace

std::string etc_root() {
  char const* const moved = std::getenv("PSTORAGE_ETC");
  return moved != nullptr && *moved != '\0' ? moved : "/etc/pstorage";
}

std::string cluster_directory(std::string const& cluster) {
  return etc_root() + "/clusters/" + cluster;
}

std::string key_path(std::string const& cluster) {
  return cluster_directory(cluster) + "/auth_digest.key";
}

Outcome<std::string> cluster_name(std::string const& given) {
  std::string name = given;
  if (name.empty()) {
    char const* const from_environment = std::getenv("PSTORAGE_NAME");
    if (from_environment != nullptr) name = from_environment;
  }
  if (name.empty())
    return failure(Errc::bad_request, "no cluster named: give -c NAME or set PSTORAGE_NAME");
  auto const allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  if (name.size() > name_characters_max || !std::all_of(name.begin(), name.end(), allowed))
    return failure(Errc::bad_request,
                   "bad cluster name '" + name + "': use 1 to 63 of a-z A-Z 0-9 _ -");
  return name;
}

Outcome<Host_id> host_id(bool create) {
  // Several hosts played on one machine (scripts/devcluster): failure domains need their own ids.
  if (char const* const given = std::getenv("PSTORAGE_HOST_ID"); given != nullptr && *given != 0)
    return parse_host_id(given, "PSTORAGE_HOST_ID");
  auto const path = etc_root() + "/host_id";
  auto content = read_small_file(path, small_file_bytes_max);
  if (content) return parse_host_id(content.value(), path);
  if (content.error().code != Errc::not_found || !create) return content.error();
  Host_id id;
  while (!id) PS_ASSERT(::getrandom(&id.value, sizeof id.value, 0) == sizeof id.value);
  PS_CHECK(make_directories(etc_root()));
  PS_CHECK(write_file_atomically(path, as_bytes(hex16(id.value) + "\n"), 0644));
  return id;
}

std::string host_location() {
  auto content = read_small_file(etc_root() + "/location", small_file_bytes_max);
  return content ? trimmed(content.value()) : std::string();
}

static Outcome<std::vector<Address>> addresses_of(std::vector<Dns_server> const& found,
                                                  std::string const& source) {
  std::vector<std::string> texts;
  for (auto const& server : found) {
    bool const is_v6 = server.host.find(':') != std::string::npos;
    texts.push_back((is_v6 ? "[" + server.host + "]" : server.host) + ":" +
                    std::to_string(server.port));
  }
  return parse_servers(texts, source);
}

Outcome<std::vector<Address>> servers_in_dns(std::string const& cluster) {
  PS_TRY(auto const found, find_srv(cluster));
  return addresses_of(found, "DNS (" + srv_name(cluster) + ")");
}

Outcome<std::vector<Address>> servers_by_mdns(std::string const& cluster) {
  PS_TRY(auto const found, find_servers_by_mdns(cluster));
  return addresses_of(found, "mDNS");
}

Outcome<std::vector<Address>> bootstrap_list(std::string const& cluster, std::string const& given) {
  if (!given.empty()) return parse_servers(split(given, ","), "the list '" + given + "'");
  auto const path = bootstrap_path(cluster);
  auto listed = load_server_list(path);
  if (listed || listed.error().code != Errc::not_found) return listed;
  auto found = servers_in_dns(cluster);
  if (found) return found;
  auto heard = servers_by_mdns(cluster);
  if (heard) return heard;
  return failure(Errc::not_found, "where is cluster " + cluster + "? There is no " + path + ", " +
                                      found.error().text + ", and " + heard.error().text +
                                      ": give -b ADDR[:PORT] or run auth-node with it");
}

std::vector<std::string> known_clusters() {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(etc_root() + "/clusters", error);
  for (std::filesystem::directory_iterator const end; !error && entry != end;
       entry.increment(error)) {
    auto const name = entry->path().filename().string();
    if (cluster_name(name).has_value()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Outcome<void> note_repository(std::string const& cluster, std::string const& kind,
                              std::string const& directory) {
  if (directory.find('\n') != std::string::npos)
    return failure(Errc::bad_request, "the repository's path has a line break in it");
  auto const path = cluster_directory(cluster) + "/" + kind + ".list";
  auto const known = read_small_file(path, small_file_bytes_max);
  if (!known.has_value() && errc_of(known.error().code) != Errc::not_found) return known.error();
  auto content = known.has_value() ? known.value() : std::string();
  if (("\n" + content).find("\n" + directory + "\n") != std::string::npos) return success();
  content += directory + "\n";
  PS_CHECK(make_directories(cluster_directory(cluster)));
  return write_file_atomically(path, as_bytes(content), 0644);
}

Outcome<void> save_bootstrap_list(std::string const& cluster, std::vector<Address> const& servers) {
  PS_CHECK(make_directories(cluster_directory(cluster)));
  return save_server_list(bootstrap_path(cluster), servers);
}

Outcome<std::vector<Address>> load_server_list(std::string const& path) {
  PS_TRY(auto const content, read_small_file(path, small_file_bytes_max));
  return parse_servers(split(content, "\n,"), path);
}

Outcome<void> save_server_list(std::string const& path, std::vector<Address> const& servers) {
  std::vector<Address> all;
  if (auto known = load_server_list(path); known) all = std::move(known).value();
  auto const known = all.size();
  for (auto const& server : servers)
    if (std::find(all.begin(), all.end(), server) == all.end()) all.push_back(server);
  if (all.size() == known && known != 0) return success();
  std::string content;
  for (auto const& server : all) content += mds_text(server) + "\n";
  return write_file_atomically(path, as_bytes(content), 0644);
}

}  // namespace pstorage
