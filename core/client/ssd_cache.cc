#include "core/client/ssd_cache.h"

#include <algorithm>
#include <cstring>

#include "core/bytes.h"
#include "core/crc32c.h"
#include "core/mutant.h"

namespace pstorage::client {
namespace {

constexpr std::uint64_t block_size = 4096;
constexpr std::uint64_t header_bytes = 4096;
constexpr std::size_t text_max = 64;
constexpr std::size_t load_bytes = 1u << 20;

struct Header {
  std::array<char, 8> magic{'P', 'S', 'T', 'C', 'A', 'C', 'H', 'E'};
  std::uint32_t version = 1;
  std::uint32_t is_clean = 0;
  std::uint64_t slots = 0;
  std::array<char, text_max> cluster_uuid{};
  std::array<char, text_max> boot_id{};
  std::uint32_t reserved = 0;
  std::uint32_t crc = 0;  // of this header with 0 here
  bool operator==(Header const&) const = default;
};
static_assert(sizeof(Header) == 160);

std::array<char, text_max> text_of(std::string const& text) {
  std::array<char, text_max> field{};
  std::copy_n(text.begin(), std::min(text.size(), text_max - 1), field.begin());
  return field;
}

template <typename T>
std::uint32_t crc_of(T value) {
  value.crc = 0;
  return crc32c(std::as_bytes(std::span(&value, 1)));
}

template <typename T>
std::vector<std::byte> bytes_of(T& value) {
  value.crc = crc_of(value);
  std::vector<std::byte> bytes(sizeof(T));
  store_le(bytes.data(), value);
  return bytes;
}

/// `count` records from `offset` on. Those that are damaged are as if they were not there.
template <typename T>
Result<void> load_records(File& file, std::uint64_t offset, std::size_t count,
                          std::vector<T>& records) {
  std::vector<std::byte> buffer;
  std::size_t const at_once = load_bytes / sizeof(T);
  for (std::size_t done = 0; done < count; done += at_once) {
    auto const now = std::min(at_once, count - done);
    buffer.resize(now * sizeof(T));
    if (auto const read = file.read(offset + done * sizeof(T), buffer); !read) return read;
    for (std::size_t i = 0; i < now; ++i) {
      auto const record = load_le<T>(buffer.data() + i * sizeof(T));
      if (record.key != 0 && record.crc == crc_of(record)) records[done + i] = record;
    }
  }
  return success();
}

}  // namespace

Ssd_cache::Ssd_cache(std::unique_ptr<File> file, Ssd_cache_options options, Log& log)
    : file_(std::move(file)),
      options_(std::move(options)),
      log_(log),
      entries_(options_.size_bytes / slot_bytes),
      recent_(entries_.size()),
      files_(files_max) {
  static_assert(sizeof(Entry) == 88 && sizeof(File_entry) == 32);
}

Outcome<std::unique_ptr<Ssd_cache>> Ssd_cache::open(std::unique_ptr<File> file,
                                                    Ssd_cache_options options, Log& log) {
  if (options.size_bytes < slot_bytes)
    return failure(Errc::bad_request, "a read cache needs at least 64 KiB");
  std::unique_ptr<Ssd_cache> cache(new Ssd_cache(std::move(file), std::move(options), log));
  auto loaded = cache->load();
  // Whatever happens from here on: without a clean end only the same start of the machine finds it.
  if (loaded) loaded = cache->store_header(false);
  if (loaded) loaded = cache->file_->sync();
  if (!loaded) return failure(loaded.error(), "the read cache: " + loaded.error().message());
  for (std::uint32_t i = 0; i < cache->entries_.size(); ++i) {
    auto const& entry = cache->entries_[i];
    if (entry.key == 0)
      cache->free_.push_back(i);
    else
      cache->places_[{entry.key, entry.slot}] = i;
    cache->last_key_ = std::max(cache->last_key_, entry.key);
  }
  for (auto const& known : cache->files_) {
    cache->last_key_ = std::max(cache->last_key_, known.key);
    cache->last_use_ = std::max(cache->last_use_, known.used);
  }
  return cache;
}

std::uint64_t Ssd_cache::entry_offset(std::uint64_t position) const {
  return header_bytes + files_max * sizeof(File_entry) + position * sizeof(Entry);
}

std::uint64_t Ssd_cache::data_offset(std::uint64_t position) const {
  auto const begin = (entry_offset(slots()) + block_size - 1) / block_size * block_size;
  return begin + position * slot_bytes;
}

Result<void> Ssd_cache::load() {
  std::vector<std::byte> bytes(sizeof(Header));
  if (auto const read = file_->read(0, bytes); !read) return read;
  auto const found = load_le<Header>(bytes.data());
  Header wanted;
  wanted.slots = slots();
  wanted.cluster_uuid = text_of(options_.cluster_uuid);
  wanted.boot_id = found.is_clean != 0 ? found.boot_id : text_of(options_.boot_id);
  wanted.is_clean = found.is_clean;
  wanted.crc = crc_of(wanted);
  if (found != wanted) return make();
  if (auto const read = load_records(*file_, header_bytes, files_max, files_); !read) return read;
  return load_records(*file_, entry_offset(0), entries_.size(), entries_);
}

Result<void> Ssd_cache::make() {
  if (auto const cut = file_->truncate(0); !cut) return cut;
  return file_->truncate(data_offset(slots()));
}

Result<void> Ssd_cache::store_header(bool is_clean) {
  Header header;
  header.is_clean = is_clean ? 1 : 0;
  header.slots = slots();
  header.cluster_uuid = text_of(options_.cluster_uuid);
  header.boot_id = text_of(options_.boot_id);
  return file_->write(0, bytes_of(header));
}

void Ssd_cache::fail(Errc why) {
  if (!std::exchange(is_on_, false)) return;
  places_.clear();
  log_.error("the read cache is switched off: its disk fails; reads go on without it",
             {{"reason", std::string(message_of(why))}});
  // Nobody may trust what could not be brought up to date.
  static_cast<void>(file_->truncate(0));
}

void Ssd_cache::store(std::uint64_t position) {
  auto const written = file_->write(entry_offset(position), bytes_of(entries_[position]));
  if (!written) fail(errc_of(written.error()));
}

void Ssd_cache::store_file(std::size_t number) {
  auto const offset = header_bytes + number * sizeof(File_entry);
  auto const written = file_->write(offset, bytes_of(files_[number]));
  if (!written) fail(errc_of(written.error()));
}

Cache_key Ssd_cache::file_opened(File_id file, Epoch previous, Epoch now) {
  std::size_t number = 0;
  for (std::size_t i = 0; i < files_.size() && files_[number].file != file; ++i) {
    // A free one, or the one that was not used for the longest time.
    if (files_[i].file == file || files_[i].used < files_[number].used) number = i;
  }
  auto& known = files_[number];
  bool const is_true = known.file == file &&
                       ((previous && known.epoch == previous) || PS_MUTANT(believe_an_old_cache));
  known.file = file;
  known.epoch = now;
  known.used = ++last_use_;
  if (!is_true) known.key = ++last_key_;
  store_file(number);
  return is_on_ ? known.key : 0;
}

/// Of [first, end) in blocks; nothing unless all of it is there.
std::optional<std::vector<Ssd_cache::Part>> Ssd_cache::parts_of(Cache_key key, std::uint64_t first,
                                                                std::uint64_t end) const {
  std::vector<Part> parts;
  for (auto block = first; block < end;) {
    auto const place = places_.find({key, block / slot_blocks});
    if (place == places_.end()) return std::nullopt;
    auto const in_slot = block % slot_blocks;
    auto const blocks = std::min(end - block, slot_blocks - in_slot);
    auto const mask = ((1u << blocks) - 1) << in_slot;
    if ((entries_[place->second].valid & mask) != mask) return std::nullopt;
    parts.push_back({place->second, in_slot, blocks});
    block += blocks;
  }
  return parts;
}

bool Ssd_cache::has(Cache_key key, std::uint64_t offset, std::uint64_t length) const {
  if (length == 0) return false;
  auto const end = (offset + length + block_size - 1) / block_size;
  return parts_of(key, offset / block_size, end).has_value();
}

std::uint32_t Ssd_cache::seed(Entry const& entry, std::uint64_t block) {
  std::array<std::uint64_t, 3> const place{entry.key, entry.slot, block};
  return crc32c(std::as_bytes(std::span(place)));
}

bool Ssd_cache::check(std::vector<Part> const& parts, std::vector<Entry> const& entries,
                      Slice& data) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto const& part = parts[i];
    for (auto block = part.first_block; block < part.first_block + part.blocks; ++block) {
      auto const bytes = data.bytes().subspan(at, block_size);
      at += block_size;
      if (crc32c(bytes, seed(entries[i], block)) == entries[i].crcs[block]) continue;
      auto const& now = entries_[part.position];
      bool const was_reused = now.key != entries[i].key || now.slot != entries[i].slot ||
                              now.crcs[block] != entries[i].crcs[block];
      if (!was_reused && is_on_) {
        ++counters_.damaged;
        log_.warn("a block of the read cache is damaged: read from the cluster",
                  {{"slot", std::to_string(part.position)}});
        empty_slot(part.position);
      }
      return false;
    }
  }
  return true;
}

void Ssd_cache::read(Cache_key key, std::uint64_t offset, std::uint64_t length, Cached_done done) {
  struct Reading {
    std::vector<Part> parts;
    std::vector<Entry> entries;  // as they were at the beginning
    Slice data;
    std::size_t left = 1;
    bool has_failed = false;
    Cached_done done;
  };
  auto const first = offset / block_size;
  auto const end = (offset + length + block_size - 1) / block_size;
  auto parts = parts_of(key, first, end);
  if (!parts || !is_on_) {
    ++counters_.misses;
    return done(std::nullopt);
  }
  auto const reading = std::make_shared<Reading>();
  reading->parts = std::move(*parts);
  reading->data = Slice::allocate((end - first) * block_size);
  reading->done = std::move(done);
  auto const ended = [this, reading, skip = offset % block_size,
                      length](Result<void> const& result) {
    reading->has_failed = reading->has_failed || !result;
    if (!result) fail(errc_of(result.error()));
    if (--reading->left != 0) return;
    bool const is_good =
        !reading->has_failed && check(reading->parts, reading->entries, reading->data);
    ++(is_good ? counters_.hits : counters_.misses);
    if (!is_good) return reading->done(std::nullopt);
    reading->done(reading->data.part(skip, length));
  };
  std::size_t at = 0;
  for (auto const& part : reading->parts) {
    reading->entries.push_back(entries_[part.position]);
    recent_[part.position] = true;
  }
  for (auto const& part : reading->parts) {
    auto const from = data_offset(part.position) + part.first_block * block_size;
    auto const to = reading->data.mutable_bytes().subspan(at, part.blocks * block_size);
    at += to.size();
    auto const cached = file_->read_cached(from, to);
    if (cached || errc_of(cached.error()) != Errc::would_block) {
      if (!cached) reading->has_failed = true, fail(errc_of(cached.error()));
      continue;
    }
    ++reading->left;
    file_->read_async(from, to, ended);
  }
  ended(success());
}

void Ssd_cache::empty_slot(std::uint32_t position) {
  auto& entry = entries_[position];
  if (entry.key == 0) return;
  places_.erase({entry.key, entry.slot});
  entry = {};
  free_.push_back(position);
  store(position);
}

/// The clock: what was used since the hand was there last gets another round.
std::uint32_t Ssd_cache::take_slot() {
  while (free_.empty()) {
    auto const position = static_cast<std::uint32_t>(hand_);
    hand_ = (hand_ + 1) % slots();
    if (recent_[position])
      recent_[position] = false;
    else
      empty_slot(position);
  }
  auto const position = free_.back();
  free_.pop_back();
  return position;
}

void Ssd_cache::fill(Cache_key key, std::uint64_t offset, std::vector<Slice> const& data) {
  if (!is_on_ || key == 0) return;
  std::vector<std::byte> whole;  // of one slot
  std::uint64_t at = offset;
  auto const flush = [&] {
    if (whole.empty()) return;
    auto const begin = at - whole.size();
    auto const first = (begin + block_size - 1) / block_size;
    auto const end = at / block_size;
    if (first < end) {
      auto const blocks =
          Bytes(whole).subspan(first * block_size - begin, (end - first) * block_size);
      fill_blocks(key, first / slot_blocks, first % slot_blocks, blocks);
    }
    whole.clear();
  };
  for (Slice const& part : data) {
    for (std::size_t done = 0; done < part.size();) {
      auto const take = std::min<std::uint64_t>(part.size() - done, slot_bytes - at % slot_bytes);
      auto const bytes = part.bytes().subspan(done, take);
      whole.insert(whole.end(), bytes.begin(), bytes.end());
      done += take;
      at += take;
      if (at % slot_bytes == 0) flush();
    }
  }
  flush();
}

void Ssd_cache::fill_blocks(Cache_key key, std::uint64_t slot, std::uint64_t first, Bytes blocks) {
  auto place = places_.find({key, slot});
  if (place == places_.end()) {
    auto const position = take_slot();
    if (!is_on_) return;
    entries_[position].key = key;
    entries_[position].slot = slot;
    place = places_.emplace(Place{key, slot}, position).first;
  }
  auto const position = place->second;
  auto& entry = entries_[position];
  auto const written = file_->write(data_offset(position) + first * block_size, blocks);
  if (!written) return fail(errc_of(written.error()));
  for (std::size_t i = 0; i * block_size < blocks.size(); ++i) {
    auto const block = first + i;
    entry.valid |= 1u << block;
    entry.crcs[block] = crc32c(blocks.subspan(i * block_size, block_size), seed(entry, block));
  }
  recent_[position] = true;
  ++counters_.fills;
  store(position);
}

void Ssd_cache::forget(Cache_key key, std::uint64_t offset, std::uint64_t length) {
  if (!is_on_ || length == 0 || key == 0) return;
  auto const first = offset / block_size;
  auto const end = (offset + length + block_size - 1) / block_size;
  auto const first_slot = first / slot_blocks;
  auto const end_slot = (end + slot_blocks - 1) / slot_blocks;
  auto const forget_in = [&](std::uint64_t slot, std::uint32_t position) {
    auto& entry = entries_[position];
    for (std::uint64_t i = 0; i < slot_blocks; ++i) {
      auto const block = slot * slot_blocks + i;
      if (block >= first && block < end) entry.valid &= ~(1u << i);
    }
    if (entry.valid == 0) return empty_slot(position);
    store(position);
  };
  if (end_slot - first_slot <= slots()) {
    for (auto slot = first_slot; slot < end_slot && !places_.empty(); ++slot) {
      auto const place = places_.find({key, slot});
      if (place != places_.end()) forget_in(slot, place->second);
    }
    return;
  }
  for (std::uint32_t position = 0; position < entries_.size(); ++position) {
    auto const& entry = entries_[position];
    if (entry.key == key && entry.slot >= first_slot && entry.slot < end_slot)
      forget_in(entry.slot, position);
  }
}

void Ssd_cache::close() {
  if (!is_on_) return;
  auto closed = file_->sync();
  if (closed) closed = store_header(true);
  if (closed) closed = file_->sync();
  if (!closed) fail(errc_of(closed.error()));
}

}  // namespace pstorage::client
