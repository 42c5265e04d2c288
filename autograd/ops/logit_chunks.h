// INTERNAL. The loop of the losses that never hold all logits: one buffer, in which the logits of a
// chunk of rows at a time turn into their gradients and those into the gradients of hidden rows and
// weight.
#pragma once

#include <algorithm>

#include <binade/core/kernels/matmul.h>

namespace binade::ops {

class LogitChunks {
 public:
  struct Layout {
    int64_t rows = 0, columns = 0;  // of all logits
    DType operands = DType::f32;    // of the matmuls
    DType logits = DType::f32;      // the operands', or f32
    Device device;
    bool gradients = true;       // some run() will want them
    bool taught = false;         // a teacher's logits beside the student's
    int64_t rows_per_chunk = 0;  // 0: as many as fit the budget
  };
  // The dtype of logits where nobody asked for one: f32 for bf16, otherwise the operands'.
  static DType default_logits(DType operands) {
    return operands == DType::bf16 ? DType::f32 : operands;
  }
  // Throws Error for logits of another dtype than the operands' or f32.
  LogitChunks(const char* op, const Layout& layout);

  // Whether one chunk holds all rows: then a weight's gradient is one matmul.
  bool is_whole() const { return chunk_ >= layout_.rows; }

  // Where the gradients of one head go: = beta · what is there + gradient. Undefined: not wanted.
  struct Gradients {
    Array rows;  // (N, D)
    float rows_beta = 0;
    Array weight;  // (V, D)
    float weight_beta = 0;
  };
  // One head: hidden rows (N, D), weight (V, D). loss(begin, end, logits, dlogits) reads the
  // chunk's logits and writes their gradient, which may be the same memory; dlogits is undefined
  // unless `wanted`.
  template <class Loss>
  void run(const Array& rows, const Array& weight, bool wanted, const Gradients& to,
           const Loss& loss) const {
    if (layout_.rows == 0 && to.weight.defined() && to.weight_beta == 0) to.weight.zero();
    for (int64_t begin = 0; begin < layout_.rows; begin += chunk_) {
      const int64_t end = std::min(begin + chunk_, layout_.rows);
      const Array logits = logits_.slice(0, 0, end - begin);
      const Array dlogits = !wanted                ? Array()
                            : gradients_.defined() ? gradients_.slice(0, 0, end - begin)
                                                   : logits;
      BINADE_DISPATCH(layout_.device,
                      matmul(rows.slice(0, begin, end), weight.transpose(0, 1), logits, {}));
      loss(begin, end, logits, dlogits);
      add_gradients(rows.slice(0, begin, end), weight, dlogits, to, begin, end);
    }
  }
  // hidden (N, D') · weightᵀ of the rows that lie `shift` behind [begin, end), in a buffer of its
  // own; 0 for those beyond the last.
  Array teacher_logits(const Array& hidden, const Array& weight, int64_t shift, int64_t begin,
                       int64_t end) const;

 private:
  void choose_chunk();
  Array buffer(DType dtype) const;
  void add_gradients(const Array& rows, const Array& weight, const Array& dlogits,
                     const Gradients& to, int64_t begin, int64_t end) const;

  Layout layout_;
  int64_t chunk_ = 0;
  Array logits_, gradients_, teacher_;  // (chunk, V)
};

}  // namespace binade::ops
