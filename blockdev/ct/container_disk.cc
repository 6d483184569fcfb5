#include "blockdev/ct/container_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

#include "blockdev/ct/tools.h"

namespace pstorage::ct {
namespace {

constexpr std::size_t piece_bytes = 1u << 20;
constexpr std::size_t in_flight_max = 16;
constexpr std::size_t extents_a_look = 4096;
constexpr Duration patience = std::chrono::seconds(12);

Failure system_failure(std::string const& what) {
  std::error_code const code(errno, std::system_category());
  return failure(code, what + ": " + code.message());
}

}  // namespace

Outcome<std::unique_ptr<Local_image>> Local_image::make(std::uint64_t size_bytes,
                                                        std::string const& directory) {
  char const* const folder = ::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/var/tmp") + "/pstorage-ct-XXXXXX";
  int const fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return system_failure("cannot make a temporary file " + path);
  std::unique_ptr<Local_image> image(new Local_image(fd, path));
  if (::ftruncate(fd, static_cast<off_t>(size_bytes)) != 0)
    return system_failure("cannot make a temporary file of that size");
  // Packed: what describes the groups lies together, so it takes few clusters and chunks. Fresh
  // tables need no writing: what was never written reads as zeros.
  std::vector<std::string> command = {
      "mke2fs", "-q",   "-F",
      "-t",     "ext4", "-m",
      "0",      "-E",   "packed_meta_blocks=1,lazy_itable_init=1,lazy_journal_init=1,discard"};
  if (!directory.empty()) {
    command.push_back("-d");
    command.push_back(directory);
  }
  command.push_back(path);
  PS_CHECK(run(command));
  return image;
}

Local_image::~Local_image() {
  ::close(fd_);
  ::unlink(path_.c_str());
}

Container_disk::Container_disk(volume::Tool_session& session)
    : session_(session),
      turn_(session.turn()),
      opener_(session.cluster(), session.executor(), clock_, log_) {}

bool Container_disk::turn() {
  if (!turn_()) return false;
  opener_.on_tick();
  return true;
}

Outcome<std::unique_ptr<Container_disk>> Container_disk::open(volume::Tool_session& session,
                                                              std::string const& name) {
  std::unique_ptr<Container_disk> disk(new Container_disk(session));
  auto const answer = std::make_shared<std::optional<Outcome<void>>>();
  auto* const place = disk.get();
  disk->opener_.open(name, patience, [place, answer](Outcome<std::unique_ptr<client::Volume>> one) {
    if (one.has_error()) {
      answer->emplace(one.error());
      return;
    }
    place->volume_ = std::move(one).value();
    answer->emplace(success());
  });
  while (!*answer)
    if (!disk->turn()) return failure(Errc::timed_out, "the cluster does not answer");
  if ((*answer)->has_error()) return (*answer)->error();
  return disk;
}

Outcome<void> Container_disk::drain(std::size_t left) {
  while (in_flight_ > left)
    if (!turn()) return failure(Errc::timed_out, "the cluster does not answer");
  if (error_) return failure(error_, "cannot write to the volume: " + error_.message());
  return success();
}

Outcome<void> Container_disk::write(std::uint64_t offset, Slice data) {
  PS_CHECK(drain(in_flight_max - 1));
  ++in_flight_;
  volume_->write(offset, {std::move(data)}, false, [this](Result<void> const& written) {
    --in_flight_;
    if (written.has_error()) error_ = written.error();
  });
  return success();
}

Outcome<std::uint64_t> Container_disk::fill_from(int fd) {
  std::uint64_t copied = 0;
  auto const size = static_cast<off_t>(volume_->size_bytes());
  for (off_t at = 0; at < size;) {
    off_t const data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    off_t const hole = data < 0 ? data : ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return system_failure("cannot find the content of the temporary image");
    off_t const end = std::min(hole, size);
    for (off_t from = data; from < end;) {
      auto const take = std::min<std::size_t>(piece_bytes, static_cast<std::size_t>(end - from));
      auto slice = Slice::allocate(take);
      if (::pread(fd, slice.data(), take, from) != static_cast<ssize_t>(take))
        return system_failure("cannot read the temporary image");
      PS_CHECK(write(static_cast<std::uint64_t>(from), std::move(slice)));
      from += static_cast<off_t>(take);
      copied += take;
    }
    at = hole;
  }
  PS_CHECK(drain(0));
  return copied;
}

Outcome<std::uint64_t> Container_disk::fill_from(Container_disk& source) {
  std::uint64_t copied = 0;
  auto const size = std::min(volume_->size_bytes(), source.volume_->size_bytes());
  for (std::uint64_t at = 0; at < size;) {
    auto const extents = ploop::wait_for_answer<Result<std::vector<client::Extent>>>(
        source.turn_, [&](client::Extents_done done) {
          source.volume_->extents(at, size - at, extents_a_look, std::move(done));
        });
    if (extents.has_error())
      return failure(extents.error(), "cannot read the source: " + extents.error().message());
    for (auto const& extent : extents.value()) {
      auto const end = at + extent.length;
      for (; at < end && !extent.hole;) {
        auto const take = std::min<std::uint64_t>(piece_bytes, end - at);
        auto data = ploop::wait_for_answer<Result<std::vector<Slice>>>(
            source.turn_,
            [&](client::Read_done done) { source.volume_->read(at, take, std::move(done)); });
        if (data.has_error())
          return failure(data.error(), "cannot read the source: " + data.error().message());
        auto place = at;
        for (auto& slice : data.value()) {
          auto const bytes = slice.size();
          PS_CHECK(write(place, std::move(slice)));
          place += bytes;
        }
        at += take;
        copied += take;
      }
      at = end;
    }
  }
  PS_CHECK(drain(0));
  return copied;
}

Outcome<void> Container_disk::close() {
  auto const closed = ploop::wait_for_answer<Result<void>>(
      turn_, [&](client::Done done) { volume_->close(std::move(done)); });
  session_.executor().defer([volume = std::shared_ptr<client::Volume>(std::move(volume_))] {});
  turn();
  if (closed.has_error())
    return failure(closed.error(), "cannot close the volume: " + closed.error().message());
  return success();
}

}  // namespace pstorage::ct
