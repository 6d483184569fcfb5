#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/runtime/runtime.h"

namespace pstorage {
namespace {

TEST(Leveled_log, Its_level_changes_while_it_is_used) {
  char directory[] = "/tmp/pstorage-log-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  std::string const path = std::string(directory) + "/log";
  {
    auto const log = make_log(path, Log_level::info);
    ASSERT_TRUE(log.has_value()) << log.error().text;
    log.value()->debug("first");
    log.value()->set_level(Log_level::debug);
    log.value()->debug("second");
    log.value()->set_level(Log_level::error);
    log.value()->warn("third");
    log.value()->error("fourth");
  }
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str().find("first"), std::string::npos) << text.str();
  EXPECT_NE(text.str().find("D second"), std::string::npos) << text.str();
  EXPECT_EQ(text.str().find("third"), std::string::npos) << text.str();
  EXPECT_NE(text.str().find("E fourth"), std::string::npos) << text.str();
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace pstorage
