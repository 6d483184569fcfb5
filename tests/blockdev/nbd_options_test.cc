// Option haggling: every option, and every way to get one wrong.
#include <gtest/gtest.h>

#include "tests/blockdev/nbd_client.h"

namespace pstorage::nbd::test {
namespace {

TEST(Nbd_options, Go_opens_the_export_and_describes_it) {
  Client client;
  client.greet();
  client.send(Client::option(Option::go, Client::info("disk", {3, 1})));
  auto const size = client.take_option_reply();
  EXPECT_EQ(size.type, static_cast<std::uint32_t>(Option_answer::info));
  EXPECT_EQ(size.data, Wire()
                           .put(std::uint16_t{0})
                           .put(std::uint64_t{1} << 20)
                           .put(static_cast<std::uint16_t>(0x0d6d & ~can_df))
                           .str());
  auto const blocks = client.take_option_reply();
  EXPECT_EQ(blocks.data, Wire().put(std::uint16_t{3}).put(1u).put(4096u).put(32u << 20).str());
  EXPECT_EQ(client.take_option_reply().data, Wire().put(std::uint16_t{1}).text("disk").str());
  EXPECT_EQ(client.take_option_reply().type, static_cast<std::uint32_t>(Option_answer::ack));
  EXPECT_EQ(client.disk.open_now, 1u);
}

TEST(Nbd_options, Info_describes_without_taking_the_lease) {
  Client client;
  client.greet();
  EXPECT_EQ(client.ask(Option::info, Client::info("disk")), Option_answer::ack);
  EXPECT_EQ(client.disk.opened, 0u);
  EXPECT_EQ(client.ask(Option::info, Client::info("none")), Option_answer::err_unknown);
}

TEST(Nbd_options, List_names_all_volumes) {
  Client client;
  client.provider.add("vm/1", 4096);
  client.greet();
  client.send(Client::option(Option::list));
  EXPECT_EQ(client.take_option_reply().data, Wire().put(4u).text("disk").str());
  EXPECT_EQ(client.take_option_reply().data, Wire().put(4u).text("vm/1").str());
  EXPECT_EQ(client.take_option_reply().type, static_cast<std::uint32_t>(Option_answer::ack));
}

TEST(Nbd_options, Volumes_named_at_start_are_the_only_ones) {
  Client client({}, {"disk"});
  client.provider.add("other", 4096);
  client.greet();
  EXPECT_EQ(client.ask(Option::info, Client::info("other")), Option_answer::err_unknown);
  EXPECT_EQ(client.ask(Option::info, Client::info("")), Option_answer::ack) << "the default one";
  client.send(Client::option(Option::list));
  EXPECT_EQ(client.take_option_reply().data, Wire().put(4u).text("disk").str());
  EXPECT_EQ(client.take_option_reply().type, static_cast<std::uint32_t>(Option_answer::ack));
}

TEST(Nbd_options, Export_name_starts_at_once) {
  Client client;
  client.greet();
  client.send(Client::option(Option::export_name, "disk"));
  client.loop.run();
  EXPECT_EQ(client.take<std::uint64_t>(), 1u << 20);
  client.take<std::uint16_t>();
  EXPECT_TRUE(client.output().empty());
  client.send(Client::request(Command::read, 1, 0, 16));
  EXPECT_EQ(client.take_reply(16).data, std::string(16, '\0'));
}

TEST(Nbd_options, Export_name_pads_for_old_clients) {
  Client client;
  client.greet(flag_fixed_newstyle);
  client.send(Client::option(Option::export_name, "disk"));
  client.loop.run();
  EXPECT_EQ(client.output().size(), 10u + 124u);
}

TEST(Nbd_options, An_unknown_export_by_name_hangs_up) {
  Client client;
  client.greet();
  client.send(Client::option(Option::export_name, "none"));
  client.loop.run();
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, A_client_that_is_not_fixed_may_only_name_an_export) {
  Client client;
  client.greet(0);
  client.send(Client::option(Option::list));
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, A_volume_in_use_is_refused_with_the_holders_name) {
  Client client;
  client.disk.holder = "pstorage-nbd[7]@host2";
  client.greet();
  client.send(Client::option(Option::go, Client::info("disk")));
  auto const reply = client.take_option_reply();
  EXPECT_EQ(reply.type, static_cast<std::uint32_t>(Option_answer::err_policy));
  EXPECT_NE(reply.data.find("pstorage-nbd[7]@host2"), std::string::npos);
  client.disk.holder.clear();
  EXPECT_EQ(client.ask(Option::go, Client::info("disk")), Option_answer::ack) << "and again";
}

TEST(Nbd_options, Abort_is_acknowledged) {
  Client client;
  client.greet();
  EXPECT_EQ(client.ask(Option::abort), Option_answer::ack);
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, Unknown_options_are_refused_and_skipped) {
  Client client;
  client.greet();
  EXPECT_EQ(client.ask(static_cast<Option>(77), "whatever"), Option_answer::err_unsupported);
  EXPECT_EQ(client.ask(Option::starttls), Option_answer::err_unsupported);
  EXPECT_EQ(client.ask(Option::structured_reply), Option_answer::ack);
}

TEST(Nbd_options, Options_that_take_no_data_refuse_it) {
  Client client;
  client.greet();
  EXPECT_EQ(client.ask(Option::structured_reply, "x"), Option_answer::err_invalid);
  EXPECT_EQ(client.ask(Option::list, "x"), Option_answer::err_invalid);
}

TEST(Nbd_options, Too_long_option_data_is_refused_and_skipped) {
  Client client;
  client.greet();
  std::string const data(option_bytes_max + 1, 'x');
  EXPECT_EQ(client.ask(Option::info, data), Option_answer::err_too_big);
  EXPECT_EQ(client.ask(Option::info, Client::info("disk")), Option_answer::ack);
}

TEST(Nbd_options, Malformed_info_is_refused) {
  Client client;
  client.greet();
  auto const valid = Client::info("disk", {1, 3});
  for (std::size_t cut = 0; cut < valid.size(); ++cut)
    EXPECT_EQ(client.ask(Option::go, valid.substr(0, cut)), Option_answer::err_invalid) << cut;
  EXPECT_EQ(client.ask(Option::go, valid + "x"), Option_answer::err_invalid);
  auto const lie = Wire().put(0xffffffffu).text("disk").put(std::uint16_t{0}).str();
  EXPECT_EQ(client.ask(Option::go, lie), Option_answer::err_invalid);
  EXPECT_EQ(client.ask(Option::go, Client::info(std::string(name_bytes_max + 1, 'x'))),
            Option_answer::err_too_big);
  EXPECT_EQ(client.disk.opened, 0u);
}

TEST(Nbd_options, Meta_contexts_need_structured_replies) {
  Client client;
  client.greet();
  auto const query = Client::meta("disk", {"base:allocation"});
  EXPECT_EQ(client.ask(Option::set_meta_context, query), Option_answer::err_invalid);
  client.ask(Option::structured_reply);
  client.send(Client::option(Option::set_meta_context, query));
  EXPECT_EQ(client.take_option_reply().data, Wire().put(1u).text("base:allocation").str());
  EXPECT_EQ(client.take_option_reply().type, static_cast<std::uint32_t>(Option_answer::ack));
}

TEST(Nbd_options, Listing_meta_contexts_knows_wildcards) {
  Client client;
  client.greet();
  client.ask(Option::structured_reply);
  auto const listed = [&](std::vector<std::string> const& queries) {
    client.send(Client::option(Option::list_meta_context, Client::meta("disk", queries)));
    auto const first = client.take_option_reply();
    bool const found = first.type == static_cast<std::uint32_t>(Option_answer::meta_context);
    if (found) {
      EXPECT_EQ(client.take_option_reply().type, static_cast<std::uint32_t>(Option_answer::ack));
    }
    return found;
  };
  EXPECT_TRUE(listed({}));
  EXPECT_TRUE(listed({"base:"}));
  EXPECT_TRUE(listed({"qemu:dirty-bitmap:x", "base:allocation"}));
  EXPECT_FALSE(listed({"qemu:"}));
}

TEST(Nbd_options, Malformed_meta_context_queries_are_refused) {
  Client client;
  client.greet();
  client.ask(Option::structured_reply);
  auto const valid = Client::meta("disk", {"base:allocation", "x"});
  for (std::size_t cut = 0; cut < valid.size(); ++cut)
    EXPECT_EQ(client.ask(Option::set_meta_context, valid.substr(0, cut)),
              Option_answer::err_invalid);
  auto const lie = Wire().put(4u).text("disk").put(0xffffffffu).str();
  EXPECT_EQ(client.ask(Option::set_meta_context, lie), Option_answer::err_invalid);
  std::vector<std::string> const many(queries_max + 1, "a");
  EXPECT_EQ(client.ask(Option::set_meta_context, Client::meta("disk", many)),
            Option_answer::err_too_big);
  EXPECT_EQ(client.ask(Option::set_meta_context, Client::meta("none", {"base:allocation"})),
            Option_answer::err_unknown);
}

TEST(Nbd_options, A_context_of_another_export_does_not_count) {
  Client client;
  client.provider.add("other", 1u << 20);
  client.greet();
  client.ask(Option::structured_reply);
  client.ask(Option::set_meta_context, Client::meta("other", {"base:allocation"}));
  EXPECT_EQ(client.ask(Option::go, Client::info("disk")), Option_answer::ack);
  EXPECT_EQ(client.error_for(Client::request(Command::block_status, 1, 0, 4096)), Error::invalid);
}

TEST(Nbd_options, Unknown_client_flags_hang_up) {
  Client client;
  client.greet(4);
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, A_wrong_magic_hangs_up) {
  Client client;
  client.greet();
  client.send(Wire().text("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, Too_many_options_hang_up) {
  Client client;
  client.greet();
  for (std::uint32_t i = 0; i < options_max; ++i) {
    ASSERT_FALSE(client.session->is_over());
    client.ask(Option::list, "x");
  }
  client.send(Client::option(Option::list));
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, A_client_that_never_chooses_is_ended) {
  Client client;
  client.greet();
  client.clock.advance(std::chrono::seconds(59));
  client.session->check_deadline(client.clock.now());
  EXPECT_FALSE(client.session->is_over());
  client.clock.advance(std::chrono::seconds(2));
  client.session->check_deadline(client.clock.now());
  EXPECT_TRUE(client.session->is_over());
}

TEST(Nbd_options, Everything_may_come_byte_by_byte) {
  Client client;
  client.take(18);
  Wire all;
  all.put(std::uint32_t{flag_fixed_newstyle | flag_no_zeroes});
  all.text(Client::option(Option::structured_reply).str());
  all.text(Client::option(Option::go, Client::info("disk")).str());
  for (auto const& byte : all.bytes()) {
    client.loop.run();
    client.send(Bytes(&byte, 1));
  }
  EXPECT_EQ(client.take_option_reply().type, static_cast<std::uint32_t>(Option_answer::ack));
  EXPECT_EQ(client.disk.open_now, 1u);
}

TEST(Nbd_options, A_client_that_leaves_while_the_volume_opens_leaves_nothing_behind) {
  Client client;
  client.greet();
  client.send(Client::option(Option::go, Client::info("disk")));
  client.session->disconnected();
  EXPECT_FALSE(client.session->is_idle());
  client.loop.run();
  EXPECT_TRUE(client.session->is_idle());
  client.clock.advance(Exports::idle_close);
  client.exports.on_tick();
  client.loop.run();
  client.exports.on_tick();
  EXPECT_EQ(client.disk.open_now, 0u);
}

}  // namespace
}  // namespace pstorage::nbd::test
