#include "core/cli/status_lines.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/cli/output.h"
#include "tests/core/cli/cluster_state.h"

namespace pstorage::cli {
namespace {

std::string text_of(std::vector<Line> const& lines) {
  std::string text;
  for (auto const& line : lines) text += line.text + "\n";
  return text;
}

Style style_of(std::vector<Line> const& lines, std::string const& part) {
  for (auto const& line : lines) {
    if (line.text.find(part) != std::string::npos) return line.style;
  }
  ADD_FAILURE() << "no line with " << part << " in\n" << text_of(lines);
  return Style::plain;
}

TEST(Status_lines, The_lines_that_scripts_read_are_those_of_the_manual) {
  auto status = one_dead_cs();
  status.set_health("healthy");
  status.clear_health_reason();
  auto const lines = summary_lines(status, {});
  EXPECT_EQ(lines[0].text, "Cluster 'stor1': healthy");
  EXPECT_TRUE(lines[1].text.starts_with("Space: [OK] allocatable ")) << lines[1].text;
  EXPECT_TRUE(lines[2].text.starts_with("MDS nodes: 1 of 1, epoch uptime: ")) << lines[2].text;
  EXPECT_EQ(lines[3].text, "CS nodes:  2 of 3 (2 avail, 0 inactive, 1 offline)");
}

TEST(Status_lines, What_is_wrong_is_coloured) {
  auto const lines = summary_lines(one_dead_cs(), {});
  EXPECT_EQ(style_of(lines, "Cluster 'stor1'"), Style::warning);
  EXPECT_EQ(style_of(lines, "CS nodes"), Style::warning);
  EXPECT_EQ(style_of(lines, "urgent"), Style::warning);
  auto const servers = service_lines(one_dead_cs(), Table_kind::cs, {});
  EXPECT_EQ(style_of(servers, "1026"), Style::plain);
  EXPECT_EQ(style_of(servers, "1027"), Style::bad);
}

TEST(Status_lines, Rates_are_those_of_the_clients_and_of_the_servers_that_pull) {
  auto const text = text_of(summary_lines(one_dead_cs(), {}));
  EXPECT_NE(text.find("write    1MB/s (256ops/s)"), std::string::npos) << text;
  EXPECT_NE(text.find("Repl IO:  read   32MB/s, write:   32MB/s"), std::string::npos) << text;
  EXPECT_NE(text.find("Sync rate:   3ops/s"), std::string::npos) << text;
  EXPECT_NE(text.find("Repair: 4 replicas to make (256MB), 32MB/s, ready in about 8s"),
            std::string::npos)
      << text;
}

TEST(Status_lines, The_short_summary_still_tells_of_chunks_that_are_not_well) {
  auto status = one_dead_cs();
  EXPECT_NE(text_of(summary_lines(status, {false, false})).find("urgent"), std::string::npos);
  status.mutable_chunks()->clear();
  (*status.mutable_chunks())["healthy"] = 4;
  EXPECT_EQ(text_of(summary_lines(status, {false, false})).find("urgent"), std::string::npos);
}

TEST(Status_lines, Latencies_below_10_ms_have_a_tenth) {
  auto const clients = text_of(service_lines(one_dead_cs(), Table_kind::client, {}));
  EXPECT_NE(clients.find(" 1.2/31 "), std::string::npos) << clients;
  auto const servers = text_of(service_lines(one_dead_cs(), Table_kind::cs, {}));
  EXPECT_NE(servers.find(" 0.4/0 "), std::string::npos) << servers;
}

TEST(Status_lines, Without_names_hosts_are_addresses) {
  Table_options options;
  options.is_numeric = true;
  for (auto const kind : {Table_kind::mds, Table_kind::cs}) {
    auto const text = text_of(service_lines(one_dead_cs(), kind, options));
    EXPECT_NE(text.find("192.168.0.1"), std::string::npos) << text;
    EXPECT_EQ(text.find("host1"), std::string::npos) << text;
  }
}

TEST(Status_lines, Sorts_by_several_columns_in_either_direction) {
  auto const keys = parse_sort(Table_kind::cs, "status=inv,AVAIL,iolat");
  ASSERT_TRUE(keys.has_value()) << keys.error().text;
  Table_options options;
  options.sort = keys.value();
  auto const lines = service_lines(one_dead_cs(), Table_kind::cs, options);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_NE(lines[1].text.find("1027"), std::string::npos);  // offline is behind active
  EXPECT_NE(lines[2].text.find("1026"), std::string::npos);  // has less free than 1025
  auto const wrong = parse_sort(Table_kind::cs, "size");
  ASSERT_FALSE(wrong.has_value());
  EXPECT_NE(wrong.error().text.find("no column 'size'"), std::string::npos);
  EXPECT_NE(wrong.error().text.find("avail"), std::string::npos);
  EXPECT_FALSE(parse_sort(Table_kind::cs, "avail=up").has_value());
  EXPECT_FALSE(parse_sort(Table_kind::mds, "").has_value());
}

TEST(Status_lines, Events_have_the_columns_of_the_manual) {
  google::protobuf::RepeatedPtrField<proto::Event> events;
  auto& event = *events.Add();
  event.set_source("MDS");
  event.set_severity("ERR");
  event.set_text("The cluster is full");
  auto const lines = event_lines(events);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].text, "TIME              SYS  SEV  MESSAGE");
  EXPECT_EQ(lines[1].style, Style::bad);
  EXPECT_TRUE(lines[1].text.ends_with(" MDS  ERR  The cluster is full")) << lines[1].text;
}

TEST(Status_lines, Xml_has_an_element_a_field_and_escapes_what_it_must) {
  auto status = one_dead_cs();
  status.set_cluster("a<b&c\x01");
  auto const text = xml_text("status", to_json(status));
  EXPECT_NE(text.find("<cluster>a&lt;b&amp;c</cluster>"), std::string::npos) << text;
  EXPECT_NE(text.find("<urgent>4</urgent>"), std::string::npos) << text;
  auto const count = [&text](std::string const& part) {
    std::size_t found = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("<services>"), 5u);
  EXPECT_EQ(count("</services>"), 5u);
}

}  // namespace
}  // namespace pstorage::cli
