// /metrics of a metadata server.
#pragma once

#include "core/metrics/metrics_text.h"
#include "mds.pb.h"
#include "mds/replicated_log.h"

namespace pstorage::mds {

/// What every server knows; and, on the master (`status` is not null), what the cluster is like.
void collect(Metrics_text& text, Replicated_log const& entries,
             Latency_histogram const& commit_times, proto::Status_reply const* status);

}  // namespace pstorage::mds
