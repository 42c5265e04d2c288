// What tells a latent's token when and where it is: its time in the flow, and its place in the
// image. Both in f32 until a layer reads them.
#pragma once

#include <memory>

#include <binade/nn/linear.h>

namespace binade::nn {

// Sinusoids of a time in [0, 1], which is not scaled (BAGEL's TimestepEmbedder), then an MLP:
// [cos t·f | sin t·f] with f_i = 10000^(−i/F), F frequencies → Linear, SiLU, Linear.
class TimeEmbedding : public Module {
 public:
  static constexpr int64_t kFrequencies = 128;
  explicit TimeEmbedding(int64_t dim);
  Tensor sinusoids(const Tensor& times) const;  // (…) f32 → (…, 2F) f32
  Tensor forward(const Tensor& times) const;    // (…) f32 → (…, dim)

 private:
  BufferPtr frequencies_;
  std::shared_ptr<Linear> in_, out_;
};

// Sines and cosines of columns in the first half of `dim`, of rows in the second, each [sin | cos]
// with frequencies 10000^(−i/(dim/4)) (as MAE's get_2d_sincos_pos_embed; He et al. 2022). Not
// trained.
class PositionTable2d : public Module {
 public:
  // Throws Error unless dim is a multiple of 4.
  PositionTable2d(int64_t dim, int64_t side);
  // places (…) i32, row · side + column → (…, dim) f32.
  Tensor forward(const Tensor& places) const;
  const Tensor& table() const { return *table_; }  // (side², dim) f32

 private:
  BufferPtr table_;
};

}  // namespace binade::nn
