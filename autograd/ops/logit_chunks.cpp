#include <binade/autograd/ops/logit_chunks.h>

namespace binade::ops {

namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Rows of logits and of their gradients begin at whole cache lines, whatever the vocabulary.
int64_t stride_of(const LogitChunks::Layout& layout) {
  constexpr int64_t kLine = 128;
  return round_up(layout.columns, kLine / size_of(layout.operands));
}

}  // namespace

LogitChunks::LogitChunks(const char* op, const Layout& layout) : layout_(layout) {
  check(
      layout.logits == layout.operands || (layout.logits == DType::f32 && is_half(layout.operands)),
      op, ": logits_dtype must be f32 or the operands' ", layout.operands, ", got ", layout.logits);
  check(layout.rows_per_chunk >= 0, op, ": rows_per_chunk must be at least 0, got ",
        layout.rows_per_chunk);
  choose_chunk();
  if (layout.rows == 0) return;
  logits_ = buffer(layout.logits);
  if (layout.gradients && layout.logits != layout.operands) gradients_ = buffer(layout.operands);
  if (layout.taught) teacher_ = buffer(layout.logits);
}

void LogitChunks::choose_chunk() {
  constexpr int64_t kMultiple = 128;  // of rows: whole tiles of a matmul
  constexpr int64_t kMiB = int64_t{1} << 20;
  // Large enough for matmuls to run at full speed, and for the sum of the weight's gradient to be
  // read and written only a few times. A little more where all rows fit, as that sum falls away.
  const bool on_gpu = layout_.device.is_cuda();
  const int64_t usual = on_gpu ? 768 * kMiB : 32 * kMiB, most = on_gpu ? 1024 * kMiB : usual;
  chunk_ = layout_.rows_per_chunk;
  if (chunk_ == 0) {
    const int64_t logits = size_of(layout_.logits) * (layout_.taught ? 2 : 1);
    const bool apart = layout_.logits != layout_.operands;  // gradients, from logits
    const int64_t row_bytes =
        stride_of(layout_) * (logits + (apart ? size_of(layout_.operands) : 0));
    const int64_t limit = std::max(usual / row_bytes / kMultiple, int64_t{1}) * kMultiple;
    const int64_t chunks = std::max((layout_.rows + limit - 1) / limit, int64_t{1});
    chunk_ = layout_.rows * row_bytes <= most
                 ? layout_.rows
                 : round_up((layout_.rows + chunks - 1) / chunks, kMultiple);
  }
  chunk_ = std::min(chunk_, layout_.rows);
}

Array LogitChunks::buffer(DType dtype) const {
  return Array::empty({chunk_, stride_of(layout_)}, dtype, layout_.device)
      .slice(1, 0, layout_.columns);
}

void LogitChunks::add_gradients(const Array& rows, const Array& weight, const Array& dlogits,
                                const Gradients& to, int64_t begin, int64_t end) const {
  kernels::MatmulEpilogue epilogue;
  if (to.rows.defined()) {
    epilogue.beta = to.rows_beta;
    BINADE_DISPATCH(layout_.device,
                    matmul(dlogits, weight, to.rows.slice(0, begin, end), epilogue));
  }
  if (to.weight.defined()) {
    epilogue.beta = begin == 0 ? to.weight_beta : 1;
    BINADE_DISPATCH(layout_.device, matmul(dlogits.transpose(0, 1), rows, to.weight, epilogue));
  }
}

Array LogitChunks::teacher_logits(const Array& hidden, const Array& weight, int64_t shift,
                                  int64_t begin, int64_t end) const {
  const int64_t from = std::min(begin + shift, layout_.rows);
  const int64_t to = std::min(end + shift, layout_.rows);
  const Array logits = teacher_.slice(0, 0, end - begin);
  if (to > from)
    BINADE_DISPATCH(layout_.device, matmul(hidden.slice(0, from, to), weight.transpose(0, 1),
                                           logits.slice(0, 0, to - from), {}));
  if (to - from < end - begin) logits.slice(0, to - from, end - begin).zero();
  return logits;
}

}  // namespace binade::ops
