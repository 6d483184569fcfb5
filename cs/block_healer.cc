#include "cs/block_healer.h"

#include <algorithm>

#include "core/crc32c.h"
#include "cs/peer_address.h"

namespace pstorage::cs {
namespace {

constexpr std::size_t blocks_max = 1u << 16;
constexpr std::uint32_t run_max = 256;  // blocks of one request: 1 MiB
constexpr Duration answer_timeout = std::chrono::seconds(5);

}  // namespace

Block_healer::Block_healer(Clock& clock, Network& network, Log& log, Store& store, Cs_id own,
                           Host_id own_host, Find find)
    : clock_(clock),
      network_(network),
      log_(log),
      store_(store),
      own_(own),
      own_host_(own_host),
      find_(std::move(find)) {}

Block_healer::~Block_healer() {
  if (job_ && job_->connection) network_.close(job_->connection);
}

void Block_healer::heal(Chunk_id chunk, std::vector<std::uint32_t> const& blocks) {
  for (auto const block : blocks) {
    if (waiting_blocks_ == blocks_max) return;
    if (waiting_[chunk].insert(block).second) ++waiting_blocks_;
  }
}

void Block_healer::on_tick() {
  if (job_) {
    if (job_->request != 0 && clock_.now() - job_->sent > answer_timeout) next_source();
    return;
  }
  if (waiting_.empty() || !store_.has_room(0)) return;
  auto const first = waiting_.begin();
  job_ = std::make_unique<Job>();
  job_->chunk = first->first;
  job_->blocks = std::move(first->second);
  waiting_blocks_ -= job_->blocks.size();
  waiting_.erase(first);
  find_(job_->chunk, static_cast<std::uint32_t>(job_->blocks.size()),
        [this, number = ++job_number_,
         alive = std::weak_ptr<bool>(alive_)](Outcome<proto::File_map> map) {
          if (!alive.expired()) found(number, map);
        });
}

void Block_healer::found(std::uint64_t job, Outcome<proto::File_map> const& map) {
  if (!job_ || job != job_number_) return;
  if (map.has_error()) {
    log_.warn("damaged blocks cannot be repaired now",
              {{"chunk", job_->chunk}, {"reason", map.error().text}});
    return finish();
  }
  for (auto const& chunk : map.value().chunks()) {
    for (auto const& replica : chunk.replicas()) {
      if (replica.state() != proto::REPLICA_IN_SYNC || replica.cs() == own_.value) continue;
      for (auto const& server : map.value().servers()) {
        if (server.cs() == replica.cs()) job_->sources.push_back(server);
      }
    }
  }
  connect();
}

void Block_healer::connect() {
  if (job_->source >= job_->sources.size()) return finish();
  job_->connection = network_.connect(pick_address(job_->sources[job_->source], own_host_), *this);
  ask();
}

void Block_healer::next_source() {
  if (job_->connection) network_.close(job_->connection);
  job_->connection = {};
  job_->request = 0;
  ++job_->source;
  connect();
}

/// The next run of blocks that lie behind each other.
void Block_healer::ask() {
  if (job_->blocks.empty()) return finish();
  job_->first = *job_->blocks.begin();
  job_->count = 1;
  while (job_->count < run_max && job_->blocks.contains(job_->first + job_->count)) ++job_->count;
  Message message;
  message.header.operation = Operation::pull;
  message.header.request_id = job_->request = next_request_++;
  message.header.chunk = job_->chunk;
  message.header.offset = job_->first * block_bytes;
  message.header.length = job_->count * block_bytes;
  job_->sent = clock_.now();
  network_.send(job_->connection, std::move(message));
}

void Block_healer::on_message(Connection_id connection, Message& message) {
  if (!job_ || job_->connection != connection || message.header.request_id != job_->request) return;
  job_->request = 0;
  if (message.header.status != Errc::ok ||
      message.meta.size() != job_->count * sizeof(Block_record)) {
    return next_source();
  }
  auto const before = job_->blocks.size();
  store(message);
  // What this source cannot give the next one may; with nothing gained there is no point in asking
  // it again.
  if (job_->blocks.size() == before) return next_source();
  ask();
}

void Block_healer::store(Message const& message) {
  Chunk* const chunk = store_.find(job_->chunk);
  if (chunk == nullptr) return job_->blocks.clear();
  std::size_t at = 0;
  for (std::uint32_t i = 0; i < job_->count; ++i) {
    auto const theirs = load_le<Block_record>(message.meta.data() + i * sizeof(Block_record));
    if (!has_data(theirs)) continue;
    if (!in_bounds(at, block_bytes, message.data.size())) return;
    auto const data = message.data.part(at, block_bytes);
    at += block_bytes;
    if ((theirs.flags & block_corrupt) != 0) continue;
    auto const block = job_->first + i;
    auto const own = store_.block_record(*chunk, block);
    // One that is known as damaged has no checksum of its own any more; its stamp tells.
    bool const is_same =
        own.stamp == theirs.stamp && (own.crc == theirs.crc || (own.flags & block_corrupt) != 0);
    if (!is_same) {
      // Written again meanwhile here, and on its way there; or the other way round.
      if (chunk->staged_block(block) != nullptr) job_->blocks.erase(block);
      continue;
    }
    bool const can_store = crc32c(data.bytes()) == theirs.crc && store_.has_room(block_bytes) &&
                           store_.admit(*chunk, block * block_bytes, block_bytes) == Errc::ok;
    if (!can_store) continue;
    if (chunk->staged_block(block) == nullptr) {
      store_.repair(*chunk, block * block_bytes, {&theirs, 1}, data);
      ++repaired_;
    }
    job_->blocks.erase(block);
  }
}

void Block_healer::finish() {
  if (!job_->blocks.empty()) {
    log_.error("blocks stay damaged: no other replica could give them",
               {{"chunk", job_->chunk}, {"blocks", job_->blocks.size()}});
  }
  if (job_->connection) network_.close(job_->connection);
  job_.reset();
}

void Block_healer::on_disconnected(Connection_id connection, Failure const&) {
  if (!job_ || job_->connection != connection) return;
  job_->connection = {};
  next_source();
}

}  // namespace pstorage::cs
