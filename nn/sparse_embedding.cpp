#include <binade/nn/sparse_embedding.h>

#include <algorithm>

#include <binade/autograd/ops/indexing.h>

namespace binade::nn {

namespace {

// The values of `ids` once each, and where each id stands among them.
struct Unique {
  std::vector<int64_t> values, places;

  explicit Unique(const std::vector<int64_t>& ids) : values(ids) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    places.reserve(ids.size());
    for (const int64_t id : ids)
      places.push_back(std::lower_bound(values.begin(), values.end(), id) - values.begin());
  }
};

Array vector_of(const std::vector<int64_t>& values, Device device) {
  return Array::from(values, {static_cast<int64_t>(values.size())}, device);
}

}  // namespace

SparseEmbedding::SparseEmbedding(int64_t rows, int64_t dim, const Initialiser& values) {
  check(rows > 0 && dim > 0, "a sparse embedding needs positive sizes, got ", rows, " rows of ",
        dim);
  weight_ = add_buffer("weight", values({rows, dim}, Device::cpu()));
}

Tensor SparseEmbedding::forward(const Tensor& index) const {
  if (!grad_enabled()) return embedding(*weight_, index);
  check(index.defined() && (index.dtype() == DType::i64 || index.dtype() == DType::i32),
        "SparseEmbedding: indices are i32 or i64");
  const Unique unique(index.to_vector<int64_t>());
  const Device device = weight_->device();
  const Tensor rows(vector_of(unique.values, device));
  const Tensor leaf(embedding(weight_->detach(), rows).array(), /*requires_grad=*/true);
  touched_.push_back({rows.array(), leaf});
  return embedding(leaf, Tensor(vector_of(unique.places, device).view(index.shape())));
}

}  // namespace binade::nn
