// make_log(): lines to standard error and to a file.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <string>

#include "core/disk/file_descriptor.h"
#include "core/runtime/runtime.h"

namespace pstorage {
namespace {

constexpr std::size_t line_bytes_max = 4096;

char letter(Log_level level) {
  switch (level) {
    case Log_level::debug:
      return 'D';
    case Log_level::info:
      return 'I';
    case Log_level::warn:
      return 'W';
    case Log_level::error:
      return 'E';
  }
  return '?';
}

void append_time(std::string& line) {
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  ::localtime_r(&now.tv_sec, &parts);
  std::array<char, 32> text;
  auto const size = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  line.append(text.data(), size);
  auto const written =
      std::snprintf(text.data(), text.size(), ".%03d", static_cast<int>(now.tv_nsec / 1'000'000));
  line.append(text.data(), static_cast<std::size_t>(written));
}

// What a peer sent may be in a line: it must not be able to forge another one.
void append_escaped(std::string& line, std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  for (char const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      line += "\\x";
      line += digits[byte >> 4];
      line += digits[byte & 15];
    } else {
      line += c;
    }
  }
}

void append_value(std::string& line, std::string_view value) {
  bool const quote = value.empty() || value.find_first_of(" \"=") != std::string_view::npos;
  if (!quote) return append_escaped(line, value);
  line += '"';
  for (char const c : value) {
    if (c == '"' || c == '\\') line += '\\';
    append_escaped(line, {&c, 1});
  }
  line += '"';
}

// One call a line: with O_APPEND lines of several threads and processes do not mix. A log that
// cannot be written is no reason to stop serving.
void put(int fd, std::string const& line) {
  if (::write(fd, line.data(), line.size()) < 0) return;
}

/// A file that makes room for a new one of its name when it has become large, and that notices when
/// somebody else has done so (logrotate, another process with the same log).
class Rotated_file {
 public:
  Rotated_file(std::string path, Log_limits limits) : path_(std::move(path)), limits_(limits) {}

  /// 0, or errno.
  int open() {
    File_descriptor file(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
    if (!file) return errno;
    file_ = std::move(file);
    return 0;
  }

  void write(std::string const& line) {
    std::lock_guard const lock(mutex_);
    // Log lines are rare: two system calls more each cost nothing that matters.
    if (!is_at_its_path() && open() != 0) return put(file_.get(), line);
    struct stat now {};
    if (::fstat(file_.get(), &now) == 0 &&
        static_cast<std::uint64_t>(now.st_size) + line.size() > limits_.file_bytes_max)
      rotate();
    put(file_.get(), line);
  }

 private:
  bool is_at_its_path() const {
    struct stat own {
    }, named{};
    return ::fstat(file_.get(), &own) == 0 && ::stat(path_.c_str(), &named) == 0 &&
           own.st_dev == named.st_dev && own.st_ino == named.st_ino;
  }

  std::string old_name(unsigned number) const { return path_ + "." + std::to_string(number); }

  void rotate() {
    // Of two processes with the same log one does it; the other finds that it is done.
    if (::flock(file_.get(), LOCK_EX) != 0) return;
    if (is_at_its_path()) {
      for (unsigned number = limits_.old_files; number > 1; --number)
        ::rename(old_name(number - 1).c_str(), old_name(number).c_str());
      ::rename(path_.c_str(), old_name(1).c_str());
    }
    ::flock(file_.get(), LOCK_UN);
    open();
  }

  std::string const path_;
  Log_limits const limits_;
  std::mutex mutex_;
  File_descriptor file_;  // guarded by mutex_ once lines are written
};

class Stream_log final : public Leveled_log {
 public:
  Stream_log(std::unique_ptr<Rotated_file> file, Log_level level)
      : file_(std::move(file)), level_(level) {}

  void write(Log_level level, std::string_view message, Fields fields) override {
    if (level < level_.load(std::memory_order_relaxed)) return;
    std::string line;
    append_time(line);
    line += ' ';
    line += letter(level);
    line += ' ';
    append_escaped(line, message);
    for (auto const& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      append_value(line, field.value);
    }
    if (line.size() >= line_bytes_max) {
      line.resize(line_bytes_max - 4);
      line += "...";
    }
    line += '\n';
    put(STDERR_FILENO, line);
    if (file_) file_->write(line);
  }

  void set_level(Log_level level) override { level_ = level; }

 private:
  std::unique_ptr<Rotated_file> file_;  // may be null
  std::atomic<Log_level> level_;
};

}  // namespace

Outcome<std::unique_ptr<Leveled_log>> make_log(std::string const& path, Log_level level,
                                               Log_limits limits) {
  std::unique_ptr<Rotated_file> file;
  if (!path.empty()) {
    file = std::make_unique<Rotated_file>(path, limits);
    if (int const error = file->open(); error != 0) {
      std::error_code const code(error, std::generic_category());
      return failure(code, "cannot open the log " + path + ": " + code.message());
    }
  }
  std::unique_ptr<Leveled_log> log = std::make_unique<Stream_log>(std::move(file), level);
  return log;
}

}  // namespace pstorage
