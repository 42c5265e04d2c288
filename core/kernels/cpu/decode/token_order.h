// The tokens of a row of logits in the order of their probabilities (private to this folder).
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace binade::kernels::cpu {

// The tokens of a row, most probable first; of equals the smaller id first. Taken from a heap one
// by one, as few are asked for.
class Descending {
 public:
  explicit Descending(const std::vector<float>& logits)
      : comes_after_{logits.data()}, heap_(logits.size()) {
    std::iota(heap_.begin(), heap_.end(), 0);
    std::make_heap(heap_.begin(), heap_.end(), comes_after_);
  }
  int32_t next() {
    std::pop_heap(heap_.begin(), heap_.end(), comes_after_);
    const int32_t token = heap_.back();
    heap_.pop_back();
    return token;
  }

 private:
  struct ComesAfter {
    const float* logits;
    bool operator()(int32_t a, int32_t b) const {
      return logits[a] != logits[b] ? logits[a] < logits[b] : a > b;
    }
  };
  ComesAfter comes_after_;
  std::vector<int32_t> heap_;
};

}  // namespace binade::kernels::cpu
