#include "core/net/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/assert.h"

namespace pstorage {
namespace {

std::error_code last_error() { return {errno, std::generic_category()}; }

}  // namespace

// ---------------------------------------------------------------- own memory

Result<Shared_arena*> Shared_arena::make(std::size_t size) {
  PS_ASSERT(size % page_bytes == 0);
  File_descriptor fd(::memfd_create("pstorage-payload", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return last_error();
  // Whoever maps it relies on its size.
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return last_error();
  void* const base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return last_error();
  return new Shared_arena(std::move(fd), static_cast<std::byte*>(base), size);
}

Shared_arena::Shared_arena(File_descriptor fd, std::byte* base, std::size_t size)
    : fd_(std::move(fd)), base_(base), size_(size), pages_(size / page_bytes, Page::free) {}

Shared_arena::~Shared_arena() { ::munmap(base_, size_); }

void Shared_arena::abandon() { drop_user(); }

void Shared_arena::drop_user() {
  if (--users_ == 0) delete this;
}

std::optional<Slice> Shared_arena::take(std::size_t size) {
  std::size_t const wanted = pages_of(size);
  auto const first =
      std::search_n(pages_.begin(), pages_.end(), static_cast<std::ptrdiff_t>(wanted), Page::free);
  if (wanted == 0 || first == pages_.end()) return std::nullopt;
  std::fill_n(first, wanted, Page::used);
  if (free_blocks_.empty()) free_blocks_.push_back(&blocks_.emplace_back(nullptr, 0, this));
  Block* const block = free_blocks_.back();
  free_blocks_.pop_back();
  *block =
      Block(base_ + (first - pages_.begin()) * static_cast<std::ptrdiff_t>(page_bytes), size, this);
  ++users_;
  return Slice(block);
}

void Shared_arena::unused(Block& block) {
  auto const first = pages_.begin() + static_cast<std::ptrdiff_t>(page_of(block));
  if (*first == Page::used) std::fill_n(first, pages_of(block.size()), Page::free);
  free_blocks_.push_back(&block);
  drop_user();
}

void Shared_arena::lose(Slice slice) {
  PS_ASSERT(slice.is_kept_by(this));
  Block& block = *slice.block();
  std::size_t const first = page_of(block);
  std::size_t const count = pages_of(block.size());
  if (pages_[first] == Page::lost) return;  // lent to several peers
  std::fill_n(pages_.begin() + static_cast<std::ptrdiff_t>(first), count, Page::lost);
  lost_pages_ += count;
}

Result<File_descriptor> Shared_arena::descriptor() const {
  File_descriptor copy(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return last_error();
  return copy;
}

// ---------------------------------------------------------------- a peer's memory

Result<Shared_view*> Shared_view::open(File_descriptor fd, std::uint64_t size,
                                       std::function<void(std::uint32_t)> give_back) {
  int const seals = ::fcntl(fd.get(), F_GET_SEALS);
  struct stat status {};
  if (size == 0 || size > shared_memory_bytes_max || seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
      ::fstat(fd.get(), &status) != 0 || static_cast<std::uint64_t>(status.st_size) < size)
    return Errc::bad_request;
  void* const base = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return last_error();
  return new Shared_view(static_cast<std::byte*>(base), size, std::move(give_back));
}

Shared_view::Shared_view(std::byte* base, std::size_t size,
                         std::function<void(std::uint32_t)> give_back)
    : base_(base), size_(size), give_back_(std::move(give_back)) {}

Shared_view::~Shared_view() { ::munmap(base_, size_); }

void Shared_view::abandon() {
  give_back_ = nullptr;
  drop_user();
}

void Shared_view::drop_user() {
  if (--users_ == 0) delete this;
}

std::optional<Slice> Shared_view::find(Shared_reference const& reference) {
  if (reference.size == 0 || !in_bounds(reference.offset, reference.size, size_))
    return std::nullopt;
  auto* const lent = new Lent(base_ + reference.offset, reference.size, this);
  lent->ticket = reference.ticket;
  ++users_;
  return Slice(lent);
}

void Shared_view::unused(Block& block) {
  auto* const lent = static_cast<Lent*>(&block);
  std::uint32_t const ticket = lent->ticket;
  delete lent;
  if (give_back_) give_back_(ticket);
  drop_user();
}

// ---------------------------------------------------------------- the arena of a process

Payload_memory::~Payload_memory() {
  if (arena_ != nullptr) arena_->abandon();
}

std::optional<Slice> Payload_memory::take(std::size_t size) {
  if (size < shared_payload_bytes_min || size > size_) return std::nullopt;
  if (arena_ != nullptr && arena_->lost_bytes() > size_ / 2)
    std::exchange(arena_, nullptr)->abandon();
  if (arena_ == nullptr) {
    auto const made = Shared_arena::make(size_);
    if (!made) {
      size_ = 0;  // it would fail each time: payloads are copied
      return std::nullopt;
    }
    arena_ = made.value();
    ++generation_;
  }
  return arena_->take(size);
}

}  // namespace pstorage
