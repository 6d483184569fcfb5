// What doctor finds, what advise-configuration proposes, what make-report packs.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/cli/advice.h"
#include "core/cli/doctor.h"
#include "core/cli/tar.h"
#include "tests/core/cli/cluster_state.h"

namespace pstorage::cli {
namespace {

/// Three hosts, three MDS, nothing wrong.
proto::Status_reply well() {
  proto::Status_reply status;
  status.set_cluster("stor1");
  status.set_health("healthy");
  status.set_space_state("ok");
  status.set_replication_norm(2);
  status.set_replication_min(1);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    auto& mds = add_mds(status, i, i == 1);
    mds.set_is_voter(true);
    mds.set_host_id(i);
    auto& cs = add_cs(status, 1024 + i, "active");
    cs.set_host_id(i);
    cs.set_version("1.0");
  }
  return status;
}

Finding find(std::vector<Finding> const& findings, std::string const& check) {
  auto worst = Finding{Verdict::well, check, "", ""};
  bool is_there = false;
  for (auto const& finding : findings) {
    if (finding.check != check) continue;
    if (!is_there || finding.verdict > worst.verdict) worst = finding;
    is_there = true;
  }
  EXPECT_TRUE(is_there) << check;
  return worst;
}

Finding cluster(proto::Status_reply const& status, std::string const& check,
                std::string const& domain = "host") {
  return find(examine_cluster(status, domain, "1.0"), check);
}

TEST(Doctor, A_cluster_that_is_well_has_nothing_to_do) {
  for (auto const& finding : examine_cluster(well(), "host", "1.0")) {
    EXPECT_EQ(finding.verdict, Verdict::well) << finding.check << ": " << finding.text;
    EXPECT_EQ(finding.advice, "");
  }
}

TEST(Doctor, Whatever_is_wrong_comes_with_what_to_do) {
  auto status = well();
  status.set_health("degraded");
  status.set_space_state("full");
  (*status.mutable_chunks())["blocked"] = 2;
  (*status.mutable_chunks())["urgent"] = 2;
  status.set_scrub_errors(1);
  auto& cs = *status.mutable_services(1);
  cs.set_slow(true);
  cs.set_unique(3);
  cs.set_clock_offset_ms(-90'000);
  cs.set_version("0.9");
  cs.set_free_bytes(0);
  status.mutable_services(3)->set_state("failed");
  auto const findings = examine_cluster(status, "host", "1.0");
  for (auto const* check : {"health", "chunks", "space", "clocks", "unique", "versions", "domains"})
    EXPECT_NE(find(findings, check).verdict, Verdict::well) << check;
  for (auto const& finding : findings) {
    EXPECT_EQ(finding.advice.empty(), finding.verdict == Verdict::well) << finding.text;
  }
  EXPECT_EQ(find(findings, "clocks").verdict, Verdict::fault);
  EXPECT_NE(find(findings, "clocks").text.find("90 s behind"), std::string::npos);
  EXPECT_NE(find(findings, "versions").text.find("CS#1025 0.9"), std::string::npos);
}

TEST(Doctor, Counts_failure_domains_as_the_cluster_does) {
  auto status = well();
  status.set_replication_norm(3);
  EXPECT_EQ(cluster(status, "domains").verdict, Verdict::hint);  // none to spare
  for (auto& service : *status.mutable_services()) service.set_host_id(7);
  EXPECT_EQ(cluster(status, "domains").verdict, Verdict::fault);
  EXPECT_EQ(cluster(status, "domains", "disk").verdict, Verdict::hint);
  int rack = 0;
  for (auto& service : *status.mutable_services()) {
    if (service.kind() == "CS") service.set_location("hall.row1.rack" + std::to_string(++rack));
  }
  EXPECT_EQ(cluster(status, "domains", "rack").verdict, Verdict::hint);
  EXPECT_EQ(cluster(status, "domains", "row").verdict, Verdict::fault);
  EXPECT_EQ(cluster(status, "domains", "room").verdict, Verdict::fault);
  status.set_replication_norm(1);
  EXPECT_NE(cluster(status, "domains").text.find("one replica"), std::string::npos);
  status.set_replication_norm(2);
  status.set_replication_min(2);
  EXPECT_EQ(cluster(status, "domains", "disk").verdict, Verdict::warning);
}

TEST(Doctor, Finds_single_points_of_failure) {
  auto status = well();
  for (auto& service : *status.mutable_services()) {
    if (service.kind() == "MDS") service.set_host_id(service.id() == 3 ? 3 : 1);
  }
  EXPECT_NE(cluster(status, "mds").text.find("2 of 3"), std::string::npos);
  for (auto& service : *status.mutable_services()) service.set_is_voter(service.is_master());
  EXPECT_NE(cluster(status, "mds").text.find("loses it"), std::string::npos);
}

TEST(Doctor, Looks_at_the_disks_of_this_host) {
  Host_facts host;
  Repository_facts disk{.kind = "cs",
                        .directory = "/d",
                        .is_there = true,
                        .file_system = "xfs",
                        .device = "sda",
                        .write_cache = "write through",
                        .is_rotating = true,
                        .sync_ms = 8.0};
  host.repositories = {disk};
  EXPECT_EQ(find(examine_host(host), "flush").verdict, Verdict::well);
  host.repositories[0].sync_ms = 0.02;  // no disk turns so fast
  EXPECT_EQ(find(examine_host(host), "flush").verdict, Verdict::warning);
  host.repositories[0].write_cache = "write back";
  EXPECT_EQ(find(examine_host(host), "flush").verdict, Verdict::hint);
  host.repositories[0].file_system = "tmpfs";
  EXPECT_EQ(find(examine_host(host), "flush").verdict, Verdict::fault);
  host.repositories[0].is_there = false;
  EXPECT_EQ(find(examine_host(host), "flush").verdict, Verdict::warning);
  host.key_mode = 0644;
  EXPECT_EQ(find(examine_host(host), "key").verdict, Verdict::fault);
  host.is_clock_synchronised = false;
  EXPECT_EQ(find(examine_host(host), "clocks").verdict, Verdict::warning);
}

TEST(Advice, Shares_the_ssd_between_the_journals) {
  Advice_question question{
      "stor1", {{"/d1", false}, {"/d 2", true}}, "/ssd", 100ull << 30, "/mnt/stor1"};
  auto const both = advise(question);
  ASSERT_TRUE(both.has_value());
  EXPECT_EQ(both.value().journal_mb, 8192u);
  ASSERT_EQ(both.value().commands.size(), 3u);
  EXPECT_EQ(shell_text(both.value().commands[0]),
            "pstorage -c stor1 make-cs -r /d1 -j /ssd -s 8192");
  EXPECT_EQ(shell_text(both.value().commands[1]),
            "pstorage configure-cs -r '/d 2' -a /ssd -s 8192");
  EXPECT_EQ(shell_text(both.value().commands[2]),
            "pstorage-mount -c stor1 /mnt/stor1 -C /ssd/stor1.cache -R 75776");
  question.servers.pop_back();
  question.ssd_free_bytes = 400ull << 20;  // too small for two halves
  auto const tight = advise(question);
  ASSERT_TRUE(tight.has_value());
  EXPECT_EQ(tight.value().journal_mb, 256u);
  EXPECT_EQ(tight.value().cache_mb, 104u);
  question.servers.push_back({"/d 2", true});
  question.mount_point.clear();
  question.ssd_free_bytes = 1ull << 30;
  auto const small = advise(question);
  ASSERT_TRUE(small.has_value());
  EXPECT_EQ(small.value().journal_mb, 448u);
  EXPECT_EQ(small.value().commands.size(), 2u);
}

TEST(Advice, Says_when_the_ssd_is_too_small) {
  Advice_question const question{"stor1", {{"/d1", false}}, "/ssd", 200ull << 20, ""};
  auto const advice = advise(question);
  ASSERT_FALSE(advice.has_value());
  EXPECT_NE(advice.error().text.find("less than 256 MB"), std::string::npos);
}

TEST(Advice, Quotes_what_a_shell_would_change) {
  EXPECT_EQ(shell_text({"a", "", "it's", "$x"}), "a '' 'it'\\''s' '$x'");
}

TEST(Tar, Has_a_header_and_whole_records_for_each_file) {
  Tar tar;
  tar.add("a/b.txt", "hello", 1);
  auto const bytes = tar.finish();
  ASSERT_EQ(bytes.size(), 512u * 4);
  EXPECT_EQ(bytes.substr(0, 8), std::string("a/b.txt\0", 8));
  EXPECT_EQ(bytes.substr(124, 12), std::string("00000000005\0", 12));
  EXPECT_EQ(bytes.substr(257, 6), std::string("ustar\0", 6));
  unsigned sum = 8 * ' ';
  for (std::size_t i = 0; i < 512; ++i) {
    if (i < 148 || i >= 156) sum += static_cast<unsigned char>(bytes[i]);
  }
  EXPECT_EQ(std::stoul(bytes.substr(148, 6), nullptr, 8), sum);
  EXPECT_EQ(bytes.substr(512, 5), "hello");
}

}  // namespace
}  // namespace pstorage::cli
