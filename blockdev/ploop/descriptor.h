// DiskDescriptor.xml: which deltas a virtual disk has, and how they follow each other. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/ploop/format.h"
#include "core/env/random.h"

namespace pstorage::ploop {

inline constexpr char const* top_guid = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
inline constexpr char const* no_guid = "{00000000-0000-0000-0000-000000000000}";
inline constexpr std::size_t descriptor_bytes_max = 1u << 20;
inline constexpr std::size_t deltas_max = 1024;  // of one disk, in all branches

/// Is it "{8-4-4-4-12}" of hex digits? Either case.
bool is_guid(std::string const& text);
std::string new_guid(Random& random);

/// One delta. GUIDs are in lower case.
struct Delta {
  std::string guid;
  std::string parent;  // no_guid: it is the base
  std::string file;    // as written in the XML
  bool is_raw = false;
  std::string name;     // of the snapshot, for people; empty: it has none. Not in ploop's files.
  std::string created;  // UTC, "2026-01-31 12:34:56"; empty: unknown
};

/// The file, parsed and checked: exactly one base, every chain ends there, as many images as
/// snapshots, files with names. What is unknown in it stays as it is. Movable.
class Descriptor {
 public:
  /// Errors: corrupt, with the element that is wrong.
  static Outcome<Descriptor> parse(std::string const& text);
  /// Of a new disk with one delta.
  static Descriptor make(std::uint64_t size_sectors, std::uint32_t cluster_sectors,
                         std::string const& file, bool is_raw, bool is_preallocated);
  Descriptor(Descriptor&&) noexcept;
  Descriptor& operator=(Descriptor&&) noexcept;
  ~Descriptor();

  std::string text() const;
  std::uint64_t size_sectors() const;
  std::uint32_t cluster_sectors() const;
  /// GUID of the delta that takes the writes.
  std::string const& top() const { return top_; }
  /// In the order of the file.
  std::vector<Delta> const& deltas() const { return deltas_; }
  /// nullptr: there is none.
  Delta const* find(std::string const& guid) const;
  std::vector<Delta const*> children_of(std::string const& guid) const;
  /// From the base to `guid`, which exists.
  std::vector<Delta> chain_to(std::string const& guid) const;

  void set_size(std::uint64_t size_sectors);
  void set_preallocated();
  /// The top becomes snapshot `snapshot`; above it comes an empty top in `file`.
  void push_top(std::string const& snapshot, std::string const& file, std::string const& name = {},
                std::string const& created = {});
  /// A new top in `file` above `parent`, instead of the present one.
  void replace_top(std::string const& parent, std::string const& file);
  /// A delta without children, not the base.
  void remove(std::string const& guid);
  /// `child` was merged into its parent: the parent's file gets the child's GUID and children.
  void merge_down(std::string const& child);
  /// `parent` was merged into its only child, which keeps its GUID and file.
  void merge_up(std::string const& parent);
  void set_file(std::string const& guid, std::string const& file, bool is_raw);

 private:
  struct Document;  // of the XML library
  explicit Descriptor(std::unique_ptr<Document> document);
  Outcome<void> read();
  Outcome<void> check_tree() const;

  std::unique_ptr<Document> document_;
  std::string top_;
  std::vector<Delta> deltas_;
};

}  // namespace pstorage::ploop
