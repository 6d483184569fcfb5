#include "core/client/cs_link.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/assert.h"

namespace pstorage::client {
namespace {

constexpr Duration own_pause = std::chrono::milliseconds(500);

std::optional<Answer_kind> kind_of(Operation operation) {
  switch (operation) {
    case Operation::read:
      return Answer_kind::read;
    case Operation::write:
    case Operation::zero:
      return Answer_kind::change;
    case Operation::flush:
      return Answer_kind::flush;
    default:
      return std::nullopt;
  }
}

/// The owner of an op made by Cs_link::call: lives until its one callback.
class Function_owner final : public Cs_op_owner {
 public:
  explicit Function_owner(std::function<void(Message*)> done) : done_(std::move(done)) {}
  void on_cs_reply(Cs_op&, Message& reply) override { finish(&reply); }
  void on_cs_lost(Cs_op&) override { finish(nullptr); }

 private:
  void finish(Message* reply) {
    auto const done = std::move(done_);
    delete this;
    done(reply);
  }
  std::function<void(Message*)> done_;
};

Message control_message(proto::Cs_request const& request) {
  Message message;
  message.meta = Slice::allocate(request.ByteSizeLong());
  bool const fits =
      request.SerializeToArray(message.meta.data(), static_cast<int>(message.meta.size()));
  PS_ASSERT(fits);
  return message;
}

}  // namespace

Cs_link::Cs_link(Clock& clock, Network& network, Log& log, Cs_id id, Host_id own_host,
                 Cs_link_options const& options, Latency_watch::Server& latency)
    : clock_(clock),
      network_(network),
      log_(log),
      id_(id),
      own_host_(own_host),
      options_(options),
      latency_(latency) {}

Cs_link::~Cs_link() {
  if (connection_) network_.close(connection_);
  state_ = State::down;
  while (!in_flight_.empty()) {
    Cs_op& op = in_flight_.front();
    in_flight_.pop_front();
    if (op.owner != nullptr) op.owner->on_cs_lost(op);
  }
}

void Cs_link::set_addresses(proto::Cs_address const& addresses) {
  std::vector<Address> fresh;
  bool const same_host = addresses.host_id() == own_host_.value && own_host_;
  for (bool const unix_turn : {true, false})
    for (auto const& text : addresses.addresses()) {
      auto parsed = Address::parse(text, 0);
      if (!parsed.has_value() || parsed.value().is_unix() != unix_turn) continue;
      if (unix_turn && !same_host) continue;
      fresh.push_back(std::move(parsed).value());
    }
  is_local_ = same_host;
  if (fresh.empty() || fresh == addresses_) return;
  addresses_ = std::move(fresh);
  address_index_ = 0;
  retry_at_ = {};
  retry_delay_ = {};
}

void Cs_link::add_user(Cs_link_user& user) { users_.push_back(&user); }

void Cs_link::remove_user(Cs_link_user& user) {
  users_.erase(std::remove(users_.begin(), users_.end(), &user), users_.end());
}

void Cs_link::want() {
  if (state_ == State::idle || (state_ == State::down && clock_.now() >= retry_at_)) connect();
}

void Cs_link::try_again() {
  if (state_ == State::up) return;
  failed_attempt_ = false;
  retry_at_ = {};
  retry_delay_ = {};
}

void Cs_link::connect() {
  if (addresses_.empty()) {
    state_ = State::down;
    failed_attempt_ = true;
    last_failure_ = "no address known";
    return;
  }
  state_ = State::connecting;
  connect_started_ = clock_.now();
  connection_ = network_.connect(addresses_[address_index_ % addresses_.size()], *this);
}

void Cs_link::on_connected(Connection_id connection, Peer_info const& peer) {
  if (connection != connection_) return;
  if (peer.role != Role::cs) return go_down("the peer is not a chunk server");
  state_ = State::up;
  latency_.restarted();
  failed_attempt_ = false;
  retry_delay_ = {};
  last_heard_ = clock_.now();
  pinging_ = false;
  auto const users = users_;
  for (auto* user : users) user->on_link_up(*this);
}

void Cs_link::on_disconnected(Connection_id connection, Failure const& why) {
  if (connection != connection_) return;
  connection_ = {};
  go_down(why.text);
}

void Cs_link::fail(std::string const& why) {
  if (state_ == State::up || state_ == State::connecting) go_down(why);
}

void Cs_link::go_down(std::string const& why, bool silent) {
  if (connection_) network_.close(connection_);
  connection_ = {};
  if (state_ == State::up) log_.warn("lost a chunk server", {{"cs", id_}, {"reason", why}});
  last_failure_ = why;
  ++address_index_;
  // The other address of the same CS is tried at once, the first one again only after a pause.
  bool const whole_round = address_index_ % std::max<std::size_t>(addresses_.size(), 1) == 0;
  bool const was_up = state_ == State::up;
  state_ = State::down;
  if (was_up) {
    // A broken connection is not yet a dead server: one more try, at once, before anybody is told
    // to go on without it. A silent one has had its time.
    address_index_ = 0;
    failed_attempt_ = silent;
    retry_at_ = clock_.now();
  } else if (whole_round) {
    failed_attempt_ = true;
    retry_delay_ = std::clamp(retry_delay_ * 2, options_.retry_min, options_.retry_max);
    retry_at_ = clock_.now() + retry_delay_;
  } else {
    return connect();
  }
  Ops lost;
  lost.swap(in_flight_);
  while (!lost.empty()) {
    Cs_op& op = lost.front();
    lost.pop_front();
    if (op.owner != nullptr) op.owner->on_cs_lost(op);
    release(op);
  }
  if (was_up && !users_.empty()) connect();
  auto const users = users_;
  for (auto* user : users) user->on_link_down(*this);
}

void Cs_link::release(Cs_op& op) {
  ++op.generation;
  op.owner = nullptr;
  free_slots_.push_back(op.slot);
}

Cs_op& Cs_link::submit(Message message, Cs_op_owner& owner, void* context) {
  PS_ASSERT(is_up());
  if (free_slots_.empty()) {
    auto fresh = std::make_unique<Cs_op>();
    fresh->slot = static_cast<std::uint32_t>(slots_.size());
    fresh->generation = 1;
    fresh->link = this;
    free_slots_.push_back(fresh->slot);
    slots_.push_back(std::move(fresh));
  }
  Cs_op& op = *slots_[free_slots_.back()];
  free_slots_.pop_back();
  op.owner = &owner;
  op.context = context;
  op.operation = message.header.operation;
  op.sent = clock_.now();
  message.header.request_id = std::uint64_t{op.generation} << 32 | op.slot;
  in_flight_.push_back(op);
  network_.send(connection_, std::move(message));
  return op;
}

Cs_op& Cs_link::submit(proto::Cs_request const& request, Cs_op_owner& owner, void* context) {
  return submit(control_message(request), owner, context);
}

void Cs_link::call(Message message, std::function<void(Message*)> done) {
  submit(std::move(message), *new Function_owner(std::move(done)), nullptr);
}

void Cs_link::call(proto::Cs_request const& request, std::function<void(Message*)> done) {
  call(control_message(request), std::move(done));
}

void Cs_link::on_message(Connection_id connection, Message& message) {
  if (connection != connection_) return;
  last_heard_ = clock_.now();
  auto const slot = static_cast<std::uint32_t>(message.header.request_id);
  auto const generation = static_cast<std::uint32_t>(message.header.request_id >> 32);
  if (slot >= slots_.size() || slots_[slot]->generation != generation ||
      !slots_[slot]->is_linked() || !message.header.is_reply ||
      message.header.operation != slots_[slot]->operation)
    return go_down("the chunk server answered a request that was not asked");
  Cs_op& op = *slots_[slot];
  in_flight_.erase(in_flight_.iterator_to(op));
  note_answer(op);
  if (op.owner == this) pinging_ = false;
  if (op.owner != nullptr) op.owner->on_cs_reply(op, message);
  release(op);
}

void Cs_link::note_answer(Cs_op const& op) {
  auto const kind = kind_of(op.operation);
  if (!kind.has_value() || op.sent < resumed_at_) return;
  Duration const took = last_heard_ - op.sent;
  latency_.answered(*kind, took);
  if (kind == Answer_kind::change) writes_.add(took);
  if (kind != Answer_kind::read) return;
  reads_.add(took);
  read_latency_ += (took - read_latency_) / 16;
}

void Cs_link::note_ages(Time_point now) {
  std::size_t missing = answer_kinds;
  std::array<bool, answer_kinds> seen{};
  for (auto const& op : in_flight_) {
    if (missing == 0) return;
    auto const kind = kind_of(op.operation);
    if (!kind.has_value() || std::exchange(seen[static_cast<std::size_t>(*kind)], true)) continue;
    --missing;
    latency_.set_oldest(*kind, now - std::max(op.sent, resumed_at_));
  }
}

void Cs_link::on_tick() {
  Time_point const now = clock_.now();
  // This process was stopped or starved: the silence is ours, answers may lie in the socket.
  if (now - std::exchange(last_tick_, now) > own_pause) last_heard_ = resumed_at_ = now;
  if (state_ == State::connecting && now - connect_started_ > options_.connect_max)
    return go_down("no answer to the connection attempt");
  if (state_ == State::down && !users_.empty() && now >= retry_at_) return connect();
  if (state_ != State::up || in_flight_.empty()) return;
  Time_point const oldest = std::max(in_flight_.front().sent, resumed_at_);
  Duration const silent = now - std::max(last_heard_, oldest);
  if (silent > options_.silence_max) return go_down("no sign of life", true);
  if (now - oldest > options_.request_max)
    return go_down("a request was not answered in time", true);
  if (silent > options_.ping_after && !pinging_) {
    pinging_ = true;
    proto::Cs_request ping;
    ping.mutable_get_info();
    submit(ping, *this, nullptr);
  }
}

}  // namespace pstorage::client
