#include "core/config/mdns.h"

#include <arpa/nameser.h>
#include <gtest/gtest.h>

#include <random>

namespace pstorage {
namespace {

Mdns_service service(std::string const& host = "192.168.0.1") {
  return {"stor1", {.host = host, .port = 2510, .unix_path = {}}};
}

std::vector<unsigned char> srv_question(std::string const& cluster) {
  return mdns_question("_pstorage._tcp." + cluster + ".local", ns_t_srv, 77);
}

TEST(Mdns, A_question_for_its_cluster_is_answered_with_where_the_server_is) {
  auto const answer = answer_mdns(srv_question("stor1"), service(), true);
  auto const servers = srv_records(answer);
  ASSERT_EQ(servers.size(), 1u);
  EXPECT_EQ(servers[0].host, "mds-192-168-0-1.local");
  EXPECT_EQ(servers[0].port, 2510);
  ns_msg message;
  ASSERT_EQ(::ns_initparse(answer.data(), static_cast<int>(answer.size()), &message), 0);
  EXPECT_EQ(ns_msg_id(message), 77);
  EXPECT_EQ(ns_msg_count(message, ns_s_qd), 1);
  ns_rr record;
  ASSERT_EQ(::ns_parserr(&message, ns_s_ar, 0, &record), 0);
  EXPECT_EQ(ns_rr_type(record), ns_t_a);
  std::vector<unsigned char> const address(ns_rr_rdata(record), ns_rr_rdata(record) + 4);
  EXPECT_EQ(address, (std::vector<unsigned char>{192, 168, 0, 1}));
}

// RFC 6762 6: what goes to the group repeats no question and has number 0.
TEST(Mdns, What_goes_to_everybody_has_neither_question_nor_number) {
  auto const answer = answer_mdns(srv_question("STOR1"), service("::1"), false);
  ns_msg message;
  ASSERT_EQ(::ns_initparse(answer.data(), static_cast<int>(answer.size()), &message), 0);
  EXPECT_EQ(ns_msg_id(message), 0);
  EXPECT_EQ(ns_msg_count(message, ns_s_qd), 0);
  ns_rr record;
  ASSERT_EQ(::ns_parserr(&message, ns_s_ar, 0, &record), 0);
  EXPECT_EQ(ns_rr_type(record), ns_t_aaaa);
}

TEST(Mdns, A_server_with_a_name_is_named) {
  auto const answer = answer_mdns(srv_question("stor1"), service("mds1.example.org"), true);
  EXPECT_EQ(srv_records(answer).at(0).host, "mds1.example.org");
}

TEST(Mdns, Clusters_are_listed) {
  auto const question = mdns_question("pstorage_clusters.local", ns_t_txt, 1);
  EXPECT_EQ(txt_names(answer_mdns(question, service(), true)), std::vector<std::string>{"stor1"});
}

TEST(Mdns, What_is_no_question_for_it_stays_unanswered) {
  EXPECT_TRUE(answer_mdns(srv_question("stor2"), service(), true).empty());
  EXPECT_TRUE(answer_mdns(mdns_question("host.local", ns_t_a, 1), service(), true).empty());
  EXPECT_TRUE(answer_mdns(answer_mdns(srv_question("stor1"), service(), true), service(), true)
                  .empty());  // an answer
}

// Anybody on the network may send anything.
TEST(Mdns, Nothing_that_arrives_does_harm) {
  auto const question = srv_question("stor1");
  for (std::size_t size = 0; size < question.size(); ++size)
    EXPECT_TRUE(
        answer_mdns({question.begin(), question.begin() + static_cast<long>(size)}, service(), true)
            .empty())
        << size;
  std::mt19937 random(5);
  auto const answer = answer_mdns(question, service(), true);
  for (int round = 0; round < 20000; ++round) {
    auto spoiled = round % 2 == 0 ? question : answer;
    for (int i = 0; i < 1 + round % 4; ++i)
      spoiled[random() % spoiled.size()] = static_cast<unsigned char>(random());
    EXPECT_LE(answer_mdns(spoiled, service(), true).size(), mdns_bytes_max);
    EXPECT_LE(srv_records(spoiled).size() + txt_names(spoiled).size(), 256u);
  }
  EXPECT_TRUE(answer_mdns(std::vector<unsigned char>(mdns_bytes_max + 1), service(), true).empty());
}

}  // namespace
}  // namespace pstorage
