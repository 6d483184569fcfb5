#include "core/mutant.h"

#include <string>

namespace pstorage {
namespace {

std::string& active() {
  static std::string name;
  return name;
}

}  // namespace

bool mutant_is_active(std::string_view name) { return active() == name; }
void activate_mutant(std::string_view name) { active() = name; }

}  // namespace pstorage
