#include "blockdev/volume/limits.h"

#include <algorithm>
#include <charconv>

namespace pstorage::volume {
namespace {

constexpr char const* iops_property = "limit.iops";
constexpr char const* bytes_property = "limit.bytes_per_s";
constexpr char const* burst_property = "limit.burst_s";

std::uint64_t number(std::map<std::string, std::string> const& properties, char const* name,
                     std::uint64_t otherwise) {
  auto const found = properties.find(name);
  if (found == properties.end()) return otherwise;
  auto const& text = found->second;
  std::uint64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : otherwise;
}

std::string text_of(std::uint64_t value) { return value == 0 ? "" : std::to_string(value); }

}  // namespace

Limits limits_of(std::map<std::string, std::string> const& properties) {
  Limits limits;
  limits.iops = number(properties, iops_property, 0);
  limits.bytes_per_s = number(properties, bytes_property, 0);
  limits.burst_s = std::clamp(number(properties, burst_property, Limits::burst_s_min),
                              Limits::burst_s_min, Limits::burst_s_max);
  return limits;
}

std::map<std::string, std::string> properties_of(Limits const& limits) {
  return {{iops_property, text_of(limits.iops)},
          {bytes_property, text_of(limits.bytes_per_s)},
          {burst_property, limits.is_any() ? std::to_string(limits.burst_s) : ""}};
}

void Token_bucket::set(std::uint64_t rate, std::uint64_t burst_s, Time_point now) {
  rate_ = static_cast<double>(rate);
  capacity_ = rate_ * static_cast<double>(burst_s);
  level_ = std::min(level_, capacity_);
  if (last_ == Time_point{}) level_ = capacity_;
  last_ = now;
}

bool Token_bucket::may_take(Time_point now) {
  if (rate_ == 0) return true;
  auto const passed = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  level_ = std::min(level_ + std::max(passed, 0.0) * rate_, capacity_);
  return level_ > 0;
}

void Rate_limiter::set(Limits const& limits, Time_point now) {
  limits_ = limits;
  requests_.set(limits.iops, limits.burst_s, now);
  bytes_.set(limits.bytes_per_s, limits.burst_s, now);
}

bool Rate_limiter::admit(Time_point now, std::uint64_t bytes) {
  if (!requests_.may_take(now) || !bytes_.may_take(now)) return false;
  requests_.take(1);
  bytes_.take(static_cast<double>(bytes));
  return true;
}

}  // namespace pstorage::volume
