#include "blockdev/mount/file_lease.h"

#include "core/assert.h"

namespace pstorage::mount {

void File_lease::remove_user(bool writes, Time_point now) {
  auto& users = writes ? writers_ : readers_;
  PS_ASSERT(users != 0);
  --users;
  if (writes && writers_ == 0) written_until_ = now;
  if (!has_users()) idle_since_ = now;
}

Hold File_lease::needed() const {
  if (writers_ != 0) return Hold::exclusive;
  return readers_ != 0 ? Hold::shared : Hold::none;
}

bool File_lease::may_start(bool writes, Time_point now) const {
  if (moving_ || hold_ < (writes ? Hold::exclusive : Hold::shared)) return false;
  return next(now) == Step::wait && hold_ >= needed();
}

Step File_lease::next(Time_point now) const {
  if (moving_) return Step::wait;
  Hold const need = needed();
  if (hold_ < need) {
    // What is under way uses the lease that will be replaced.
    if (operations_ != 0) return Step::wait;
    return need == Hold::exclusive ? Step::take_exclusive : Step::take_shared;
  }
  if (hold_ == Hold::none || operations_ != 0) return Step::wait;
  // Readers are content with less: the MDS hears of the size, and others may read beside them.
  if (need == Hold::shared && hold_ == Hold::exclusive)
    return wanted_ == Hold::shared || now - written_until_ >= idle_exclusive ? Step::give_back
                                                                             : Step::wait;
  if (need != Hold::none) return Step::wait;
  bool const is_wanted = wanted_ == Hold::exclusive ||
                         (wanted_ == Hold::shared && hold_ == Hold::exclusive) || removed_ ||
                         stopping_;
  auto const patience = hold_ == Hold::exclusive ? idle_exclusive : idle_shared;
  return is_wanted || now - idle_since_ >= patience ? Step::give_back : Step::wait;
}

void File_lease::begin(Step step) {
  PS_ASSERT(!moving_ && step != Step::wait);
  moving_ = true;
}

void File_lease::taken(Hold hold) {
  moving_ = false;
  hold_ = hold;
  wanted_ = Hold::none;
}

void File_lease::given_back() {
  moving_ = false;
  hold_ = Hold::none;
  wanted_ = Hold::none;
}

void File_lease::lost() {
  moving_ = false;
  hold_ = Hold::none;
  wanted_ = Hold::none;
  ++generation_;
}

}  // namespace pstorage::mount
