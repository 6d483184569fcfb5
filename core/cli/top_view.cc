#include "core/cli/top_view.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace pstorage::cli {
namespace {

constexpr std::size_t block_min = 3;  // blank line, header, one row

std::vector<Line> help() {
  return {{""},
          {"a      all tables", Style::plain},
          {"m      metadata servers (MDS)"},
          {"c      chunk servers (CS)"},
          {"t      clients"},
          {"e      events"},
          {"i      the next columns of the chunk servers: space, speed, flags"},
          {"v      also replication, chunks and files"},
          {"V      everything there is about the cluster"},
          {"< >    sort by the column to the left, to the right (of CS, or of the only table)"},
          {"r      the other way round"},
          {"arrows, Page Up, Page Down, Home, End: scroll"},
          {"q      quit"},
          {""},
          {"any key: back"}};
}

/// Makes the largest block one line smaller. False: none can lose any more.
bool shrink(std::vector<std::size_t>& sizes) {
  auto const largest = std::max_element(sizes.begin(), sizes.end());
  if (largest == sizes.end() || *largest <= block_min) return false;
  --*largest;
  return true;
}

}  // namespace

void Top_view::set_size(std::size_t width, std::size_t height) {
  width_ = width;
  height_ = height;
}

void Top_view::set_sort(Table_kind kind, std::vector<Sort_key> keys) {
  sort_[static_cast<std::size_t>(kind)] = std::move(keys);
}

void Top_view::show(proto::Status_reply status, std::vector<proto::Event> const& events) {
  status_ = std::move(status);
  events_ = {events.begin(), events.end()};
  has_status_ = true;
  trouble_.clear();
}

Table_kind Top_view::sorted_kind() const {
  if (shown_ == Shown::mds) return Table_kind::mds;
  return shown_ == Shown::clients ? Table_kind::client : Table_kind::cs;
}

unsigned Top_view::sorted_set() const { return sorted_kind() == Table_kind::cs ? cs_set_ : 0; }

void Top_view::move_sort(int step) {
  auto const columns = columns_of(sorted_kind(), sorted_set());
  auto& keys = sort_[static_cast<std::size_t>(sorted_kind())];
  auto const count = static_cast<int>(columns.size());
  // The first press takes the first column or the last one.
  int at = step > 0 ? -1 : count;
  for (int i = 0; i < count && !keys.empty(); ++i) {
    if (columns[static_cast<std::size_t>(i)].column == keys[0].column) at = i;
  }
  auto const next = static_cast<std::size_t>((at + step + count) % count);
  keys = {{columns[next].column, !keys.empty() && keys[0].is_inverted}};
}

void Top_view::scroll(int key) {
  auto const page = height_ / 2;
  if (key == key_up) first_ -= std::min<std::size_t>(first_, 1);
  if (key == key_page_up) first_ -= std::min(first_, page);
  if (key == key_home) first_ = 0;
  std::size_t total = 0;
  for (auto const& block : blocks()) total += block.size();
  if (key == key_down) ++first_;
  if (key == key_page_down) first_ += page;
  if (key == key_end) first_ = total;
  first_ = std::min(first_, total - std::min(total, room()));
}

bool Top_view::on_key(int key) {
  static constexpr std::string_view tables = "amcte";
  if (std::exchange(is_help_, false)) return true;
  auto const in_table = key < 128 ? tables.find(static_cast<char>(key)) : std::string_view::npos;
  if (in_table != std::string_view::npos) {
    shown_ = static_cast<Shown>(in_table);
    first_ = 0;
  }
  if (key == 'i') cs_set_ = (cs_set_ + 1) % cs_sets;
  if (key == 'v') parts_ = {.data = !parts_.data || parts_.totals, .totals = false};
  if (key == 'V') parts_ = {.data = !parts_.totals, .totals = !parts_.totals};
  if (key == '<') move_sort(-1);
  if (key == '>') move_sort(1);
  if (key == 'r') {
    auto& keys = sort_[static_cast<std::size_t>(sorted_kind())];
    if (keys.empty()) move_sort(1);
    keys[0].is_inverted = !keys[0].is_inverted;
  }
  if (key == '?') is_help_ = true;
  if (key >= key_up) scroll(key);
  return key != 'q';
}

Top_view::Block Top_view::table(Table_kind kind) const {
  Block lines{{""}};
  auto const rows = service_lines(
      status_, kind,
      {.is_numeric = is_numeric_, .set = cs_set_, .sort = sort_[static_cast<std::size_t>(kind)]});
  lines.insert(lines.end(), rows.begin(), rows.end());
  return lines;
}

std::vector<Top_view::Block> Top_view::blocks() const {
  std::vector<Block> made;
  auto const wants = [this](Shown what) { return shown_ == what || shown_ == Shown::all; };
  if (wants(Shown::mds)) made.push_back(table(Table_kind::mds));
  if (wants(Shown::cs)) made.push_back(table(Table_kind::cs));
  if (wants(Shown::clients)) made.push_back(table(Table_kind::client));
  if (wants(Shown::events)) {
    // The newest ones on top: there is not always room for all.
    google::protobuf::RepeatedPtrField<proto::Event> newest(events_);
    std::reverse(newest.begin(), newest.end());
    Block lines{{""}};
    auto const rows = event_lines(newest);
    lines.insert(lines.end(), rows.begin(), rows.end());
    made.push_back(std::move(lines));
  }
  return made;
}

/// How many lines each block gets of `room`, when all shall be seen.
std::vector<std::size_t> Top_view::shares(std::vector<Block> const& blocks, std::size_t room) {
  std::vector<std::size_t> sizes;
  std::size_t total = 0;
  for (auto const& block : blocks) {
    sizes.push_back(block.size());
    total += block.size();
  }
  if (total <= room) return sizes;
  // Events first: they have a past without end.
  auto const spare = std::min(total - room, sizes.back() - std::min(sizes.back(), block_min));
  sizes.back() -= spare;
  total -= spare;
  while (total > room && shrink(sizes)) --total;
  return sizes;
}

/// The first lines of a table, what is not well before the rest, and how many are missing.
Top_view::Block Top_view::cut(Block block, std::size_t size, char key) {
  if (size >= block.size()) return block;
  std::stable_sort(block.begin() + 2, block.end(), [](Line const& a, Line const& b) {
    return a.style != Style::plain && b.style == Style::plain;
  });
  auto const kept = std::max<std::size_t>(size, block_min) - 1;
  auto const missing = block.size() - kept;
  block.resize(kept);
  block.push_back({"  ... " + std::to_string(missing) + " more: press " + key});
  return block;
}

/// All tables when that is what is wanted: the large ones give way. Else, and when one has
/// scrolled, what there is from line first_ on.
std::vector<Line> Top_view::body(std::size_t room) const {
  auto made = blocks();
  if (shown_ == Shown::all && first_ == 0) {
    auto const sizes = shares(made, room);
    static constexpr char keys[] = "mct";
    for (std::size_t i = 0; i + 1 < made.size(); ++i) made[i] = cut(made[i], sizes[i], keys[i]);
    made.back().resize(sizes.back());
  }
  std::vector<Line> lines;
  for (auto const& block : made) lines.insert(lines.end(), block.begin(), block.end());
  auto const first = std::min(first_, lines.size() - std::min(lines.size(), room));
  lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(first));
  return lines;
}

Line Top_view::last_line() const {
  if (!trouble_.empty()) return {trouble_, Style::bad};
  std::string text = "a m c t e: tables  i: columns  v V: more  < > r: sort";
  auto const& keys = sort_[static_cast<std::size_t>(sorted_kind())];
  if (!keys.empty()) {
    for (auto const& column : columns_of(sorted_kind(), sorted_set())) {
      if (column.column != keys[0].column) continue;
      text += " (" + column.name + (keys[0].is_inverted ? ", inverted)" : ")");
    }
  }
  return {text + "  ?: help  q: quit", Style::heading};
}

std::size_t Top_view::room() const {
  auto const used = summary_lines(status_, parts_).size() + 1;
  return height_ - std::min(used, height_);
}

std::vector<Line> Top_view::lines() const {
  std::vector<Line> lines;
  if (height_ == 0) return lines;
  if (has_status_) lines = summary_lines(status_, parts_);
  auto const rest = is_help_ ? help() : has_status_ ? body(room()) : std::vector<Line>();
  lines.insert(lines.end(), rest.begin(), rest.end());
  lines.resize(height_ - 1);
  lines.push_back(last_line());
  for (auto& line : lines) {
    if (line.text.size() > width_) line.text.resize(width_);
  }
  return lines;
}

}  // namespace pstorage::cli
