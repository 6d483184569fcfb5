#include "blockdev/ct/tools.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/bytes.h"

namespace pstorage::ct {
namespace {

/// /proc/self/mounts writes blanks, tabs, line breaks and backslashes as \ooo.
std::string unescape(std::string const& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    bool const is_escape = text[at] == '\\' && at + 3 < text.size();
    if (!is_escape) {
      out += text[at];
      continue;
    }
    out += static_cast<char>((text[at + 1] - '0') * 64 + (text[at + 2] - '0') * 8 +
                             (text[at + 3] - '0'));
    at += 3;
  }
  return out;
}

struct Mount_line {
  std::string device, directory, type;
};

std::vector<Mount_line> parse_mounts(std::string const& mounts) {
  std::vector<Mount_line> lines;
  std::istringstream in(mounts);
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    Mount_line one;
    if (!(fields >> one.device >> one.directory >> one.type)) continue;
    one.device = unescape(one.device);
    one.directory = unescape(one.directory);
    lines.push_back(std::move(one));
  }
  return lines;
}

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

Outcome<int> run_status(std::vector<std::string> const& command, std::string& output) {
  std::vector<char*> arguments;
  std::vector<std::string> copies = command;
  for (auto& one : copies) arguments.push_back(one.data());
  arguments.push_back(nullptr);
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return failure(std::error_code(errno, std::system_category()), "cannot make a pipe");
  pid_t const child = ::fork();
  if (child < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return failure(std::error_code(errno, std::system_category()), "cannot start a program");
  }
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    output.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  int const code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (code == 127)
    return failure(Errc::not_found, "there is no program '" + command[0] + "': install it");
  return code;
}

Outcome<std::string> run(std::vector<std::string> const& command) {
  std::string output;
  PS_TRY(int const code, run_status(command, output));
  if (code != 0) return failure(Errc::io_error, command[0] + " failed: " + last_line(output));
  return output;
}

Outcome<std::uint64_t> file_system_bytes(std::string const& device) {
  // ext4's super block, as in the kernel's Documentation/filesystems/ext4/super.rst.
  constexpr std::streamoff super_block = 1024;
  constexpr std::size_t blocks_low = 4, block_size_log = 24, magic = 56, blocks_high = 0x150;
  constexpr std::uint16_t ext4_magic = 0xef53;
  constexpr std::uint32_t block_size_log_max = 6;
  std::array<std::byte, 1024> block = {};
  std::ifstream in(device, std::ios::binary);
  in.seekg(super_block);
  in.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(block.size()));
  auto const log = load_le<std::uint32_t>(block.data() + block_size_log);
  if (!in || load_le<std::uint16_t>(block.data() + magic) != ext4_magic || log > block_size_log_max)
    return failure(Errc::corrupt, "there is no ext4 file system on " + device);
  auto const blocks = load_le<std::uint32_t>(block.data() + blocks_low) |
                      std::uint64_t{load_le<std::uint32_t>(block.data() + blocks_high)} << 32;
  return (blocks << log) * 1024;
}

Outcome<void> resize_file_system(std::string const& device, std::uint64_t size_bytes) {
  std::string output;
  PS_TRY(int const checked, run_status({"e2fsck", "-f", "-p", device}, output));
  if (checked > 1) return failure(Errc::corrupt, "e2fsck finds faults it cannot repair: " + output);
  PS_CHECK(run({"resize2fs", device, std::to_string(size_bytes / 1024) + "K"}));
  return success();
}

std::string find_cluster_mount(std::string const& mounts, std::string const& cluster) {
  for (auto const& line : parse_mounts(mounts))
    if (line.type == "fuse.pstorage" && line.device == "pstorage://" + cluster)
      return line.directory;
  return {};
}

std::vector<std::string> find_mounts(std::string const& mounts, std::string const& device) {
  std::vector<std::string> found;
  for (auto const& line : parse_mounts(mounts))
    if (line.device == device) found.push_back(line.directory);
  return found;
}

std::string read_text(std::string const& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<Loop_device> loop_devices() {
  std::vector<Loop_device> devices;
  std::error_code error;
  for (auto const& entry : std::filesystem::directory_iterator("/sys/block", error)) {
    auto const name = entry.path().filename().string();
    if (!name.starts_with("loop")) continue;
    auto file = read_text(entry.path().string() + "/loop/backing_file");
    while (!file.empty() && file.back() == '\n') file.pop_back();
    if (!file.empty()) devices.push_back({"/dev/" + name, file});
  }
  return devices;
}

}  // namespace pstorage::ct
