// Embedding: rows of a table by index.
#pragma once

#include <binade/autograd/ops/indexing.h>
#include <binade/nn/init.h>
#include <binade/nn/module.h>

namespace binade::nn {

class Embedding : public Module {
 public:
  Embedding(int64_t rows, int64_t dim, const Initialiser& values = init::normal()) {
    check(rows > 0 && dim > 0, "an embedding needs positive sizes, got ", rows, " rows of ", dim);
    weight_ = add_parameter("weight", {rows, dim}, values);
  }

  // index (…) i32 or i64 → (…, dim).
  Tensor forward(const Tensor& index) const { return embedding(weight_->tensor(), index); }

  const ParameterPtr& weight() const { return weight_; }  // (rows, dim)

 private:
  ParameterPtr weight_;
};

}  // namespace binade::nn
