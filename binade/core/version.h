// What this build is made of.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace binade {

// Name and value: version and commit of Binade, compiler, and the libraries it was built with and
// runs with.
std::vector<std::pair<std::string, std::string>> version_facts();

}  // namespace binade
