#include "core/http/request.h"

#include <algorithm>
#include <utility>

namespace pstorage::http {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower_case(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

std::string_view trimmed(std::string_view text) {
  auto const first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool is_token(std::string_view text) {
  static constexpr std::string_view others = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    char const small = lower(c);
    return (small >= 'a' && small <= 'z') || (c >= '0' && c <= '9') ||
           others.find(c) != std::string_view::npos;
  });
}

bool is_visible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string host_of(std::string_view value) {
  if (value.starts_with('[')) return lower_case(value.substr(0, value.find(']') + 1));
  return lower_case(value.substr(0, value.find(':')));
}

}  // namespace

std::string_view reason_of(unsigned status) {
  static constexpr std::pair<unsigned, std::string_view> reasons[] = {
      {200, "OK"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {413, "Content Too Large"},
      {421, "Misdirected Request"},
      {431, "Request Header Fields Too Large"},
      {503, "Service Unavailable"},
      {505, "HTTP Version Not Supported"}};
  for (auto const& [number, text] : reasons)
    if (number == status) return text;
  return "Error";
}

Request_parser::State Request_parser::refuse(unsigned status) {
  status_ = status;
  is_refused_ = true;
  bytes_.clear();
  return State::refused;
}

Request_parser::State Request_parser::feed(std::string_view bytes, Request& request) {
  if (is_refused_) return State::refused;
  // Kept: at most a head and one read more, which the server does not ask for while it answers.
  bytes_.append(bytes);
  // Empty lines before a request are allowed.
  bytes_.erase(0, std::min(bytes_.find_first_not_of("\r\n"), bytes_.size()));
  auto const end = bytes_.find("\r\n\r\n");
  if (end == std::string::npos && bytes_.size() <= head_bytes_max) {
    // What does not begin like a request need not be waited for.
    auto const method = std::string_view(bytes_).substr(0, bytes_.find(' '));
    if (!method.empty() && (method.size() > 16 || !is_token(method))) return refuse(400);
    return State::more;
  }
  if (end == std::string::npos || end > head_bytes_max) return refuse(431);
  std::string const head = bytes_.substr(0, end + 2);
  bytes_.erase(0, end + 4);
  request = {};
  std::size_t lines = 0;
  for (std::size_t from = 0; from < head.size();) {
    auto const to = head.find("\r\n", from);
    std::string_view const line(head.data() + from, to - from);
    if (++lines > headers_max + 1) return refuse(431);
    if (!(lines == 1 ? take_request_line(line, request) : take_header(line, request)))
      return refuse(status_);
    from = to + 2;
  }
  if (request.host.empty()) return refuse(400);
  return State::complete;
}

bool Request_parser::take_request_line(std::string_view line, Request& request) {
  auto const first = line.find(' ');
  auto const last = line.rfind(' ');
  status_ = 400;
  if (first == std::string_view::npos || first == last) return false;
  auto const method = line.substr(0, first);
  auto const target = line.substr(first + 1, last - first - 1);
  auto const version = line.substr(last + 1);
  if (!is_token(method) || !is_visible(target) || !target.starts_with('/')) return false;
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    status_ = version.starts_with("HTTP/") ? 505 : 400;
    return false;
  }
  if (method != "GET" && method != "HEAD") {
    status_ = 405;
    return false;
  }
  request.is_head = method == "HEAD";
  request.path = target.substr(0, target.find('?'));
  request.keeps_alive = version == "HTTP/1.1";
  if (version == "HTTP/1.0") request.host = "localhost";  // it need not name one
  return true;
}

bool Request_parser::take_header(std::string_view line, Request& request) {
  auto const colon = line.find(':');
  status_ = 400;
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return false;
  auto const name = lower_case(line.substr(0, colon));
  auto const value = trimmed(line.substr(colon + 1));
  bool const is_clean = std::none_of(value.begin(), value.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  });
  if (!is_clean) return false;
  if (name == "host") {
    if (value.empty() || !is_visible(value)) return false;
    request.host = host_of(value);
  } else if (name == "authorization") {
    request.authorization = value;
  } else if (name == "connection") {
    if (lower_case(value).find("close") != std::string::npos) request.keeps_alive = false;
  } else if (name == "transfer-encoding" || (name == "content-length" && value != "0")) {
    status_ = 413;  // nothing here takes a body
    return false;
  }
  return true;
}

}  // namespace pstorage::http
