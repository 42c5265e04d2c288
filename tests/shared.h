// Reference data that lies beside the checkout, in ../shared, and is not part of the project.
#pragma once

#include <optional>
#include <string>

namespace binade::test {

// The path of a file or folder of the shared data, for example "fixtures/adamw.json". It is looked
// for under $BINADE_SHARED if set, else in `shared` in the checkout or in a folder above it.
// Where it is missing: a failure in CI (environment CI=true), else a skip (note_skip) and nullopt.
std::optional<std::string> shared_path(const std::string& relative);

}  // namespace binade::test
