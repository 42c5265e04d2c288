// How a fold over any dimensions is shared out (fold.cuh).
#pragma once

#include <initializer_list>

#include <binade/core/kernels/cuda/common/layout.h>

namespace binade::kernels::cuda {

// What the shape and the strides decide.
struct FoldPlan {
  Layout kept;              // out, and the inputs with the reduced dimensions cut to one element
  Layout reduced;           // the inputs with the others cut
  int lanes = 1;            // threads of an output: 1, a warp or a block
  bool neighbours = false;  // items of `kept` are vectors, each folded by one thread
  int64_t splits = 1;
  int64_t chunk = 0;  // items of `reduced` in a split

  // inputs: one or two arrays of one shape, not empty. vec: how many elements a thread may fold
  // together or load at once, 1 for one by one.
  FoldPlan(const Array& out, std::initializer_list<const Array*> inputs, int vec);

 private:
  void split_over(int64_t wanted);
};

}  // namespace binade::kernels::cuda
