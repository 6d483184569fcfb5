#include "cs/settler.h"

#include <algorithm>

namespace pstorage::cs {
namespace {

constexpr std::size_t waiting_max = 64;  // the MDS asks again
constexpr Duration close_patience = std::chrono::seconds(5);

}  // namespace

Settler::Settler(Clock& clock, Network& network, Random& random, Log& log, Executor& executor,
                 client::Cluster_options options)
    : clock_(clock),
      network_(network, Role::tool),
      random_(random),
      log_(log),
      executor_(executor),
      options_(std::move(options)) {}

void Settler::order(proto::Settle_files const& order) {
  for (auto const id : order.files()) {
    File_id const file{id};
    bool const is_known = std::find(waiting_.begin(), waiting_.end(), file) != waiting_.end();
    if (!is_known && waiting_.size() < waiting_max) waiting_.push_back(file);
  }
}

void Settler::on_tick() {
  if (cluster_) cluster_->on_tick();
  if (std::exchange(has_ended_, false)) cluster_.reset();
  if (!is_busy_ && !waiting_.empty()) start_next();
}

void Settler::start_next() {
  if (!cluster_) {
    cluster_ =
        std::make_unique<client::Cluster>(clock_, network_, random_, log_, executor_, options_);
  }
  is_busy_ = true;
  File_id const file = waiting_.front();
  waiting_.pop_front();
  client::Open_options options;
  options.settle = true;
  cluster_->settle_file(
      "@" + std::to_string(file.value), options, [this, file](Outcome<void> const& settled) {
        if (settled.has_value()) {
          log_.info("compared the replicas of a file that its last writer left without closing",
                    {{"file", file}});
        } else {
          log_.info("a file that its last writer left without closing stays as it is for now",
                    {{"file", file}, {"reason", settled.error().text}});
        }
        if (!waiting_.empty()) {
          is_busy_ = false;
        } else {
          end_session();
        }
      });
}

/// With it ends every lease that could not be given back.
void Settler::end_session() {
  proto::Mds_request request;
  request.mutable_close_session();
  cluster_->mds().call(std::move(request), close_patience,
                       [this](Outcome<proto::Mds_reply> const&) {
                         is_busy_ = false;
                         has_ended_ = true;
                       });
}

}  // namespace pstorage::cs
