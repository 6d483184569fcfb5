#include "cs/sync_manager.h"

#include <algorithm>

#include "core/crc32c.h"
#include "cs/peer_address.h"

namespace pstorage::cs {
namespace {

// Beside clients: who puts so much in place, or reads it, holds them up for about 0.2 ms.
constexpr std::uint32_t piece_blocks = 8;

}  // namespace

Sync_manager::Sync_manager(Clock& clock, Network& network, Log& log, Store& store, Pull_pace& pace,
                           Host_id own_host, Report report, Sync_options options)
    : clock_(clock),
      network_(network),
      log_(log),
      store_(store),
      pace_(pace),
      own_host_(own_host),
      report_(std::move(report)),
      options_(options) {}

Sync_manager::~Sync_manager() {
  for (auto const& [cs, link] : links_) network_.close(link.connection);
}

// ---------------------------------------------------------------- orders

void Sync_manager::order(proto::Sync_orders::One const& order) {
  Chunk_id const id{order.chunk()};
  bool const sane = id && is_chunk_size(order.chunk_size()) && order.version() != 0;
  if (!sane) return log_.warn("malformed sync order", {{"chunk", id}});
  Task& task = tasks_[id];
  bool const is_new = task.version != Version{order.version()};
  if (task.version > Version{order.version()}) return;  // overtaken by the writer's open
  task.chunk = id;
  task.file = {order.file()};
  task.version = {order.version()};
  task.chunk_size = order.chunk_size();
  task.sources.assign(order.sources().begin(), order.sources().end());
  bool const changed = task.writer_expected != order.writer_expected();
  task.writer_expected = order.writer_expected();
  if (!is_new && !changed) return;
  if (is_new) task.failures = 0;
  task.state = State::queued;
  task.round = next_round_++;
}

void Sync_manager::chunk_opened(Chunk const& chunk) {
  auto const found = tasks_.find(chunk.id);
  if (found == tasks_.end()) return;
  Task& task = found->second;
  if (chunk.replica.version < task.version) return;
  if (!chunk.replica.syncing) {
    tasks_.erase(found);  // the MDS counts it as in-sync already
    return;
  }
  task.version = chunk.replica.version;
  restart(task);
}

bool Sync_manager::may_run(Task& task) {
  Chunk* const chunk = store_.find(task.chunk);
  if (!task.writer_expected) return true;
  return chunk != nullptr && chunk->replica.has_writer() && chunk->replica.version == task.version;
}

void Sync_manager::begin(Task& task) {
  if (!store_.has_room(0)) return;
  auto loaded = store_.load(task.chunk);
  if (loaded.has_error() && errc_of(loaded.error()) == Errc::corrupt) {
    // Nothing of it can be used: make it anew once the removal is through.
    log_.warn("a chunk file without a valid header is replaced", {{"chunk", task.chunk}});
    store_.remove(task.chunk, [](Errc) {});
    return pause(task, options_.retry_after);
  }
  if (loaded.has_error()) {
    loaded = store_.create(task.chunk, task.file, task.chunk_size, task.version);
  }
  if (loaded.has_error()) {
    Errc const why = errc_of(loaded.error());
    if (why == Errc::unavailable) return pause(task, options_.retry_after);
    return report(task, true, message_of(why));
  }
  Chunk& chunk = *loaded.value();
  if (chunk.replica.chunk_size != task.chunk_size || chunk.replica.file != task.file) {
    return report(task, true, "the chunk file here has another size or belongs to another file");
  }
  if (chunk.replica.begin_sync(task.version) != Errc::ok) {
    tasks_.erase(task.chunk);  // an order that time has overtaken
    return;
  }
  store_.record_open(chunk);
  restart(task);
}

void Sync_manager::restart(Task& task) {
  task.round = next_round_++;
  task.request = 0;
  task.position = 0;
  task.highest = {};
  task.runs.clear();
  task.pulled = {};
  task.state = State::waiting;
}

void Sync_manager::pause(Task& task, Duration time) {
  task.round = next_round_++;
  task.request = 0;
  task.runs.clear();
  task.pulled = {};
  task.retry_at = clock_.now() + time;
  task.state = State::paused;
}

// ---------------------------------------------------------------- rhythm

void Sync_manager::on_tick() {
  unsigned running = 0;
  std::vector<Chunk_id> ids;
  for (auto const& [id, task] : tasks_) {
    ids.push_back(id);
    if (task.state != State::queued && task.state != State::waiting) ++running;
  }
  for (Chunk_id const id : ids) {
    auto const found = tasks_.find(id);
    if (found == tasks_.end()) continue;
    Task& task = found->second;
    bool const starts = task.state == State::waiting && may_run(task);
    if (starts && running >= options_.chunks_max) continue;
    if (starts) ++running;
    step(task);
  }
}

void Sync_manager::step(Task& task) {
  Time_point const now = clock_.now();
  switch (task.state) {
    case State::queued:
      return begin(task);
    case State::waiting:
      if (!may_run(task)) return;
      if (Chunk* chunk = store_.find(task.chunk)) {
        task.joined = chunk->replica.has_writer() ? chunk->replica.open_epoch() : Epoch{};
        next_window(task);
      } else {
        task.state = State::queued;
      }
      return;
    case State::paused:
      if (now < task.retry_at) return;
      task.state = store_.find(task.chunk) == nullptr ? State::queued : State::waiting;
      return;
    case State::table:
    case State::pull:
      if (now - task.sent > options_.answer_timeout) {
        if (Link* link = link_of(task)) {
          network_.close(link->connection);
          links_.erase(task.sources[task.source % task.sources.size()].cs());
        }
        source_failed(task, "no answer in time");
      }
      return;
    case State::held:
      return next_run(task);
    case State::store:
      return store_pulled(task);
    case State::local:
    case State::commit:
    case State::report:
      return;
  }
}

std::uint32_t Sync_manager::window(Task const& task) const {
  return std::min(options_.window_bytes, task.chunk_size - task.position);
}

void Sync_manager::next_window(Task& task) {
  if (task.position >= task.chunk_size) return commit(task);
  task.state = State::local;
  store_.read_async(task.chunk, Read_kind::table, task.position, window(task),
                    [this, id = task.chunk, round = task.round,
                     alive = std::weak_ptr<bool>(alive_)](Read_result& result) {
                      if (!alive.expired()) own_table_read(id, round, result);
                    });
}

void Sync_manager::own_table_read(Chunk_id chunk, std::uint64_t round, Read_result& result) {
  auto const found = tasks_.find(chunk);
  if (found == tasks_.end() || found->second.round != round) return;
  Task& task = found->second;
  if (result.status != Errc::ok) return report(task, true, message_of(result.status));
  task.own.resize(result.meta.size() / sizeof(Block_record));
  std::memcpy(task.own.data(), result.meta.data(), result.meta.size());
  ask(task, Operation::table, task.position, window(task));
}

// ---------------------------------------------------------------- sources

Sync_manager::Link* Sync_manager::link_of(Task& task) {
  if (task.sources.empty()) return nullptr;
  auto const found = links_.find(task.sources[task.source % task.sources.size()].cs());
  return found == links_.end() ? nullptr : &found->second;
}

void Sync_manager::ask(Task& task, Operation operation, std::uint32_t offset,
                       std::uint32_t length) {
  task.state = operation == Operation::table ? State::table : State::pull;
  task.sent = clock_.now();
  if (task.sources.empty()) return source_failed(task, "no source is known");
  auto const& source = task.sources[task.source % task.sources.size()];
  Address const address = pick_address(source, own_host_);
  Link& link = links_[source.cs()];
  if (!link.connection || link.address != address) {
    if (link.connection) network_.close(link.connection);
    link = {network_.connect(address, *this), false, address};
  }
  Message message;
  message.header.operation = operation;
  message.header.request_id = next_request_++;
  message.header.chunk = task.chunk;
  message.header.offset = offset;
  message.header.length = length;
  // Writes below the join stamp may be on their way to a source that has not been opened yet.
  if (task.joined) message.header.version = task.version;
  task.request = message.header.request_id;
  network_.send(link.connection, std::move(message));
}

void Sync_manager::source_failed(Task& task, std::string const& why) {
  task.last_failure = why;
  ++task.source;
  if (++task.failures > options_.failures_max) return report(task, true, why);
  pause(task, options_.retry_after);
}

void Sync_manager::on_connected(Connection_id connection, Peer_info const&) {
  for (auto& [cs, link] : links_) link.up = link.up || link.connection == connection;
}

void Sync_manager::on_disconnected(Connection_id connection, Failure const& why) {
  std::uint32_t lost = 0;
  for (auto const& [cs, link] : links_) {
    if (link.connection == connection) lost = cs;
  }
  if (lost == 0) return;
  links_.erase(lost);
  std::vector<Chunk_id> waiting;
  for (auto const& [id, task] : tasks_) {
    bool const asked = task.state == State::table || task.state == State::pull;
    if (asked && task.sources[task.source % task.sources.size()].cs() == lost) {
      waiting.push_back(id);
    }
  }
  for (Chunk_id const id : waiting) source_failed(tasks_[id], why.text);
}

void Sync_manager::on_message(Connection_id, Message& message) {
  auto const found = tasks_.find(message.header.chunk);
  if (found == tasks_.end() || found->second.request != message.header.request_id) return;
  Task& task = found->second;
  task.request = 0;
  Operation const expected = task.state == State::table ? Operation::table : Operation::pull;
  bool const asked = task.state == State::table || task.state == State::pull;
  if (!asked || message.header.operation != expected) return;
  if (message.header.status != Errc::ok) {
    return source_failed(task, message_of(message.header.status));
  }
  if (expected == Operation::table) {
    on_table(task, message);
  } else {
    on_pull(task, message);
  }
}

// ---------------------------------------------------------------- comparing and storing

bool Sync_manager::needs(Chunk& chunk, Task const& task, std::uint32_t block,
                         Block_record const& own, Block_record const& theirs) const {
  if (own.stamp == theirs.stamp && own.crc == theirs.crc && own.flags == theirs.flags) {
    return false;
  }
  // Of the same write, and theirs is rotten: ours is the good one.
  bool const theirs_is_rotten = (theirs.flags & block_corrupt) != 0;
  if (theirs_is_rotten && own.stamp == theirs.stamp && (own.flags & block_corrupt) == 0) {
    return false;
  }
  // The writer sends this replica everything from the join stamp on.
  Stamp const join = chunk.replica.join_stamp;
  Staged const* const staged = chunk.staged_block(block);
  std::uint64_t const stamp = staged != nullptr ? staged->record.stamp : own.stamp;
  return !(task.joined && join.value != 0 && stamp >= join.value);
}

void Sync_manager::on_table(Task& task, Message& message) {
  Chunk* const chunk = store_.find(task.chunk);
  std::uint32_t const blocks = window(task) / block_bytes;
  if (chunk == nullptr || message.header.offset != task.position) return;
  if (message.meta.size() != blocks * sizeof(Block_record) || task.own.size() != blocks) {
    return source_failed(task, "its answer is malformed");
  }
  for (std::uint32_t i = 0; i < blocks; ++i) {
    auto const theirs = load_le<Block_record>(message.meta.data() + i * sizeof(Block_record));
    std::uint32_t const block = task.position / block_bytes + i;
    task.highest = std::max(task.highest, Stamp{theirs.stamp});
    if (!needs(*chunk, task, block, task.own[i], theirs)) continue;
    if (!task.runs.empty() && task.runs.back().first + task.runs.back().blocks == block) {
      ++task.runs.back().blocks;
    } else {
      task.runs.push_back({block, 1});
    }
  }
  next_run(task);
}

bool Sync_manager::is_pulling() const {
  return std::any_of(tasks_.begin(), tasks_.end(), [](auto const& one) {
    return one.second.state == State::pull || one.second.state == State::store;
  });
}

/// The run to pull next. Beside clients a small one.
Sync_manager::Run Sync_manager::take_piece(Task& task) {
  Run& last = task.runs.back();
  if (pace_.has_clients() && last.blocks > piece_blocks) {
    Run const piece{last.first, piece_blocks};
    last.first += piece_blocks;
    last.blocks -= piece_blocks;
    task.runs.push_back(piece);
  }
  return task.runs.back();
}

void Sync_manager::next_run(Task& task) {
  if (!task.runs.empty()) {
    if (!pace_.may_take() || (pace_.has_clients() && is_pulling())) {
      task.state = State::held;
      return;
    }
    Run const run = take_piece(task);
    pace_.took(run.blocks * block_bytes);
    return ask(task, Operation::pull, run.first * block_bytes, run.blocks * block_bytes);
  }
  task.failures = 0;
  task.position += window(task);
  next_window(task);
}

/// Another source may have the block. Where none has, it comes as it is here and all others keep
/// their redundancy: torn, so that this replica, too, can offer what it has to the next writer;
/// with nothing but rot everywhere, as damaged.
bool Sync_manager::goes_on_looking(Task const& task, Block_record const& theirs) const {
  if ((theirs.flags & block_corrupt) == 0) return false;
  std::size_t const rounds = has_data(theirs) ? 1 : 2;
  return task.failures < std::min<std::size_t>(rounds * task.sources.size(), options_.failures_max);
}

void Sync_manager::on_pull(Task& task, Message& message) {
  if (task.runs.empty() || message.header.offset != task.runs.back().first * block_bytes) return;
  Run const run = task.runs.back();
  bool valid = message.meta.size() == run.blocks * sizeof(Block_record);
  std::size_t at = 0;
  for (std::uint32_t i = 0; valid && i < run.blocks; ++i) {
    auto const record = load_le<Block_record>(message.meta.data() + i * sizeof(Block_record));
    if (goes_on_looking(task, record)) {
      return source_failed(task, "it has no valid data for block " + std::to_string(run.first + i));
    }
    if (!has_data(record)) continue;
    valid = in_bounds(at, block_bytes, message.data.size()) &&
            crc32c(message.data.bytes().subspan(at, block_bytes)) == record.crc;
    at += block_bytes;
  }
  if (!valid || at != message.data.size()) return source_failed(task, "its answer is damaged");
  pulled_bytes_ += message.data.size();
  task.pulled = std::move(message);
  task.state = State::store;
  store_pulled(task);
}

void Sync_manager::store_pulled(Task& task) {
  Chunk* const chunk = store_.find(task.chunk);
  if (chunk == nullptr) return;
  Run const run = task.runs.back();
  Errc const admitted = store_.admit(*chunk, run.first * block_bytes, run.blocks * block_bytes);
  if (admitted != Errc::ok) return report(task, true, message_of(admitted));
  if (!store_.has_room(task.pulled.data.size())) return;  // tried again with the next tick
  std::vector<Block_record> records;
  std::uint32_t first = run.first, torn = 0;
  std::size_t begin = 0, at = 0;
  auto const store_kept = [&](std::uint32_t next) {
    if (!records.empty()) {
      Slice const data = at == begin ? Slice() : task.pulled.data.part(begin, at - begin);
      store_.repair(*chunk, first * block_bytes, records, data);
      records.clear();
    }
    first = next;
  };
  for (std::uint32_t i = 0; i < run.blocks; ++i) {
    auto theirs = load_le<Block_record>(task.pulled.meta.data() + i * sizeof(Block_record));
    std::uint32_t const block = run.first + i;
    bool const is_torn = (theirs.flags & block_corrupt) != 0 && has_data(theirs);
    if (is_torn) ++torn;
    if ((theirs.flags & block_corrupt) != 0 && !is_torn) {
      theirs = {theirs.stamp, never_written.crc, block_hole | block_corrupt};
      log_.error("no replica has valid data for a block; it stays damaged until it is rewritten",
                 {{"chunk", task.chunk}, {"block", block}});
    }
    std::size_t const size = has_data(theirs) ? block_bytes : 0;
    // Looked at again: a write may have arrived while the pull was under way.
    if (needs(*chunk, task, block, store_.block_record(*chunk, block), theirs)) {
      if (records.empty()) begin = at;
      records.push_back(theirs);
      at += size;
    } else {
      store_kept(block + 1);
      at += size;
    }
  }
  store_kept(0);
  if (torn != 0) {
    log_.warn("blocks torn by a power failure were copied as torn: no replica had valid data",
              {{"chunk", task.chunk}, {"blocks", torn}});
  }
  task.pulled = {};
  task.runs.pop_back();
  task.state = State::held;
  next_run(task);
}

void Sync_manager::commit(Task& task) {
  Chunk* const chunk = store_.find(task.chunk);
  if (chunk == nullptr || store_.is_read_only()) return report(task, true, "the disk has failed");
  if (!store_.has_room(0)) return pause(task, options_.retry_after);
  store_.record_synced(*chunk, task.highest);
  task.state = State::commit;
  store_.flush(task.file, [this, id = task.chunk, round = task.round,
                           alive = std::weak_ptr<bool>(alive_)](Errc done) {
    if (alive.expired()) return;
    auto const found = tasks_.find(id);
    if (found == tasks_.end() || found->second.round != round) return;
    report(found->second, done != Errc::ok, message_of(done));
  });
}

void Sync_manager::report(Task& task, bool failed, std::string const& reason) {
  proto::Sync_done message;
  message.set_chunk(task.chunk.value);
  message.set_version(task.version.value);
  message.set_epoch(task.joined.value);
  message.set_failed(failed);
  if (failed) {
    message.set_reason(reason);
    log_.warn("gave up the sync of a chunk", {{"chunk", task.chunk}, {"reason", reason}});
  }
  task.round = next_round_++;
  task.state = State::report;
  report_(std::move(message), [this, id = task.chunk, round = task.round, failed,
                               alive = std::weak_ptr<bool>(alive_)](bool accepted) {
    if (alive.expired()) return;
    auto const found = tasks_.find(id);
    if (found == tasks_.end() || found->second.round != round) return;
    if (failed || accepted) {
      Chunk* const chunk = store_.find(id);
      if (accepted && !failed && chunk != nullptr) {
        chunk->replica.syncing = false;  // complete: may serve as a source itself
        if (store_.has_room(0)) store_.record_open(*chunk);
      }
      tasks_.erase(found);
      return;
    }
    // A lease has become active in between: its holder will join, or the MDS sends new orders.
    found->second.writer_expected = true;
    restart(found->second);
  });
}

}  // namespace pstorage::cs
