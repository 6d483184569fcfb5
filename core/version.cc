#include "core/version.h"

namespace pstorage {

char const* version() { return PSTORAGE_VERSION; }

}  // namespace pstorage
