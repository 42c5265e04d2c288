#include <binade/core/kernels/fingerprint.h>

#include <algorithm>
#include <cstring>

namespace binade::kernels::cpu {

void fingerprint(const Array& values, const Array& sum) {
  const auto* bytes = static_cast<const std::byte*>(values.data());
  const int64_t count = values.bytes(), words = (count + 3) / 4;
  uint64_t total = 0;
#pragma omp parallel for reduction(+ : total)
  for (int64_t i = 0; i < words; ++i) {
    uint32_t word = 0;
    std::memcpy(&word, bytes + 4 * i, static_cast<size_t>(std::min<int64_t>(4, count - 4 * i)));
    total += fingerprint_term(static_cast<uint64_t>(i), word);
  }
  *sum.data<int64_t>() = static_cast<int64_t>(total);
}

}  // namespace binade::kernels::cpu
