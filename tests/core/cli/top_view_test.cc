#include "core/cli/top_view.h"

#include <gtest/gtest.h>

#include "tests/core/cli/cluster_state.h"

namespace pstorage::cli {
namespace {

class Top : public testing::Test {
 protected:
  Top() { view_.set_size(80, 24); }
  void show(proto::Status_reply const& status, std::size_t events = 1) {
    std::vector<proto::Event> list;
    for (std::size_t i = 0; i < events; ++i) {
      auto& event = list.emplace_back();
      event.set_severity("INF");
      event.set_text("event " + std::to_string(i));
    }
    view_.show(status, list);
  }
  std::string screen() const {
    std::string text;
    for (auto const& line : view_.lines()) text += line.text + "\n";
    return text;
  }
  bool has(std::string const& part) const { return screen().find(part) != std::string::npos; }
  void press(std::string const& keys) {
    for (char const key : keys) EXPECT_TRUE(view_.on_key(key));
  }

  Top_view view_{false};
};

TEST_F(Top, All_tables_of_a_small_cluster_fit_into_80_by_24) {
  show(one_dead_cs());
  for (auto const* part : {"MDSID", "CSID", "CLID", "MESSAGE", "1027 offline", "host9", "event 0"})
    EXPECT_TRUE(has(part)) << part << "\n" << screen();
  auto const lines = view_.lines();
  EXPECT_EQ(lines.size(), 24u);
  for (auto const& line : lines) EXPECT_LE(line.text.size(), 80u) << line.text;
  EXPECT_TRUE(lines.back().text.find("?: help") != std::string::npos);
}

TEST_F(Top, No_table_of_the_chunk_servers_or_clients_loses_its_host_at_80_columns) {
  auto status = one_dead_cs();
  for (auto& service : *status.mutable_services()) {
    service.set_read_bytes_per_s(999ull << 20);
    service.set_write_bytes_per_s(999ull << 20);
    service.set_read_ops_per_s(99'999);
    service.set_write_ops_per_s(99'999);
    service.set_io_latency_us(500'000);
    service.set_io_latency_max_us(999'000);
    service.set_version("0.1.0");
  }
  show(status);
  for (unsigned set = 0; set < cs_sets; ++set) {
    press("c");
    EXPECT_TRUE(has(" host3")) << screen();
    EXPECT_EQ(has("FLAGS"), set == 2) << screen();
    press("i");
  }
  press("t");
  EXPECT_TRUE(has(" host9")) << screen();
}

TEST_F(Top, Each_key_shows_its_table_alone) {
  show(one_dead_cs());
  std::vector<std::pair<char, std::string>> const tables = {
      {'m', "MDSID"}, {'c', "CSID"}, {'t', "CLID"}, {'e', "MESSAGE"}};
  for (auto const& [key, header] : tables) {
    press({key});
    for (auto const& [other, text] : tables) EXPECT_EQ(has(text), other == key) << screen();
  }
  press("a");
  for (auto const& [key, header] : tables) EXPECT_TRUE(has(header));
}

TEST_F(Top, Verbose_adds_lines_and_takes_them_away_again) {
  show(one_dead_cs());
  EXPECT_FALSE(has("Replication:"));
  press("v");
  EXPECT_TRUE(has("Replication:"));
  EXPECT_TRUE(has("FS:"));
  EXPECT_FALSE(has("IO total"));
  press("V");
  EXPECT_TRUE(has("IO total"));
  press("v");
  EXPECT_TRUE(has("Replication:"));
  EXPECT_FALSE(has("IO total"));
  press("v");
  EXPECT_FALSE(has("Replication:"));
}

TEST_F(Top, Sorts_by_the_columns_that_are_shown) {
  show(one_dead_cs());
  press("c");
  for (int i = 0; i < 4; ++i) press(">");
  EXPECT_TRUE(has("(AVAIL)")) << screen();
  auto const at = [this](char const* id) { return screen().find(id); };
  EXPECT_LT(at("1027"), at("1025"));
  press("r");
  EXPECT_TRUE(has("(AVAIL, inverted)")) << screen();
  EXPECT_LT(at("1025"), at("1027"));
  for (int i = 0; i < 3; ++i) press("<");
  EXPECT_TRUE(has("(CSID, inverted)")) << screen();
  press("<");
  EXPECT_TRUE(has("(HOST, inverted)")) << screen();  // round
}

TEST_F(Top, A_large_cluster_says_what_it_leaves_out_and_can_be_scrolled) {
  auto status = one_dead_cs();
  for (std::uint64_t id = 1028; id < 1128; ++id) add_cs(status, id, "active");
  show(status, 200);
  EXPECT_TRUE(has("more: press c")) << screen();
  EXPECT_TRUE(has("1027 offline")) << screen();  // before what is well
  for (auto const* header : {"MDSID", "CSID", "CLID", "MESSAGE"})
    EXPECT_TRUE(has(header)) << header;
  press("c");
  EXPECT_FALSE(has(" 1127 "));
  view_.on_key(key_end);
  EXPECT_TRUE(has("1127 ")) << screen();
  view_.on_key(key_down);  // no further
  EXPECT_TRUE(has("1127 ")) << screen();
  view_.on_key(key_up);
  EXPECT_FALSE(has("1127 ")) << screen();
  view_.on_key(key_home);
  EXPECT_TRUE(has("1025 "));
  view_.on_key(key_page_down);
  EXPECT_FALSE(has("1025 "));
}

TEST_F(Top, The_newest_events_are_on_top) {
  show(one_dead_cs(), 200);
  press("e");
  EXPECT_LT(screen().find("event 199"), screen().find("event 198"));
}

TEST_F(Top, Trouble_is_told_of_and_what_is_known_stays) {
  show(one_dead_cs());
  view_.show_trouble("no MDS of cluster 'stor1' answers");
  EXPECT_TRUE(has("no MDS of cluster"));
  EXPECT_TRUE(has("1027 offline"));
  show(one_dead_cs());
  EXPECT_FALSE(has("no MDS of cluster"));
}

TEST_F(Top, Help_is_shown_until_a_key_is_pressed_and_q_leaves) {
  show(one_dead_cs());
  press("?");
  EXPECT_TRUE(has("metadata servers (MDS)"));
  press("q");  // any key: back
  EXPECT_FALSE(has("metadata servers (MDS)"));
  EXPECT_FALSE(view_.on_key('q'));
}

TEST_F(Top, Every_size_and_every_key_makes_a_whole_screen) {
  auto status = one_dead_cs();
  for (std::uint64_t id = 1028; id < 1060; ++id) add_cs(status, id, "active");
  std::vector<int> keys;
  for (char const key : std::string("amcteivVr<>?x")) keys.push_back(key);
  for (int key = key_up; key <= key_end; ++key) keys.push_back(key);
  for (std::size_t height : {0, 1, 2, 5, 10, 24, 60}) {
    for (std::size_t width : {1, 20, 80, 200}) {
      view_.set_size(width, height);
      for (int const key : keys) {
        show(status, height);
        view_.on_key(key);
        auto const lines = view_.lines();
        EXPECT_EQ(lines.size(), height);
        for (auto const& line : lines) EXPECT_LE(line.text.size(), width);
      }
      view_.show({}, {});
    }
  }
}

}  // namespace
}  // namespace pstorage::cli
