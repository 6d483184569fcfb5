// Payloads that another process on this host reads where they lie: the sender's memory is a memfd
// whose descriptor goes over the unix socket once, and then a reference of 16 bytes stands for a
// payload. On the wire: core/format.md "Shared payloads".
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/buffer.h"
#include "core/disk/file_descriptor.h"
#include "core/net/message.h"
#include "core/result.h"

namespace pstorage {

/// Smaller payloads cost less copied than lent and given back.
inline constexpr std::size_t shared_payload_bytes_min = 64u << 10;
/// Largest memory that a peer may show.
inline constexpr std::uint64_t shared_memory_bytes_max = 256u << 20;

/// Memory of this process that peers may look at. Ends by itself when its owner has abandoned it
/// and nobody uses a slice of it any more. Thread: the owner's loop.
class Shared_arena final : public Block_keeper {
 public:
  /// Errors: the system's (memfd_create, mmap).
  static Result<Shared_arena*> make(std::size_t size);
  /// Its maker needs it no more.
  void abandon();
  Shared_arena(Shared_arena const&) = delete;
  Shared_arena& operator=(Shared_arena const&) = delete;

  /// `size` uninitialised bytes; nothing when there is no room. The lowest free ones, so that what
  /// is used stays in the caches.
  std::optional<Slice> take(std::size_t size);
  /// A peer that cannot be asked any more may look at `slice` for ever: its memory is not used
  /// again.
  void lose(Slice slice);
  std::size_t lost_bytes() const { return lost_pages_ * page_bytes; }
  std::size_t size() const { return size_; }
  std::uint64_t offset_of(Slice const& slice) const {
    return static_cast<std::uint64_t>(slice.data() - base_);
  }
  /// A descriptor of its own for a peer. Errors: the system's.
  Result<File_descriptor> descriptor() const;

 private:
  static constexpr std::size_t page_bytes = 64u << 10;
  enum class Page : unsigned char { free, used, lost };

  Shared_arena(File_descriptor fd, std::byte* base, std::size_t size);
  ~Shared_arena();
  void unused(Block& block) override;
  std::size_t page_of(Block& block) const {
    return static_cast<std::size_t>(block.data() - base_) / page_bytes;
  }
  static std::size_t pages_of(std::size_t bytes) { return (bytes + page_bytes - 1) / page_bytes; }
  void drop_user();

  File_descriptor fd_;
  std::byte* base_;
  std::size_t size_;
  std::vector<Page> pages_;
  std::deque<Block> blocks_;
  std::vector<Block*> free_blocks_;
  std::size_t lost_pages_ = 0;
  std::size_t users_ = 1;  // the maker and each slice's block
};

/// A peer's memory. Read only. Ends by itself as an arena does. Thread: the owner's loop.
class Shared_view final : public Block_keeper {
 public:
  /// Maps the memory behind `fd`. Errors: bad_request (it could become smaller than `size`, which
  /// would kill who reads it), the system's. `give_back` hears of tickets until abandon().
  static Result<Shared_view*> open(File_descriptor fd, std::uint64_t size,
                                   std::function<void(std::uint32_t ticket)> give_back);
  void abandon();
  Shared_view(Shared_view const&) = delete;
  Shared_view& operator=(Shared_view const&) = delete;

  /// What `reference` says; nothing when that lies outside.
  std::optional<Slice> find(Shared_reference const& reference);

 private:
  struct Lent : Block {
    using Block::Block;
    std::uint32_t ticket = 0;
  };
  Shared_view(std::byte* base, std::size_t size, std::function<void(std::uint32_t)> give_back);
  ~Shared_view();
  void unused(Block& block) override;
  void drop_user();

  std::byte* base_;
  std::size_t size_;
  std::function<void(std::uint32_t)> give_back_;
  std::size_t users_ = 1;
};

/// The arena of a process, made when it is first needed and replaced when half of it is lost.
class Payload_memory {
 public:
  /// `size`: bytes; 0: none.
  explicit Payload_memory(std::size_t size) : size_(size) {}
  ~Payload_memory();
  Payload_memory(Payload_memory const&) = delete;
  Payload_memory& operator=(Payload_memory const&) = delete;

  /// Nothing: smaller than shared_payload_bytes_min, no room, or no such memory on this system.
  std::optional<Slice> take(std::size_t size);
  /// The arena if `slice` is part of the present one; else nullptr.
  Shared_arena* arena_of(Slice const& slice) const {
    return slice.is_kept_by(arena_) ? arena_ : nullptr;
  }
  /// Changes with the arena. Never 0.
  std::uint64_t generation() const { return generation_; }

 private:
  std::size_t size_;
  Shared_arena* arena_ = nullptr;
  std::uint64_t generation_ = 1;
};

}  // namespace pstorage
