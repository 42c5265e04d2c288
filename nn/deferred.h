// Deferred parameters: parameters that know how their values are made, and have no memory until
// somebody reads them.
//
//   const nn::Deferred scope;
//   const auto model = nn::load_hf(folder);              // shapes, and where the values are
//   amp::Preset::parse("fp16").apply(*model);            // still no memory
//   optim::AdamW optimizer(...);                         // values go straight into its buffers
//
// The values are bit for bit those that the model would have without the scope, whatever is done to
// it before they are read: moving it, another dtype, freezing, LoRA. So a model never lies in host
// memory in FP32 before an optimizer or a GPU has it in the form that it needs; and of ranks that
// share an optimizer's state each makes its own part of the masters alone.
#pragma once

#include <cstdint>
#include <functional>

#include <binade/core/array.h>

namespace binade::nn {

// While it lives, parameters that this thread makes with an initialiser are deferred, as are
// weights that load_hf() reads (the file stays mapped). A parameter gets memory, and its values,
// when they are first read (Parameter::tensor() in an op, master(), Module::state()) or assigned;
// that first read is not for several threads at once. Buffers always have memory.
class Deferred {
 public:
  Deferred();
  ~Deferred();
  Deferred(const Deferred&) = delete;
  Deferred& operator=(const Deferred&) = delete;

  static bool active();  // in this thread

 private:
  bool before_;
};

// Values of a tensor that can be had in pieces, in any order, as often as one likes and always with
// the same bits: draws at a place of the random sequence, a tensor of a file, a constant. They are
// f32, made on the CPU.
class ValueSource {
 public:
  // Writes elements [begin, begin + out.numel()), in row-major order, to `out`, (n) f32 on the CPU.
  using Write = std::function<void(int64_t begin, const Array& out)>;
  ValueSource(const Shape& shape, Write write) : shape_(shape), write_(std::move(write)) {}
  // The values of an array of any strides, floating dtype and device, which is held, not copied:
  // it must stay as it is.
  static ValueSource of(const Array& values);

  const Shape& shape() const { return shape_; }
  // Elements [begin, begin + out.numel()) to `out`, (n) of any floating dtype on any device. Takes
  // no more than 16 MiB of host memory beside it. Throws Error beyond the end.
  void write(int64_t begin, const Array& out) const;
  // All of them in an array of their shape.
  Array make(DType dtype = DType::f32, Device device = {}) const;

  // The values rounded to a half dtype, and widened again.
  ValueSource rounded(DType dtype) const;
  // The first `count` elements, and zeros behind them, in another shape.
  ValueSource padded(const Shape& shape, int64_t count) const;

 private:
  Shape shape_;
  Write write_;
};

}  // namespace binade::nn
