// "Did you mean": the name that a mistyped one was probably to be.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace pstorage {

/// The one of `known` with the fewest characters to change, insert and remove; the first of equal
/// ones. Empty: there is none with at most `changes_max`.
std::string nearest(std::string const& word, std::vector<std::string> const& known,
                    std::size_t changes_max = ~std::size_t{0});

}  // namespace pstorage
