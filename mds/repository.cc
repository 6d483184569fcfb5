#include "mds/repository.h"

#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/assert.h"
#include "core/disk/atomic_file.h"

namespace pstorage::mds {
namespace {

namespace fs = std::filesystem;

constexpr int format = 1;
constexpr std::size_t identity_bytes_max = 16u << 10;

std::string identity_path(std::string const& directory) { return directory + "/repository.json"; }

Outcome<void> check_empty(std::string const& directory) {
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  if (error) return failure(error, "cannot read " + directory + ": " + error.message());
  for (; entry != fs::directory_iterator(); entry.increment(error)) {
    auto const name = entry->path().filename().string();
    if (name == "lost+found") continue;
    return failure(Errc::not_empty, directory + " is not empty ('" + name +
                                        "' is in it): a repository needs a directory of its own");
  }
  return success();
}

Outcome<Repository> parse_identity(std::string const& text, std::string const& path) {
  auto const damaged = [&path](std::string const& what) {
    return failure(Errc::corrupt, path + " is damaged: " + what);
  };
  auto const json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return damaged("not JSON");
  auto const word = [&json](char const* name) {
    auto const found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (word("kind") != "mds") return damaged("it does not belong to a metadata server");
  if (json.value("format", 0) != format) return damaged("unknown format");
  Repository repository;
  repository.cluster = word("cluster");
  repository.cluster_uuid = word("cluster_uuid");
  repository.member_uuid = word("member_uuid");
  repository.id = Mds_id{json.value("id", 0u)};
  auto address = Address::parse(word("address"), 0);
  if (!address.has_value() || repository.cluster.empty() || repository.cluster_uuid.empty() ||
      !repository.id) {
    return damaged("a field is missing or malformed");
  }
  repository.address = std::move(address).value();
  repository.is_first = json.value("is_first", false);
  repository.has_started = json.value("has_started", false);
  if (member_id(repository) == 0) return damaged("member_uuid is malformed");
  return repository;
}

Outcome<void> write_identity(std::string const& directory, Repository const& repository) {
  nlohmann::json const json = {{"kind", "mds"},
                               {"format", format},
                               {"cluster", repository.cluster},
                               {"cluster_uuid", repository.cluster_uuid},
                               {"member_uuid", repository.member_uuid},
                               {"id", repository.id.value},
                               {"address", repository.address.text()},
                               {"is_first", repository.is_first},
                               {"has_started", repository.has_started}};
  return write_file_atomically(identity_path(directory), as_bytes(json.dump(2) + "\n"), 0644);
}

}  // namespace

std::uint64_t member_id(Repository const& repository) {
  std::string digits;
  for (char const c : repository.member_uuid) {
    if (c != '-') digits += c;
  }
  if (digits.size() < 16) return 0;
  std::uint64_t id = 0;
  auto const* const end = digits.data() + 16;
  auto const parsed = std::from_chars(digits.data(), end, id, 16);
  return parsed.ec == std::errc() && parsed.ptr == end ? id : 0;
}

Outcome<void> check_repository_place(std::string const& directory) {
  std::error_code error;
  return fs::exists(directory, error) ? check_empty(directory) : success();
}

std::string random_uuid() {
  std::array<unsigned char, 16> bytes{};
  PS_ASSERT(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", bytes[i]);
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += digits;
  }
  return text;
}

Outcome<void> make_repository(std::string const& directory, Repository const& repository) {
  std::error_code error;
  bool const existed = fs::exists(directory, error);
  PS_CHECK(check_repository_place(directory));
  if (!existed) PS_CHECK(make_directories(directory));
  auto const written = write_identity(directory, repository);
  if (!written.has_value() && !existed) fs::remove(directory, error);
  return written;
}

Outcome<void> mark_started(std::string const& directory, Repository repository) {
  repository.has_started = true;
  return write_identity(directory, repository);
}

void unmake_repository(std::string const& directory) {
  std::error_code error;
  fs::remove(identity_path(directory), error);
  fs::remove(directory, error);  // only if it is empty, so never a mount point's lost+found
}

Outcome<Repository> load_repository(std::string const& directory) {
  auto const path = identity_path(directory);
  auto const text = read_small_file(path, identity_bytes_max);
  if (text.has_value()) return parse_identity(text.value(), path);
  if (errc_of(text.error().code) != Errc::not_found) return text.error();
  return failure(Errc::not_found, directory + " is not the repository of a metadata server: make " +
                                      "one with 'pstorage -c NAME make-mds -I -p -a ADDR -r DIR'");
}

}  // namespace pstorage::mds
