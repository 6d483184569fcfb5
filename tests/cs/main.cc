// gtest's main with --seed N (run only that seed) and --count N (seeds a crash test).
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "tests/cs/seeds.h"

namespace pstorage::cs {
Seeds& seeds() {
  static Seeds given;
  return given;
}
}  // namespace pstorage::cs

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--seed") == 0) {
      pstorage::cs::seeds() = {std::strtoull(argv[i + 1], nullptr, 10), 1};
    }
    if (std::strcmp(argv[i], "--count") == 0) {
      pstorage::cs::seeds().count = std::strtoull(argv[i + 1], nullptr, 10);
    }
  }
  return RUN_ALL_TESTS();
}
