// Embedding tables: rows by token, and the sum of the rows' gradients.
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

void embedding(const Array& table, const Array& index, const Array& out) {
  gather_any("embedding", table, 0, index.unsqueeze(1).expand(out.shape()), out);
}

void embedding_backward(const Array& dout, const Array& index, const Array& dtable, float beta) {
  add_rows("embedding_backward", dtable, 0, index, dout, beta);
}

}  // namespace binade::kernels::cuda
