// Which version this is, and what this build is made of.
#pragma once

#include <string>
#include <utility>
#include <vector>

// Of these headers; CMake reads them here. For a program that is to compile with several versions:
//   #if BINADE_VERSION >= 200  // 0.2.0
#define BINADE_VERSION_MAJOR 0
#define BINADE_VERSION_MINOR 1
#define BINADE_VERSION_PATCH 0
#define BINADE_VERSION \
  (BINADE_VERSION_MAJOR * 10000 + BINADE_VERSION_MINOR * 100 + BINADE_VERSION_PATCH)

namespace binade {

// Of the library that the program runs with, as BINADE_VERSION; another than that of the headers
// when the library was replaced since the program was compiled.
int version();

// Name and value: version and commit of Binade, compiler, the libraries it was built with and runs
// with, and how it multiplies on this processor.
std::vector<std::pair<std::string, std::string>> version_facts();

}  // namespace binade
