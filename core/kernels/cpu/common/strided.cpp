#include <binade/core/kernels/cpu/common/strided.h>

#include <utility>

namespace binade::kernels::cpu {

View View::without(int dim) const {
  View view = *this;
  view.shape.erase(dim);
  view.strides.erase(dim);
  return view;
}

StridedLoop::StridedLoop(std::span<const View> operands) {
  check(static_cast<int>(operands.size()) <= Run::kMaxOperands, "too many operands");
  const Shape& shape = operands.begin()->shape;
  count_ = shape.numel();
  for (const View& view : operands) {
    check(view.shape == shape, "a kernel got operands of shapes ", shape, " and ", view.shape);
    data_[operands_++] = view.data;
  }

  // Outer to inner by the first operand's strides; dimensions of size 1 do not matter.
  std::array<int, kMaxDims> order;
  const Shape& leading = operands.begin()->strides;
  for (int dim = 0; dim < shape.dims(); ++dim) {
    if (shape[dim] == 1) continue;
    int place = dims_++;
    for (; place > 0 && leading[order[place - 1]] < leading[dim]; --place)
      order[place] = order[place - 1];
    order[place] = dim;
  }
  for (int i = 0; i < dims_; ++i) {
    sizes_[i] = shape[order[i]];
    int operand = 0;
    for (const View& view : operands) strides_[operand++][i] = view.strides[order[i]];
  }

  // Merge a dimension with the one inside it where all operands run on.
  int kept = 0;
  for (int i = 1; i < dims_; ++i) {
    bool mergeable = true;
    for (int operand = 0; operand < operands_; ++operand)
      mergeable &= strides_[operand][kept] == strides_[operand][i] * sizes_[i];
    if (!mergeable) ++kept;
    sizes_[kept] = mergeable ? sizes_[kept] * sizes_[i] : sizes_[i];
    for (int operand = 0; operand < operands_; ++operand)
      strides_[operand][kept] = strides_[operand][i];
  }
  if (dims_ == 0) {  // a single element
    sizes_[0] = 1;
    for (int operand = 0; operand < operands_; ++operand) strides_[operand][0] = 0;
  }
  dims_ = kept + 1;

  // Runs of a few elements would drown in their own overhead: then the longest dimension goes
  // inside.
  constexpr int64_t kShortRun = 8;
  const int last = dims_ - 1;
  if (sizes_[last] < kShortRun) {
    int longest = last;
    for (int i = 0; i < last; ++i)
      if (sizes_[i] > sizes_[longest]) longest = i;
    std::swap(sizes_[longest], sizes_[last]);
    for (int operand = 0; operand < operands_; ++operand)
      std::swap(strides_[operand][longest], strides_[operand][last]);
  }
}

Run StridedLoop::seek(int64_t element, Shape& position) const {
  Run run;
  run.data = data_;
  for (int operand = 0; operand < operands_; ++operand)
    run.stride[operand] = strides_[operand][dims_ - 1];
  for (int dim = dims_ - 1; dim >= 0; --dim) {
    position[dim] = element % sizes_[dim];
    element /= sizes_[dim];
    for (int operand = 0; operand < operands_; ++operand)
      run.data[operand] += position[dim] * strides_[operand][dim];
  }
  return run;
}

void StridedLoop::advance(Run& run, Shape& position) const {
  int dim = dims_ - 1;
  position[dim] += run.count;
  for (int operand = 0; operand < operands_; ++operand)
    run.data[operand] += run.count * run.stride[operand];
  for (; dim > 0 && position[dim] == sizes_[dim]; --dim) {
    position[dim] = 0;
    ++position[dim - 1];
    for (int operand = 0; operand < operands_; ++operand)
      run.data[operand] += strides_[operand][dim - 1] - sizes_[dim] * strides_[operand][dim];
  }
}

}  // namespace binade::kernels::cpu
