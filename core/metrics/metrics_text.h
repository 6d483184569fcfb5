// OpenMetrics text: what Prometheus and its like fetch from /metrics.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/metrics/histogram.h"

namespace pstorage {

/// Use: begin() a family, its samples, the next family, ..., finish(). Names are without "_total".
class Metrics_text {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string>>;
  static constexpr char const* content_type =
      "application/openmetrics-text; version=1.0.0; charset=utf-8";

  void gauge(std::string_view name, std::string_view help) { begin(name, "gauge", help); }
  void counter(std::string_view name, std::string_view help) { begin(name, "counter", help); }
  void histogram(std::string_view name, std::string_view help) { begin(name, "histogram", help); }

  /// Of the family begun last.
  void add(Labels const& labels, std::uint64_t value);
  void add(Labels const& labels, Latency_histogram const& value);
  /// One sample without labels, with its family.
  void one_gauge(std::string_view name, std::string_view help, std::uint64_t value) {
    gauge(name, help);
    add({}, value);
  }
  void one_counter(std::string_view name, std::string_view help, std::uint64_t value) {
    counter(name, help);
    add({}, value);
  }
  /// pstorage_build_info, pstorage_memory_bytes, pstorage_uptime_seconds: of every daemon.
  void process(std::string_view daemon, std::uint64_t memory_bytes, Duration uptime);

  std::string finish() &&;

 private:
  void begin(std::string_view name, std::string_view type, std::string_view help);
  void sample(std::string_view suffix, Labels const& labels, std::string_view bound,
              std::string const& value);

  std::string text_;
  std::string name_;
  bool is_counter_ = false;
};

}  // namespace pstorage
