// Whether GPU work gives the same bits every time, run eagerly or replayed from a captured graph.
#pragma once

#include <cstring>

#include <binade/core/cuda/graph.h>

#include "core/cuda_compare.h"

namespace binade::test {

inline std::vector<std::byte> bits_of(const Array& array) {
  const Array host = on_device(array, Device::cpu());
  std::vector<std::byte> bits(static_cast<size_t>(host.storage()->bytes()));
  std::memcpy(bits.data(), host.storage()->data(), bits.size());
  return bits;
}

// `work` queues kernels that write `outputs` (on the GPU). Before each run every output holds 7s,
// so that one which is not written, or only added to, shows.
template <class Work>
void check_same_bits(const Work& work, const std::vector<Array>& outputs) {
  const auto bits_after = [&](const auto& run) {
    for (const Array& output : outputs) whole_storage(output).fill(7);
    run();
    std::vector<std::vector<std::byte>> bits;
    for (const Array& output : outputs) bits.push_back(bits_of(output));
    return bits;
  };
  const auto first = bits_after(work);
  const bool same_again = bits_after(work) == first;
  CHECK(same_again);
  if constexpr (kCudaBuilt) {
    cuda::CapturedGraph graph = cuda::CapturedGraph::capture(work, test_gpu());
    CHECK(graph.node_count() > 0);
    for (int replay = 0; replay < 2; ++replay) CHECK(bits_after([&] { graph.replay(); }) == first);
  }
}

// A random array on the GPU.
inline Array gpu_random(const Shape& shape, DType dtype, Random& random, double spread = 1) {
  return on_device(random_array(shape, dtype, random, spread), test_gpu());
}
inline Array gpu_empty(const Shape& shape, DType dtype) {
  return Array::empty(shape, dtype, test_gpu());
}

}  // namespace binade::test
