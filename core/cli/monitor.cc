#include "core/cli/monitor.h"

#include <unistd.h>

#include "core/cli/daemon.h"
#include "core/disk/atomic_file.h"

namespace pstorage::cli {

Monitor::Monitor(Runtime& runtime, Monitor_options options, Sources sources)
    : runtime_(runtime),
      options_(std::move(options)),
      sources_(std::move(sources)),
      since_(runtime.clock().now()) {}

Monitor::~Monitor() {
  if (server_ && !options_.note_path.empty()) ::unlink(options_.note_path.c_str());
}

Outcome<std::unique_ptr<Monitor>> Monitor::start(Runtime& runtime, Monitor_options options,
                                                 Sources sources) {
  bool const is_asked_for = !options.given.empty();
  if (options.given == "off") return std::unique_ptr<Monitor>();
  std::unique_ptr<Monitor> monitor(new Monitor(runtime, std::move(options), std::move(sources)));
  auto const listening = monitor->listen();
  if (listening.has_value()) return monitor;
  if (is_asked_for)
    return failure(listening.error().code,
                   "--metrics: " + listening.error().text + "; give another ADDR[:PORT], or off");
  runtime.log().warn("no metrics are served", {{"reason", listening.error().text}});
  return std::unique_ptr<Monitor>();
}

Outcome<void> Monitor::listen() {
  auto at = options_.preferred;
  if (!options_.given.empty()) {
    PS_TRY(at, Address::parse(options_.given, options_.preferred.port));
  }
  server_.emplace(runtime_, [this](http::Request const& request, http::Respond respond) {
    answer(request, std::move(respond));
  });
  auto real = server_->listen(at);
  if (real.has_error() && options_.given.empty() && at.port != 0) {
    at.port = 0;  // another daemon of this host has it
    real = server_->listen(at);
  }
  if (real.has_error()) {
    server_.reset();
    return real.error();
  }
  runtime_.log().info("serving metrics", {{"at", real.value().text()}});
  if (options_.note_path.empty()) return success();
  auto const noted =
      write_file_atomically(options_.note_path, as_bytes(real.value().text() + "\n"), 0644);
  if (noted.has_error())
    runtime_.log().warn("cannot note where metrics are", {{"reason", noted.error().text}});
  return success();
}

std::string Monitor::metrics() {
  Metrics_text text;
  text.process(options_.daemon, resident_bytes(), runtime_.clock().now() - since_);
  auto const trouble = sources_.trouble();
  text.one_gauge("pstorage_healthy", "1: /healthz says ok.", trouble.empty() ? 1 : 0);
  sources_.metrics(text);
  return std::move(text).finish();
}

void Monitor::answer(http::Request const& request, http::Respond respond) {
  http::Answer answer;
  if (request.path == "/metrics") {
    answer.content_type = Metrics_text::content_type;
    answer.body = metrics();
  } else if (request.path == "/healthz") {
    auto const trouble = sources_.trouble();
    answer.status = trouble.empty() ? 200 : 503;
    answer.body = (trouble.empty() ? "ok" : trouble) + "\n";
  } else if (sources_.pages) {
    return sources_.pages(request, std::move(respond));
  } else {
    answer.status = 404;
    answer.body = "there are /metrics and /healthz\n";
  }
  respond(std::move(answer));
}

}  // namespace pstorage::cli
