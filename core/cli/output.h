// How commands print.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mds.pb.h"

namespace pstorage::cli {

/// Every field of `message`, under its name in the .proto file; numbers stay numbers.
nlohmann::json to_json(google::protobuf::Message const& message);
/// Prints with a final line feed.
void print_json(nlohmann::json const& json);

/// The same as XML, an element a field below <root>; the elements of a list have their list's name.
std::string xml_text(std::string const& root, nlohmann::json const& json);

/// Columns as wide as their widest cell; '>' at the front of a header: right-aligned.
void print_table(std::vector<std::string> const& headers,
                 std::vector<std::vector<std::string>> const& rows);

/// "2h 21m", "3d 4h", "12s".
std::string duration_text(std::uint64_t milliseconds);
/// "10-11-19 11:03:12", local time.
std::string time_text(std::uint64_t wall_ms);
/// 16 hex digits.
std::string hex_text(std::uint64_t value);

}  // namespace pstorage::cli
