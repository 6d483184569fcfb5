// Planted bugs: rules that the simulator breaks on purpose, one at a time, to prove that it would
// notice. In product builds PS_MUTANT(x) is the constant false; only tests/sim builds the same
// sources with PSTORAGE_MUTANTS.
#pragma once

#ifdef PSTORAGE_MUTANTS
#include <string_view>

namespace pstorage {
/// Is the planted bug `name` active in this run?
bool mutant_is_active(std::string_view name);
/// Activates one; empty: none.
void activate_mutant(std::string_view name);
}  // namespace pstorage
#define PS_MUTANT(name) ::pstorage::mutant_is_active(#name)
#else
#define PS_MUTANT(name) false
#endif
