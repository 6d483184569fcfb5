// The data operations of Chunk_server.
#include "core/crc32c.h"
#include "core/mutant.h"
#include "cs/chunk_server.h"

namespace pstorage::cs {
namespace {

constexpr std::size_t slow_reads_max = 65536;

bool checksums_match(Slice const& data, Slice const& crcs) {
  std::size_t const blocks = data.size() / block_bytes;
  for (std::size_t i = 0; i < blocks; ++i) {
    std::uint32_t const crc = crc32c({data.data() + i * block_bytes, block_bytes});
    if (crc != load_le<std::uint32_t>(crcs.data() + i * sizeof(std::uint32_t))) return false;
  }
  return true;
}

/// Errors: bad_request (flags, sizes), corrupt (checksums).
Errc check_records(std::span<Block_record const> records, Slice const& data) {
  std::size_t at = 0;
  for (Block_record const& record : records) {
    if ((record.flags & ~std::uint32_t{block_hole}) != 0) return Errc::bad_request;
    if ((record.flags & block_hole) != 0) {
      if (record.crc != crc32c_of_zero_block) return Errc::corrupt;
      continue;
    }
    if (!in_bounds(at, block_bytes, data.size())) return Errc::bad_request;
    if (crc32c({data.data() + at, block_bytes}) != record.crc) return Errc::corrupt;
    at += block_bytes;
  }
  return at == data.size() ? Errc::ok : Errc::bad_request;
}

}  // namespace

Chunk* Chunk_server::open_chunk(Connection_id connection, Message const& message) {
  Chunk* const chunk = store_->find(message.header.chunk);
  if (chunk != nullptr && chunk->seal != nullptr) return chunk;
  answer(connection, message.header, Errc::not_open);
  return nullptr;
}

// A repeated request may be acknowledged only when the first one may.
void Chunk_server::accept_duplicate(Connection_id connection, Header const& request,
                                    Chunk const& chunk) {
  Lsn const pending = store_->last_large();
  acknowledge(connection, request, chunk, {pending, pending != 0});
}

void Chunk_server::handle_write(Connection_id connection, Message& message) {
  Header const& header = message.header;
  Chunk* const chunk = open_chunk(connection, message);
  if (chunk == nullptr) return;
  std::size_t const blocks = message.data.size() / block_bytes;
  if (message.data.size() != header.length || message.data.size() > store_->request_bytes_max() ||
      message.meta.size() != blocks * sizeof(std::uint32_t)) {
    return answer(connection, header, Errc::bad_request);
  }
  Errc why = Errc::ok;
  Verdict const verdict = chunk->replica.check_write(header, *chunk->seal, why);
  if (verdict == Verdict::refuse) return answer(connection, header, why);
  if (verdict == Verdict::duplicate) return accept_duplicate(connection, header, *chunk);
  if (!checksums_match(message.data, message.meta)) {
    return answer(connection, header, Errc::corrupt);
  }
  why = store_->admit(*chunk, header.offset, header.length);
  if (why != Errc::ok) return answer(connection, header, why);
  ++write_ops_;
  write_bytes_ += header.length;
  auto const accepted =
      store_->write(*chunk, header.offset, message.meta, message.data, header.stamp);
  acknowledge(connection, header, *chunk, accepted);
}

void Chunk_server::handle_zero(Connection_id connection, Message& message) {
  Header const& header = message.header;
  Chunk* const chunk = open_chunk(connection, message);
  if (chunk == nullptr) return;
  if (!message.data.empty() || !message.meta.empty()) {
    return answer(connection, header, Errc::bad_request);
  }
  Errc why = Errc::ok;
  Verdict const verdict = chunk->replica.check_write(header, *chunk->seal, why);
  if (verdict == Verdict::apply && store_->is_read_only()) why = Errc::read_only;
  if (why != Errc::ok) return answer(connection, header, why);
  if (verdict == Verdict::duplicate) return accept_duplicate(connection, header, *chunk);
  ++write_ops_;
  acknowledge(connection, header, *chunk,
              store_->zero(*chunk, header.offset, header.length, header.stamp));
}

void Chunk_server::handle_repair(Connection_id connection, Message& message) {
  Header const& header = message.header;
  Chunk* const chunk = open_chunk(connection, message);
  if (chunk == nullptr) return;
  std::size_t const blocks = header.length / block_bytes;
  if (message.data.size() > store_->request_bytes_max() ||
      blocks * sizeof(Block_record) > body_bytes_max ||
      message.meta.size() != blocks * sizeof(Block_record)) {
    return answer(connection, header, Errc::bad_request);
  }
  Errc why = chunk->replica.check_open(header, *chunk->seal);
  if (why != Errc::ok) return answer(connection, header, why);
  std::vector<Block_record> records(blocks);
  std::memcpy(records.data(), message.meta.data(), message.meta.size());
  why = check_records(records, message.data);
  if (why == Errc::ok && !message.data.empty()) {
    why = store_->admit(*chunk, header.offset, header.length);
  }
  if (why == Errc::ok && store_->is_read_only()) why = Errc::read_only;
  if (why != Errc::ok) return answer(connection, header, why);
  ++write_ops_;
  write_bytes_ += message.data.size();
  acknowledge(connection, header, *chunk,
              store_->repair(*chunk, header.offset, records, message.data));
}

void Chunk_server::handle_flush(Connection_id connection, Message& message) {
  Header const& header = message.header;
  File_id const file{header.chunk.value};
  if (!message.data.empty() || !message.meta.empty()) {
    return answer(connection, header, Errc::bad_request);
  }
  if (header.stamp.epoch() < store_->seal_of(file)) {
    return answer(connection, header, Errc::stale_epoch);
  }
  if (PS_MUTANT(answer_flush_at_once)) return answer(connection, header, Errc::ok);
  store_->flush(file, [this, connection, header, alive = std::weak_ptr<bool>(alive_)](Errc done) {
    if (!alive.expired()) answer(connection, header, done);
  });
}

// ---------------------------------------------------------------- read, table, pull

Errc Chunk_server::check_reading(Chunk const& chunk, Role role, Header const& header) const {
  Replica const& replica = chunk.replica;
  if (header.operation != Operation::table && header.length > data_bytes_max) {
    return Errc::bad_request;
  }
  if (role == Role::cs) return replica.check_pull(header, header.operation);
  if (chunk.seal == nullptr) return Errc::not_open;
  if (header.operation == Operation::table) return replica.check_table(header, *chunk.seal);
  if (PS_MUTANT(serve_a_syncing_replica)) return replica.check_open(header, *chunk.seal);
  return replica.check_read(header, *chunk.seal);
}

void Chunk_server::handle_read(Connection_id connection, Role role, Message& message) {
  Header const& header = message.header;
  if (network_.queued_bytes(connection) > options_.queued_bytes_max) {
    if (slow_reads_.size() < slow_reads_max) {
      slow_reads_.push_back({connection, std::move(message)});
      return;
    }
    return answer(connection, header, Errc::busy);
  }
  if (!message.data.empty() || !message.meta.empty()) {
    return answer(connection, header, Errc::bad_request);
  }
  Chunk* chunk = store_->find(header.chunk);
  if (chunk == nullptr && role == Role::cs) {
    auto const loaded = store_->load(header.chunk);
    if (loaded.has_error()) return answer(connection, header, errc_of(loaded.error()));
    chunk = loaded.value();
  }
  if (chunk == nullptr) return answer(connection, header, Errc::not_open);
  Errc const why = check_reading(*chunk, role, header);
  if (why != Errc::ok) return answer(connection, header, why);
  Read_kind const kind = header.operation == Operation::read    ? Read_kind::read
                         : header.operation == Operation::table ? Read_kind::table
                                                                : Read_kind::pull;
  Read_result result;
  if (store_->try_read(*chunk, kind, header.offset, header.length, result)) {
    return send_read(connection, header, result);
  }
  store_->read_async(
      header.chunk, kind, header.offset, header.length,
      [this, connection, header, alive = std::weak_ptr<bool>(alive_)](Read_result& found) {
        if (!alive.expired()) send_read(connection, header, found);
      });
}

void Chunk_server::send_read(Connection_id connection, Header const& request, Read_result& result) {
  ++read_ops_;
  read_bytes_ += result.data.size();
  Message reply;
  reply.header = request;
  reply.header.is_reply = true;
  reply.header.status = result.status;
  reply.header.incarnation = incarnation_;
  if (result.status == Errc::corrupt) {
    reply.header.offset = result.bad_offset;
    // Once a second at most: a bad disk must not fill the log as well.
    Time_point const now = clock_.now();
    if (now - corrupt_logged_ >= std::chrono::seconds(1) || corrupt_logged_ == Time_point{}) {
      corrupt_logged_ = now;
      log_.warn("a block does not match its checksum; the client reads another replica",
                {{"chunk", request.chunk}, {"offset", result.bad_offset}});
    }
  } else if (result.status == Errc::ok) {
    reply.meta = std::move(result.meta);
    reply.data = std::move(result.data);
  }
  network_.send(connection, std::move(reply));
}

}  // namespace pstorage::cs
