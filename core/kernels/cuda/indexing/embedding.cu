// Embedding tables: rows by token, and the sum of the rows' gradients.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

void embedding(const Array& table, const Array& index, const Array& out) {
  gather_any("embedding", table, 0, index.unsqueeze(1).expand(out.shape()), out);
}

void embedding_backward(const Array& dout, const Array& index, const Array& dtable, float beta) {
  if (beta == 0) fill(dtable, 0);
  add_rows("embedding_backward", dtable, 0, index, dout);
}

}  // namespace binade::kernels::cuda
