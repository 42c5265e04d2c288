// Errors: every failure in Binade is an exception of type `binade::Error` whose text says what
// failed, the shapes and dtypes involved, and what to do. Nothing in the library exits or aborts.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace binade {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown when a device cannot give the memory that was asked for.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Joins anything that has an operator<<: concat("got ", shape, " of ", dtype).
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return std::move(text).str();
}

// Throws Error with the parts joined.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(concat(parts...));
}

// Throws Error with the parts joined unless `condition` holds. The parts are only formatted on
// failure; keep what is passed cheap to evaluate.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(parts...);
}

}  // namespace binade
