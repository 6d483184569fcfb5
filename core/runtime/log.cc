// make_log(): lines to standard error and to a file.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
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

class Stream_log final : public Leveled_log {
 public:
  Stream_log(File_descriptor file, Log_level level) : file_(std::move(file)), level_(level) {}

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
    // One call a line: with O_APPEND lines of several threads and processes do not mix. A log that
    // cannot be written is no reason to stop serving.
    put(STDERR_FILENO, line);
    if (file_) put(file_.get(), line);
  }

  void set_level(Log_level level) override { level_ = level; }

 private:
  static void put(int fd, std::string const& line) {
    if (::write(fd, line.data(), line.size()) < 0) return;
  }

  File_descriptor file_;
  std::atomic<Log_level> level_;
};

}  // namespace

Outcome<std::unique_ptr<Leveled_log>> make_log(std::string const& path, Log_level level) {
  File_descriptor file;
  if (!path.empty()) {
    file = File_descriptor(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
    if (!file) {
      std::error_code const code(errno, std::generic_category());
      return failure(code, "cannot open the log " + path + ": " + code.message());
    }
  }
  std::unique_ptr<Leveled_log> log = std::make_unique<Stream_log>(std::move(file), level);
  return log;
}

}  // namespace pstorage
