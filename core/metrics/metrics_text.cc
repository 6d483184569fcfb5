#include "core/metrics/metrics_text.h"

#include <cstdio>

namespace pstorage {
namespace {

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", seconds);
  return text;
}

std::string seconds_text(Duration value) {
  return seconds_text(std::chrono::duration<double>(value).count());
}

void append_escaped(std::string& out, std::string_view value) {
  for (char const c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
}

}  // namespace

void Metrics_text::begin(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  is_counter_ = type == "counter";
  text_.append("# TYPE ").append(name).append(" ").append(type).append("\n");
  for (std::string_view const unit : {"seconds", "bytes"}) {
    if (name.ends_with(unit) && name.size() > unit.size())
      text_.append("# UNIT ").append(name).append(" ").append(unit).append("\n");
  }
  text_.append("# HELP ").append(name).append(" ").append(help).append("\n");
}

void Metrics_text::sample(std::string_view suffix, Labels const& labels, std::string_view bound,
                          std::string const& value) {
  text_.append(name_).append(suffix);
  char separator = '{';
  auto const label = [&](std::string_view key, std::string_view content) {
    text_ += separator;
    text_.append(key).append("=\"");
    append_escaped(text_, content);
    text_ += '"';
    separator = ',';
  };
  for (auto const& [key, content] : labels) label(key, content);
  if (!bound.empty()) label("le", bound);
  if (separator == ',') text_ += '}';
  text_.append(" ").append(value).append("\n");
}

void Metrics_text::add(Labels const& labels, std::uint64_t value) {
  sample(is_counter_ ? "_total" : "", labels, {}, std::to_string(value));
}

void Metrics_text::add(Labels const& labels, Latency_histogram const& value) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < Latency_histogram::bounds_us.size(); ++i) {
    count += value.count(i);
    sample("_bucket", labels, seconds_text(Latency_histogram::bounds_us[i] / 1e6),
           std::to_string(count));
  }
  count += value.count(Latency_histogram::bounds_us.size());
  sample("_bucket", labels, "+Inf", std::to_string(count));
  sample("_count", labels, {}, std::to_string(count));
  sample("_sum", labels, {}, seconds_text(value.sum()));
}

void Metrics_text::process(std::string_view daemon, std::uint64_t memory_bytes, Duration uptime) {
  gauge("pstorage_build_info", "Always 1; the labels tell what runs.");
  add({{"daemon", std::string(daemon)}, {"version", PSTORAGE_VERSION}}, 1);
  one_gauge("pstorage_memory_bytes", "Resident memory of the daemon.", memory_bytes);
  one_gauge("pstorage_uptime_seconds", "Since the daemon was started.",
            static_cast<std::uint64_t>(uptime / std::chrono::seconds(1)));
}

std::string Metrics_text::finish() && { return std::move(text_) + "# EOF\n"; }

}  // namespace pstorage
