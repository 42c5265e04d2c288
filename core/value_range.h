// INTERNAL. What an array holds, in words, for those who look for the op that went wrong. Waits for
// the GPU.
#pragma once

#include <string>

#include <binade/core/array.h>

namespace binade {

// The worst that is among the elements; finite for integers and for undefined arrays.
enum class Finiteness : uint8_t { finite, infinite, nan };
Finiteness finiteness(const Array& x);

// "f16 (8, 32) in [-3.25, 40960]"; beside NaN or infinite elements the range is that of the finite
// ones: "f16 (8, 32) in [-3.25, 40960] and inf" (or "and NaN"), "f32 (4), all NaN or inf". "none"
// when undefined.
std::string describe_range(const Array& x);

}  // namespace binade
