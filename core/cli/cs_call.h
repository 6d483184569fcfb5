// Blocking control requests to chunk servers, for tools.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/env/clock.h"
#include "core/result.h"
#include "cs.pb.h"
#include "mds.pb.h"

namespace pstorage::cli {

/// Thread: one. Each call runs the loop until its answer or the deadline.
class Cs_caller {
 public:
  /// Key and host id come from the configuration directory. Errors: not_found.
  static Outcome<std::unique_ptr<Cs_caller>> make(std::string const& cluster);
  ~Cs_caller();
  Cs_caller(Cs_caller const&) = delete;
  Cs_caller& operator=(Cs_caller const&) = delete;

  /// Errors: what the server answered, unavailable, timed_out.
  Outcome<proto::Cs_reply> call(proto::Cs_address const& server, proto::Cs_request const& request,
                                Duration patience);

 private:
  struct Loop;
  explicit Cs_caller(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace pstorage::cli
