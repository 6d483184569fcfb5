// What a chunk server tells in /metrics and /healthz.
#include "cs/chunk_server.h"

namespace pstorage::cs {

std::string Chunk_server::trouble() const {
  if (store_->is_read_only()) return "the repository is read-only: " + store_->read_only_reason();
  if (mds_ && !registered_) return "not registered with the metadata servers";
  if (store_->stalled(clock_.now()) >= std::chrono::seconds(5)) return "the disk does not answer";
  return {};
}

void Chunk_server::collect(Metrics_text& text) const {
  auto const space = store_->space();
  text.one_gauge("pstorage_cs_id", "Which chunk server this is.", options_.identity.cs.value);
  text.one_gauge("pstorage_cs_total_bytes", "Size of the disk.", space.total_bytes);
  text.one_gauge("pstorage_cs_free_bytes", "Free on the disk.", space.free_bytes);
  text.one_gauge("pstorage_cs_replicas", "Replicas of chunks here.", store_->chunk_count());
  text.one_gauge("pstorage_cs_queue_depth", "Requests that wait for the disk or for room.",
                 store_->waiting() + deferred_.size());
  text.one_gauge("pstorage_cs_journal_size_bytes", "Size of the journal.",
                 store_->journal().ring_bytes());
  text.one_gauge("pstorage_cs_journal_used_bytes", "Journal that chunk files do not have yet.",
                 store_->journal().used_bytes());
  text.counter("pstorage_cs_requests", "Requests of clients.");
  text.add({{"operation", "read"}}, read_ops_);
  text.add({{"operation", "write"}}, write_ops_);
  text.counter("pstorage_cs_bytes", "Bytes of clients' requests.");
  text.add({{"operation", "read"}}, read_bytes_);
  text.add({{"operation", "write"}}, write_bytes_);
  text.histogram("pstorage_cs_journal_commit_duration_seconds",
                 "A commit of the journal: write and sync.");
  text.add({}, store_->commits());
  text.histogram("pstorage_cs_disk_sync_duration_seconds", "A sync of a chunk file.");
  text.add({}, store_->file_syncs());
  text.one_counter("pstorage_cs_scrubbed_bytes", "Read by the scrubber.",
                   scrubber_->scrubbed_bytes());
  text.one_counter("pstorage_cs_scrub_errors", "Bad blocks that the scrubber found.",
                   scrubber_->errors());
  text.one_counter("pstorage_cs_repaired_blocks", "Bad blocks repaired from other replicas.",
                   healer_->repaired());
  text.one_counter("pstorage_cs_pulled_bytes", "Copied from other servers for replicas here.",
                   sync_->pulled_bytes());
}

}  // namespace pstorage::cs
