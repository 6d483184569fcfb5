#include "tests/sim/sim_world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/assert.h"

namespace pstorage::sim {
namespace {

constexpr Duration cut_retry = std::chrono::milliseconds(20);
constexpr Duration handshake_timeout = std::chrono::seconds(5);

}  // namespace

// ------------------------------------------------------------------ node

Sim_node::Sim_node(Sim_world& world, std::string name, Role role, Host_id host)
    : world_(world), name_(std::move(name)), role_(role), host_(host) {}

Sim_node::~Sim_node() = default;

bool Sim_node::is_paused() const { return world_.now() < paused_until_; }

Time_point Sim_node::now() const {
  auto const elapsed = static_cast<double>(world_.now().since_start.count()) * rate_;
  return {Duration(static_cast<Duration::rep>(elapsed)) + std::chrono::hours(1)};
}

std::uint64_t Sim_node::wall_ms() const { return world_.queue().wall_ms(); }

void Sim_node::at(Duration delay, std::function<void()> work) {
  world_.queue().at(delay, [this, work = std::move(work)] { run(work); });
}

void Sim_node::run(std::function<void()> const& work) {
  if (is_paused()) {
    world_.queue().at(paused_until_ - world_.now(), [this, work] { run(work); });
    return;
  }
  auto const generation = generation_;
  work();
  while (up_ && generation == generation_) {
    if (hook_ != nullptr) hook_->on_turn_end();
    if (deferred_.empty()) break;
    auto next = std::move(deferred_.front());
    deferred_.pop_front();
    next();
  }
}

void Sim_node::start(std::vector<Ticker*> tickers) {
  PS_ASSERT(!up_);
  up_ = true;
  tickers_ = std::move(tickers);
  auto const generation = ++generation_;
  world_.queue().at(tick_interval, [this, generation] { tick(generation); });
}

void Sim_node::tick(std::uint64_t generation) {
  if (generation != generation_ || !up_) return;
  run([this, generation] {
    auto const tickers = tickers_;
    for (Ticker* ticker : tickers)
      if (generation == generation_ && up_) ticker->on_tick();
  });
  world_.queue().at(tick_interval, [this, generation] { tick(generation); });
}

void Sim_node::stop(bool silently) {
  up_ = false;
  ++generation_;
  hook_ = nullptr;
  tickers_.clear();
  deferred_.clear();
  paused_until_ = {};
  for (auto const& [address, _] : listening_) world_.listeners_.erase(address);
  listening_.clear();
  world_.drop_connections(*this, silently);
}

void Sim_node::pause_until(Time_point moment) { paused_until_ = moment; }

Outcome<Address> Sim_node::listen(Address const& at, Connection_handler& handler) {
  listening_[at.text()] = &handler;
  world_.listeners_[at.text()] = {this, &handler};
  return at;
}

Connection_id Sim_node::connect_as(Role role, Address const& to, Connection_handler& handler) {
  auto wire = std::make_shared<Sim_world::Wire>();
  wire->role = role;
  Sim_world::End& end = wire->ends[0];
  end.node = this;
  end.generation = generation_;
  end.handler = &handler;
  end.id = {world_.next_connection_++};
  end.open = true;
  world_.wires_[end.id] = {wire, 0};
  world_.queue().at(world_.latency(),
                    [this, wire, address = to.text()] { world_.attempt(wire, address, 0); });
  world_.queue().at(handshake_timeout, [this, wire] {
    if (wire->established || wire->dead) return;
    wire->dead = true;
    world_.disconnect(wire, 0, Duration{0}, "no answer to the handshake");
  });
  return end.id;
}

void Sim_node::send(Connection_id connection, Message message) {
  auto const [wire, from] = world_.find(connection);
  if (wire == nullptr || !wire->ends[from].open) return;
  if (world_.tap_) world_.tap_(*this, message);
  auto& to = wire->ends[1 - from];
  if (!wire->established && from == 0 && !wire->dead) {
    wire->early.push_back(std::move(message));
    return;
  }
  if (wire->dead || to.node == nullptr) {
    // Nobody is there any more: the answer to the packet is a reset.
    if (wire->dead && to.node != nullptr && to.node->is_up() && !world_.is_cut(*this, *to.node))
      world_.disconnect(wire, from, world_.latency(), "connection reset");
    return;
  }
  to.last_arrival = std::max(to.last_arrival, world_.now() + world_.latency());
  to.inbox.emplace_back(to.last_arrival, std::move(message));
  world_.schedule_delivery(wire, 1 - from);
}

void Sim_node::close(Connection_id connection) {
  auto const [wire, from] = world_.find(connection);
  if (wire == nullptr) return;
  wire->ends[from].open = false;
  wire->ends[from].inbox.clear();
  world_.wires_.erase(connection);
  if (world_.random_.percent(50)) wire->ends[1 - from].inbox.clear();
  world_.disconnect(wire, 1 - from, world_.latency(), "closed by the peer");
}

// ------------------------------------------------------------------ world

Sim_world::Sim_world(std::uint64_t seed, World_options options)
    : random_(seed), options_(options) {}

void Sim_world::mix(std::uint64_t value) {
  ++events_;
  hash_ =
      (hash_ ^ value ^ static_cast<std::uint64_t>(now().since_start.count())) * 0x100000001b3ULL;
}

void Sim_world::write(Log_level level, std::string_view message, Fields fields) {
  if (!verbose_) return;
  std::printf("%12.6f %c %.*s", static_cast<double>(now().since_start.count()) / 1e9,
              "DIWE"[static_cast<int>(level)], static_cast<int>(message.size()), message.data());
  for (auto const& field : fields)
    std::printf(" %.*s=%s", static_cast<int>(field.key.size()), field.key.data(),
                field.value.c_str());
  std::printf("\n");
}

Sim_node& Sim_world::add_node(std::string const& name, Role role, Host_id host) {
  nodes_.push_back(std::make_unique<Sim_node>(*this, name, role, host));
  return *nodes_.back();
}

Duration Sim_world::latency() {
  if (random_.percent(options_.slow_percent))
    return random_.between(options_.latency_max, options_.slow_max);
  return random_.between(options_.latency_min, options_.latency_max);
}

void Sim_world::cut(Sim_node const& from, Sim_node const& to, Time_point until) {
  auto& end = cuts_[{&from, &to}];
  end = std::max(end, until);
}

void Sim_world::heal() { cuts_.clear(); }
bool Sim_world::is_cut(Sim_node const& from, Sim_node const& to) const {
  auto const found = cuts_.find({&from, &to});
  return found != cuts_.end() && now() < found->second;
}

std::pair<std::shared_ptr<Sim_world::Wire>, int> Sim_world::find(Connection_id id) {
  auto const known = wires_.find(id);
  if (known == wires_.end()) return {nullptr, 0};
  return known->second;
}

bool Sim_world::stands(End const& end) {
  return end.open && end.node != nullptr && end.node->is_up() &&
         end.node->generation_ == end.generation;
}

void Sim_world::attempt(std::shared_ptr<Wire> const& wire, std::string address, int tries) {
  End& caller = wire->ends[0];
  if (!stands(caller)) return;
  auto const listener = listeners_.find(address);
  if (listener == listeners_.end())
    return disconnect(wire, 0, latency(), "connection refused by " + address);
  Sim_node& server = *listener->second.first;
  if (is_cut(*caller.node, server) || is_cut(server, *caller.node)) {
    if (tries > 100) return disconnect(wire, 0, latency(), "no route to " + address);
    queue_.at(cut_retry, [this, wire, address, tries] { attempt(wire, address, tries + 1); });
    return;
  }
  End& accepted = wire->ends[1];
  accepted.node = &server;
  accepted.generation = server.generation_;
  accepted.handler = listener->second.second;
  accepted.id = {next_connection_++};
  accepted.open = true;
  wires_[accepted.id] = {wire, 1};
  server.run([this, wire] {
    End& here = wire->ends[1];
    End& there = wire->ends[0];
    if (!stands(here) || wire->dead) return;
    mix(here.id.value);
    here.handler->on_connected(here.id, {.role = wire->role,
                                         .name = there.node->name_,
                                         .host = there.node->host_,
                                         .cluster_uuid = {},
                                         .address = there.node->name_});
    // What the server sends at once must not overtake the caller's own on_connected.
    Duration const delay = latency();
    here.last_arrival = std::max(here.last_arrival, now());
    there.last_arrival = std::max(there.last_arrival, now() + delay);
    queue_.at(delay, [this, wire] {
      wire->ends[0].node->run([this, wire] {
        End& caller_end = wire->ends[0];
        End& server_end = wire->ends[1];
        if (!stands(caller_end) || wire->dead) return;
        wire->established = true;
        auto early = std::exchange(wire->early, {});
        for (Message& message : early) caller_end.node->send(caller_end.id, std::move(message));
        mix(caller_end.id.value);
        caller_end.handler->on_connected(caller_end.id, {.role = server_end.node->role_,
                                                         .name = server_end.node->name_,
                                                         .host = server_end.node->host_,
                                                         .cluster_uuid = {},
                                                         .address = server_end.node->name_});
      });
    });
  });
}

void Sim_world::schedule_delivery(std::shared_ptr<Wire> const& wire, int to) {
  End& end = wire->ends[to];
  if (end.delivering || end.inbox.empty()) return;
  end.delivering = true;
  Duration const delay = std::max(Duration{0}, end.inbox.front().first - now());
  queue_.at(delay, [this, wire, to] { deliver(wire, to); });
}

void Sim_world::deliver(std::shared_ptr<Wire> const& wire, int to) {
  End& end = wire->ends[to];
  End const& from = wire->ends[1 - to];
  end.delivering = false;
  if (end.inbox.empty()) return;
  if (end.node == nullptr || !stands(end)) return end.inbox.clear();
  if (is_cut(*from.node, *end.node) || end.node->is_paused()) {
    end.delivering = true;
    Duration const wait = end.node->is_paused() ? end.node->paused_until_ - now() : cut_retry;
    queue_.at(std::max(wait, Duration(1)), [this, wire, to] { deliver(wire, to); });
    return;
  }
  auto message = std::make_shared<Message>(std::move(end.inbox.front().second));
  end.inbox.pop_front();
  schedule_delivery(wire, to);
  end.node->run([this, wire, to, message] {
    End const& here = wire->ends[to];
    if (!stands(here)) return;
    mix(here.id.value ^ static_cast<std::uint64_t>(message->header.operation) << 32 ^
        message->data.size() << 40 ^ message->header.request_id);
    here.handler->on_message(here.id, *message);
  });
}

void Sim_world::disconnect(std::shared_ptr<Wire> const& wire, int to, Duration delay,
                           std::string why) {
  End& end = wire->ends[to];
  if (end.node == nullptr || !end.open) return;
  Time_point const moment = std::max(end.last_arrival, now() + delay);
  queue_.at(moment - now(), [this, wire, to, why = std::move(why)] {
    End& here = wire->ends[to];
    if (!stands(here)) return;
    End const& there = wire->ends[1 - to];
    if (there.node != nullptr && is_cut(*there.node, *here.node)) {
      return disconnect(wire, to, cut_retry, why);
    }
    here.node->run([this, wire, to, why] {
      End& end_now = wire->ends[to];
      if (!stands(end_now)) return;
      end_now.open = false;
      wires_.erase(end_now.id);
      mix(end_now.id.value);
      end_now.handler->on_disconnected(end_now.id, failure(Errc::unavailable, why));
    });
  });
}

void Sim_world::drop_connections(Sim_node const& node, bool silently) {
  std::vector<std::pair<std::shared_ptr<Wire>, int>> affected;
  for (auto const& [_, entry] : wires_)
    if (entry.first->ends[entry.second].node == &node) affected.push_back(entry);
  for (auto const& [wire, end] : affected) {
    wires_.erase(wire->ends[end].id);
    wire->ends[end].open = false;
    wire->ends[end].inbox.clear();
    if (silently)
      wire->dead = true;
    else
      disconnect(wire, 1 - end, latency(), "connection closed");
  }
}

void Sim_world::break_connection() {
  if (wires_.empty()) return;
  auto place = wires_.begin();
  std::advance(place, static_cast<std::ptrdiff_t>(random_.below(wires_.size())));
  auto const wire = place->second.first;
  if (wire->ends[1].node == nullptr) return;
  for (int const end : {0, 1})
    disconnect(wire, end, random_.between(Duration{0}, std::chrono::milliseconds(200)), "broken");
}

}  // namespace pstorage::sim
