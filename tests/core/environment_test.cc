// Addresses, sizes, keys, configuration files, the log.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/address.h"
#include "core/auth/key.h"
#include "core/config/etc.h"
#include "core/disk/atomic_file.h"
#include "core/net/socket.h"
#include "core/size.h"
#include "tests/core/network_fixture.h"

namespace pstorage::test {
namespace {

std::string read_file(std::string const& path) {
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

TEST(Address_test, Texts_and_addresses_agree) {
  for (std::string const text : {"10.0.0.1:2511", "[::1]:2511", "host:1", "unix:/run/x.sock"}) {
    auto const address = Address::parse(text, 9);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address.value().text(), text);
  }
  EXPECT_EQ(Address::parse("10.0.0.1", 9).value().text(), "10.0.0.1:9");
  EXPECT_EQ(Address::parse("::1", 9).value().text(), "[::1]:9");
  EXPECT_EQ(Address::parse("[::1]", 9).value().text(), "[::1]:9");
}

TEST(Address_test, Malformed_ones_are_refused_with_the_reason) {
  for (std::string const text :
       {"", ":1", "a:", "a:b", "a:65536", "a:-1", "a:1x", "[::1", "[::1]x", "[::1]:x", "unix:"})
    EXPECT_FALSE(Address::parse(text, 9)) << text;
  EXPECT_FALSE(Address::parse("unix:" + std::string(108, 'x'), 9));
}

TEST(Size, Suffixes_are_powers_of_1024) {
  EXPECT_EQ(parse_size("0").value(), 0u);
  EXPECT_EQ(parse_size("512").value(), 512u);
  EXPECT_EQ(parse_size("4K").value(), 4096u);
  EXPECT_EQ(parse_size("10G").value(), 10ull << 30);
  EXPECT_EQ(parse_size("10g").value(), 10ull << 30);
  EXPECT_EQ(parse_size("2TB").value(), 2ull << 40);
  EXPECT_EQ(parse_size("3MiB").value(), 3ull << 20);
  EXPECT_EQ(parse_size("1P").value(), 1ull << 50);
}

TEST(Size, Malformed_and_huge_ones_are_refused) {
  for (std::string const text :
       {"", "G", "-1", "1.5G", "1GG", "1 G", "0x10", "1E", "99999999999P", "99999999999999999999"})
    EXPECT_FALSE(parse_size(text)) << text;
  EXPECT_EQ(parse_size("16383P").value(), 16383ull << 50);
  EXPECT_FALSE(parse_size("16384P"));
}

TEST(Size, It_is_shown_as_the_manual_does) {
  EXPECT_EQ(format_size(0), "0B");
  EXPECT_EQ(format_size(1023), "1023B");
  EXPECT_EQ(format_size(1024), "1KB");
  EXPECT_EQ(format_size(1536), "1.5KB");
  EXPECT_EQ(format_size(105ull << 30), "105GB");
  EXPECT_EQ(format_size((9ull << 40) + (1ull << 39)), "9.5TB");
  EXPECT_EQ(format_size(~0ull), "15EB");
}

TEST(Key, The_same_password_and_salt_give_the_same_key) {
  std::array<std::byte, 16> salt{};
  auto const one = derive_key("secret", salt).value();
  EXPECT_EQ(one.key, derive_key("secret", salt).value().key);
  EXPECT_NE(one.key, derive_key("Secret", salt).value().key);
  salt[0] = std::byte{1};
  EXPECT_NE(one.key, derive_key("secret", salt).value().key);
  EXPECT_FALSE(derive_key("", salt));
  EXPECT_NE(random_salt(), random_salt());
}

TEST(Key, It_is_stored_for_the_owner_only) {
  Temporary_directory directory;
  auto const path = directory.path("auth_digest.key");
  Cluster_key key;
  key.key.fill(std::byte{1});
  key.salt.fill(std::byte{2});
  ASSERT_TRUE(save_key(path, key));
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(status.st_size, 48);
  auto const loaded = load_key(path);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded.value().key, key.key);
  EXPECT_EQ(loaded.value().salt, key.salt);
}

TEST(Key, One_that_others_may_read_or_that_is_damaged_is_refused) {
  Temporary_directory directory;
  auto const path = directory.path("key");
  EXPECT_NE(load_key(path).error().text.find("auth-node"), std::string::npos);
  ASSERT_TRUE(save_key(path, {}));
  ::chmod(path.c_str(), 0640);
  EXPECT_NE(load_key(path).error().text.find("chmod 600"), std::string::npos);
  for (std::size_t const size : {0u, 47u, 49u}) {
    ASSERT_TRUE(write_file_atomically(path, as_bytes(std::string(size, 'x')), 0600));
    EXPECT_FALSE(load_key(path)) << size;
  }
}

TEST(Atomic_file, A_failed_write_leaves_the_old_file_and_nothing_else) {
  Temporary_directory directory;
  auto const path = directory.path("file");
  ASSERT_TRUE(write_file_atomically(path, as_bytes("old"), 0644));
  ASSERT_TRUE(write_file_atomically(path, as_bytes("new"), 0644));
  EXPECT_EQ(read_file(path), "new");
  EXPECT_FALSE(write_file_atomically(directory.path("none/file"), as_bytes("x"), 0644));
  std::size_t entries = 0;
  for ([[maybe_unused]] auto const& entry : std::filesystem::directory_iterator(directory.path()))
    ++entries;
  EXPECT_EQ(entries, 1u);
}

class Etc : public testing::Test {
 protected:
  Etc() {
    ::setenv("PSTORAGE_ETC", directory.path("etc").c_str(), 1);
    ::unsetenv("PSTORAGE_NAME");
  }
  ~Etc() override { ::unsetenv("PSTORAGE_ETC"); }
  Temporary_directory directory;
};

TEST_F(Etc, The_cluster_name_is_checked) {
  EXPECT_EQ(cluster_name("Stor_1-a").value(), "Stor_1-a");
  for (std::string const name : {"", "a b", "a/b", "..", "\xc3\xa4"})
    EXPECT_FALSE(cluster_name(name)) << name;
  EXPECT_FALSE(cluster_name(std::string(64, 'a')));
  ::setenv("PSTORAGE_NAME", "fromenv", 1);
  EXPECT_EQ(cluster_name("").value(), "fromenv");
  EXPECT_EQ(cluster_name("given").value(), "given");
  ::unsetenv("PSTORAGE_NAME");
}

TEST_F(Etc, The_host_id_is_made_once) {
  EXPECT_FALSE(host_id(false));
  auto const made = host_id(true);
  ASSERT_TRUE(made);
  EXPECT_TRUE(made.value());
  EXPECT_EQ(host_id(true).value(), made.value());
  ASSERT_TRUE(write_file_atomically(etc_root() + "/host_id", as_bytes("zz\n"), 0644));
  EXPECT_NE(host_id(true).error().text.find("damaged"), std::string::npos);
}

TEST_F(Etc, Servers_are_named_by_the_port_below_the_clients) {
  auto const given = bootstrap_list("c", "10.0.0.1,10.0.0.2:3000, unix:/x");
  ASSERT_TRUE(given);
  ASSERT_EQ(given.value().size(), 3u);
  EXPECT_EQ(given.value()[0].text(), "10.0.0.1:2511");
  EXPECT_EQ(given.value()[1].text(), "10.0.0.2:3001");
  EXPECT_EQ(given.value()[2].text(), "unix:/x");
  EXPECT_FALSE(bootstrap_list("c", "a:65535"));
  EXPECT_FALSE(bootstrap_list("c", "a:0"));
  EXPECT_FALSE(bootstrap_list("c", ","));
  EXPECT_NE(bootstrap_list("c", "").error().text.find("bs.list"), std::string::npos);
}

TEST_F(Etc, The_bootstrap_list_grows_without_duplicates) {
  auto const one = bootstrap_list("c", "10.0.0.1").value();
  ASSERT_TRUE(save_bootstrap_list("c", one));
  ASSERT_TRUE(save_bootstrap_list("c", bootstrap_list("c", "10.0.0.2:77,10.0.0.1").value()));
  EXPECT_EQ(read_file(cluster_directory("c") + "/bs.list"), "10.0.0.1:2510\n10.0.0.2:77\n");
  auto const all = bootstrap_list("c", "").value();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].text(), "10.0.0.2:78");
}

TEST_F(Etc, The_location_is_optional) {
  EXPECT_EQ(host_location(), "");
  ASSERT_TRUE(make_directories(etc_root()));
  ASSERT_TRUE(write_file_atomically(etc_root() + "/location", as_bytes(" room.row.rack\n"), 0644));
  EXPECT_EQ(host_location(), "room.row.rack");
}

TEST(Log_test, A_line_has_its_time_level_and_fields_and_cannot_be_forged) {
  Temporary_directory directory;
  auto const path = directory.path("log");
  testing::internal::CaptureStderr();
  {
    auto const log = make_log(path, Log_level::info);
    ASSERT_TRUE(log);
    log.value()->debug("not shown");
    log.value()->warn("seal refused", {{"chunk", 7}, {"peer", "evil\n2026 E forged \"x\""}});
  }
  auto const shown = testing::internal::GetCapturedStderr();
  auto const line = read_file(path);
  EXPECT_EQ(shown, line);
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  EXPECT_EQ(line.substr(23), " W seal refused chunk=7 peer=\"evil\\x0a2026 E forged \\\"x\\\"\"\n");
  EXPECT_FALSE(make_log(directory.path("none/log"), Log_level::info));
}

TEST(Log_test, A_file_is_rotated_when_it_is_large_and_goes_on_when_somebody_moves_it) {
  Temporary_directory directory;
  auto const path = directory.path("log");
  auto const size_of = [](std::string const& name) -> std::uintmax_t {
    std::error_code error;
    auto const size = std::filesystem::file_size(name, error);
    return error ? 0 : size;
  };
  auto const log = make_log(path, Log_level::info, {.file_bytes_max = 1000, .old_files = 2});
  ASSERT_TRUE(log);
  for (int i = 0; i < 100; ++i) log.value()->info("a line of the log", {{"number", i}});
  for (auto const* const name : {"log", "log.1", "log.2"}) {
    EXPECT_GT(size_of(directory.path(name)), 0u) << name;
    EXPECT_LE(size_of(directory.path(name)), 1000u) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(directory.path("log.3")));

  std::filesystem::rename(path, directory.path("moved"));
  auto const moved = size_of(directory.path("moved"));
  log.value()->info("the last line");
  EXPECT_EQ(size_of(directory.path("moved")), moved);
  EXPECT_NE(read_file(path).find("the last line"), std::string::npos);
}

TEST(Listening, A_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not) {
  Temporary_directory directory;
  Address at, real;
  at.unix_path = directory.path("socket");
  {
    auto const gone = listen_at(at, real);
    ASSERT_TRUE(gone);
  }  // closed, but its file stays
  auto const live = listen_at(at, real);
  ASSERT_TRUE(live);
  EXPECT_NE(listen_at(at, real).error().text.find("another program"), std::string::npos);
  at.unix_path = directory.path("file");
  std::ofstream(at.unix_path) << "precious";
  EXPECT_NE(listen_at(at, real).error().text.find("no socket"), std::string::npos);
  EXPECT_EQ(read_file(at.unix_path), "precious");
}

TEST(Listening, A_used_port_is_said_so) {
  Address at, real;
  at.host = "127.0.0.1";
  auto const first = listen_at(at, real);
  ASSERT_TRUE(first);
  Address again;
  EXPECT_NE(listen_at(real, again).error().text.find("in use"), std::string::npos);
}

}  // namespace
}  // namespace pstorage::test
