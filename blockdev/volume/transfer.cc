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
#include "core/disk/atomic_file.h"
#include "core/disk/file_descriptor.h"

namespace pstorage::volume {
namespace {

constexpr std::uint64_t piece_bytes = 1u << 20;
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

}  // namespace

Outcome<Outside> inspect_source(std::string const& where, std::string const& given) {
  Outside source{where, given, 0};
  if (is_uri(where)) {
    source.format = "nbd";
    PS_CHECK(need("nbdinfo", "reading from NBD"));
    PS_CHECK(need("nbdcopy", "reading from NBD"));
    PS_TRY(auto const size, run_program({"nbdinfo", "--size", where}, wait_a_little));
    source.size_bytes = std::strtoull(size.c_str(), nullptr, 10);
    return source;
  }
  std::error_code error;
  if (!std::filesystem::exists(where, error))
    return failure(Errc::not_found, "there is no file " + where);
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
  auto const text = name.snapshot.empty() ? name.name : name.name + "@" + name.snapshot;
  using Opened = Outcome<std::unique_ptr<client::Volume>>;
  auto const answer = std::make_shared<std::optional<Opened>>();
  opener.open(text, Duration{0}, [answer](Opened volume) { answer->emplace(std::move(volume)); });
  while (!*answer) session_.runtime().run_turn(turn_max);
  return std::move(**answer);
}

Outcome<void> Transfer::import(Outside const& source, Volume_name const& name) {
  if (source.format == "raw") {
    Volume_opener opener(session_.cluster(), session_.executor(), session_.runtime().clock(),
                         session_.runtime().log());
    PS_TRY(auto volume, open(opener, name));
    auto const done = import_raw(source, *volume);
    auto const closed = session_.close(std::move(volume));
    return done.has_value() ? closed : done;
  }
  return serve_to(name, [&](std::string const& uri) -> std::vector<std::string> {
    if (source.is_uri()) return {"nbdcopy", "--destination-is-zero", source.where, uri};
    return {"qemu-img",    "convert", "-n",  "--target-is-zero", "-W", "-f",
            source.format, "-O",      "raw", source.where,       uri};
  });
}

Outcome<void> Transfer::import_raw(Outside const& source, client::Volume& volume) {
  File_descriptor const file(::open(source.where.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return system_failure("cannot read " + source.where);
  auto const all = source.size_bytes;
  auto const failed = [&](std::error_code const& code) {
    return failure(code, "cannot write the volume: " + code.message());
  };
  for (std::uint64_t at = 0; at < all;) {
    auto const data = ::lseek(file.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno != ENXIO) return system_failure("cannot read " + source.where);
    if (data < 0) break;  // a hole up to the end
    at = static_cast<std::uint64_t>(data) / piece_bytes * piece_bytes;
    auto const length = static_cast<std::size_t>(std::min(piece_bytes, all - at));
    auto piece = Slice::allocate(length);
    if (::pread(file.get(), piece.data(), length, static_cast<off_t>(at)) !=
        static_cast<ssize_t>(length))
      return system_failure("cannot read " + source.where);
    auto const bytes = piece.bytes();
    bool const is_zero =
        bytes[0] == std::byte{0} && std::equal(bytes.begin() + 1, bytes.end(), bytes.begin());
    if (!is_zero) {
      auto const written = ploop::wait_for_answer<Result<void>>(
          session_.turn(),
          [&](client::Done done) { volume.write(at, {piece}, false, std::move(done)); });
      if (!written) return failed(written.error());
    }
    at += length;
    progress_(at, all);
  }
  progress_(all, all);
  return success();
}

Outcome<void> Transfer::export_to(Volume_name const& name, Outside const& target) {
  if (target.format == "ploop") return export_disk(name, target);
  auto const done = [&]() -> Outcome<void> {
    if (target.format == "raw") {
      Volume_opener opener(session_.cluster(), session_.executor(), session_.runtime().clock(),
                           session_.runtime().log());
      PS_TRY(auto volume, open(opener, name));
      auto const written = export_raw(*volume, target);
      auto const closed = session_.close(std::move(volume));
      return written.has_value() ? closed : written;
    }
    return serve_to(name, [&](std::string const& uri) -> std::vector<std::string> {
      if (target.is_uri()) return {"nbdcopy", uri, target.where};
      return {"qemu-img", "convert", "-f", "raw", "-O", target.format, uri, target.where};
    });
  }();
  if (!done.has_value() && !target.is_uri()) ::unlink(target.where.c_str());
  return done;
}

Outcome<void> Transfer::export_raw(client::Volume& volume, Outside const& target) {
  File_descriptor const file(
      ::open(target.where.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return system_failure("cannot make " + target.where);
  auto const all = volume.size_bytes();
  if (::ftruncate(file.get(), static_cast<off_t>(all)) != 0)
    return system_failure("cannot write " + target.where);
  auto const failed = [&](std::error_code const& code) {
    return failure(code, "cannot read the volume: " + code.message());
  };
  for (std::uint64_t at = 0; at < all;) {
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
          return system_failure("cannot write " + target.where);
        at += length;
        progress_(at, all);
      }
      if (run.hole) at += run.length;
    }
    progress_(at, all);
  }
  return make_durable(target.where);
}

/// The files of the disk as they are: for ploop, QEMU, another cluster.
Outcome<void> Transfer::export_disk(Volume_name const& name, Outside const& target) {
  if (!name.snapshot.empty())
    return failure(Errc::bad_request, "a disk is exported with all its snapshots: name the volume");
  PS_TRY(auto const disk, Offline_disk::open(session_, name));
  if (::mkdir(target.where.c_str(), 0700) != 0)
    return system_failure("cannot make " + target.where);
  auto const done = [&]() -> Outcome<void> {
    for (auto const& delta : disk->disk().descriptor().deltas())
      PS_CHECK(copy_file(name.path() + "/" + delta.file, target.where + "/" + delta.file));
    return copy_file(name.path() + "/" + descriptor_file, target.where + "/" + descriptor_file);
  }();
  std::error_code error;
  if (!done.has_value()) std::filesystem::remove_all(target.where, error);
  auto const closed = disk->close();
  return done.has_value() ? closed : done;
}

Outcome<void> Transfer::copy_file(std::string const& from, std::string const& to) {
  PS_TRY(auto const file, session_.open_reader(from));
  return export_raw(*file, {to, "raw", 0});
}

Outcome<void> Transfer::serve_to(
    Volume_name const& name,
    std::function<std::vector<std::string>(std::string const& uri)> const& program) {
  auto const text = name.snapshot.empty() ? name.name : name.name + "@" + name.snapshot;
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
    std::string escaped;
    for (char const c : text) escaped += c == '@' ? "%40" : std::string(1, c);
    auto const uri = "nbd+unix:///" + escaped + "?socket=" + socket;
    auto const ran = run_program(program(uri), [&] { runtime.run_turn(turn_max); });
    bool is_stopped = false;
    server.stop([&] { is_stopped = true; });
    while (!is_stopped) runtime.run_turn(turn_max);
    PS_CHECK(ran);
    return success();
  }();
  std::error_code error;
  std::filesystem::remove_all(pattern, error);
  return served;
}

}  // namespace pstorage::volume
