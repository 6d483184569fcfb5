// What every daemon shows over HTTP: /metrics, /healthz, and what it adds.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/http/server.h"
#include "core/metrics/metrics_text.h"
#include "core/runtime/runtime.h"

namespace pstorage::cli {

struct Monitor_options {
  std::string given;      // --metrics ADDR[:PORT], "off", or empty
  Address preferred;      // where, when nothing was given; another port if that one is taken
  std::string note_path;  // gets the address while it is served; empty: nowhere
  std::string daemon;     // "csd"
};

/// Thread: the runtime's loop.
class Monitor {
 public:
  struct Sources {
    std::function<void(Metrics_text&)> metrics;  // adds the daemon's own
    std::function<std::string()> trouble;        // why it is not healthy; empty: it is
    http::Handler pages;                         // other paths; may be null
  };

  /// Errors: a given address that cannot be served. Without one, trouble is only logged.
  static Outcome<std::unique_ptr<Monitor>> start(Runtime& runtime, Monitor_options options,
                                                 Sources sources);
  ~Monitor();
  Monitor(Monitor const&) = delete;
  Monitor& operator=(Monitor const&) = delete;

 private:
  Monitor(Runtime& runtime, Monitor_options options, Sources sources);
  Outcome<void> listen();
  void answer(http::Request const& request, http::Respond respond);
  std::string metrics();

  Runtime& runtime_;
  Monitor_options const options_;
  Sources const sources_;
  Time_point const since_;
  std::optional<http::Server> server_;
};

}  // namespace pstorage::cli
