#include "blockdev/ploop/check.h"

#include <algorithm>
#include <unordered_set>

namespace pstorage::ploop {
namespace {

constexpr std::uint64_t piece_bytes = 1u << 20;

class Checker {
 public:
  Checker(Blocking_store& store, Check_options options) : store_(store), options_(options) {}

  Outcome<Check_report> run() {
    PS_CHECK(read_header());
    file_clusters_ = store_.size_bytes() / header().cluster_bytes();
    PS_CHECK(look_at_entries());
    if (options_.may_fix_fatal && !options_.is_read_only) PS_CHECK(give_copies());
    look_at_space();
    PS_CHECK(repair());
    return std::move(report_);
  }

 private:
  Header& header() { return report_.header; }
  static Failure failed(std::string const& what, std::error_code const& code) {
    return failure(code, "cannot " + what + " the image: " + code.message());
  }

  Outcome<void> read_header() {
    auto const bytes = store_.read(0, std::min<std::uint64_t>(header_bytes, store_.size_bytes()));
    if (!bytes) return failed("read", bytes.error());
    PS_TRY(header(), decode_header(bytes.value().bytes()));
    if (header().offset_of(header().first_cluster) > store_.size_bytes())
      return failure(Errc::corrupt, "the file ends inside its block table");
    if ((header().flags & flag_converting) != 0)
      return failure(Errc::corrupt,
                     "a conversion of its version was interrupted; run 'pstorage-ploop convert "
                     "-v' again");
    report_.is_in_use = header().is_open();
    return success();
  }

  void add(Check_fault fault) {
    if (fault.is_fatal && !fault.is_fixed) ++report_.fatal;
    if (report_.faults.size() < Check_report::faults_max)
      report_.faults.push_back(std::move(fault));
  }

  Outcome<void> look_at_entries() {
    for (std::uint64_t from = header_bytes; from < header().bat_bytes();) {
      auto const length = std::min(piece_bytes - from % piece_bytes, header().bat_bytes() - from);
      auto piece = store_.read(from, length);
      if (!piece) return failed("read", piece.error());
      auto const first = static_cast<std::uint32_t>((from - header_bytes) / 4);
      if (look_at_piece(first, piece.value())) {
        if (auto const written = store_.write(from, piece.value()); !written)
          return failed("write", written.error());
      }
      from += length;
    }
    return success();
  }

  /// True: entries were cleared in `piece`.
  bool look_at_piece(std::uint32_t first, Slice& piece) {
    bool changed = false;
    for (std::uint32_t i = 0; i < piece.size() / 4; ++i) {
      auto* const at = piece.data() + std::size_t{i} * 4;
      auto const entry = load_le<std::uint32_t>(at);
      auto const cluster = header().decode_entry(entry, file_clusters_);
      if (cluster == 0) continue;
      if (cluster == Header::bad_cluster) {
        bool const fixes = options_.may_fix_fatal && !options_.is_read_only;
        if (fixes) store_le(at, std::uint32_t{0});
        changed = changed || fixes;
        add({true, fixes, bad_entry_text(first + i, entry)});
        continue;
      }
      ++report_.allocated;
      if (!use(cluster)) twice_.push_back({first + i, cluster});
      used_end_ = std::max(used_end_, cluster + 1);
    }
    return changed;
  }

  std::string bad_entry_text(std::uint32_t index, std::uint32_t entry) {
    std::string why = "is beyond the end of the file";
    if (header().version == Version::v1 && entry % header().cluster_sectors != 0)
      why = "is not aligned to a cluster";
    else if (header().decode_entry(entry, UINT64_MAX) == Header::bad_cluster)
      why = "is inside header and block table";
    return "Block table entry " + std::to_string(index) + ": " + std::to_string(entry) + " " + why;
  }

  /// Notes that `cluster` is used; false: it was already. A bitmap for dense files, else a set: the
  /// memory follows the BAT, not the size of a sparse file.
  bool use(std::uint32_t cluster) {
    if (cluster / 64 <= header().entries) {
      if (cluster >= dense_.size()) dense_.resize(std::max<std::size_t>(cluster + 1, 1024));
      if (dense_[cluster]) return false;
      dense_[cluster] = true;
      ++distinct_;
      return true;
    }
    bool const is_new = sparse_.insert(cluster).second;
    distinct_ += is_new ? 1 : 0;
    return is_new;
  }

  /// A cluster that two entries use: the second gets a copy of its own.
  Outcome<void> give_copies() {
    for (auto& twice : twice_) {
      auto const target = std::max(used_end_, header().first_cluster);
      auto const bytes = header().cluster_bytes();
      auto const data = store_.read(header().offset_of(twice.cluster), bytes);
      if (!data) return failed("read", data.error());
      auto const end = header().offset_of(target) + bytes;
      if (auto const cut = store_.truncate(header().offset_of(target)); !cut)
        return failed("truncate", cut.error());
      if (auto const extended = store_.extend(end); !extended)
        return failed("extend", extended.error());
      if (auto const written = store_.write(header().offset_of(target), data.value()); !written)
        return failed("write", written.error());
      if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
      auto entry = Slice::allocate(4);
      store_le(entry.data(), header().encode_entry(target));
      auto const place = header_bytes + std::uint64_t{twice.index} * 4;
      if (auto const written = store_.write(place, entry); !written)
        return failed("write", written.error());
      twice.is_fixed = true;
      used_end_ = target + 1;
      use(target);
    }
    return success();
  }

  void look_at_space() {
    for (auto const& twice : twice_)
      add({true, twice.is_fixed,
           "Cluster " + std::to_string(twice.cluster) + " is used more than once, by entry " +
               std::to_string(twice.index)});
    used_end_ = std::max(used_end_, header().first_cluster);
    report_.holes = used_end_ - header().first_cluster - distinct_;
    if (report_.holes > 0)
      add({false, false, std::to_string(report_.holes) + " clusters of the file are unused"});
    auto const used_bytes = header().offset_of(used_end_);
    if (store_.size_bytes() > used_bytes) report_.tail_bytes = store_.size_bytes() - used_bytes;
    report_.has_wrong_empty_flag = (header().flags & flag_empty) != 0 && report_.allocated > 0;
  }

  Outcome<void> repair() {
    bool const changes = !options_.is_read_only;
    bool const is_sound = report_.fatal == 0;
    if (report_.tail_bytes > 0) {
      bool const trims = changes && is_sound;
      if (trims)
        if (auto const cut = store_.truncate(header().offset_of(used_end_)); !cut)
          return failed("truncate", cut.error());
      add({false, trims, std::to_string(report_.tail_bytes) + " bytes behind the last cluster"});
    }
    if (report_.has_wrong_empty_flag)
      add({false, changes && is_sound, "The flag 'empty' is set, but there is data"});
    if (report_.is_in_use)
      add({false, changes && is_sound && options_.drop_in_use, "The image is marked as in use"});
    if (!changes || !is_sound) return success();
    // What was repaired is durable before the header says that all is well.
    if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
    return rewrite_header();
  }

  Outcome<void> rewrite_header() {
    auto const before = header();
    if (report_.allocated > 0) header().flags &= ~flag_empty;
    report_.has_wrong_empty_flag = false;
    if (report_.is_in_use && options_.drop_in_use) {
      header().in_use = in_use_none;
      header().extension_sector = 0;  // its bitmaps miss what was written before the crash
      report_.is_in_use = false;
    }
    if (header().flags == before.flags && header().in_use == before.in_use) return success();
    auto bytes = Slice::allocate(header_bytes);
    encode_header(header(), bytes.mutable_bytes());
    if (auto const written = store_.write(0, bytes); !written)
      return failed("write", written.error());
    if (auto const flushed = store_.flush(); !flushed) return failed("flush", flushed.error());
    return success();
  }

  struct Twice {
    std::uint32_t index;
    std::uint32_t cluster;
    bool is_fixed = false;
  };

  Blocking_store& store_;
  Check_options options_;
  Check_report report_;
  std::uint64_t file_clusters_ = 0;
  std::uint32_t used_end_ = 0;
  std::uint64_t distinct_ = 0;
  std::vector<bool> dense_;
  std::unordered_set<std::uint32_t> sparse_;
  std::vector<Twice> twice_;
};

}  // namespace

Outcome<Check_report> check_image(Blocking_store& store, Check_options options) {
  return Checker(store, options).run();
}

}  // namespace pstorage::ploop
