// The clients of the simulation: each does one operation at a time and remembers who led.
#include "tests/mds/raft/raft_sim.h"

namespace pstorage::mds::raft {
namespace {

using std::chrono::milliseconds;

}  // namespace

void Raft_sim::client_turn(std::size_t number) {
  auto& client = clients_[number];
  queue_.at(random_.between(milliseconds(1), milliseconds(30)),
            [this, number] { client_turn(number); });
  if (client.is_busy) return;
  auto const known = processes_.find(client.target);
  Raft_process* process = known == processes_.end() ? nullptr : known->second.get();
  if (process == nullptr || !process->is_up() || random_.percent(5)) process = any_up();
  if (process == nullptr) return;
  bool const is_read = random_.percent(40);
  if (!is_read && !process->core().is_leader()) {
    client.target = process->core().leader();
    return;
  }
  client.is_busy = true;
  auto const asked = ++client.asked;
  // It gives up waiting, as a real one would, and the outcome stays unknown.
  queue_.at(milliseconds(250), [&client, asked] {
    if (client.asked != asked || !client.is_busy) return;
    client.is_busy = false;
    client.target = {};
  });
  auto const key = static_cast<unsigned>(random_.below(keys_max));
  if (is_read) {
    if (random_.percent(50)) process = any_up();
    reach(*process, [this, &client, process, key] { client_read(client, *process, key); });
  } else {
    reach(*process, [this, &client, process, key] { client_write(client, *process, key); });
  }
}

/// A paused process gets the request when it goes on.
void Raft_sim::reach(Raft_process& process, std::function<void()> ask) {
  Duration left{};
  if (!is_paused(process.id(), left)) return ask();
  queue_.at(left, [&process, ask = std::move(ask)] {
    if (process.is_up()) ask();
  });
}

void Raft_sim::client_write(Client& client, Raft_process& process, unsigned key) {
  auto const floor = history_.begin(key);
  auto const command = make_command(key, next_value_++);
  process.write(command, [this, &client, asked = client.asked, key, floor, command](
                             bool is_ok, std::uint64_t index) {
    if (is_ok) {
      history_.wrote(key, floor, index, command);
      ++acknowledged_;
      ++operations_;
    }
    if (client.asked == asked) client.is_busy = false;
  });
}

void Raft_sim::client_read(Client& client, Raft_process& process, unsigned key) {
  auto const floor = history_.begin(key);
  process.read(
      [this, &client, asked = client.asked, key, floor](bool is_ok, Registers const& registers) {
        if (is_ok) {
          auto const& value = registers.values.at(key);
          history_.read(key, floor, value.index, value.command);
          ++operations_;
        }
        if (client.asked == asked) client.is_busy = false;
      });
}

}  // namespace pstorage::mds::raft
