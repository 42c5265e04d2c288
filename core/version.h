// What this build is made of.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace binade {

// Name and value: version and commit of Binade, compiler, the libraries it was built with and runs
// with, and how it multiplies on this processor.
std::vector<std::pair<std::string, std::string>> version_facts();

}  // namespace binade
