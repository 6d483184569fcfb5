#include "core/disk/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "core/disk/file_descriptor.h"

namespace pstorage {
namespace {

Failure system_failure(std::string const& what, std::string const& path, int error) {
  std::error_code const code(error, std::generic_category());
  return failure(code, what + " " + path + ": " + code.message());
}

bool write_all(int fd, Bytes content) {
  while (!content.empty()) {
    auto const written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    content = content.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

Outcome<void> write_file_atomically(std::string const& path, Bytes content, unsigned mode) {
  std::string temporary = path + ".XXXXXX";
  File_descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) return system_failure("cannot create a file beside", path, errno);
  bool const ok = ::fchmod(file.get(), static_cast<mode_t>(mode)) == 0 &&
                  write_all(file.get(), content) && ::fsync(file.get()) == 0 &&
                  ::rename(temporary.c_str(), path.c_str()) == 0;
  if (!ok) {
    int const error = errno;
    ::unlink(temporary.c_str());
    return system_failure("cannot write", path, error);
  }
  auto const parent = std::filesystem::path(path).parent_path().string();
  File_descriptor const directory(
      ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0)
    return system_failure("cannot make durable", path, errno);
  return success();
}

Outcome<void> make_durable(std::string const& path) {
  File_descriptor const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || ::fsync(file.get()) != 0) return system_failure("cannot make durable", path, errno);
  return success();
}

Outcome<std::string> read_small_file(std::string const& path, std::size_t bytes_max) {
  File_descriptor const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) return failure(Errc::not_found, "there is no file " + path);
  if (!file) return system_failure("cannot open", path, errno);
  std::string content(bytes_max + 1, '\0');
  std::size_t filled = 0;
  while (filled < content.size()) {
    auto const got = ::read(file.get(), content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_failure("cannot read", path, errno);
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  if (filled > bytes_max)
    return failure(Errc::too_large,
                   path + " is larger than " + std::to_string(bytes_max) + " bytes");
  content.resize(filled);
  return content;
}

Outcome<void> make_directories(std::string const& path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) return failure(code, "cannot make the directory " + path + ": " + code.message());
  return success();
}

}  // namespace pstorage
