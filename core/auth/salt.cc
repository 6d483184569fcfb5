#include "core/auth/salt.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "core/net/socket.h"
#include "core/runtime/real_clock.h"

namespace pstorage {
namespace {

constexpr std::size_t fixed_bytes = salt_magic.size() + 16 + 1;
constexpr std::size_t answer_bytes_max = fixed_bytes + 63;

/// Waits until `fd` is ready for `events` or `deadline`; false: too late.
bool wait_for(int fd, short events, Time_point deadline) {
  Real_clock const clock;
  for (;;) {
    auto const left = deadline - clock.now();
    if (left <= Duration{0}) return false;
    pollfd entry{fd, events, 0};
    auto const ready = ::poll(&entry, 1, static_cast<int>(left / std::chrono::milliseconds(1)) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

Outcome<File_descriptor> connect_until(Address const& to, Time_point deadline) {
  PS_TRY(auto const endpoints, resolve(to));
  std::error_code last = make_error_code(Errc::unavailable);
  for (auto const& endpoint : endpoints) {
    auto fd = begin_connect(endpoint);
    if (!fd) {
      last = fd.error();
      continue;
    }
    if (!wait_for(fd.value().get(), POLLOUT, deadline)) {
      last = std::make_error_code(std::errc::timed_out);
      continue;
    }
    last = socket_error(fd.value().get());
    if (!last) return std::move(fd).value();
  }
  return failure(last, connect_failure_text(to.text(), last));
}

}  // namespace

std::vector<std::byte> encode_salt_answer(std::array<std::byte, 16> const& salt,
                                          std::string const& cluster) {
  std::vector<std::byte> answer;
  auto const magic = as_bytes(salt_magic);
  answer.insert(answer.end(), magic.begin(), magic.end());
  answer.insert(answer.end(), salt.begin(), salt.end());
  answer.push_back(static_cast<std::byte>(cluster.size()));
  auto const name = as_bytes(cluster);
  answer.insert(answer.end(), name.begin(), name.end());
  return answer;
}

Result<Salt_answer> decode_salt_answer(Bytes bytes) {
  if (bytes.size() < fixed_bytes) return Errc::bad_request;
  if (as_text(bytes.first(salt_magic.size())) != salt_magic) return Errc::bad_request;
  Salt_answer answer;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(salt_magic.size()), answer.salt.size(),
              answer.salt.begin());
  auto const name_bytes = std::to_integer<std::size_t>(bytes[fixed_bytes - 1]);
  if (name_bytes == 0 || name_bytes != bytes.size() - fixed_bytes) return Errc::bad_request;
  answer.cluster = as_text(bytes.subspan(fixed_bytes));
  return answer;
}

Outcome<Salt_answer> fetch_salt(Address const& from, Duration at_most) {
  auto const deadline = Real_clock().now() + at_most;
  PS_TRY(auto const fd, connect_until(from, deadline));
  auto const no_answer = failure(Errc::unavailable, from.text() +
                                                        " does not tell its cluster's salt: is "
                                                        "that the address of an mdsd?");
  auto const sent = ::send(fd.get(), salt_magic.data(), salt_magic.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(salt_magic.size())) return no_answer;
  std::vector<std::byte> answer(answer_bytes_max);
  std::size_t filled = 0;
  while (filled < answer.size() && wait_for(fd.get(), POLLIN, deadline)) {
    auto const got = ::recv(fd.get(), answer.data() + filled, answer.size() - filled, 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) break;
    filled += static_cast<std::size_t>(got);
  }
  auto decoded = decode_salt_answer(Bytes(answer.data(), filled));
  if (!decoded) return no_answer;
  return std::move(decoded).value();
}

}  // namespace pstorage
