// How often this program asked for memory: operator new of the whole test binary counts.
#pragma once

#include <cstddef>

namespace pstorage::ploop::test {

std::size_t allocations_so_far();

}  // namespace pstorage::ploop::test
