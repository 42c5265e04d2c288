#include <binade/core/kernels/cuda/reduce/fold_plan.h>

#include <algorithm>
#include <vector>

namespace binade::kernels::cuda {

namespace {

constexpr int kWarpLanes = 32, kBlockLanes = 256;
constexpr int64_t kManyThreads = 128 * 1024, kManyBlocks = 2048;  // enough for any device
constexpr int64_t kManyWarps = 4096;  // that keep a device's memory busy

int64_t ceil_of(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Layout layout_of(const std::vector<Array>& arrays, int vec) {
  switch (arrays.size()) {
    case 1:
      return make_layout({&arrays[0]}, vec);
    case 2:
      return make_layout({&arrays[0], &arrays[1]}, vec);
    default:
      return make_layout({&arrays[0], &arrays[1], &arrays[2]}, vec);
  }
}

}  // namespace

FoldPlan::FoldPlan(const Array& out, std::initializer_list<const Array*> inputs, int vec) {
  std::vector<Array> outputs = {out}, elements;
  for (const Array* input : inputs) {
    Array cut = *input, rest = *input;
    for (int d = 0; d < input->dims(); ++d) {
      if (input->size(d) == 1) continue;
      Array& one = out.size(d) == 1 ? cut : rest;
      one = one.slice(d, 0, 1);
    }
    outputs.push_back(cut);
    elements.push_back(rest);
  }
  reduced = layout_of(elements, 1);
  const int64_t length = reduced.items;
  // Whether every item of the inputs begins at a vector. One that stands still within an item is
  // read element by element.
  const auto whole_vectors = [&](const Layout& layout, int first) {
    for (int k = first; k < first + static_cast<int>(elements.size()); ++k) {
      if (layout.splat[k]) return false;
      for (int d = 0; d < layout.dims; ++d)
        if (layout.strides[k][d] % vec != 0) return false;
    }
    return true;
  };

  kept = layout_of(outputs, vec);
  const bool one_by_one = length <= 8 || reduced.strides[0][0] != 1;
  if (vec > 1 && kept.vec == vec && one_by_one && whole_vectors(kept, 1) &&
      whole_vectors(reduced, 0)) {
    neighbours = true;
    split_over(std::min(ceil_of(length, 32), ceil_of(kManyThreads, kept.items)));
    return;
  }
  kept = layout_of(outputs, 1);
  const bool adjacent = kept.sizes[0] > 1 && kept.strides[1][0] == 1;
  if (length <= 8 || (adjacent && reduced.strides[0][0] != 1)) {
    split_over(std::min(ceil_of(length, 32), ceil_of(kManyThreads, kept.items)));
    return;
  }
  // Where a warp each will do, a block would only have more threads to gather from.
  lanes = length <= 512 || kept.items >= kManyWarps ? kWarpLanes : kBlockLanes;
  const bool rows_at_vectors = kept.items == 1 || whole_vectors(kept, 1);
  if (vec > 1 && length >= 16 * vec && rows_at_vectors) {
    const Layout vectors = layout_of(elements, vec);
    if (vectors.vec == vec && whole_vectors(vectors, 0)) reduced = vectors;
  }
  const int64_t most = lanes == kWarpLanes ? 1 : ceil_of(length, 4096);
  split_over(std::min(most, ceil_of(kManyBlocks, kept.items)));
}

void FoldPlan::split_over(int64_t wanted) {
  chunk = ceil_of(reduced.items, std::clamp<int64_t>(wanted, 1, 1024));
  splits = ceil_of(reduced.items, chunk);
}

}  // namespace binade::kernels::cuda
