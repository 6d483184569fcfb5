// The screen of 'pstorage top': what is asked for by keys, and the lines that this makes.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "core/cli/status_lines.h"

namespace pstorage::cli {

/// Keys that are no characters.
enum Top_key { key_up = 1000, key_down, key_page_up, key_page_down, key_home, key_end };

/// Pure: the state of the cluster and keys in, lines out.
class Top_view {
 public:
  explicit Top_view(bool is_numeric) : is_numeric_(is_numeric) {}

  void set_size(std::size_t width, std::size_t height);
  void set_sort(Table_kind kind, std::vector<Sort_key> keys);
  /// News of the cluster; the oldest event first.
  void show(proto::Status_reply status, std::vector<proto::Event> const& events);
  /// There is no news, for this reason; what was shown stays.
  void show_trouble(std::string text) { trouble_ = std::move(text); }
  /// Characters and Top_key; what has no meaning does nothing. False: the user wants to leave.
  bool on_key(int key);
  /// As many as the screen is high, none wider than it is.
  std::vector<Line> lines() const;

 private:
  enum class Shown { all, mds, cs, clients, events };
  using Block = std::vector<Line>;

  Table_kind sorted_kind() const;
  unsigned sorted_set() const;
  void move_sort(int step);
  void scroll(int key);
  /// Lines below the summary.
  std::size_t room() const;
  Block table(Table_kind kind) const;
  std::vector<Block> blocks() const;
  static std::vector<std::size_t> shares(std::vector<Block> const& blocks, std::size_t room);
  static Block cut(Block block, std::size_t size, char key);
  std::vector<Line> body(std::size_t room) const;
  Line last_line() const;

  std::size_t width_ = 80;
  std::size_t height_ = 24;
  bool const is_numeric_;
  Shown shown_ = Shown::all;
  unsigned cs_set_ = 0;
  Summary_parts parts_{.data = false, .totals = false};
  bool is_help_ = false;
  std::size_t first_ = 0;  // line of the body at its top
  std::array<std::vector<Sort_key>, 3> sort_;
  bool has_status_ = false;
  proto::Status_reply status_;
  google::protobuf::RepeatedPtrField<proto::Event> events_;
  std::string trouble_;
};

}  // namespace pstorage::cli
