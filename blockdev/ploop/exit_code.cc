#include "blockdev/ploop/exit_code.h"

namespace pstorage::ploop {
namespace {

class Exit_category final : public std::error_category {
 public:
  char const* name() const noexcept override { return "pstorage.ploop.exit"; }
  std::string message(int code) const override { return "exit code " + std::to_string(code); }
};

Exit_category const& exit_category() {
  static Exit_category const category;
  return category;
}

Exit exit_of(Errc code) {
  switch (code) {
    case Errc::corrupt:
      return Exit::format;
    case Errc::busy:
      return Exit::in_use;
    case Errc::not_found:
      return Exit::open;
    case Errc::bad_request:
    case Errc::refused:
    case Errc::too_large:
    case Errc::exists:
      return Exit::parameter;
    default:
      return Exit::write;
  }
}

}  // namespace

Failure exit_with(Exit code, std::string text) {
  return failure(std::error_code(static_cast<int>(code), exit_category()), std::move(text));
}

int exit_code(Failure const& failure) {
  if (failure.code.category() == exit_category()) return failure.code.value();
  return static_cast<int>(exit_of(errc_of(failure.code)));
}

}  // namespace pstorage::ploop
