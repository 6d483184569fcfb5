// A file in which every block says which write it holds, to see after a power cut whether the disk
// kept what it had called durable.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/env/disk.h"

namespace pstorage::tools {

struct Flush_file_shape {
  std::uint32_t writer = 0;  // its number: two files are never taken for each other
  std::uint32_t block_bytes = 16384;
  std::uint32_t blocks = 1024;
};

inline constexpr std::uint32_t flush_block_min = 512;

/// The newest of the writes 1 to `last` that goes to block `block`; 0: none.
std::uint64_t newest_write_in(std::uint32_t block, std::uint32_t blocks, std::uint64_t last);

/// Writes 1, 2, 3, ... go to blocks 0, 1, 2, ... in turn and round. Thread: one.
class Flush_file {
 public:
  /// Opens or makes `name` on `disk`, which outlives this. Errors: the system's, with a line.
  static Outcome<Flush_file> open(Disk& disk, std::string const& name, Flush_file_shape shape);

  /// Does the file hold what the writes up to `last` leave? Then a power cut has lost nothing that
  /// was durable. A newer write in a block is well, a half-written one too where only the write
  /// behind the newest may have been under way. The answer is what is lost, empty: nothing.
  Outcome<std::string> verify(std::uint64_t last);
  /// Goes on with write `last` + 1.
  void continue_after(std::uint64_t last) { written_ = last; }
  /// The next write, durable as far as the disk can be believed; its number.
  Outcome<std::uint64_t> write_next();

 private:
  /// Of each block; 0: none, or not a whole one.
  Outcome<std::vector<std::uint64_t>> writes_found();
  Flush_file(std::unique_ptr<File> file, std::string name, Flush_file_shape shape);

  std::unique_ptr<File> file_;
  std::string name_;
  Flush_file_shape shape_;
  std::uint64_t written_ = 0;
  std::vector<std::byte> block_;
};

}  // namespace pstorage::tools
