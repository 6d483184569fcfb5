// Results: a value or the reason why there is none. Exceptions stay inside library calls.
#pragma once

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/std_result.hpp>
#include <string>
#include <system_error>
#include <utility>

#include "core/errc.h"

namespace pstorage {

/// A value or a std::error_code. For everything that runs inside a role.
template <typename T>
using Result = boost::outcome_v2::std_result<T, std::error_code>;

/// A code and one line for a person: what failed, why, what to do next.
struct Failure {
  std::error_code code;
  std::string text;
};

/// A value or a Failure. For the edges: start-up, command line, opening a volume.
template <typename T>
using Outcome = boost::outcome_v2::basic_result<T, Failure, boost::outcome_v2::policy::all_narrow>;

using boost::outcome_v2::success;

inline Failure failure(Errc code, std::string text) {
  return {make_error_code(code), std::move(text)};
}
inline Failure failure(std::error_code code, std::string text) { return {code, std::move(text)}; }

}  // namespace pstorage

#define PS_CONCAT_INNER(a, b) a##b
#define PS_CONCAT(a, b) PS_CONCAT_INNER(a, b)

/// PS_TRY(auto v, f()): v = f().value(), or returns f().error() from the function.
#define PS_TRY(declaration, ...)                              \
  auto&& PS_CONCAT(ps_try_, __LINE__) = (__VA_ARGS__);        \
  if (!PS_CONCAT(ps_try_, __LINE__).has_value()) [[unlikely]] \
    return std::move(PS_CONCAT(ps_try_, __LINE__)).error();   \
  declaration = std::move(PS_CONCAT(ps_try_, __LINE__)).value()

/// PS_CHECK(f()): returns f().error() from the function unless f() succeeded.
#define PS_CHECK(...)                                           \
  do {                                                          \
    if (auto&& ps_check = (__VA_ARGS__); !ps_check.has_value()) \
      return std::move(ps_check).error();                       \
  } while (false)
