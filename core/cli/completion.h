// What a shell completes, from the parser itself.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace pstorage::cli {

/// A script that bash reads: commands, options, and the values of options that have a list of
/// them. Clusters are completed behind -c; files elsewhere.
std::string bash_completion(CLI::App const& app);

}  // namespace pstorage::cli
