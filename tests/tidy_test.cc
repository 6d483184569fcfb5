// Reads the tree and holds it to the house style: what a reviewer would otherwise have to repeat.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace pstorage {
namespace {

constexpr std::size_t line_max = 100;
constexpr std::size_t function_max = 70;
constexpr std::size_t file_max = 500;

struct Source {
  std::string name;  // from the root
  std::vector<std::string> lines;
};

std::filesystem::path root() { return PSTORAGE_SOURCE_DIR; }

std::vector<Source> sources(std::vector<std::string> const& folders,
                            std::set<std::string> const& endings) {
  std::vector<Source> found;
  for (auto const& folder : folders) {
    if (!std::filesystem::exists(root() / folder)) continue;  // iscsi, before its first file
    for (auto const& entry : std::filesystem::recursive_directory_iterator(root() / folder)) {
      if (!entry.is_regular_file() || !endings.contains(entry.path().extension())) continue;
      Source source{.name = std::filesystem::relative(entry.path(), root()), .lines = {}};
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);) source.lines.push_back(line);
      found.push_back(std::move(source));
    }
  }
  std::sort(found.begin(), found.end(),
            [](Source const& a, Source const& b) { return a.name < b.name; });
  return found;
}

std::vector<std::string> const product = {"core", "mds", "cs", "blockdev", "iscsi"};

std::vector<Source> code() {
  auto folders = product;
  folders.push_back("tests");
  return sources(folders, {".h", ".cc"});
}

bool is_comment(std::string const& line) {
  auto const start = line.find_first_not_of(' ');
  return start != std::string::npos && line.compare(start, 2, "//") == 0;
}

TEST(Tidy, No_line_is_longer_than_100_characters) {
  for (auto const& source : code())
    for (std::size_t i = 0; i < source.lines.size(); ++i)
      EXPECT_LE(source.lines[i].size(), line_max) << source.name << ":" << i + 1;
}

TEST(Tidy, No_file_is_longer_than_500_lines) {
  for (auto const& source : code()) EXPECT_LE(source.lines.size(), file_max) << source.name;
}

/// Lines of each function body: from a line at indent 0 or 2 that ends in '{' to its '}'.
void check_functions(Source const& source, std::string const& indent) {
  static std::regex const other("^ *(namespace|class|struct|enum|union|extern|template).*");
  std::size_t start = 0;
  bool inside = false;
  for (std::size_t i = 0; i < source.lines.size(); ++i) {
    auto const& line = source.lines[i];
    bool const at_indent = line.size() > indent.size() && line.starts_with(indent) &&
                           line[indent.size()] != ' ' && line[indent.size()] != '/';
    if (!inside && at_indent && line.ends_with('{') && !std::regex_match(line, other)) {
      inside = true;
      start = i;
    } else if (inside && (line == indent + "}" || line.starts_with(indent + "};"))) {
      EXPECT_LE(i - start, function_max) << source.name << ":" << start + 1;
      inside = false;
    }
  }
}

TEST(Tidy, No_function_is_longer_than_70_lines) {
  for (auto const& source : code()) {
    check_functions(source, "");
    if (source.name.ends_with(".h")) check_functions(source, "  ");  // inside a class
  }
}

TEST(Tidy, Every_header_begins_with_what_it_is_for) {
  for (auto const& source : code()) {
    if (!source.name.ends_with(".h")) continue;
    ASSERT_GE(source.lines.size(), 2u) << source.name;
    EXPECT_TRUE(is_comment(source.lines[0])) << source.name;
    EXPECT_NE(std::find(source.lines.begin(), source.lines.end(), "#pragma once"),
              source.lines.end())
        << source.name;
  }
}

void forbid(std::vector<Source> const& where, std::string const& pattern, std::string const& why,
            std::set<std::string> const& except = {}) {
  std::regex const bad(pattern);
  for (auto const& source : where) {
    bool const excepted = std::any_of(except.begin(), except.end(), [&](auto const& prefix) {
      return source.name.starts_with(prefix);
    });
    if (excepted) continue;
    for (std::size_t i = 0; i < source.lines.size(); ++i)
      if (!is_comment(source.lines[i]) && std::regex_search(source.lines[i], bad))
        ADD_FAILURE() << source.name << ":" << i + 1 << ": " << why;
  }
}

TEST(Tidy, Nothing_is_left_to_do_in_the_code) {
  auto const all = code();
  std::regex const note(
      "\\b(TO"
      "DO|FIX"
      "ME|XX"
      "X)\\b");
  for (auto const& source : all)
    for (std::size_t i = 0; i < source.lines.size(); ++i)
      EXPECT_FALSE(std::regex_search(source.lines[i], note)) << source.name << ":" << i + 1;
}

TEST(Tidy, Time_randomness_and_durability_go_through_the_seams) {
  auto const all = sources(product, {".h", ".cc"});
  forbid(all, "\\b(rand|srand|random_device)\\s*\\(", "use core/env/random.h");
  forbid(all, "(system_clock|steady_clock)::", "use core/env/clock.h", {"core/runtime/"});
  forbid(all, "[^_a-z](fsync|fdatasync)\\s*\\(", "durability is core/disk's business",
         {"core/disk/", "core/tools/"});
}

TEST(Tidy, Every_source_file_is_in_a_target) {
  std::map<std::string, std::string> lists;  // folder of the CMakeLists.txt -> its text
  for (auto const& list : sources({"core", "mds", "cs", "blockdev", "iscsi", "tests"}, {".txt"})) {
    std::string text;
    for (auto const& line : list.lines) text += line + " ";
    lists[std::filesystem::path(list.name).parent_path()] = text;
  }
  for (auto const& source : code()) {
    if (!source.name.ends_with(".cc")) continue;
    bool listed = false;
    std::filesystem::path const path = source.name;
    for (auto folder = path.parent_path(); !folder.empty(); folder = folder.parent_path()) {
      auto const list = lists.find(folder);
      if (list == lists.end()) continue;
      std::string const relative = path.lexically_relative(folder);
      listed = listed || list->second.find(relative) != std::string::npos;
    }
    EXPECT_TRUE(listed) << source.name << " is in no target";
  }
}

}  // namespace
}  // namespace pstorage
