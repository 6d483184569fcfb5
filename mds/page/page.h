// The files of the status page, built in.
#pragma once

#include <string_view>

namespace pstorage::mds::page {
extern std::string_view const html;
extern std::string_view const script;
extern std::string_view const style;
}  // namespace pstorage::mds::page
