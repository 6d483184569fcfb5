// Nbd_session: option haggling.
#include <algorithm>

#include "blockdev/nbd_session.h"
#include "core/assert.h"

namespace pstorage::nbd {
namespace {

constexpr std::uint16_t export_flags = can_has_flags | can_flush | can_fua | can_trim |
                                       can_write_zeroes | can_multi_conn | can_cache |
                                       can_fast_zero;

std::uint16_t transmission_flags(bool structured, bool read_only) {
  return static_cast<std::uint16_t>(export_flags | (structured ? can_df : 0) |
                                    (read_only ? can_read_only : 0));
}

bool selects_allocation(std::string const& query) { return query == allocation_name; }
bool lists_allocation(std::string const& query) {
  return query == "base:" || selects_allocation(query);
}

Option_answer answer_of(Failure const& why) {
  switch (errc_of(why.code)) {
    case Errc::not_found:
    case Errc::is_directory:
      return Option_answer::err_unknown;
    case Errc::busy:
    case Errc::refused:
      return Option_answer::err_policy;
    case Errc::bad_request:
      return Option_answer::err_invalid;
    case Errc::closed:
      return Option_answer::err_shutdown;
    default:
      return Option_answer::err_platform;
  }
}

}  // namespace

bool Nbd_session::parse_option() {
  auto const view = input_.view();
  if (view.size() < option_header_bytes) {
    input_.want(option_header_bytes);
    return false;
  }
  auto const header = decode_option(view.data());
  if (!header) {
    end("malformed option");
    return false;
  }
  option_ = header.value().option;
  auto const length = header.value().length;
  bool const by_name = option_ == static_cast<std::uint32_t>(Option::export_name);
  if (++options_ > options_max || (!fixed_ && !by_name) || (by_name && length > name_bytes_max)) {
    end(options_ > options_max ? "too many options" : "malformed option");
    return false;
  }
  if (length > option_bytes_max) {
    input_.skip(option_header_bytes);
    skipping_ = length;
    reply_option_error(Option_answer::err_too_big, "option data is limited to 64 KiB");
    return true;
  }
  if (view.size() < option_header_bytes + length) {
    --options_;  // the same one comes again, complete
    input_.want(option_header_bytes + length);
    return false;
  }
  auto const data = input_.part(option_header_bytes, length);
  input_.skip(option_header_bytes + length);
  take_option(header.value(), data);
  return true;
}

void Nbd_session::take_starttls(Slice const& data) {
  if (limits_.tls == Session_limits::Tls::none)
    return reply_option_error(Option_answer::err_unsupported, "no TLS on this socket");
  if (!data.empty() || tls_ != Tls_state::clear)
    return reply_option_error(Option_answer::err_invalid,
                              "this option takes no data, and comes once");
  // What is behind it in the same read was sent in clear, by whomever.
  if (!input_.view().empty()) return end("data behind STARTTLS");
  tls_ = Tls_state::agreed;
  reply_option(Option_answer::ack);
  changed();
}

void Nbd_session::take_option(Option_header const& header, Slice data) {
  auto const option = static_cast<Option>(header.option);
  bool const is_allowed = tls_ == Tls_state::secret ||
                          limits_.tls != Session_limits::Tls::required || option == Option::abort ||
                          option == Option::starttls;
  if (!is_allowed && option == Option::export_name) return end("TLS is required");
  if (extended_ && option == Option::export_name)
    return end("EXPORT_NAME after extended headers: GO is needed");
  if (!is_allowed) return reply_option_error(Option_answer::err_tls_required, "TLS is required");
  switch (option) {
    case Option::export_name:
      return take_export_name(data);
    case Option::abort:
      reply_option(Option_answer::ack);
      return finish();
    case Option::list:
      return take_list(data);
    case Option::info:
      return take_info(data, false);
    case Option::go:
      return take_info(data, true);
    case Option::structured_reply:
      if (!data.empty())
        return reply_option_error(Option_answer::err_invalid, "this option takes no data");
      if (extended_)
        return reply_option_error(Option_answer::err_extended_headers,
                                  "extended headers were chosen: they go beyond it");
      structured_ = true;
      return reply_option(Option_answer::ack);
    case Option::extended_headers:
      if (!data.empty() || extended_)
        return reply_option_error(Option_answer::err_invalid,
                                  "this option takes no data, and comes once");
      structured_ = extended_ = true;
      return reply_option(Option_answer::ack);
    case Option::list_meta_context:
      return take_meta(data, false);
    case Option::set_meta_context:
      return take_meta(data, true);
    case Option::starttls:
      return take_starttls(data);
  }
  reply_option_error(Option_answer::err_unsupported, "unknown option");
}

void Nbd_session::reply_option(Option_answer answer, Bytes data, Slice more) {
  if (gone_) return;
  Encoder<Send_queue::head_bytes_max> head;
  auto const size = static_cast<std::uint32_t>(data.size() + more.size());
  head.put(magic_option_reply).put(option_).put(static_cast<std::uint32_t>(answer)).put(size);
  output_.push(head.bytes());
  if (size > 0 && data.size() <= Send_queue::head_bytes_max)
    output_.push(data, std::move(more));
  else if (size > 0)
    output_.push({}, Slice::copy_of(data), std::move(more));
}

void Nbd_session::reply_option_error(Option_answer answer, std::string const& text) {
  reply_option(answer, as_bytes(text));
}

void Nbd_session::reply_failure(Failure const& why) {
  reply_option_error(answer_of(why), why.text.substr(0, name_bytes_max));
}

// The answer to an option that had to ask elsewhere is complete.
void Nbd_session::option_done() {
  asking_ = false;
  parse();
  changed();
}

void Nbd_session::take_export_name(Slice const& data) {
  asking_ = true;
  exports_.acquire(std::string(as_text(data.bytes())), [this](Outcome<client::Volume*> volume) {
    export_name_acquired(std::move(volume));
  });
}

void Nbd_session::export_name_acquired(Outcome<client::Volume*> volume) {
  if (volume && phase_ == Phase::over) {
    exports_.release(*volume.value());
  } else if (volume) {
    begin_transmission(volume.value());
    Encoder<10> head;
    head.put(volume.value()->size_bytes())
        .put(transmission_flags(structured_, volume.value()->is_read_only()));
    output_.push(head.bytes());
    if (!no_zeroes_) {
      static constexpr std::array<std::byte, 124> zeroes{};
      output_.push(zeroes);
    }
  } else {
    // This old option has no way to say no but to hang up.
    end("export refused: " + volume.error().text);
  }
  option_done();
}

void Nbd_session::take_list(Slice const& data) {
  if (!data.empty())
    return reply_option_error(Option_answer::err_invalid, "this option takes no data");
  asking_ = true;
  exports_.list([this](Outcome<std::vector<Volume_description>> volumes) {
    if (!volumes) {
      reply_failure(volumes.error());
    } else {
      for (auto const& volume : volumes.value()) {
        Encoder<4> size;
        size.put(static_cast<std::uint32_t>(volume.name.size()));
        reply_option(Option_answer::server, size.bytes(), Slice::copy_of(as_bytes(volume.name)));
      }
      reply_option(Option_answer::ack);
    }
    option_done();
  });
}

void Nbd_session::take_info(Slice const& data, bool go) {
  auto request = decode_info(data.bytes());
  if (!request)
    return reply_option_error(request.error() == Errc::too_large ? Option_answer::err_too_big
                                                                 : Option_answer::err_invalid,
                              "malformed option");
  asking_ = true;
  if (go) {
    auto const name = request.value().name;
    exports_.acquire(name, [this, asked = std::move(request).value()](
                               Outcome<client::Volume*> volume) { go_acquired(asked, volume); });
    return;
  }
  auto const name = request.value().name;
  exports_.describe(name,
                    [this, asked = std::move(request).value()](Outcome<Volume_description> volume) {
                      if (!volume) {
                        reply_failure(volume.error());
                      } else {
                        describe_export(asked, volume.value());
                        reply_option(Option_answer::ack);
                      }
                      option_done();
                    });
}

void Nbd_session::describe_export(Info_request const& request, Volume_description const& about) {
  Encoder<12> head;
  head.put(static_cast<std::uint16_t>(Info::export_size))
      .put(about.size_bytes)
      .put(transmission_flags(structured_, about.is_read_only));
  reply_option(Option_answer::info, head.bytes());
  Encoder<14> blocks;
  blocks.put(static_cast<std::uint16_t>(Info::block_size))
      .put(std::uint32_t{1})
      .put(preferred_bytes)
      .put(payload_bytes_max);
  reply_option(Option_answer::info, blocks.bytes());
  auto const name_wanted = static_cast<std::uint16_t>(Info::name);
  if (std::find(request.infos.begin(), request.infos.end(), name_wanted) != request.infos.end()) {
    Encoder<2> kind;
    kind.put(name_wanted);
    reply_option(Option_answer::info, kind.bytes(), Slice::copy_of(as_bytes(about.name)));
  }
}

void Nbd_session::go_acquired(Info_request const& request, Outcome<client::Volume*> volume) {
  if (!volume) {
    reply_failure(volume.error());
  } else if (phase_ == Phase::over) {
    exports_.release(*volume.value());
  } else {
    // A context that was selected for another export does not count here.
    meta_context_ = meta_context_ && meta_export_ == request.name;
    describe_export(request,
                    {request.name, volume.value()->size_bytes(), volume.value()->is_read_only()});
    reply_option(Option_answer::ack);
    begin_transmission(volume.value());
  }
  option_done();
}

void Nbd_session::take_meta(Slice const& data, bool set) {
  auto request = decode_meta(data.bytes());
  if (set) meta_context_ = false;  // whatever comes of it, the old selection is gone
  if (!request)
    return reply_option_error(request.error() == Errc::too_large ? Option_answer::err_too_big
                                                                 : Option_answer::err_invalid,
                              "malformed option");
  if (!structured_)
    return reply_option_error(Option_answer::err_invalid, "structured replies come first");
  asking_ = true;
  auto const name = request.value().name;
  exports_.describe(
      name, [this, set, asked = std::move(request).value()](Outcome<Volume_description> volume) {
        if (volume)
          answer_meta(asked, set);
        else
          reply_failure(volume.error());
        option_done();
      });
}

void Nbd_session::answer_meta(Meta_request const& request, bool set) {
  auto const& queries = request.queries;
  bool const found =
      set ? std::any_of(queries.begin(), queries.end(), selects_allocation)
          : queries.empty() || std::any_of(queries.begin(), queries.end(), lists_allocation);
  if (found) {
    Encoder<4> id;
    id.put(set ? allocation_context : std::uint32_t{0});
    reply_option(Option_answer::meta_context, id.bytes(),
                 Slice::copy_of(as_bytes(allocation_name)));
  }
  if (set) {
    meta_context_ = found;
    meta_export_ = request.name;
  }
  reply_option(Option_answer::ack);
}

void Nbd_session::begin_transmission(client::Volume* volume) {
  PS_ASSERT(volume_ == nullptr);
  io_ = &exports_.io_of(*volume);
  volume_ = volume;
  phase_ = Phase::transmission;
}

}  // namespace pstorage::nbd
