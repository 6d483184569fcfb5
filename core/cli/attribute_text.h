// Attributes as the command line writes them: replicas=3:2, failure-domain=host, ...
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "mds.pb.h"

namespace pstorage::cli {

/// Sets what "name=value" says in `attributes`. Errors: bad_request, naming the known ones.
Outcome<void> parse_attribute(std::string const& text, proto::Attributes& attributes);
/// "3:2" or "3". Errors: bad_request.
Outcome<void> parse_replicas(std::string const& text, proto::Attributes& attributes);
/// One line an attribute, in the order of the manual.
std::vector<std::string> attribute_lines(proto::Attributes const& attributes);

}  // namespace pstorage::cli
