// In a file of its own: where new is inlined and delete is not, the compiler takes them for
// strangers.
#include "tests/blockdev/ploop/allocation_counter.h"

#include <cstdlib>
#include <new>

namespace {
std::size_t allocations = 0;
}

void* operator new(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace pstorage::ploop::test {

std::size_t allocations_so_far() { return allocations; }

}  // namespace pstorage::ploop::test
