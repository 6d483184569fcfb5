#include "tests/mds/state_fixture.h"

namespace pstorage::mds {
namespace {

class Name_space : public State_fixture {
 protected:
  Name_space() { open_session(1); }

  proto::Mds_reply link(std::string const& from, std::string const& to) {
    proto::Mds_request request;
    request.mutable_link()->set_from(from);
    request.mutable_link()->set_to(to);
    return ask(1, std::move(request));
  }
  proto::Mds_reply set_replicas(std::string const& path, std::uint32_t norm, std::uint32_t min,
                                bool recursive = false) {
    proto::Mds_request request;
    auto& command = *request.mutable_set_attributes();
    command.set_path(path);
    command.mutable_attributes()->set_replicas_norm(norm);
    command.mutable_attributes()->set_replicas_min(min);
    command.set_recursive(recursive);
    return ask(1, std::move(request));
  }
  proto::Mds_reply resize(std::string const& path, std::uint64_t size, bool shrink) {
    proto::Mds_request request;
    request.mutable_resize()->set_path(path);
    request.mutable_resize()->set_size(size);
    request.mutable_resize()->set_allow_shrink(shrink);
    return ask(1, std::move(request));
  }
  Errc look(std::string const& path) {
    auto const found = resolve(machine_->database(), path);
    return found.has_value() ? Errc::ok : errc_of(found.error().code);
  }
};

TEST_F(Name_space, Create_with_parents_makes_the_directories) {
  EXPECT_EQ(create(1, "/volumes/a/b/vm1", 4096).status(), 0u);
  EXPECT_EQ(look("/volumes/a/b"), Errc::ok);
  EXPECT_EQ(status(create(1, "/volumes/a/b/vm1")), Errc::exists);
  EXPECT_EQ(status(create(1, "/volumes/a/b/vm1/below")), Errc::not_directory);
}

TEST_F(Name_space, Create_without_parents_needs_the_directory) {
  auto const reply = create_directory(1, "/missing/directory");
  EXPECT_EQ(status(reply), Errc::not_found);
  EXPECT_EQ(reply.text(),
            "no file or directory '/missing/directory': there is no directory '/missing'");
}

TEST_F(Name_space, Paths_are_checked) {
  for (auto const* const path : {"", "relative", "/a/../b", "/a/./b", "/a\nb"}) {
    EXPECT_EQ(status(create(1, path)), Errc::bad_request) << path;
  }
  EXPECT_EQ(status(create(1, "/" + std::string(256, 'x'))), Errc::bad_request);
  EXPECT_EQ(create(1, "/" + std::string(255, 'x')).status(), 0u);
  EXPECT_EQ(status(create(1, "/")), Errc::exists);
  EXPECT_EQ(status(remove(1, "/")), Errc::refused);
}

TEST_F(Name_space, Attributes_are_inherited_from_the_directory_at_creation) {
  EXPECT_EQ(create_directory(1, "/d").status(), 0u);
  EXPECT_EQ(set_replicas("/d", 3, 0).status(), 0u);
  auto const file = create(1, "/d/file").file();
  EXPECT_EQ(file.attributes().replicas_norm(), 3u);
  EXPECT_EQ(file.attributes().replicas_min(), 2u);
  EXPECT_EQ(file.attributes().failure_domain(), "host");
  EXPECT_EQ(file.attributes().chunk_size(), 64u << 20);
  EXPECT_EQ(set_replicas("/d", 5, 4).status(), 0u);
  EXPECT_EQ(resolve(machine_->database(), "/d/file").value().attributes.norm, 3u);
  EXPECT_EQ(set_replicas("/d", 5, 4, true).status(), 0u);
  EXPECT_EQ(resolve(machine_->database(), "/d/file").value().attributes.norm, 5u);
}

TEST_F(Name_space, Replicas_alone_derives_the_majority) {
  for (auto const& [norm, min] : {std::pair{1u, 1u}, {2u, 2u}, {3u, 2u}, {4u, 3u}, {5u, 3u}}) {
    auto const file = set_replicas("/", norm, 0).file();
    EXPECT_EQ(file.attributes().replicas_min(), min) << norm;
  }
  EXPECT_EQ(status(set_replicas("/", 2, 3)), Errc::bad_request);
  EXPECT_EQ(status(set_replicas("/", 65, 1)), Errc::bad_request);
}

TEST_F(Name_space, The_chunk_size_of_a_file_does_not_change) {
  EXPECT_EQ(create(1, "/file", 4096).status(), 0u);
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path("/file");
  request.mutable_set_attributes()->mutable_attributes()->set_chunk_size(1 << 20);
  EXPECT_EQ(status(ask(1, request)), Errc::refused);
  request.mutable_set_attributes()->set_path("/");
  request.mutable_set_attributes()->set_recursive(true);
  EXPECT_EQ(ask(1, request).status(), 0u);
  EXPECT_EQ(resolve(machine_->database(), "/file").value().attributes.chunk_size, 64u << 20);
  request.mutable_set_attributes()->mutable_attributes()->set_chunk_size(12345);
  EXPECT_EQ(status(ask(1, request)), Errc::bad_request);
}

TEST_F(Name_space, Remove_refuses_directories_with_entries) {
  EXPECT_EQ(create(1, "/d/file").status(), 0u);
  EXPECT_EQ(status(remove(1, "/d")), Errc::not_empty);
  EXPECT_EQ(status(remove(1, "/d/none")), Errc::not_found);
  EXPECT_EQ(remove(1, "/d/file").status(), 0u);
  EXPECT_EQ(remove(1, "/d").status(), 0u);
  EXPECT_EQ(look("/d"), Errc::not_found);
}

TEST_F(Name_space, A_file_goes_with_its_last_name) {
  add_server(1);
  EXPECT_EQ(create(1, "/file", 1 << 20).status(), 0u);
  EXPECT_EQ(link("/file", "/other").status(), 0u);
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/file", file);
  EXPECT_EQ(allocate(1, file, epoch, {0}).status(), 0u);
  EXPECT_EQ(close_file(1, file, epoch).status(), 0u);
  EXPECT_EQ(remove(1, "/file").status(), 0u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM chunk", 9), 1u);
  EXPECT_EQ(look("/other"), Errc::ok);
  EXPECT_EQ(remove(1, "/other").status(), 0u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM chunk", 9), 0u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM garbage", 9), 1u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM inode", 9), 1u);
}

TEST_F(Name_space, Directories_have_one_name) {
  EXPECT_EQ(create_directory(1, "/d").status(), 0u);
  EXPECT_EQ(status(link("/d", "/e")), Errc::is_directory);
}

TEST_F(Name_space, Rename_replaces_what_may_be_replaced) {
  create_directory(1, "/d");
  create_directory(1, "/full");
  create(1, "/full/x");
  create(1, "/file");
  create(1, "/target");
  EXPECT_EQ(status(rename(1, "/file", "/d")), Errc::is_directory);
  EXPECT_EQ(status(rename(1, "/d", "/target")), Errc::not_directory);
  EXPECT_EQ(status(rename(1, "/d", "/full")), Errc::not_empty);
  EXPECT_EQ(status(rename(1, "/none", "/x")), Errc::not_found);
  EXPECT_EQ(rename(1, "/file", "/target").status(), 0u);
  EXPECT_EQ(look("/file"), Errc::not_found);
  EXPECT_EQ(rename(1, "/full", "/d").status(), 0u);
  EXPECT_EQ(look("/d/x"), Errc::ok);
}

TEST_F(Name_space, A_directory_does_not_move_into_itself) {
  create(1, "/a/b/c/file");
  EXPECT_EQ(status(rename(1, "/a", "/a/b/x")), Errc::refused);
  EXPECT_EQ(status(rename(1, "/", "/x")), Errc::refused);
  EXPECT_EQ(rename(1, "/a/b", "/a/bb").status(), 0u);
  EXPECT_EQ(look("/a/bb/c/file"), Errc::ok);
}

TEST_F(Name_space, Rename_to_another_name_of_the_same_file_changes_nothing) {
  create(1, "/file");
  link("/file", "/other");
  EXPECT_EQ(rename(1, "/file", "/other").status(), 0u);
  EXPECT_EQ(look("/file"), Errc::ok);
  EXPECT_EQ(look("/other"), Errc::ok);
}

TEST_F(Name_space, Shrinking_must_be_allowed_and_frees_chunks) {
  add_server(1);
  create(1, "/file", 256u << 20);
  std::uint64_t file = 0;
  auto const epoch = lease(1, "/file", file);
  allocate(1, file, epoch, {0, 1, 2, 3});
  EXPECT_EQ(status(resize("/file", 100u << 20, false)), Errc::refused);
  EXPECT_EQ(resize("/file", 100u << 20, true).file().allocated_chunks(), 2u);
  EXPECT_EQ(machine_->database().number("SELECT count(*) FROM garbage", 9), 2u);
  EXPECT_EQ(resize("/file", 1ull << 40, false).status(), 0u);
  EXPECT_EQ(status(resize("/file", (1ull << 50) + 1, false)), Errc::too_large);
}

TEST_F(Name_space, Properties_are_merged_and_an_empty_value_removes_one) {
  create(1, "/file");
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path("/file");
  auto& properties = *request.mutable_set_attributes()->mutable_properties();
  properties["sync"] = "always";
  properties["uuid"] = "1";
  EXPECT_EQ(ask(1, request).file().properties().size(), 2u);
  properties["sync"] = "";
  properties.erase("uuid");
  auto const file = ask(1, request).file();
  EXPECT_EQ(file.properties().size(), 1u);
  EXPECT_EQ(file.properties().at("uuid"), "1");
}

TEST_F(Name_space, On_full_is_inherited_and_checked) {
  proto::Mds_request request;
  request.mutable_set_attributes()->set_path("/");
  request.mutable_set_attributes()->mutable_attributes()->set_on_full("perhaps");
  EXPECT_EQ(status(ask(1, request)), Errc::bad_request);
  request.mutable_set_attributes()->mutable_attributes()->set_on_full("wait");
  EXPECT_EQ(ask(1, request).file().attributes().on_full(), "wait");
  EXPECT_EQ(create(1, "/vm").file().attributes().on_full(), "wait");
  request.mutable_set_attributes()->set_path("/vm");
  request.mutable_set_attributes()->mutable_attributes()->set_on_full("error");
  EXPECT_EQ(ask(1, request).file().attributes().on_full(), "error");
  // The other attributes in the same column stay.
  request.mutable_set_attributes()->mutable_attributes()->clear_on_full();
  request.mutable_set_attributes()->mutable_attributes()->set_client_ssd_cache(true);
  auto const file = ask(1, request).file();
  EXPECT_EQ(file.attributes().on_full(), "error");
  EXPECT_TRUE(file.attributes().client_ssd_cache());
  EXPECT_EQ(resolve(machine_->database(), "/").value().attributes.waits_when_full, true);
}

}  // namespace
}  // namespace pstorage::mds
