#include "blockdev/nbd_session.h"

#include <algorithm>

#include "core/assert.h"

namespace pstorage::nbd {

Nbd_session::Nbd_session(Exports& exports, Clock& clock, Log& log, Session_events& events,
                         std::string peer, Session_limits limits,
                         Receive_buffer::Take_large take_large)
    : exports_(exports),
      clock_(clock),
      log_(log),
      events_(events),
      peer_(std::move(peer)),
      limits_(limits),
      input_(std::move(take_large)),
      deadline_(clock.now() + limits.haggling_max) {
  Encoder<18> greeting;
  greeting.put(magic_server)
      .put(magic_option)
      .put(static_cast<std::uint16_t>(flag_fixed_newstyle | flag_no_zeroes));
  output_.push(greeting.bytes());
}

Nbd_session::~Nbd_session() {
  PS_ASSERT(is_idle());
  if (volume_ != nullptr) exports_.release(*volume_);
}

bool Nbd_session::wants_input() const {
  return phase_ != Phase::over && !asking_ && !wants_tls() && in_flight_ < limits_.requests_max &&
         bytes_in_flight_ + output_.bytes() < limits_.bytes_max;
}

void Nbd_session::received(std::size_t bytes) {
  input_.commit(bytes);
  parse();
  changed();
}

void Nbd_session::sent() {
  // What was held back by unsent replies can go on.
  if (phase_ == Phase::over) return;
  parse();
  if (!output_.empty()) changed();
}

void Nbd_session::parse() {
  if (parsing_) return;  // an answer came from inside the question
  parsing_ = true;
  for (bool more = true; more && wants_input();) {
    if (skipping_ > 0 && !skip_input()) break;
    switch (phase_) {
      case Phase::flags:
        more = parse_flags();
        break;
      case Phase::options:
        more = parse_option();
        break;
      case Phase::transmission:
        more = parse_request();
        break;
      case Phase::over:
        more = false;
        break;
    }
  }
  parsing_ = false;
}

/// What was said in clear counts no more: somebody on the way may have said it.
void Nbd_session::tls_started() {
  tls_ = Tls_state::secret;
  structured_ = extended_ = false;
  meta_context_ = false;
}

bool Nbd_session::skip_input() {
  auto const take = std::min<std::uint64_t>(skipping_, input_.view().size());
  input_.skip(static_cast<std::size_t>(take));
  skipping_ -= take;
  return skipping_ == 0;
}

bool Nbd_session::parse_flags() {
  if (input_.view().size() < client_flags_bytes) return false;
  auto const flags = load_be<std::uint32_t>(input_.view().data());
  input_.skip(client_flags_bytes);
  if ((flags & ~std::uint32_t{flag_fixed_newstyle | flag_no_zeroes}) != 0) {
    end("unknown client flags");
    return false;
  }
  fixed_ = (flags & flag_fixed_newstyle) != 0;
  no_zeroes_ = (flags & flag_no_zeroes) != 0;
  phase_ = Phase::options;
  return true;
}

void Nbd_session::changed() { events_.on_session_changed(); }

void Nbd_session::end(std::string const& why) {
  if (phase_ == Phase::over) return;
  log_.warn("ended an NBD client", {{"peer", peer_}, {"reason", why}});
  finish();
}

void Nbd_session::finish() {
  phase_ = Phase::over;
  changed();
}

void Nbd_session::disconnected() {
  gone_ = true;
  phase_ = Phase::over;
  output_.clear();
}

void Nbd_session::abandon() {
  disconnected();
  volume_ = nullptr;
  in_flight_ = 0;
  asking_ = false;
}

void Nbd_session::stop() {
  if (phase_ != Phase::over) finish();
}

void Nbd_session::check_deadline(Time_point now) {
  if (phase_ > Phase::options || now < deadline_) return;
  // While a volume is being opened the client waits for us, not we for it.
  if (asking_) return;
  end("no export chosen in time");
}

}  // namespace pstorage::nbd
