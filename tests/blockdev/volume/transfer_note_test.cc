// When an interrupted import or export may go on.
#include "blockdev/volume/transfer_note.h"

#include <gtest/gtest.h>

namespace pstorage::volume::test {
namespace {

Transfer_note example() {
  return {"/images/a b.raw", "raw", 1u << 30, 1'700'000'000'123, 32u << 20};
}

TEST(Transfer_note, Comes_back_as_it_was) {
  auto const note = parse_note(example().text());
  ASSERT_TRUE(note.has_value());
  EXPECT_EQ(note.value().source, "/images/a b.raw");
  EXPECT_EQ(note.value().format, "raw");
  EXPECT_EQ(note.value().size_bytes, 1u << 30);
  EXPECT_EQ(note.value().modified_ns, 1'700'000'000'123);
  EXPECT_EQ(note.value().done_bytes, 32u << 20);
}

TEST(Transfer_note, That_makes_no_sense_is_refused) {
  auto beyond = example();
  beyond.done_bytes = beyond.size_bytes + 1;
  for (auto const& text :
       {std::string(), std::string("7"), std::string("{}"),
        std::string(R"({"source":"a","format":"raw","size":"1"})"), beyond.text()})
    EXPECT_FALSE(parse_note(text).has_value()) << text;
}

TEST(Transfer_note, Goes_on_only_with_the_same_source) {
  EXPECT_TRUE(check_same_source(example(), example()).has_value());
  auto const refusal = [](auto const& change) {
    auto now = example();
    change(now);
    auto const same = check_same_source(example(), now);
    return same.has_value() ? std::string() : same.error().text;
  };
  EXPECT_NE(refusal([](auto& now) { now.source = "/images/b"; }), "");
  EXPECT_NE(refusal([](auto& now) { now.format = "qcow2"; }), "");
  EXPECT_NE(refusal([](auto& now) { now.size_bytes = 7; }).find("7 bytes now"), std::string::npos);
  EXPECT_NE(refusal([](auto& now) { ++now.modified_ns; }).find("was changed since"),
            std::string::npos);
}

}  // namespace
}  // namespace pstorage::volume::test
