#include "iscsi/tool/gateway.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <thread>

#include "core/bytes.h"
#include "core/disk/atomic_file.h"
#include "core/disk/file_descriptor.h"
#include "iscsi/tool/cluster_state.h"

namespace pstorage::iscsi {
namespace {

constexpr char const* tgtd_program = "/usr/sbin/tgtd";
constexpr char const* tgtd_modules = "/usr/lib/tgt/backing-store";
constexpr auto poll_pause = std::chrono::milliseconds(50);
// A file that says so: a digest of what was replayed, and groups().
constexpr char const* standby_ending = ".standby";
constexpr std::size_t standby_bytes_max = 512;
constexpr int start_polls = 200;
constexpr int remove_polls = 100;

// Measured: against tgt's defaults large requests gain 2 to 5 times (facts of the investigation).
constexpr std::array<std::array<char const*, 2>, 6> parameters{
    {{"MaxRecvDataSegmentLength", "262144"},
     {"MaxXmitDataSegmentLength", "262144"},
     {"MaxBurstLength", "1048576"},
     {"FirstBurstLength", "262144"},
     {"InitialR2T", "No"},
     {"MaxOutstandingR2T", "4"}}};

std::string environment(char const* name, std::string const& otherwise) {
  char const* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
  return value == nullptr || *value == '\0' ? otherwise : value;
}

/// The build tree's modules when this program runs from it.
std::string default_modules() {
  std::error_code code;
  auto const program = std::filesystem::read_symlink("/proc/self/exe", code);
  auto const beside = program.parent_path().parent_path() / "tgt";
  if (!code && std::filesystem::exists(beside / "bs_pstorage.so")) return beside;
  return "/usr/lib/pstorage/tgt";
}

template <typename Is_done>
bool wait_for(int polls, Is_done const& is_done) {
  for (int i = 0; i < polls; ++i) {
    if (is_done()) return true;
    std::this_thread::sleep_for(poll_pause);
  }
  return false;
}

std::string last_line(std::string const& path) {
  auto const text = read_small_file(path, 1u << 20);
  if (!text.has_value()) return "";
  auto line = text.value();
  while (!line.empty() && line.back() == '\n') line.pop_back();
  return line.substr(line.rfind('\n') + 1);
}

}  // namespace

Gateway_paths gateway_paths(std::string const& cluster, std::string const& nbd_socket,
                            std::string const& modules) {
  auto const base = environment("PSTORAGE_ISCSI_DIR", "");
  Gateway_paths paths;
  paths.run = (base.empty() ? "/run/pstorage/iscsi" : base + "/run") + "/" + cluster;
  paths.modules =
      modules.empty() ? environment("PSTORAGE_TGT_MODULES", default_modules()) : modules;
  paths.nbd_socket = nbd_socket.empty() ? environment("PSTORAGE_NBD_SOCKET",
                                                      "/run/pstorage/" + cluster + "/nbd.sock")
                                        : nbd_socket;
  return paths;
}

Gateway::Gateway(Gateway_paths paths, std::string const& host, Target const& target)
    : paths_(std::move(paths)),
      target_(target),
      portal_(target.portal(host)),
      base_(paths_.run + "/" + target.name),
      control_(base_ + ".0") {}

int Gateway::pid() const {
  auto const text = read_small_file(base_ + ".pid", 32);
  if (!text.has_value() || !portal_.has_value()) return 0;
  int const pid = std::atoi(text.value().c_str());
  if (pid <= 0) return 0;
  // A pid that was given to another program does not count.
  auto const command = read_small_file("/proc/" + std::to_string(pid) + "/cmdline", 4096);
  bool const is_ours =
      command.has_value() && command.value().find("tgtd") != std::string::npos &&
      command.value().find("portal=" + portal_.value().text()) != std::string::npos;
  return is_ours ? pid : 0;
}

Outcome<void> Gateway::check_host() const {
  PS_CHECK(portal_);
  std::error_code code;
  if (::geteuid() != 0) {
    return failure(Errc::refused, "starting a target needs root");
  }
  if (!std::filesystem::exists(tgtd_program, code)) {
    return failure(Errc::not_found,
                   std::string("there is no ") + tgtd_program + ": install the package tgt");
  }
  if (!std::filesystem::exists(paths_.modules + "/bs_pstorage.so", code)) {
    return failure(Errc::not_found, "there is no bs_pstorage.so in " + paths_.modules +
                                        ": give its directory with --modules");
  }
  if (!std::filesystem::exists(paths_.nbd_socket, code)) {
    return failure(Errc::not_found, "no NBD server at " + paths_.nbd_socket +
                                        ": start pstorage-nbd, or give its socket with "
                                        "--nbd-socket");
  }
  return success();
}

void Gateway::become_tgtd(int log) const {
  // Only our module, and only for our tgtd: others on this host see their own directory.
  bool const ok = ::setsid() >= 0 && ::dup2(log, 1) >= 0 && ::dup2(log, 2) >= 0 &&
                  ::unshare(CLONE_NEWNS) == 0 &&
                  ::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0 &&
                  ::mount(paths_.modules.c_str(), tgtd_modules, nullptr, MS_BIND, nullptr) == 0;
  if (ok) {
    std::string const portal = "portal=" + portal_.value().text() + ",nop_interval=5,nop_count=6";
    ::setenv("TGT_IPC_SOCKET", base_.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
    // Buffers of large requests stay in the heap instead of being mapped and unmapped each time.
    ::setenv("MALLOC_MMAP_THRESHOLD_", "134217728", 1);  // NOLINT(concurrency-mt-unsafe)
    ::setenv("MALLOC_TRIM_THRESHOLD_", "536870912", 1);  // NOLINT(concurrency-mt-unsafe)
    ::setenv("MALLOC_TOP_PAD_", "67108864", 1);          // NOLINT(concurrency-mt-unsafe)
    ::execl(tgtd_program, "tgtd", "--foreground", "--control-port", "0", "--iscsi", portal.c_str(),
            static_cast<char*>(nullptr));
  }
  ::dprintf(2, "cannot become tgtd: %s\n", std::strerror(errno));
  ::_exit(1);
}

Outcome<void> Gateway::launch() {
  File_descriptor const log(
      ::open((base_ + ".log").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
  File_descriptor const null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!log || !null) return failure(Errc::io_error, "cannot write " + base_ + ".log");
  int const child = ::fork();
  if (child < 0) return failure(Errc::io_error, "cannot start a process");
  if (child == 0) {
    ::dup2(null.get(), 0);
    become_tgtd(log.get());
  }
  PS_CHECK(write_file_atomically(base_ + ".pid", as_bytes(std::to_string(child)), 0644));
  bool has_ended = false;
  bool const is_up = wait_for(start_polls, [&] {
    has_ended = ::waitpid(child, nullptr, WNOHANG) == child;
    return has_ended || control_.is_up();
  });
  if (is_up && !has_ended) return success();
  if (!has_ended) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  std::error_code ignored;
  std::filesystem::remove(base_ + ".pid", ignored);
  return failure(Errc::refused, "tgtd does not come up (is the address " + portal_.value().text() +
                                    " free and on this host?): " + last_line(base_ + ".log"));
}

Outcome<void> Gateway::replay(Replayed const& what) {
  PS_CHECK(control_.add_target(target_.iqn()));
  for (auto const& [name, value] : parameters) PS_CHECK(control_.set_parameter(name, value));
  for (auto const& [number, lun] : what.luns) PS_CHECK(add_lun(number, lun));
  auto users = target_.incoming;
  if (!target_.outgoing.empty()) users.push_back(target_.outgoing);
  for (auto const& user : users) {
    auto const account = what.accounts.find(user);
    if (account == what.accounts.end()) {
      return failure(Errc::not_found, "the account '" + user +
                                          "' of this target is gone: add it "
                                          "again with 'pstorage-iscsi account add'");
    }
    PS_CHECK(control_.add_account(user, account->second));
  }
  for (auto const& user : target_.incoming) PS_CHECK(control_.bind_account(user, false, true));
  if (!target_.outgoing.empty()) PS_CHECK(control_.bind_account(target_.outgoing, true, true));
  // Last: until somebody is allowed nobody can log in to a target that is not complete.
  if (target_.allowed.empty()) return control_.allow("ALL", true);
  for (auto const& initiator : target_.allowed) PS_CHECK(control_.allow(initiator, true));
  return success();
}

Outcome<void> Gateway::run(Replayed const& what) {
  PS_CHECK(check_host());
  PS_CHECK(make_directories(paths_.run));
  PS_CHECK(make_directories(tgtd_modules));
  PS_CHECK(launch());
  auto replayed = replay(what);
  if (replayed.has_value()) return success();
  auto const why = last_line(base_ + ".log");
  PS_CHECK(stop());
  return failure(replayed.error().code,
                 replayed.error().text + (why.empty() ? "" : " (" + why + ")"));
}

Outcome<void> Gateway::start(Replayed const& what) {
  if (pid() == 0) return run(what);
  if (!is_standby()) return failure(Errc::exists, "target " + target_.iqn() + " runs already");
  // Sessions stay when it is only told to serve.
  auto const known = read_small_file(base_ + standby_ending, standby_bytes_max);
  bool const is_current = known.has_value() && known.value().starts_with(digest(what) + ";");
  if (is_current && activate(what).has_value()) return success();
  PS_CHECK(stop());
  return run(what);
}

Outcome<void> Gateway::activate(Replayed const& what) {
  for (auto const& [number, lun] : what.luns) PS_CHECK(control_.activate_lun(number));
  std::error_code ignored;
  std::filesystem::remove(base_ + standby_ending, ignored);
  return success();
}

Outcome<void> Gateway::stand_by(Replayed const& what) {
  if (pid() != 0 && !is_standby()) {
    return failure(Errc::exists, "target " + target_.iqn() + " is served by this host");
  }
  PS_CHECK(stop());
  PS_CHECK(make_directories(paths_.run));
  // First: whoever finds the tgtd of a call that was killed must not take it for one that serves.
  PS_CHECK(write_file_atomically(base_ + standby_ending, as_bytes(digest(what) + groups()), 0600));
  return run(what);
}

bool Gateway::is_standby() const {
  std::error_code code;
  return std::filesystem::exists(base_ + standby_ending, code);
}

bool Gateway::is_outdated(Replayed const& what) const {
  auto const known = read_small_file(base_ + standby_ending, standby_bytes_max);
  return !known.has_value() || known.value() != digest(what) + groups();
}

/// Of everything that is replayed, but for who serves.
std::string Gateway::digest(Replayed const& what) const {
  std::string all;
  for (auto const& [property, text] : to_properties(target_)) all += property + text + "\n";
  for (auto const& [number, lun] : what.luns) {
    all += std::to_string(number) + " " + std::to_string(lun.size_bytes) + "\n";
  }
  for (auto const& [user, secret] : what.accounts) all += user + " " + secret + "\n";
  return std::to_string(std::hash<std::string>{}(all));
}

Outcome<void> Gateway::stop() {
  int const running = pid();
  if (running != 0) {
    ::kill(running, SIGKILL);
    wait_for(start_polls, [&] {
      ::waitpid(running, nullptr, WNOHANG);  // ours only if this call has started it
      return pid() == 0;
    });
    if (pid() != 0) return failure(Errc::timed_out, "tgtd does not end");
  }
  std::error_code ignored;
  for (auto const* const ending : {".pid", ".0", ".0.lock", standby_ending}) {
    std::filesystem::remove(base_ + ending, ignored);
  }
  return success();
}

Outcome<void> Gateway::add_lun(unsigned number, Lun_with_size const& lun) {
  auto const uri_of = [this](std::string const& volume) {
    return "nbd+unix:///" + volume + "?socket=" + paths_.nbd_socket;
  };
  return control_.add_lun(number, uri_of(lun.lun.volume),
                          "size=" + std::to_string(lun.size_bytes) + ";uuid=" + lun.lun.uuid +
                              ";reservations-uri=" + uri_of(reservations_volume(lun.lun.uuid)) +
                              groups());
}

/// As the module wants them; empty: there is one path only.
std::string Gateway::groups() const {
  if (target_.portals.empty() || !portal_.has_value()) return "";
  std::set<std::uint16_t> all;
  for (auto const& [host, portal] : target_.portals) all.insert(portal.group);
  std::string text;
  for (auto const group : all) text += (text.empty() ? "" : "/") + std::to_string(group);
  auto const active = target_.portals.find(target_.host);
  return ";groups=" + text + ";group=" + std::to_string(portal_.value().group) +
         ";active=" + std::to_string(active == target_.portals.end() ? 0 : active->second.group);
}

Outcome<void> Gateway::remove_lun(unsigned number) {
  Outcome<void> removed = success();
  wait_for(remove_polls, [&] {
    removed = control_.remove_lun(number);
    return removed.has_value() || errc_of(removed.error().code) != Errc::busy;
  });
  return removed;
}

}  // namespace pstorage::iscsi
