#include "core/cli/lines.h"

#include <algorithm>
#include <cstdio>

namespace pstorage::cli {

std::vector<Line> table_lines(std::vector<std::string> const& headers,
                              std::vector<Table_row> const& rows) {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  for (auto const& header : headers) {
    right.push_back(header.starts_with('>'));
    widths.push_back(header.size() - (right.back() ? 1 : 0));
  }
  for (auto const& row : rows) {
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      widths[i] = std::max(widths[i], row.cells[i].size());
    }
  }
  auto const joined = [&](std::vector<std::string> const& cells, bool is_header) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      auto const text = is_header && right[i] ? cells[i].substr(1) : cells[i];
      std::string const padding(widths[i] - text.size(), ' ');
      if (i != 0) line += ' ';
      line += right[i] ? padding + text : text + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    return line;
  };
  std::vector<Line> lines;
  lines.push_back({joined(headers, true), Style::heading});
  for (auto const& row : rows) lines.push_back({joined(row.cells, false), row.style});
  return lines;
}

void print_lines(std::vector<Line> const& lines) {
  for (auto const& line : lines) std::printf("%s\n", line.text.c_str());
}

}  // namespace pstorage::cli
