// Operators' log. Levels: error (somebody must act), warn, info (state changes), debug.
// Never passwords, keys or user data. Pure classes get a Log& by constructor.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace pstorage {

enum class Log_level { debug, info, warn, error };

/// "key=value" behind a log line.
struct Log_field {
  std::string_view key;
  std::string value;

  Log_field(std::string_view name, std::string text) : key(name), value(std::move(text)) {}
  Log_field(std::string_view name, char const* text) : key(name), value(text) {}
  Log_field(std::string_view name, std::string_view text) : key(name), value(text) {}
  template <typename Number>
  requires std::is_arithmetic_v<Number> Log_field(std::string_view name, Number number)
      : key(name), value(std::to_string(number)) {}
  template <typename Id>
  requires requires(Id id) { std::to_string(id.value); }
  Log_field(std::string_view name, Id id) : key(name), value(std::to_string(id.value)) {}
};

class Log {
 public:
  using Fields = std::initializer_list<Log_field>;
  virtual ~Log() = default;
  /// One line: message, then the fields. Thread: any.
  virtual void write(Log_level level, std::string_view message, Fields fields) = 0;

  void debug(std::string_view message, Fields fields = {}) {
    write(Log_level::debug, message, fields);
  }
  void info(std::string_view message, Fields fields = {}) {
    write(Log_level::info, message, fields);
  }
  void warn(std::string_view message, Fields fields = {}) {
    write(Log_level::warn, message, fields);
  }
  void error(std::string_view message, Fields fields = {}) {
    write(Log_level::error, message, fields);
  }
};

/// For commands: they print their own errors, the library's log would only repeat them.
class Silent_log final : public Log {
 public:
  void write(Log_level, std::string_view, Fields) override {}
};

}  // namespace pstorage
