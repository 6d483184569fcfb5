// Control requests of clients: seal, open, last resort.
#include "core/mutant.h"
#include "cs/chunk_server.h"

namespace pstorage::cs {
namespace {

constexpr int chunks_a_request_max = 65536;
// Journal room an opened chunk may take: two records.
constexpr std::size_t open_bytes = 256;

}  // namespace

void Chunk_server::send_control(Connection_id connection, Header const& request,
                                proto::Cs_reply& reply) {
  reply.set_incarnation(incarnation_.value);
  Message message;
  message.header.operation = Operation::control;
  message.header.is_reply = true;
  message.header.request_id = request.request_id;
  message.header.status = static_cast<Errc>(reply.status());
  message.header.incarnation = incarnation_;
  message.meta = Slice::allocate(reply.ByteSizeLong());
  reply.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(message.meta.data()));
  network_.send(connection, std::move(message));
}

void Chunk_server::send_control(Connection_id connection, Header const& request, Errc status) {
  proto::Cs_reply reply;
  reply.set_status(static_cast<std::uint32_t>(status));
  if (status != Errc::ok) reply.set_text(message_of(status));
  send_control(connection, request, reply);
}

void Chunk_server::handle_control(Connection_id connection, Role role, Message& message) {
  Header const header = message.header;
  proto::Cs_request request;
  bool const parsed =
      message.data.empty() &&
      request.ParseFromArray(message.meta.data(), static_cast<int>(message.meta.size()));
  if (!parsed) return send_control(connection, header, Errc::bad_request);
  bool const is_client = role == Role::client || role == Role::tool;
  if (request.has_get_info()) {
    proto::Cs_reply reply;
    proto::Cs_info& info = *reply.mutable_info();
    info.set_cs(options_.identity.cs.value);
    info.set_state(store_->is_read_only() ? "failed" : "active");
    info.set_journal_bytes(store_->journal().ring_bytes());
    info.set_journal_used_bytes(store_->journal().used_bytes());
    return send_control(connection, header, reply);
  }
  if (!is_client) return send_control(connection, header, Errc::refused);
  if (request.has_seal()) return handle_seal(connection, header, request.seal());
  if (request.has_open_chunks()) {
    std::size_t const bytes =
        static_cast<std::size_t>(request.open_chunks().chunks_size()) * open_bytes;
    if (request.open_chunks().chunks_size() > chunks_a_request_max ||
        bytes > store_->request_bytes_max()) {
      return send_control(connection, header, Errc::too_large);
    }
    if (!store_->has_room(bytes)) return defer(connection, message);
    return handle_open(connection, header, request.open_chunks());
  }
  if (request.has_check_chunk()) return handle_check(connection, header, request.check_chunk());
  if (request.has_accept_torn()) {
    std::size_t const bytes =
        static_cast<std::size_t>(request.accept_torn().blocks_size()) * block_bytes;
    if (bytes > store_->request_bytes_max()) {
      return send_control(connection, header, Errc::too_large);
    }
    if (!store_->has_room(bytes)) return defer(connection, message);
    return handle_accept_torn(connection, header, request.accept_torn());
  }
  send_control(connection, header, Errc::bad_request);
}

void Chunk_server::handle_seal(Connection_id connection, Header const& header,
                               proto::Seal const& seal) {
  File_id const file{seal.file()};
  Epoch const epoch{seal.epoch()};
  Epoch const stored = store_->seal_of(file);
  proto::Cs_reply reply;
  if (epoch < stored) {
    reply.set_status(static_cast<std::uint32_t>(Errc::stale_epoch));
    reply.set_text(message_of(Errc::stale_epoch));
    reply.set_epoch(stored.value);
    return send_control(connection, header, reply);
  }
  if (seal.only_ask() || PS_MUTANT(forget_the_seal)) {
    return send_control(connection, header, Errc::ok);
  }
  store_->seal(file, epoch,
               [this, connection, header, alive = std::weak_ptr<bool>(alive_)](Errc done) {
                 if (!alive.expired()) send_control(connection, header, done);
               });
}

Errc Chunk_server::open_replica(proto::Open_chunks const& open, proto::Open_chunks::One const& one,
                                Chunk*& opened) {
  Chunk_id const id{one.chunk()};
  File_id const file{open.file()};
  Open_terms const terms{{open.epoch()}, {one.version()}, one.syncing(), {one.join_stamp()}};
  if (!id || !is_chunk_size(one.chunk_size()) || terms.version == Version{}) {
    return Errc::bad_request;
  }
  auto loaded = store_->load(id);
  bool const is_new = loaded.has_error() && errc_of(loaded.error()) == Errc::not_found;
  if (is_new && one.create()) loaded = store_->create(id, file, one.chunk_size(), terms.version);
  if (loaded.has_error()) return errc_of(loaded.error());
  Chunk& chunk = *loaded.value();
  Replica& replica = chunk.replica;
  if (replica.file != file) return Errc::bad_request;
  bool const changes = replica.version != terms.version || replica.syncing != terms.syncing;
  Errc const why = replica.open(terms, one.chunk_size());
  if (changes && why == Errc::ok && !store_->is_read_only()) store_->record_open(chunk);
  if (why == Errc::ok) chunk.seal = &store_->seal_reference(file);
  opened = &chunk;
  return why;
}

void Chunk_server::open_one(proto::Open_chunks const& open, proto::Open_chunks::One const& one,
                            proto::Cs_reply::Opened& opened) {
  Chunk* chunk = nullptr;
  Errc const why = open_replica(open, one, chunk);
  opened.set_chunk(one.chunk());
  opened.set_status(static_cast<std::uint32_t>(why));
  if (chunk == nullptr) return;
  opened.set_version(chunk->replica.version.value);
  opened.set_last_stamp(chunk->replica.last_stamp.value);
  opened.set_unclean(chunk->replica.unclean && !PS_MUTANT(never_unclean));
  if (why == Errc::ok) sync_->chunk_opened(*chunk);
}

void Chunk_server::handle_open(Connection_id connection, Header const& header,
                               proto::Open_chunks const& open) {
  File_id const file{open.file()};
  Epoch const epoch{open.epoch()};
  Epoch const stored = store_->seal_of(file);
  Control_reply control{connection, header, {}};
  if (epoch < stored || epoch == Epoch{}) {
    control.reply.set_status(static_cast<std::uint32_t>(Errc::stale_epoch));
    control.reply.set_text(message_of(Errc::stale_epoch));
    control.reply.set_epoch(stored.value);
    return send_control(connection, header, control.reply);
  }
  for (auto const& one : open.chunks()) open_one(open, one, *control.reply.add_chunks());
  if (epoch == stored) {
    // Written with this turn: the answer must not outlive what it tells.
    control_replies_.push_back(std::move(control));
    return;
  }
  store_->seal(
      file, epoch,
      [this, control = std::move(control), alive = std::weak_ptr<bool>(alive_)](Errc done) mutable {
        if (alive.expired()) return;
        if (done != Errc::ok) control.reply.set_status(static_cast<std::uint32_t>(done));
        send_control(control.connection, control.header, control.reply);
      });
}

void Chunk_server::handle_accept_torn(Connection_id connection, Header const& header,
                                      proto::Accept_torn const& torn) {
  Chunk* const chunk = store_->find({torn.chunk()});
  if (chunk == nullptr || chunk->seal == nullptr) {
    return send_control(connection, header, Errc::not_open);
  }
  Errc why = store_->is_read_only() ? Errc::read_only : Errc::ok;
  for (auto const block : torn.blocks()) {
    Header one;
    one.stamp = Stamp::of({torn.epoch()}, 0);
    one.version = {torn.version()};
    one.offset = block < chunk->replica.chunk_size / block_bytes ? block * block_bytes : ~0u;
    one.length = block_bytes;
    if (why == Errc::ok) why = chunk->replica.check_open(one, *chunk->seal);
    if (why != Errc::ok) break;
    auto const accepted = store_->accept_torn(*chunk, block, {torn.stamp()});
    if (accepted.has_error()) why = errc_of(accepted.error());
  }
  if (why == Errc::ok) {
    log_.warn("blocks torn by a power failure were accepted as they are: no replica had valid data",
              {{"chunk", torn.chunk()}, {"blocks", torn.blocks_size()}});
  }
  control_replies_.push_back({connection, header, {}});
  control_replies_.back().reply.set_status(static_cast<std::uint32_t>(why));
}

}  // namespace pstorage::cs
