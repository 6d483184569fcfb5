#include "core/client/mds_session.h"

#include <algorithm>
#include <utility>

#include "core/assert.h"

namespace pstorage::client {
namespace {

// A refused connection is tried again soon: an MDS that restarts is back within this.
constexpr Duration retry_min = std::chrono::milliseconds(50);
constexpr Duration retry_jitter = std::chrono::milliseconds(100);
constexpr Duration connect_timeout = std::chrono::seconds(2);
// Two servers that each take the other for the master must not be asked in turn without a pause.
constexpr int redirects_max = 3;
constexpr Duration answer_expected = std::chrono::milliseconds(500);

Slice serialized(proto::Mds_request const& request) {
  std::size_t const size = request.ByteSizeLong();
  Slice slice = Slice::allocate(size);
  bool const fits = request.SerializeToArray(slice.data(), static_cast<int>(size));
  PS_ASSERT(fits);
  return slice;
}

}  // namespace

bool is_command(proto::Mds_request const& request) {
  switch (request.op_case()) {
    case proto::Mds_request::kHeartbeat:
    case proto::Mds_request::kLookup:
    case proto::Mds_request::kListDirectory:
    case proto::Mds_request::kGetMap:
    case proto::Mds_request::kCsHeartbeat:
    case proto::Mds_request::kGetStatus:
    case proto::Mds_request::kListServices:
    case proto::Mds_request::kGetEvents:
    case proto::Mds_request::kGetConfig:
    case proto::Mds_request::kExplain:
    case proto::Mds_request::kOkToStop:
    case proto::Mds_request::kInventory:
    case proto::Mds_request::kReportDamage:
    case proto::Mds_request::kAskHolder:
    case proto::Mds_request::kHolderAnswer:
    case proto::Mds_request::OP_NOT_SET:
      return false;
    default:
      return true;
  }
}

Mds_session::Mds_session(Clock& clock, Network& network, Random& random, Log& log,
                         Mds_session_options options)
    : clock_(clock), network_(network), random_(random), log_(log), options_(std::move(options)) {
  PS_ASSERT(!options_.servers.empty());
  next_server_ = random_.below(options_.servers.size());
  preferred_ = options_.first_server;
}

Mds_session::~Mds_session() {
  if (connection_) network_.close(connection_);
}

void Mds_session::set_push_handler(std::function<void(proto::Mds_push const&)> handler) {
  on_push_ = std::move(handler);
}
void Mds_session::set_link_handler(std::function<void(bool)> handler) {
  on_link_ = std::move(handler);
}
void Mds_session::set_expired_handler(std::function<void()> handler) {
  on_expired_ = std::move(handler);
}
void Mds_session::set_heartbeat_filler(std::function<void(proto::Heartbeat&)> filler) {
  fill_heartbeat_ = std::move(filler);
}
void Mds_session::set_lost_files_handler(Lost_handler handler) {
  on_lost_file_ = std::move(handler);
}

void Mds_session::call(proto::Mds_request request, Duration patience, Mds_done done,
                       Mds_done late) {
  Call call;
  call.is_command = is_command(request);
  call.request = std::move(request);
  call.done = std::move(done);
  call.late = std::move(late);
  if (patience > Duration{0}) call.give_up = clock_.now() + patience;
  call.key = next_call_++;
  std::uint64_t const key = call.key;
  auto const place = calls_.emplace(key, std::move(call)).first;
  if (!connection_ && clock_.now() >= retry_at_) connect_to_next(clock_.now());
  if (linked_) send_call(place->second);
}

void Mds_session::connect_to_next(Time_point now) {
  Address target;
  if (preferred_.empty()) {
    target = options_.servers[next_server_++ % options_.servers.size()];
  } else {
    auto parsed = Address::parse(preferred_, 0);
    preferred_.clear();
    target = parsed.has_value() ? parsed.value()
                                : options_.servers[next_server_++ % options_.servers.size()];
  }
  connected_to_ = target.text();
  connect_started_ = now;
  connection_ = network_.connect(target, *this);
}

void Mds_session::link_down(Time_point now) {
  if (connection_) network_.close(connection_);
  connection_ = {};
  // A heartbeat lost with the link must not keep the next ones from being sent.
  heartbeat_wire_id_ = 0;
  session_wire_id_ = 0;
  session_opening_ = false;
  by_wire_id_.clear();
  for (auto& [_, call] : calls_) call.wire_id = 0;
  has_answered_ = false;
  if (preferred_.empty())
    retry_at_ =
        now + retry_min + Duration(random_.below(static_cast<std::uint64_t>(retry_jitter.count())));
  if (std::exchange(linked_, false) && on_link_) on_link_(false);
}

void Mds_session::on_connected(Connection_id connection, Peer_info const& peer) {
  if (connection != connection_) return;
  if (peer.role != Role::mds) {
    last_failure_ = connected_to_ + ": not an MDS";
    link_down(clock_.now());
    return;
  }
  linked_ = true;
  last_heard_ = clock_.now();
  last_heartbeat_ = {};  // one is due: is it the master?
  if (on_link_) on_link_(true);
  send_pending();
}

void Mds_session::on_disconnected(Connection_id connection, Failure const& why) {
  if (connection != connection_) return;
  last_failure_ = connected_to_ + ": " + why.text;
  connection_ = {};
  link_down(clock_.now());
}

void Mds_session::send_pending() {
  Time_point const now = clock_.now();
  for (auto& [_, call] : calls_)
    if (linked_ && call.wire_id == 0 && now >= call.not_before) send_call(call);
}

void Mds_session::send_control(std::uint64_t wire_id, proto::Mds_request const& request) {
  Message message;
  message.header.request_id = wire_id;
  message.meta = serialized(request);
  // Since when answers are due: of everything that is under way, this request apart.
  bool const was_waiting = by_wire_id_.size() > (by_wire_id_.contains(wire_id) ? 1u : 0u) ||
                           (session_wire_id_ != 0 && session_wire_id_ != wire_id) ||
                           (heartbeat_wire_id_ != 0 && heartbeat_wire_id_ != wire_id);
  if (!was_waiting) asked_at_ = clock_.now();
  network_.send(connection_, std::move(message));
}

void Mds_session::send_call(Call& call) {
  if (call.is_command) {
    if (!session_open_) return open_session();
    // The sequence is drawn once: a repeated command is recognised by it.
    if (call.request.sequence() == 0) call.request.set_sequence(next_sequence_++);
    call.request.set_acked_below(oldest_sequence());
  }
  call.request.set_session(session_open_ ? session_.value : 0);
  call.wire_id = next_wire_id_++;
  by_wire_id_[call.wire_id] = call.key;
  send_control(call.wire_id, call.request);
}

std::uint64_t Mds_session::oldest_sequence() const {
  std::uint64_t oldest = next_sequence_;
  for (auto const& [_, call] : calls_)
    if (call.request.sequence() != 0) oldest = std::min(oldest, call.request.sequence());
  return oldest;
}

void Mds_session::open_session() {
  if (session_opening_) return;
  if (!session_) session_ = {random_.next() | 1};
  session_opening_ = true;
  proto::Mds_request request;
  request.set_session(session_.value);
  request.set_sequence(1);
  request.mutable_open_session()->set_name(options_.name);
  request.mutable_open_session()->set_host_id(options_.host.value);
  session_wire_id_ = next_wire_id_++;
  session_asked_ = clock_.now();
  send_control(session_wire_id_, request);
}

void Mds_session::session_opened(proto::Mds_reply const& reply) {
  session_opening_ = false;
  session_wire_id_ = 0;
  if (static_cast<Errc>(reply.status()) != Errc::ok) {
    log_.warn("the MDS refuses a session", {{"mds", connected_to_}, {"reason", reply.text()}});
    session_ = {};
    last_failure_ = connected_to_ + ": " + reply.text();
    return link_down(clock_.now());
  }
  session_open_ = true;
  cluster_uuid_ = reply.session().cluster_uuid();
  lease_ = std::chrono::milliseconds(reply.session().timeout_ms()) * 4 / 5;
  leased_until_ = session_asked_ + lease_;
  learn_servers(reply.session().servers());
  next_sequence_ = 2;  // opening was number 1
  last_heartbeat_ = clock_.now();
  send_pending();
}

void Mds_session::session_expired() {
  if (!session_open_) return;
  log_.warn("the session with the MDS has expired", {{"session", session_.value}});
  session_open_ = false;
  leased_until_ = {};
  session_ = {};
  next_sequence_ = 1;
  heartbeat_wire_id_ = 0;
  // Commands that were sent may or may not have taken effect, and their leases are gone.
  std::vector<Mds_done> orphans;
  for (auto place = calls_.begin(); place != calls_.end();) {
    if (place->second.request.sequence() == 0) {
      ++place;
      continue;
    }
    by_wire_id_.erase(place->second.wire_id);
    orphans.push_back(std::move(place->second.done));
    place = calls_.erase(place);
  }
  if (on_expired_) on_expired_();
  for (auto& done : orphans)
    done(failure(Errc::session_expired, "the session with the MDS expired before the answer"));
  if (linked_) send_pending();
}

void Mds_session::redirect(proto::Mds_reply const& reply) {
  last_failure_ = connected_to_ + ": " + reply.text();
  if (++redirects_ % redirects_max != 0) preferred_ = reply.leader();
  link_down(clock_.now());
}

void Mds_session::learn_servers(google::protobuf::RepeatedPtrField<std::string> const& servers) {
  std::vector<Address> learned;
  for (auto const& text : servers) {
    auto address = Address::parse(text, 0);
    if (address.has_value()) learned.push_back(std::move(address).value());
  }
  if (learned.empty()) return;
  // What the administrator named stays: it may be a name, or another way to the same servers.
  for (auto const& address : learned) {
    auto& known = options_.servers;
    if (std::find(known.begin(), known.end(), address) == known.end()) known.push_back(address);
  }
  if (options_.on_servers) options_.on_servers(learned);
}

void Mds_session::on_message(Connection_id connection, Message& message) {
  if (connection != connection_) return;
  last_heard_ = clock_.now();
  if (message.header.operation != Operation::control) return;
  auto const* bytes = message.meta.data();
  auto const size = static_cast<int>(message.meta.size());
  if (message.header.request_id == 0) {
    proto::Mds_push push;
    if (push.ParseFromArray(bytes, size) && on_push_) on_push_(push);
    return;
  }
  proto::Mds_reply reply;
  if (!reply.ParseFromArray(bytes, size)) {
    last_failure_ = connected_to_ + ": malformed reply";
    return link_down(clock_.now());
  }
  handle_reply(message.header.request_id, std::move(reply));
}

void Mds_session::handle_reply(std::uint64_t wire_id, proto::Mds_reply reply) {
  auto const status = static_cast<Errc>(reply.status());
  if (status == Errc::not_leader) return redirect(reply);
  redirects_ = 0;
  has_answered_ = true;
  if (wire_id == session_wire_id_) return session_opened(reply);
  if (wire_id == heartbeat_wire_id_) return handle_heartbeat(reply);
  auto const known = by_wire_id_.find(wire_id);
  if (known == by_wire_id_.end()) return;  // of an earlier try
  auto const place = calls_.find(known->second);
  PS_ASSERT(place != calls_.end());
  if (status == Errc::session_expired) return session_expired();
  by_wire_id_.erase(known);
  if (status == Errc::unavailable) {  // not now; the tick sends it again
    place->second.wire_id = 0;
    place->second.not_before = clock_.now() + retry_min;
    last_failure_ = connected_to_ + ": " + reply.text();
    return;
  }
  Mds_done done = std::move(place->second.done);
  calls_.erase(place);
  if (status != Errc::ok)
    done(failure(status, reply.text().empty() ? message_of(status) : reply.text()));
  else
    done(std::move(reply));
}

void Mds_session::handle_heartbeat(proto::Mds_reply const& reply) {
  heartbeat_wire_id_ = 0;
  if (static_cast<Errc>(reply.status()) == Errc::session_expired) return session_expired();
  if (static_cast<Errc>(reply.status()) != Errc::ok) return;
  learn_servers(reply.heartbeat().servers());
  auto const& heartbeat = reply.heartbeat();
  if (on_lost_file_) {
    for (auto const file : heartbeat.lost_files()) on_lost_file_({file}, false);
    for (auto const file : heartbeat.lost_shared_files()) on_lost_file_({file}, true);
  }
  leased_until_ = last_heartbeat_ + lease_;
}

bool Mds_session::is_waiting() const {
  return !by_wire_id_.empty() || session_wire_id_ != 0 || heartbeat_wire_id_ != 0;
}

bool Mds_session::is_answering() const {
  if (!linked_ || !session_open_ || !has_answered_) return false;
  return !is_waiting() || clock_.now() - std::max(last_heard_, asked_at_) < answer_expected;
}

void Mds_session::fail_overdue(Time_point now) {
  std::vector<Mds_done> overdue;
  for (auto place = calls_.begin(); place != calls_.end();) {
    if (place->second.give_up == Time_point{} || now < place->second.give_up) {
      ++place;
      continue;
    }
    Call& call = place->second;
    overdue.push_back(std::move(call.done));
    if (call.late && call.request.sequence() != 0) {
      call.done = std::exchange(call.late, nullptr);
      call.give_up = {};
      // Under the same sequence: carried out only if the command was not, and then without effect.
      call.request.clear_guard();
      call.request.mutable_close_file()->Clear();
      ++place;
      continue;
    }
    if (call.wire_id != 0) by_wire_id_.erase(call.wire_id);
    place = calls_.erase(place);
  }
  for (auto& done : overdue)
    done(failure(Errc::unavailable, "no MDS answers (" + last_failure_ + ")"));
}

void Mds_session::on_tick() {
  Time_point const now = clock_.now();
  fail_overdue(now);
  if (!connection_) {
    bool const wanted = !calls_.empty() || session_open_;
    if (wanted && now >= retry_at_) connect_to_next(now);
    return;
  }
  if (!linked_) {
    if (now - connect_started_ > connect_timeout) {
      last_failure_ = connected_to_ + ": no answer";
      link_down(now);
    }
    return;
  }
  // Something was asked and nothing came for a whole try: another server may do better.
  if (is_waiting() && now - std::max(last_heard_, asked_at_) > options_.try_timeout) {
    last_failure_ = connected_to_ + ": connected, but no answer";
    return link_down(now);
  }
  if (session_open_ && heartbeat_wire_id_ == 0 &&
      now - last_heartbeat_ >= options_.heartbeat_interval) {
    proto::Mds_request request;
    request.set_session(session_.value);
    if (fill_heartbeat_)
      fill_heartbeat_(*request.mutable_heartbeat());
    else
      request.mutable_heartbeat();
    heartbeat_wire_id_ = next_wire_id_++;
    last_heartbeat_ = now;
    send_control(heartbeat_wire_id_, request);
  }
  send_pending();
}

}  // namespace pstorage::client
