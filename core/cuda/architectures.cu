// What the kernels of this build run on, from the list that nvcc was given.
#include <algorithm>
#include <iterator>

#include <binade/core/cuda/architectures.h>

namespace binade::cuda {

int oldest_architecture() {
  constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};  // 800, 900, ...
  return *std::min_element(std::begin(kArchitectures), std::end(kArchitectures)) / 10;
}

}  // namespace binade::cuda
