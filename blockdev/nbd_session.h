// One NBD client: option haggling, then requests to a volume. Pure: bytes in, bytes out, no
// sockets.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "blockdev/exports.h"
#include "blockdev/nbd_protocol.h"
#include "core/net/receive_buffer.h"
#include "core/net/send_queue.h"

namespace pstorage::nbd {

struct Session_limits {
  std::size_t requests_max = 1024;    // under way; more wait in the socket
  std::size_t bytes_max = 64u << 20;  // of their payload, and of replies not yet sent
  Duration haggling_max = std::chrono::seconds(60);
  enum class Tls { none, optional, required };
  Tls tls = Tls::none;
};

/// What a session tells its connection.
class Session_events {
 public:
  virtual ~Session_events() = default;
  /// There is output to write at the end of the turn, or the session is over, or it can take input
  /// again: look at it.
  virtual void on_session_changed() = 0;
};

/// Must live until `is_idle()`: the volume calls back into it. Thread: the server's loop.
class Nbd_session {
 public:
  /// `take_large`: where the data of large writes is received.
  Nbd_session(Exports& exports, Clock& clock, Log& log, Session_events& events, std::string peer,
              Session_limits limits = {}, Receive_buffer::Take_large take_large = nullptr);
  ~Nbd_session();
  Nbd_session(Nbd_session const&) = delete;
  Nbd_session& operator=(Nbd_session const&) = delete;

  /// Where the next bytes go; see Receive_buffer.
  Receive_buffer::Buffers prepare() { return input_.prepare(); }
  /// Bytes have arrived.
  void received(std::size_t bytes);
  /// May more be received now? No while too much is under way.
  bool wants_input() const;
  /// What is to be written; call sent() after consuming some of it.
  Send_queue& output() { return output_; }
  void sent();
  /// The client has gone: drops what is to be said. Requests under way go on.
  void disconnected();
  /// The volumes are gone without answers; nothing will call back.
  void abandon();
  /// The server stops: requests under way are answered, new ones are not taken.
  void stop();
  /// Ends a client that haggles for too long.
  void check_deadline(Time_point now);

  /// Everything has been said: close the connection once the output is written.
  bool is_over() const { return phase_ == Phase::over && in_flight_ == 0; }
  /// The client has asked for TLS and was told to begin: everything behind the output that is there
  /// now goes through it. Then call tls_started().
  bool wants_tls() const { return tls_ == Tls_state::agreed; }
  void tls_started();
  /// No callback is outstanding: may be destroyed.
  bool is_idle() const { return in_flight_ == 0 && !asking_; }

 private:
  enum class Phase { flags, options, transmission, over };

  /// A request at the volume. Callbacks carry a pointer to it and nothing else, which std::function
  /// holds without allocating.
  struct Request {
    Nbd_session* session = nullptr;
    Request* next_free = nullptr;
    std::uint64_t cookie = 0;
    std::uint64_t begin = 0;   // as the client said
    std::uint64_t offset = 0;  // of what is left to do
    std::uint64_t left = 0;
    std::uint64_t length = 0;
    std::uint32_t charged = 0;  // bytes counted in bytes_in_flight_
    Command command = Command::read;
    std::uint16_t flags = 0;
    Time_point begun{};
    std::vector<client::Extent> extents;  // found so far
  };
  using Reply_head = Encoder<Send_queue::head_bytes_max>;

  // nbd_session.cc
  void parse();
  bool parse_flags();
  bool skip_input();
  void changed();
  void end(std::string const& why);
  void finish();

  // nbd_options.cc
  bool parse_option();
  void take_option(Option_header const& header, Slice data);
  void reply_option(Option_answer answer, Bytes data = {}, Slice more = {});
  void reply_option_error(Option_answer answer, std::string const& text);
  void reply_failure(Failure const& why);
  void option_done();
  void take_export_name(Slice const& data);
  void export_name_acquired(Outcome<client::Volume*> volume);
  void take_list(Slice const& data);
  void take_starttls(Slice const& data);
  void take_info(Slice const& data, bool go);
  void describe_export(Info_request const& request, Volume_description const& about);
  void go_acquired(Info_request const& request, Outcome<client::Volume*> volume);
  void take_meta(Slice const& data, bool set);
  void answer_meta(Meta_request const& request, bool set);
  void begin_transmission(client::Volume* volume);

  // nbd_requests.cc
  bool parse_request();
  bool take_write(Request_header const& header);
  bool skip_payload(Request_header const& header);
  std::size_t header_bytes() const { return extended_ ? extended_request_bytes : request_bytes; }
  void take_request(Request_header const& header, Slice payload);
  Error check(Request_header const& header) const;
  void submit(Request& request, Slice payload);
  void submit_cache(Request& request);
  void submit_plain_zeros(Request& request);
  void submit_zeros(Request& request);
  void submit_step(Request& request);
  void submit_status(Request& request);
  void read_done(Request& request, Result<std::vector<Slice>> result);
  void status_done(Request& request, Result<std::vector<client::Extent>> result);
  void reply_status(Request const& request);
  void step_done(Request& request, Result<void> result);
  void request_done(Request& request, Result<void> const& result);
  void finish_request(Request& request);
  void count(Request const& request);
  void note_failure(std::error_code const& code);
  void reply_success(Request const& request);
  void reply_error(Request_header const& header, Error error);
  /// A reply's only chunk, or all of one but the data. `payload`: bytes behind the header.
  void put_chunk(Reply_head& head, Chunk_type type, std::uint64_t cookie, std::uint64_t begin,
                 std::uint64_t payload) const;
  Request& new_request(Request_header const& header, std::uint32_t charged);
  void free_request(Request& request);

  Exports& exports_;
  Clock& clock_;
  Log& log_;
  Session_events& events_;
  std::string peer_;
  Session_limits limits_;

  Phase phase_ = Phase::flags;
  Receive_buffer input_;
  Send_queue output_;
  std::uint64_t skipping_ = 0;  // bytes of input that belong to something refused
  Time_point deadline_{};

  enum class Tls_state { clear, agreed, secret };
  Tls_state tls_ = Tls_state::clear;
  bool no_zeroes_ = false;
  bool fixed_ = false;
  bool structured_ = false;
  bool extended_ = false;  // headers; structured_, too, then
  bool asking_ = false;    // an option waits for an answer from inside
  bool parsing_ = false;
  bool gone_ = false;  // the client has disconnected
  std::uint32_t options_ = 0;
  std::uint32_t option_ = 0;   // the one being answered
  bool meta_context_ = false;  // base:allocation was selected
  std::string meta_export_;    // for this export

  client::Volume* volume_ = nullptr;
  Exports::Io* io_ = nullptr;  // of volume_
  bool lost_ = false;          // the lease is gone
  bool large_write_ = false;   // large_header_'s payload is under way
  Request_header large_header_;
  std::size_t in_flight_ = 0;
  std::size_t bytes_in_flight_ = 0;
  Slice zeros_;                   // made when first needed
  std::deque<Request> requests_;  // stable addresses; grows to the depth in use
  Request* free_ = nullptr;
};

}  // namespace pstorage::nbd
