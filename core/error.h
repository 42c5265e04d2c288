// Errors: every failure in Binade is an exception of type `binade::Error` whose text says what
// failed, the shapes and dtypes involved, and what to do. Nothing in the library exits or aborts.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <binade/core/text.h>

namespace binade {

// what() is well-formed UTF-8, whatever paths and names the text quotes: see valid_utf8().
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& text) : std::runtime_error(valid_utf8(text)) {}
};

// Thrown when a device cannot give the memory that was asked for.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Joins anything that has an operator<<: concat("got ", shape, " of ", dtype). Numbers have a
// decimal point under every locale.
template <class... Parts>
std::string concat(const Parts&... parts) {
  TextStream text;
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
