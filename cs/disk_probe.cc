#include "cs/disk_probe.h"

#include <vector>

namespace pstorage::cs {
namespace {

constexpr Duration interval = std::chrono::seconds(1);
constexpr std::size_t probe_bytes = 4096;

}  // namespace

void Disk_probe::on_tick(Time_point now) {
  if (is_under_way_) return;
  if (is_on_ && now - last_ >= interval) {
    last_ = now;
    return probe();
  }
  if (is_on_ || file_ == nullptr) return;
  file_.reset();
  // One that stays behind takes a block and is used again.
  static_cast<void>(disk_.remove(name_));
}

void Disk_probe::probe() {
  if (file_ == nullptr) {
    auto opened = disk_.open(name_, {.create = true});
    if (opened.has_error()) return;  // a full disk: what is there can still be measured later
    file_ = std::move(opened).value();
  }
  std::vector<std::byte> const block(probe_bytes, std::byte{0x5a});
  began_();
  if (auto const written = file_->write(0, Bytes(block)); written.has_error())
    return ended_(errc_of(written.error()) == Errc::no_space);
  is_under_way_ = true;
  file_->sync_async([this](Result<void> const& result) {
    is_under_way_ = false;
    ended_(result.has_value());
  });
}

}  // namespace pstorage::cs
