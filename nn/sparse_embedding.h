// SparseEmbedding: a table of so many rows that a step must not cost what the table does. Forward
// and backward touch the rows that a batch names, and so does an optimizer of optim/sparse.h; the
// table has no gradient of its own and belongs to no other optimizer.
//
//   nn::SparseEmbedding items(4'000'000, 64);
//   optim::SparseAdamW sparse(model, {.learning_rate = 1e-2});  // every sparse table in it
//   …
//   optimizer.zero_grad();
//   sparse.zero_grad();
//   loss.backward();                                // a loss of items.forward(ids) and the rest
//   optimizer.step();
//   sparse.step();
#pragma once

#include <vector>

#include <binade/nn/init.h>
#include <binade/nn/module.h>

namespace binade::nn {

class SparseEmbedding : public Module {
 public:
  // The state is "weight" (rows, dim) f32 under every preset, as nn::Embedding's.
  SparseEmbedding(int64_t rows, int64_t dim, const Initialiser& values = init::normal());

  // index (…) i32 or i64 → (…, dim). With gradients enabled the rows are noted for the step, and
  // stay in memory until the optimizer's zero_grad(). Looks at the indices on the host: waits for a
  // GPU, and cannot be captured as a graph.
  Tensor forward(const Tensor& index) const;

  const Array& weight() const { return weight_->array(); }  // (rows, dim)

  // ---- for optimizers ---------------------------------------------------------------------------
  struct Touched {
    Array rows;     // (U) i64, ascending
    Tensor values;  // (U, dim), a leaf: the gradient comes to it
  };
  // By every forward() with gradients enabled since forget().
  const std::vector<Touched>& touched() const { return touched_; }
  void forget() const { touched_.clear(); }

 private:
  BufferPtr weight_;
  mutable std::vector<Touched> touched_;
};

}  // namespace binade::nn
