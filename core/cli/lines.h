// Lines of text as commands and screens show them.
#pragma once

#include <string>
#include <vector>

namespace pstorage::cli {

enum class Style { plain, heading, good, warning, bad };

struct Line {
  std::string text;
  Style style = Style::plain;
};

struct Table_row {
  std::vector<std::string> cells;
  Style style = Style::plain;
};

/// The headers and a line a row. Columns as wide as their widest cell; '>' at the front of a
/// header: right-aligned.
std::vector<Line> table_lines(std::vector<std::string> const& headers,
                              std::vector<Table_row> const& rows);
/// On standard output, without colours.
void print_lines(std::vector<Line> const& lines);

}  // namespace pstorage::cli
