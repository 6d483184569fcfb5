#include "cs/journal_move.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "cs/journal.h"

namespace pstorage::cs {
namespace {

// Says, from before the first step to after the last, which files a move is about.
constexpr char const* intent_name = "journal.move";
constexpr std::uint64_t intent_bytes_max = 16u << 10;

struct Intent {
  std::string from;
  std::string to;
  std::uint64_t salt = 0;  // of the new journal
};

Failure cannot(std::string const& what, std::error_code error) {
  return failure(error, "cannot " + what + ": " + error.message());
}

Result<void> write_intent(Disk& repository, Intent const& intent) {
  nlohmann::json const json = {{"from", intent.from}, {"to", intent.to}, {"salt", intent.salt}};
  auto const text = json.dump();
  PS_TRY(auto const file, repository.open(intent_name, Open_mode{.create = true}));
  PS_CHECK(file->truncate(0));
  PS_CHECK(file->write(0, as_bytes(text)));
  PS_CHECK(file->sync());
  return repository.sync_directory("");
}

/// One that was cut off while it was being written is as good as none: nothing followed it.
Result<std::optional<Intent>> read_intent(Disk& repository) {
  PS_TRY(auto const file, repository.open(intent_name, {}));
  PS_TRY(auto const size, file->size());
  std::string text(std::min(size, intent_bytes_max), '\0');
  PS_CHECK(file->read(0, {reinterpret_cast<std::byte*>(text.data()), text.size()}));
  auto const json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("salt")) return std::optional<Intent>{};
  return std::optional<Intent>(
      {json.value("from", ""), json.value("to", ""), json.value("salt", std::uint64_t{0})});
}

Result<void> remove_intent(Disk& repository) {
  PS_CHECK(repository.remove(intent_name));
  return repository.sync_directory("");
}

/// Is it the journal with `salt`, or one that was not finished? Anything else is somebody else's.
bool is_ours(Disk& disk, std::string const& name, std::uint64_t salt) {
  auto file = disk.open(name, {});
  if (file.has_error()) return false;
  std::vector<std::byte> head(2 * super_bytes);
  if (file.value()->read(0, head).has_error()) return false;
  bool const is_blank =
      std::all_of(head.begin(), head.end(), [](std::byte byte) { return byte == std::byte{0}; });
  Journal journal(std::move(file).value());
  return is_blank || journal.open(salt).has_value();
}

Outcome<void> remove_journal(std::string const& path, std::uint64_t salt,
                             Open_journal_directory const& open) {
  PS_TRY(auto const disk, open(path));
  auto const name = journal_file_name(path);
  if (!disk->exists(name) || !is_ours(*disk, name, salt)) return success();
  auto removed = disk->remove(name);
  if (removed.has_value()) removed = disk->sync_directory("");
  if (removed.has_error()) return cannot("remove the journal " + path, removed.error());
  return success();
}

/// The super block of the present journal, when it has no work left.
Outcome<Journal_super> read_settled(Disk& disk, Repository_identity const& identity) {
  auto file = disk.open(journal_file_name(identity.journal), {});
  if (file.has_error()) return cannot("open the journal", file.error());
  Journal journal(std::move(file).value());
  auto const opened = journal.open(identity.salt);
  if (opened.has_error()) return cannot("read the journal", opened.error());
  if (journal.super().clean) return journal.super();
  return failure(Errc::busy,
                 "the journal holds writes that the chunk files do not have yet, because csd was "
                 "not stopped in order: start csd, stop it with SIGTERM, then try again");
}

Result<void> make_journal(Disk& disk, std::string const& name, Journal_move const& move,
                          std::uint64_t ring, Lsn first) {
  PS_TRY(auto const file, disk.open(name, Open_mode{.create = true, .exclusive = true}));
  auto const progress = [&](std::uint64_t done) {
    if (move.progress) move.progress(done, ring);
  };
  PS_CHECK(Journal::format(*file, ring, move.salt, progress, first));
  return disk.sync_directory("");
}

}  // namespace

std::string journal_file_name(std::string const& path) {
  return path.empty() ? "journal" : std::filesystem::path(path).filename().string();
}

Outcome<void> finish_journal_move(Disk& repository, Open_journal_directory const& open) {
  if (!repository.exists(intent_name)) return success();
  auto const intent = read_intent(repository);
  if (intent.has_error()) return cannot("read " + std::string(intent_name), intent.error());
  if (intent.value().has_value()) {
    PS_TRY(auto const identity, load_identity(repository));
    bool const has_moved = identity.salt == intent.value()->salt;
    // The old one belongs to this repository for sure; its salt is no longer known.
    if (has_moved) {
      PS_TRY(auto const disk, open(intent.value()->from));
      auto const name = journal_file_name(intent.value()->from);
      auto removed = disk->exists(name) ? disk->remove(name) : Result<void>(success());
      if (removed.has_value()) removed = disk->sync_directory("");
      if (removed.has_error()) return cannot("remove the old journal", removed.error());
    } else {
      PS_CHECK(remove_journal(intent.value()->to, intent.value()->salt, open));
    }
  }
  auto const removed = remove_intent(repository);
  if (removed.has_error()) return cannot("remove " + std::string(intent_name), removed.error());
  return success();
}

Outcome<void> move_journal(Disk& repository, Repository_identity& identity,
                           Journal_move const& move, Open_journal_directory const& open) {
  PS_CHECK(finish_journal_move(repository, open));
  PS_TRY(auto const from, open(identity.journal));
  PS_TRY(auto const to, open(move.to));
  PS_TRY(auto const super, read_settled(*from, identity));
  auto const name = journal_file_name(move.to);
  if (to->exists(name)) {
    return failure(Errc::exists, "the journal file '" + (move.to.empty() ? name : move.to) +
                                     "' exists already: it may belong to another chunk server");
  }
  auto const ring = move.ring_bytes != 0 ? move.ring_bytes : super.ring_bytes;
  // LSNs go on: chunk files carry the one that made them. A lap further, as after any start.
  Lsn const first = (super.tail / ring + 2) * ring;
  auto const noted = write_intent(repository, {identity.journal, move.to, move.salt});
  if (noted.has_error()) return cannot("write to the repository", noted.error());
  auto const made = make_journal(*to, name, move, ring, first);
  if (made.has_error()) {
    static_cast<void>(finish_journal_move(repository, open));  // the next attempt does it again
    return cannot("make the journal", made.error());
  }
  auto next = identity;
  next.journal = move.to;
  next.salt = move.salt;
  PS_CHECK(finish_repository(repository, next));
  identity = next;
  return finish_journal_move(repository, open);
}

}  // namespace pstorage::cs
