#include "cs/replica.h"

#include <algorithm>

namespace pstorage::cs {

Errc Replica::open(Open_terms const& terms, std::uint32_t size) {
  if (terms.version < version) return Errc::stale_version;
  if (size != chunk_size) return Errc::bad_request;
  bool const again = open_ && terms.epoch == open_epoch_ && terms.version == open_version_;
  if (!again) open_stamp_ = {};
  open_ = true;
  open_epoch_ = terms.epoch;
  open_version_ = version = terms.version;
  syncing = terms.syncing;
  join_stamp = terms.syncing ? terms.join_stamp : Stamp{};
  return Errc::ok;
}

Errc Replica::begin_sync(Version to) {
  if (to < version) return Errc::stale_version;
  // A writer that joined before the orders arrived has opened it at this version already.
  if (open_ && syncing && open_version_ == to) return Errc::ok;
  version = to;
  open_ = false;
  open_stamp_ = {};
  syncing = true;
  join_stamp = {};
  return Errc::ok;
}

bool Replica::in_range(Header const& header) const {
  return header.length != 0 && in_bounds(header.offset, header.length, chunk_size);
}

Errc Replica::check_open(Header const& header, Epoch seal) const {
  Epoch const epoch = header.stamp.epoch();
  if (epoch < seal) return Errc::stale_epoch;
  if (!open_ || epoch > open_epoch_) return Errc::not_open;
  if (epoch < open_epoch_) return Errc::stale_epoch;
  if (header.version != open_version_) return Errc::stale_version;
  return in_range(header) ? Errc::ok : Errc::bad_request;
}

Verdict Replica::check_write(Header const& header, Epoch seal, Errc& why) const {
  why = check_open(header, seal);
  if (why == Errc::ok && header.stamp.sequence() == 0) why = Errc::bad_request;
  if (why != Errc::ok) return Verdict::refuse;
  return header.stamp <= open_stamp_ ? Verdict::duplicate : Verdict::apply;
}

Errc Replica::check_read(Header const& header, Epoch seal) const {
  Errc const why = check_open(header, seal);
  return why == Errc::ok && syncing ? Errc::stale_version : why;
}

Errc Replica::check_table(Header const& header, Epoch seal) const {
  return check_open(header, seal);
}

Errc Replica::check_pull(Header const& header, Operation operation) const {
  if (!in_range(header)) return Errc::bad_request;
  if (operation == Operation::pull && syncing) return Errc::stale_version;
  if (header.version.value != 0 && (!open_ || open_version_ < header.version)) {
    return Errc::stale_version;
  }
  return Errc::ok;
}

void Replica::accepted(Stamp stamp) {
  open_stamp_ = stamp;
  last_stamp = std::max(last_stamp, stamp);
  unclean = false;
}

void Replica::synced(Stamp highest) { last_stamp = std::max(highest, open_stamp_); }

}  // namespace pstorage::cs
