// Virtual_disk: conversions between versions and formats.
#include <algorithm>
#include <cstring>

#include "blockdev/ploop/create.h"
#include "blockdev/ploop/virtual_disk.h"

namespace pstorage::ploop {
namespace {

Failure failed(std::string const& path, std::string const& what, std::error_code const& code) {
  return failure(code, path + ": cannot " + what + ": " + code.message());
}

constexpr std::uint64_t piece_bytes = 1u << 20;

/// Copies [0, bytes) of `from`, durably.
Result<void> copy_head(Blocking_store& from, Blocking_store& to, std::uint64_t bytes) {
  if (to.size_bytes() < bytes) PS_CHECK(to.extend(bytes));
  for (std::uint64_t at = 0; at < bytes; at += piece_bytes) {
    PS_TRY(auto piece, from.read(at, std::min(piece_bytes, bytes - at)));
    PS_CHECK(to.write(at, std::move(piece)));
  }
  return to.flush();
}

/// Writes the table of `backup` (old) into `image` as one of `next`. The first sector goes last: it
/// has the header, so that before it the image is still marked as being converted.
Result<void> write_table(Blocking_store& backup, Blocking_store& image, Header const& old,
                         Header const& next) {
  Slice first;
  for (std::uint64_t at = 0; at < old.bat_bytes(); at += piece_bytes) {
    PS_TRY(auto const read, backup.read(at, std::min(piece_bytes, old.bat_bytes() - at)));
    auto piece = Slice::copy_of(read.bytes());
    for (std::size_t i = at == 0 ? header_bytes : 0; i < piece.size(); i += 4) {
      auto const cluster = old.decode_entry(load_le<std::uint32_t>(piece.data() + i), UINT32_MAX);
      if (cluster == Header::bad_cluster) return Errc::corrupt;
      store_le(piece.data() + i, next.encode_entry(cluster));
    }
    std::size_t const skip = at == 0 ? std::min<std::size_t>(sector_bytes, piece.size()) : 0;
    if (at == 0) {
      encode_header(next, piece.mutable_bytes());
      first = piece.part(0, skip);
    }
    if (piece.size() > skip)
      PS_CHECK(image.write(at + skip, piece.part(skip, piece.size() - skip)));
  }
  PS_CHECK(image.flush());
  PS_CHECK(image.write(0, std::move(first)));
  return image.flush();
}

Outcome<Header> header_of(Blocking_store& store, std::string const& path) {
  auto const bytes = store.read(0, std::min<std::uint64_t>(header_bytes, store.size_bytes()));
  if (!bytes) return failed(path, "read", bytes.error());
  auto const header = decode_header(bytes.value().bytes());
  if (!header.has_value()) return failure(Errc::corrupt, path + ": " + header.error().text);
  if (header.value().bat_bytes() > store.size_bytes())
    return failure(Errc::corrupt, path + ": the file ends inside its block table");
  return header.value();
}

/// Marks the image as being converted once its table is safe in `backup`.
Outcome<void> begin_conversion(Image_directory& directory, std::string const& backup_name,
                               Blocking_store& image, Header header, std::string const& path) {
  PS_CHECK(directory.remove(backup_name));  // of a conversion that never began
  PS_TRY(auto backup, directory.create(backup_name));
  if (auto const copied = copy_head(image, backup, header.bat_bytes()); !copied)
    return failed(directory.path_of(backup_name), "write", copied.error());
  header.flags |= flag_converting;
  auto bytes = Slice::allocate(header_bytes);
  encode_header(header, bytes.mutable_bytes());
  if (auto const written = image.write(0, bytes); !written)
    return failed(path, "write", written.error());
  if (auto const flushed = image.flush(); !flushed) return failed(path, "flush", flushed.error());
  return success();
}

}  // namespace

Outcome<void> convert_image_version(Image_directory& directory, std::string const& file,
                                    Version version) {
  auto const path = directory.path_of(file);
  auto const backup_name = file + ".idx";
  PS_TRY(auto image, directory.open(file));
  PS_TRY(auto const found, header_of(image, path));
  bool const is_interrupted = (found.flags & flag_converting) != 0;
  if (!is_interrupted) {
    if (found.version == version) return directory.remove(backup_name);
    if (found.is_open())
      return failure(Errc::busy, path +
                                     ": it is marked as in use; 'pstorage-ploop check -d' "
                                     "repairs it if nobody has it open");
    auto const possible = make_header(version, found.cluster_bytes(), found.size_bytes());
    if (!possible.has_value())
      return failure(possible.error().code, path + ": " + possible.error().text);
    if (version == Version::v1 && image.size_bytes() / sector_bytes > 0xFFFFFFFF)
      return failure(Errc::too_large, path + ": the file is too large for version 1");
    PS_CHECK(begin_conversion(directory, backup_name, image, found, path));
  } else if (!directory.exists(backup_name)) {
    return failure(Errc::corrupt, path + ": a conversion was interrupted and its backup " +
                                      directory.path_of(backup_name) +
                                      " is missing; bring it back from where it was moved to");
  }
  PS_TRY(auto backup, directory.open(backup_name));
  PS_TRY(auto const old, header_of(backup, directory.path_of(backup_name)));
  auto next = old;
  next.version = version;
  next.flags &= ~flag_converting;
  next.extension_sector = 0;
  if (auto const written = write_table(backup, image, old, next); !written)
    return failed(path, "convert", written.error());
  return directory.remove(backup_name);
}

Outcome<void> Virtual_disk::convert_version(Version version) {
  for (auto const& delta : descriptor_.deltas())
    if (!delta.is_raw) PS_CHECK(convert_image_version(*directory_, delta.file, version));
  return success();
}

Outcome<void> Virtual_disk::preallocate(Progress const& progress) {
  PS_TRY(auto const top, need(descriptor_.top()));
  PS_TRY(auto delta, open_delta(top));
  PS_CHECK(delta.begin());
  auto zeros = Slice::allocate(delta.header().cluster_bytes());
  std::memset(zeros.data(), 0, zeros.size());
  for (std::uint32_t index = 0; index < delta.entries(); ++index) {
    if (!delta.has(index)) PS_CHECK(delta.write(index, zeros));
    progress(index + 1, delta.entries());
  }
  PS_CHECK(delta.finish());
  descriptor_.set_preallocated();
  return save();
}

Outcome<void> Virtual_disk::convert_format(bool to_raw, bool to_preallocated, Random& random,
                                           Progress const& progress) {
  if (descriptor_.deltas().size() != 1)
    return failure(Errc::refused, "the disk has snapshots; merge or delete them first");
  PS_TRY(auto const old, need(descriptor_.top()));
  if (old.is_raw != to_raw) {
    // Into a new file, which the descriptor then names: there is no moment without a whole disk.
    auto const file = old.file + "." + new_guid(random);
    PS_TRY(auto from, open_delta(old));
    PS_TRY(auto store, directory_->create(file));
    auto const bytes = from.header().cluster_bytes();
    PS_TRY(auto const header, make_header(Version::v2, bytes, from.header().size_bytes()));
    if (to_raw) {
      if (auto const extended = store.extend(header.size_bytes()); !extended)
        return failed(directory_->path_of(file), "extend", extended.error());
    } else {
      PS_CHECK(create_image(store, header, false));
    }
    PS_TRY(auto to,
           Offline_delta::open(std::move(store), directory_->path_of(file), to_raw ? bytes : 0));
    PS_CHECK(to.begin());
    PS_CHECK(copy_into(from, to, !to_raw, progress));
    PS_CHECK(to.finish());
    descriptor_.set_file(old.guid, file, to_raw);
    PS_CHECK(save());
    PS_CHECK(directory_->remove(old.file));
  }
  if (to_preallocated) return preallocate(progress);
  return success();
}

}  // namespace pstorage::ploop
