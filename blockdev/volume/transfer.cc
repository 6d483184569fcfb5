#include "blockdev/volume/transfer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "blockdev/cluster_provider.h"
#include "blockdev/nbd_server.h"
#include "blockdev/ploop/slices.h"
#include "blockdev/volume/child_process.h"
#include "blockdev/volume/transfer_source.h"
#include "core/disk/atomic_file.h"
#include "core/disk/file_descriptor.h"

namespace pstorage::volume {
namespace {

constexpr std::uint64_t piece_bytes = 1u << 20;
// So much is copied again at most after an interruption.
constexpr std::uint64_t note_every_bytes = 32u << 20;
constexpr std::uint64_t portion_min = 64u << 20;
constexpr std::uint64_t portion_max = 16ull << 30;
constexpr Duration portion_wanted = std::chrono::seconds(2);
constexpr std::size_t note_bytes_max = 16u << 10;
constexpr Duration turn_max = std::chrono::milliseconds(10);

bool is_uri(std::string const& where) {
  return where.starts_with("nbd:") || where.starts_with("nbd+") || where.starts_with("nbds");
}

Failure system_failure(std::string const& what) {
  std::error_code const code(errno, std::generic_category());
  return failure(code, what + ": " + code.message());
}

void wait_a_little() { std::this_thread::sleep_for(turn_max); }

/// Nothing else has such a beginning; raw disks begin with whatever the guest wrote.
std::string format_by_magic(std::string const& path) {
  File_descriptor const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 16> head{};
  if (!file || ::read(file.get(), head.data(), head.size()) < 8) return "raw";
  std::string_view const text(head.data(), head.size());
  if (text.starts_with("QFI\xfb")) return "qcow2";
  if (text.starts_with("KDMV")) return "vmdk";
  if (text.starts_with("vhdxfile")) return "vhdx";
  if (text.starts_with("conectix")) return "vpc";
  if (text == "WithoutFreeSpace" || text == "WithouFreSpacExt") return "parallels";
  return "raw";
}

Outcome<void> need(std::string const& program, std::string const& what) {
  if (has_program(program)) return success();
  return failure(Errc::refused, what + " needs " + program + ", which is not installed here");
}

std::string export_name(Volume_name const& name) {
  return name.snapshot.empty() ? name.name : name.name + "@" + name.snapshot;
}

/// The served volume, for programs that take URIs.
std::string uri_of(Volume_name const& name, std::string const& socket) {
  std::string escaped;
  for (char const c : export_name(name)) escaped += c == '@' ? "%40" : std::string(1, c);
  return "nbd+unix:///" + escaped + "?socket=" + socket;
}

/// A value in the image options of QEMU.
std::string quoted(std::string const& text) {
  std::string result;
  for (char const c : text) result += c == ',' ? ",," : std::string(1, c);
  return result;
}

/// The node below a window, in the image options of QEMU.
std::string of_volume(Volume_name const& name, std::string const& socket) {
  return "file.driver=nbd,file.server.type=unix,file.server.path=" + quoted(socket) +
         ",file.export=" + quoted(export_name(name));
}

std::string of_file(std::string const& path, std::string const& format) {
  return "file.driver=" + quoted(format) +
         ",file.file.driver=file,file.file.filename=" + quoted(path);
}

}  // namespace

Outcome<Outside> inspect_source(std::string const& where, std::string const& given) {
  Outside source{where, given, 0};
  if (is_uri(where)) {
    source.format = "nbd";
    PS_CHECK(need("nbdinfo", "reading from NBD"));
    PS_TRY(auto const size, run_program({"nbdinfo", "--size", where}, wait_a_little));
    source.size_bytes = std::strtoull(size.c_str(), nullptr, 10);
    return source;
  }
  std::error_code error;
  if (!std::filesystem::exists(where, error))
    return failure(Errc::not_found, "there is no file " + where);
  struct ::stat found {};
  if (::stat(where.c_str(), &found) != 0) return system_failure("cannot read " + where);
  source.modified_ns =
      std::int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + std::int64_t{found.st_mtim.tv_nsec};
  if (source.format.empty()) source.format = format_by_magic(where);
  if (source.format == "raw") {
    File_descriptor const file(::open(where.c_str(), O_RDONLY | O_CLOEXEC));
    auto const end = file ? ::lseek(file.get(), 0, SEEK_END) : -1;
    if (end < 0) return system_failure("cannot read " + where);
    source.size_bytes = static_cast<std::uint64_t>(end);
    return source;
  }
  PS_CHECK(need("qemu-img", "a " + source.format + " image"));
  PS_TRY(auto const text,
         run_program({"qemu-img", "info", "--output=json", "-f", source.format, where},
                     wait_a_little));
  auto const json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("virtual-size"))
    return failure(Errc::bad_request, "qemu-img does not say how large " + where + " is");
  source.size_bytes = json["virtual-size"].get<std::uint64_t>();
  return source;
}

Outcome<Outside> plan_target(std::string const& where, std::string const& given) {
  Outside target{where, given, 0};
  if (is_uri(where)) {
    target.format = "nbd";
    PS_CHECK(need("nbdcopy", "writing to NBD"));
    return target;
  }
  if (target.format.empty()) {
    auto const ending = std::filesystem::path(where).extension().string();
    target.format = ending == ".qcow2" || ending == ".vmdk" || ending == ".vhdx" || ending == ".vdi"
                        ? ending.substr(1)
                        : "raw";
  }
  std::error_code error;
  if (std::filesystem::exists(where, error))
    return failure(Errc::exists, where + " exists already");
  if (target.format != "raw" && target.format != "ploop")
    PS_CHECK(need("qemu-img", "a " + target.format + " image"));
  return target;
}

Outcome<std::unique_ptr<client::Volume>> Transfer::open(Volume_opener& opener,
                                                        Volume_name const& name) {
  using Opened = Outcome<std::unique_ptr<client::Volume>>;
  auto const answer = std::make_shared<std::optional<Opened>>();
  opener.open(export_name(name), Duration{0},
              [answer](Opened volume) { answer->emplace(std::move(volume)); });
  while (!*answer) session_.runtime().run_turn(turn_max);
  return std::move(**answer);
}

Outcome<void> Transfer::import(Outside const& source, Volume_name const& name, std::uint64_t start,
                               Note_down const& note_down) {
  start_ = start;
  if (source.format == "raw" || source.is_uri()) {
    Volume_opener opener(session_.cluster(), session_.executor(), session_.runtime().clock(),
                         session_.runtime().log());
    PS_TRY(auto volume, open(opener, name));
    auto const done = import_here(source, *volume, note_down);
    auto const closed = session_.close(std::move(volume));
    return done.has_value() ? closed : done;
  }
  return serve_to([&](std::string const& socket) {
    return convert(of_file(source.where, source.format), of_volume(name, socket), source.size_bytes,
                   note_down);
  });
}

Outcome<void> Transfer::write_to(client::Volume& volume, std::uint64_t at, Slice piece) {
  auto const written = ploop::wait_for_answer<Result<void>>(
      session_.turn(),
      [&](client::Done done) { volume.write(at, {piece}, false, std::move(done)); });
  if (!written)
    return failure(written.error(), "cannot write the volume: " + written.error().message());
  copied_ += piece.size();
  return success();
}

Outcome<void> Transfer::import_here(Outside const& source, client::Volume& volume,
                                    Note_down const& note_down) {
  PS_TRY(auto const from,
         source.is_uri() ? open_nbd(source.where, source.size_bytes) : open_raw_file(source.where));
  auto const all = source.size_bytes;
  auto noted = copied_;
  for (auto at = start_; at < all;) {
    PS_TRY(auto const data, from->next_data(at));
    if (!data) break;  // a hole up to the end
    at = std::max(at, *data / piece_bytes * piece_bytes);
    if (at >= all) break;
    auto piece = Slice::allocate(static_cast<std::size_t>(std::min(piece_bytes, all - at)));
    PS_CHECK(from->read(at, piece));
    auto const bytes = piece.bytes();
    bool const is_zero =
        bytes[0] == std::byte{0} && std::equal(bytes.begin() + 1, bytes.end(), bytes.begin());
    if (!is_zero) PS_CHECK(write_to(volume, at, piece));
    at += piece.size();
    progress_(at, all);
    if (copied_ - noted < note_every_bytes) continue;
    auto const flushed = ploop::wait_for_answer<Result<void>>(
        session_.turn(), [&](client::Done done) { volume.flush(std::move(done)); });
    if (!flushed)
      return failure(flushed.error(), "cannot write the volume: " + flushed.error().message());
    PS_CHECK(note_down(at));
    noted = copied_;
  }
  progress_(all, all);
  return success();
}

/// The portions grow until one takes some seconds: a sparse disk is done in a few.
Outcome<void> Transfer::convert(std::string const& from, std::string const& to, std::uint64_t all,
                                Note_down const& note_down) {
  auto portion = portion_min;
  for (auto at = start_; at < all;) {
    auto const length = std::min(portion, all - at);
    auto const window =
        "driver=raw,offset=" + std::to_string(at) + ",size=" + std::to_string(length) + ",";
    auto const begun = session_.runtime().clock().now();
    // -t: without it nothing is flushed at the end.
    PS_CHECK(run({"qemu-img", "convert", "-n", "--target-is-zero", "-W", "-t", "writeback",
                  "--image-opts", "--target-image-opts", window + from, window + to}));
    at += length;
    copied_ += length;
    PS_CHECK(note_down(at));
    progress_(at, all);
    auto const took = session_.runtime().clock().now() - begun;
    if (took < portion_wanted) portion = std::min(portion * 2, portion_max);
    if (took > 2 * portion_wanted) portion = std::max(portion / 2, portion_min);
  }
  return success();
}

Outcome<void> Transfer::run(std::vector<std::string> const& words) {
  PS_CHECK(run_program(words, [this] { session_.runtime().run_turn(turn_max); }));
  return success();
}

// ------------------------------------------------------------------ export

/// FILE.exporting and its note, until it is FILE.
class Transfer::Unfinished_file {
 public:
  explicit Unfinished_file(std::string target)
      : target_(std::move(target)), path_(target_ + exporting_suffix), note_(path_ + note_suffix) {}

  std::string const& path() const { return path_; }
  std::uint64_t start() const { return now_.done_bytes; }

  /// Finds out where to begin with what `now` describes. Only a snapshot stays what it was.
  Outcome<void> begin(Transfer_note now, bool may_go_on) {
    now_ = std::move(now);
    auto const text = read_small_file(note_, note_bytes_max);
    if (!text.has_value()) {
      std::error_code error;
      if (std::filesystem::exists(path_, error))
        return failure(Errc::exists, path_ + " exists already");
      return write();
    }
    PS_TRY(auto const before, parse_note(text.value()));
    if (auto const same = check_same_source(before, now_); !same.has_value())
      return failure(Errc::refused, "cannot go on with " + path_ + ": " + same.error().text +
                                        "; remove it and " + note_ + " to start afresh");
    if (may_go_on && ::access(path_.c_str(), W_OK) == 0) now_.done_bytes = before.done_bytes;
    if (now_.done_bytes == 0) ::unlink(path_.c_str());
    return write();
  }

  Outcome<void> note_down(std::uint64_t done_bytes) {
    PS_CHECK(make_durable(path_));
    now_.done_bytes = done_bytes;
    return write();
  }

  Outcome<void> finish() {
    PS_CHECK(make_durable(path_));
    if (::rename(path_.c_str(), target_.c_str()) != 0)
      return system_failure("cannot make " + target_);
    ::unlink(note_.c_str());
    return success();
  }

  void remove() {
    ::unlink(path_.c_str());
    ::unlink(note_.c_str());
  }

 private:
  Outcome<void> write() {
    auto const text = now_.text();
    return write_file_atomically(
        note_, Bytes(reinterpret_cast<std::byte const*>(text.data()), text.size()), 0600);
  }

  std::string target_;
  std::string path_;
  std::string note_;
  Transfer_note now_;
};

Outcome<std::uint64_t> Transfer::size_of(Volume_name const& name) {
  Volume_opener opener(session_.cluster(), session_.executor(), session_.runtime().clock(),
                       session_.runtime().log());
  PS_TRY(auto volume, open(opener, name));
  auto const size = volume->size_bytes();
  PS_CHECK(session_.close(std::move(volume)));
  return size;
}

Outcome<void> Transfer::export_to(Volume_name const& name, Outside const& target) {
  if (target.format == "ploop") return export_disk(name, target);
  if (target.is_uri())
    return serve_to([&](std::string const& socket) {
      return run({"nbdcopy", uri_of(name, socket), target.where});
    });
  Transfer_note now{name.path(), target.format, 0, 0, 0};
  if (!name.snapshot.empty()) {
    PS_TRY(auto const descriptor, Volume_work(session_).descriptor({name.name, {}}));
    auto const* const snapshot = find_snapshot(descriptor, name.snapshot);
    if (snapshot == nullptr) return unknown_snapshot(descriptor, name.snapshot);
    now.source += "@" + snapshot->guid;
  }
  PS_TRY(now.size_bytes, size_of(name));
  Unfinished_file unfinished(target.where);
  PS_CHECK(unfinished.begin(now, !name.snapshot.empty()));
  start_ = unfinished.start();
  auto done = export_file(name, target, unfinished);
  if (done.has_value()) return unfinished.finish();
  if (name.snapshot.empty() || unfinished.start() == 0) {
    unfinished.remove();
    return done;
  }
  return failure(done.error().code,
                 done.error().text + "; the same command goes on with " + unfinished.path());
}

Outcome<void> Transfer::export_file(Volume_name const& name, Outside const& target,
                                    Unfinished_file& unfinished) {
  Note_down const note_down = [&](std::uint64_t done) { return unfinished.note_down(done); };
  if (target.format == "raw") {
    Volume_opener opener(session_.cluster(), session_.executor(), session_.runtime().clock(),
                         session_.runtime().log());
    PS_TRY(auto volume, open(opener, name));
    auto const written = export_raw(*volume, unfinished.path(), note_down);
    auto const closed = session_.close(std::move(volume));
    return written.has_value() ? closed : written;
  }
  PS_TRY(auto const size, size_of(name));
  if (start_ == 0)
    PS_CHECK(run({"qemu-img", "create", "-q", "-f", target.format, unfinished.path(),
                  std::to_string(size)}));
  return serve_to([&](std::string const& socket) {
    return convert(of_volume(name, socket), of_file(unfinished.path(), target.format), size,
                   note_down);
  });
}

Outcome<void> Transfer::export_raw(client::Volume& volume, std::string const& path,
                                   Note_down const& note_down) {
  auto const mode = start_ == 0 ? O_CREAT | O_EXCL : 0;
  File_descriptor const file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | mode, 0600));
  if (!file) return system_failure("cannot make " + path);
  auto const all = volume.size_bytes();
  if (::ftruncate(file.get(), static_cast<off_t>(all)) != 0)
    return system_failure("cannot write " + path);
  auto const failed = [&](std::error_code const& code) {
    return failure(code, "cannot read the volume: " + code.message());
  };
  auto noted = copied_;
  for (auto at = start_; at < all;) {
    using Extents = Result<std::vector<client::Extent>>;
    auto const runs = ploop::wait_for_answer<Extents>(
        session_.turn(),
        [&](client::Extents_done done) { volume.extents(at, all - at, 1024, std::move(done)); });
    if (!runs) return failed(runs.error());
    for (auto const& run : runs.value()) {
      for (std::uint64_t end = at + run.length; !run.hole && at < end;) {
        auto const length = std::min(piece_bytes, end - at);
        using Read = Result<std::vector<Slice>>;
        auto const data = ploop::wait_for_answer<Read>(
            session_.turn(),
            [&](client::Read_done done) { volume.read(at, length, std::move(done)); });
        if (!data) return failed(data.error());
        auto const bytes = ploop::gathered(data.value());
        if (::pwrite(file.get(), bytes.data(), length, static_cast<off_t>(at)) !=
            static_cast<ssize_t>(length))
          return system_failure("cannot write " + path);
        at += length;
        copied_ += length;
        progress_(at, all);
        if (copied_ - noted < note_every_bytes) continue;
        PS_CHECK(note_down(at));
        noted = copied_;
      }
      if (run.hole) at += run.length;
    }
    progress_(at, all);
  }
  return make_durable(path);
}

/// The files of the disk as they are: for ploop, QEMU, another cluster.
Outcome<void> Transfer::export_disk(Volume_name const& name, Outside const& target) {
  if (!name.snapshot.empty())
    return failure(Errc::bad_request, "a disk is exported with all its snapshots: name the volume");
  PS_TRY(auto const disk, Offline_disk::open(session_, name));
  auto const unfinished = target.where + exporting_suffix;
  if (::mkdir(unfinished.c_str(), 0700) != 0) return system_failure("cannot make " + unfinished);
  auto const done = [&]() -> Outcome<void> {
    for (auto const& delta : disk->disk().descriptor().deltas())
      PS_CHECK(copy_file(name.path() + "/" + delta.file, unfinished + "/" + delta.file));
    PS_CHECK(copy_file(name.path() + "/" + descriptor_file, unfinished + "/" + descriptor_file));
    if (::rename(unfinished.c_str(), target.where.c_str()) == 0) return success();
    return system_failure("cannot make " + target.where);
  }();
  std::error_code error;
  if (!done.has_value()) std::filesystem::remove_all(unfinished, error);
  auto const closed = disk->close();
  return done.has_value() ? closed : done;
}

Outcome<void> Transfer::copy_file(std::string const& from, std::string const& to) {
  PS_TRY(auto const file, session_.open_reader(from));
  return export_raw(*file, to, [](std::uint64_t) { return success(); });
}

Outcome<void> Transfer::serve_to(
    std::function<Outcome<void>(std::string const& socket)> const& work) {
  auto pattern = std::filesystem::temp_directory_path().string() + "/pstorage-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return system_failure("cannot make " + pattern);
  auto const socket = pattern + "/nbd.sock";
  auto const served = [&]() -> Outcome<void> {
    auto& runtime = session_.runtime();
    Volume_opener opener(session_.cluster(), session_.executor(), runtime.clock(), runtime.log());
    nbd::Cluster_provider provider(session_.cluster(), opener, session_.executor(),
                                   std::chrono::seconds(1));
    nbd::Nbd_server server(runtime, provider, {});
    PS_TRY(auto const address, Address::parse("unix:" + socket, 0));
    PS_CHECK(server.listen(address));
    auto const worked = work(socket);
    bool is_stopped = false;
    server.stop([&] { is_stopped = true; });
    while (!is_stopped) runtime.run_turn(turn_max);
    return worked;
  }();
  std::error_code error;
  std::filesystem::remove_all(pattern, error);
  return served;
}

}  // namespace pstorage::volume
