#include "mds/status_page.h"

#include <algorithm>
#include <memory>

#include "core/cli/output.h"
#include "core/runtime/real_clock.h"
#include "mds/page/page.h"

namespace pstorage::mds {
namespace {

constexpr unsigned events_shown = 100;
constexpr unsigned volumes_shown = 500;
// The counts go through tables of a row a replica: never more than a twentieth of the time.
constexpr Duration status_age_min = std::chrono::seconds(2);
constexpr int status_rest = 20;
constexpr Duration check_pause = std::chrono::seconds(1);

http::Answer refusal(unsigned status, std::string const& text) {
  http::Answer answer;
  answer.status = status;
  answer.body = text + "\n";
  if (status == 401)
    answer.headers.emplace_back("WWW-Authenticate", "Basic realm=\"pstorage\", charset=\"UTF-8\"");
  if (status == 503) answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

/// Of a volume with an image the size is a property of its directory.
std::uint64_t size_of(proto::File const& volume) {
  if (volume.type() == proto::TYPE_FILE) return volume.size();
  auto const found = volume.properties().find("size");
  return found == volume.properties().end() ? 0 : std::strtoull(found->second.c_str(), nullptr, 10);
}

}  // namespace

Status_page::Status_page(Runtime& runtime, Metadata_server& server, Cluster_key const& key,
                         Page_access access, bool is_loopback)
    : runtime_(runtime),
      server_(server),
      password_(key),
      access_(access),
      is_loopback_(is_loopback) {}

proto::Status_reply const* Status_page::status() {
  auto const now = runtime_.clock().now();
  if (now >= status_until_) {
    Real_clock const clock;  // the loop's stands still during a turn
    auto const began = clock.now();
    status_.Clear();
    is_master_ = server_.report(status_);
    status_until_ = now + std::max<Duration>(status_age_min, (clock.now() - began) * status_rest);
  }
  return is_master_ ? &status_ : nullptr;
}

void Status_page::answer(http::Request const& request, http::Respond respond) {
  if (access_ == Page_access::off)
    return respond(refusal(404, "there are /metrics and /healthz; the status page is off"));
  if (access_ == Page_access::open) return respond(show(request.path));
  if (!is_loopback_) {
    return respond(refusal(403,
                           "the password would cross the network in clear: serve at a loopback "
                           "address and come through 'ssh -L'"));
  }
  check(request, std::move(respond));
}

void Status_page::check(http::Request const& request, http::Respond respond) {
  auto const& given = request.authorization;
  if (password_.is_known(given)) return respond(show(request.path));
  if (!basic_password(given))
    return respond(refusal(401, "the password of the cluster is needed, with any user name"));
  auto const now = runtime_.clock().now();
  if (is_checking_ || now < next_check_)
    return respond(refusal(503, "another password is being checked: try again in a second"));
  is_checking_ = true;
  auto const is_right = std::make_shared<bool>(false);
  // By value: the answer may come after this object, and a check takes 100 ms.
  auto const checker = std::make_shared<Password_check>(password_);
  runtime_.run_off_loop([checker, given, is_right] { *is_right = checker->verify(given); },
                        [this, alive = std::weak_ptr<bool>(alive_), given, is_right,
                         path = request.path, respond = std::move(respond)] {
                          if (alive.expired()) return;
                          is_checking_ = false;
                          if (!*is_right) {
                            next_check_ = runtime_.clock().now() + check_pause;
                            runtime_.log().warn("wrong password for the status page");
                            return respond(refusal(401, "wrong password"));
                          }
                          password_.remember(given);
                          respond(show(path));
                        });
}

http::Answer Status_page::show(std::string const& path) {
  http::Answer answer;
  answer.headers.emplace_back("Content-Security-Policy",
                              "default-src 'none'; script-src 'self'; style-src 'self' "
                              "'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'");
  if (path == "/status.json") return data();
  if (path == "/" || path == "/index.html") {
    answer.content_type = "text/html; charset=utf-8";
    answer.body = page::html;
  } else if (path == "/page.js") {
    answer.content_type = "text/javascript; charset=utf-8";
    answer.body = page::script;
  } else if (path == "/page.css") {
    answer.content_type = "text/css; charset=utf-8";
    answer.body = page::style;
  } else {
    return refusal(404, "there are /, /status.json, /metrics and /healthz");
  }
  return answer;
}

http::Answer Status_page::data() {
  auto const* const now = status();
  if (now == nullptr) {
    auto const master = server_.entries().leader_address();
    return refusal(503, master.empty() ? "There is no master now."
                                       : "This metadata server is not the master. The master is "
                                         "that of " +
                                             master + ": see its status page.");
  }
  proto::Events events;
  server_.latest_events(events_shown, events);
  proto::File_list volumes;
  server_.list_volumes(volumes_shown, volumes);
  nlohmann::json json = {{"time_ms", runtime_.clock().wall_ms()},
                         {"status", cli::to_json(*now)},
                         {"events", nlohmann::json::array()},
                         {"volumes", nlohmann::json::array()}};
  for (auto const& event : events.events()) json["events"].push_back(cli::to_json(event));
  for (auto const& volume : volumes.files()) {
    auto const& attributes = volume.attributes();
    json["volumes"].push_back({{"name", volume.name()},
                               {"size", size_of(volume)},
                               {"chunks", volume.allocated_chunks()},
                               {"replicas", std::to_string(attributes.replicas_norm()) + ":" +
                                                std::to_string(attributes.replicas_min())},
                               {"holder", volume.holder()}});
  }
  http::Answer answer;
  answer.content_type = "application/json";
  answer.body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return answer;
}

}  // namespace pstorage::mds
