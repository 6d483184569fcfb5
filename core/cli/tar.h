// An archive that every tar unpacks.
#pragma once

#include <cstdint>
#include <string>

namespace pstorage::cli {

/// Pure: POSIX ustar in memory.
class Tar {
 public:
  /// `name`: a relative path of at most name_max characters. Files have mode 0600.
  void add(std::string const& name, std::string const& content, std::uint64_t modified_s);
  /// The archive, with its end.
  std::string finish();

  static constexpr std::size_t name_max = 99;

 private:
  std::string bytes_;
};

}  // namespace pstorage::cli
