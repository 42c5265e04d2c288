// Matmuls through cuBLASLt. It is column-major: the row-major out = a·b is its out' = b'·a', so
// the operands change places and rows become columns.
#include <binade/core/kernels/matmul.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <vector>

#include <binade/core/cuda/libraries.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/relu_gradient.h>

#include <binade/core/kernels/cuda/common/device_pointer.h>
#include <binade/core/kernels/cuda/matmul/fused_matmul.h>
#include <binade/core/kernels/cuda/matmul/matmul_plan.h>

namespace binade::kernels::cuda {

namespace {

// A matrix in memory: rows (or, transposed, columns) that are contiguous and `ld` apart.
struct MatrixLayout {
  int64_t ld;
  bool transposed;
};

std::optional<MatrixLayout> matrix_layout(int64_t rows, int64_t cols, int64_t row_stride,
                                          int64_t col_stride) {
  if ((col_stride == 1 || cols == 1) && (row_stride >= cols || rows == 1))
    return MatrixLayout{rows == 1 ? cols : row_stride, false};
  if ((row_stride == 1 || rows == 1) && (col_stride >= rows || cols == 1))
    return MatrixLayout{cols == 1 ? rows : col_stride, true};
  return std::nullopt;
}

std::optional<MatrixLayout> matrix_layout(const Array& x) {
  return matrix_layout(x.size(-2), x.size(-1), x.stride(-2), x.stride(-1));
}

bool has_contiguous_rows(const Array& x) {
  const std::optional<MatrixLayout> layout = matrix_layout(x);
  return layout && !layout->transposed;
}

// One leading dimension: its size and the strides of the four arrays.
struct LeadingDim {
  int64_t size, a, b, out, aux;
};

// The matmul without its epilogue's meaning: sizes, strides, and the leading dimensions that could
// not be folded into the rows or into each other.
struct Geometry {
  int64_t m, n, k;
  int64_t a_row, a_col, b_row, b_col, out_row, aux_row;
  std::vector<LeadingDim> leading;  // outermost first
};

Geometry geometry_of(const Array& a, const Array& b, const Array& out, const Array& aux) {
  const auto stride = [](const Array& x, int dim) { return x.defined() ? x.stride(dim) : 0; };
  Geometry g{a.size(-2),   b.size(-1),   a.size(-1),     a.stride(-2),    a.stride(-1),
             b.stride(-2), b.stride(-1), out.stride(-2), stride(aux, -2), {}};
  for (int dim = 0; dim + 2 < out.dims(); ++dim)
    if (out.size(dim) != 1)
      g.leading.push_back(
          {out.size(dim), a.stride(dim), b.stride(dim), out.stride(dim), stride(aux, dim)});

  // Rows of all leading dimensions that share one b are rows of one larger matmul.
  while (!g.leading.empty()) {
    const LeadingDim inner = g.leading.back();
    const int64_t rows = g.m * inner.size;
    const int64_t a_row = g.m == 1 ? inner.a : g.a_row;
    const int64_t out_row = g.m == 1 ? inner.out : g.out_row;
    const int64_t aux_row = g.m == 1 ? inner.aux : g.aux_row;
    if (inner.b != 0 || inner.a != g.m * a_row || inner.out != g.m * out_row ||
        inner.aux != g.m * aux_row || !matrix_layout(rows, g.k, a_row, g.a_col) || out_row < g.n ||
        (aux.defined() && aux_row < g.n))
      break;
    g.m = rows;
    g.a_row = a_row;
    g.out_row = out_row;
    g.aux_row = aux_row;
    g.leading.pop_back();
  }
  // Neighbours that are evenly spaced in every array are one dimension.
  for (size_t i = g.leading.size(); i-- > 1;) {
    LeadingDim& outer = g.leading[i - 1];
    const LeadingDim& inner = g.leading[i];
    if (outer.a == inner.size * inner.a && outer.b == inner.size * inner.b &&
        outer.out == inner.size * inner.out && outer.aux == inner.size * inner.aux) {
      outer = {outer.size * inner.size, inner.a, inner.b, inner.out, inner.aux};
      g.leading.erase(g.leading.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  return g;
}

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDA_R_64F;
    case DType::f32:
      return CUDA_R_32F;
    case DType::f16:
      return CUDA_R_16F;
    case DType::bf16:
      return CUDA_R_16BF;
    default:
      fail("matmul needs a floating-point dtype, got ", name_of(dtype));
  }
}

cublasComputeType_t compute_type(DType dtype) {
  if (dtype == DType::f64) return CUBLAS_COMPUTE_64F;
  if (dtype == DType::f32 && binade::cuda::allow_tf32()) return CUBLAS_COMPUTE_32F_FAST_TF32;
  return CUBLAS_COMPUTE_32F;
}

const std::byte* advance(const Array& x, int64_t elements) {
  return static_cast<const std::byte*>(device_pointer(x)) + elements * size_of(x.dtype());
}

// What is fused behind one launch.
struct Fusion {
  cublasLtEpilogue_t kind = CUBLASLT_EPILOGUE_DEFAULT;
  Array bias;
  Array aux;  // pre_activation
};

// One batched matmul, ready to launch at any place of the remaining leading dimensions.
class LibraryMatmul {
 public:
  LibraryMatmul(const Array& a, const Array& b, const Array& out, float beta, Fusion fusion)
      : a_(a), b_(b), out_(out), fusion_(std::move(fusion)) {
    const Geometry g = geometry_of(a, b, out, fusion_.aux);
    loops_ = g.leading;
    const MatrixLayout a_layout = *matrix_layout(g.m, g.k, g.a_row, g.a_col);
    const MatrixLayout b_layout = *matrix_layout(g.k, g.n, g.b_row, g.b_col);
    problem_.input_type = cuda_type(a.dtype());
    problem_.output_type = cuda_type(out.dtype());
    problem_.compute_type = compute_type(a.dtype());
    problem_.transpose_a = b_layout.transposed;
    problem_.transpose_b = a_layout.transposed;
    problem_.m = g.n;
    problem_.n = g.m;
    problem_.k = g.k;
    problem_.lda = b_layout.ld;
    problem_.ldb = a_layout.ld;
    problem_.ldd = g.m == 1 ? g.n : g.out_row;
    problem_.accumulate = beta != 0;
    problem_.epilogue = fusion_.kind;
    if (fusion_.aux.defined()) problem_.ld_aux = g.m == 1 ? g.n : g.aux_row;
    if (!loops_.empty()) {
      // The largest leading dimension becomes the library's batch, the others loops.
      const auto largest = std::max_element(
          loops_.begin(), loops_.end(),
          [](const LeadingDim& x, const LeadingDim& y) { return x.size < y.size; });
      problem_.batch = largest->size;
      problem_.stride_a = largest->b;
      problem_.stride_b = largest->a;
      problem_.stride_d = largest->out;
      problem_.stride_aux = largest->aux;
      loops_.erase(largest);
    }
    problem_.alignment = alignment();
  }

  // cuBLASLt wants the rows of GELU's input 16 bytes apart (8 elements, of half).
  bool aux_fits() const {
    return problem_.ld_aux % 8 == 0 && problem_.stride_aux % 8 == 0 && problem_.alignment == 16;
  }

  // False when cuBLASLt has no algorithm for it; then nothing was queued.
  bool launch() const {
    const std::optional<MatmulAlgorithm> algorithm =
        choose_algorithm(problem_, operands_at(0, 0, 0, 0));
    if (!algorithm) return false;
    launch_from(0, {0, 0, 0, 0, 0}, *algorithm);
    return true;
  }

 private:
  MatmulOperands operands_at(int64_t a, int64_t b, int64_t out, int64_t aux) const {
    MatmulOperands operands;
    operands.a = advance(b_, b);
    operands.b = advance(a_, a);
    operands.d = const_cast<std::byte*>(advance(out_, out));
    if (fusion_.bias.defined()) operands.bias = device_pointer(fusion_.bias);
    if (fusion_.aux.defined()) operands.aux = const_cast<std::byte*>(advance(fusion_.aux, aux));
    return operands;
  }

  void launch_from(size_t depth, LeadingDim offset, const MatmulAlgorithm& algorithm) const {
    if (depth == loops_.size()) {
      launch_matmul(problem_, operands_at(offset.a, offset.b, offset.out, offset.aux), algorithm);
      return;
    }
    const LeadingDim& loop = loops_[depth];
    for (int64_t i = 0; i < loop.size; ++i) {
      launch_from(depth + 1, offset, algorithm);
      offset.a += loop.a;
      offset.b += loop.b;
      offset.out += loop.out;
      offset.aux += loop.aux;
    }
  }

  // The largest power of two, at most 16, that divides every address and step between matrices.
  int64_t alignment() const {
    uintptr_t bits = 16;
    const auto add_pointer = [&](const Array& x) {
      if (x.defined()) bits |= std::bit_cast<uintptr_t>(x.data());
    };
    const auto add_step = [&](const Array& x, int64_t elements) {
      if (x.defined()) bits |= static_cast<uintptr_t>(elements * size_of(x.dtype()));
    };
    for (const Array* x : {&a_, &b_, &out_, &fusion_.bias, &fusion_.aux}) add_pointer(*x);
    add_step(a_, problem_.stride_b);
    add_step(b_, problem_.stride_a);
    add_step(out_, problem_.stride_d);
    add_step(fusion_.aux, problem_.stride_aux);
    for (const LeadingDim& loop : loops_) {
      add_step(a_, loop.a);
      add_step(b_, loop.b);
      add_step(out_, loop.out);
      add_step(fusion_.aux, loop.aux);
    }
    return static_cast<int64_t>(bits & (~bits + 1));
  }

  Array a_, b_, out_;
  Fusion fusion_;
  MatmulProblem problem_;
  std::vector<LeadingDim> loops_;
};

// a_sums (M) = beta·a_sums + the sums of a's rows. cuBLASLt has them as an epilogue (BGRADB), which
// costs more than this pass: 301 against 206 + 80 µs for 3072 × 768 × 32768 on an H100.
void sum_rows(const Array& a, const MatmulEpilogue& epilogue) {
  reduce(ReduceOp::sum, a, epilogue.a_sums.unsqueeze(1), epilogue.a_sums_beta);
}

// The epilogue as kernels of its own, on what the matmul left in `out`.
void apply_epilogue(const MatmulEpilogue& epilogue, const Array& out) {
  if (epilogue.bias.defined())
    binary(BinaryOp::add, out, epilogue.bias.to(out.dtype()).expand(out.shape()), out);
  if (epilogue.relu) unary(UnaryOp::relu, out, out);
  if (epilogue.gelu) {
    if (epilogue.pre_activation.defined()) copy(out, epilogue.pre_activation);
    unary(UnaryOp::gelu_tanh, out, out);
  }
  if (epilogue.dgelu) unary_backward(UnaryOp::gelu_tanh, epilogue.pre_activation, out, out, 0);
}

bool is_plain(const MatmulEpilogue& epilogue) {
  return !epilogue.bias.defined() && !epilogue.relu && !epilogue.gelu && !epilogue.dgelu;
}

// The library's name for the epilogue but for ReLU, or nothing where it has none. The library's
// ReLU makes 0 of NaN (13.0 on an H200), which would hide an overflow.
std::optional<Fusion> fusion_of(const MatmulEpilogue& epilogue, const Array& out) {
  Fusion fusion;
  if (is_plain(epilogue)) return fusion;
  if (out.dtype() == DType::f64 || (epilogue.dgelu && (epilogue.gelu || epilogue.bias.defined())))
    return std::nullopt;
  if (epilogue.bias.defined()) fusion.bias = epilogue.bias.to(out.dtype()).contiguous();
  if (epilogue.gelu || epilogue.dgelu) fusion.aux = epilogue.pre_activation;
  if (fusion.aux.defined() && !has_contiguous_rows(fusion.aux)) return std::nullopt;
  int kind = epilogue.dgelu ? CUBLASLT_EPILOGUE_DGELU : 0;
  if (epilogue.gelu)
    kind |= fusion.aux.defined() ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU;
  if (epilogue.bias.defined()) kind |= CUBLASLT_EPILOGUE_BIAS;
  if (kind != 0) fusion.kind = static_cast<cublasLtEpilogue_t>(kind);
  return fusion;
}

// Queues the matmul with its epilogue (but for the column sums) in one launch. False where the
// library cannot.
bool launch_fused(const Array& a, const Array& b, const Array& out,
                  const MatmulEpilogue& epilogue) {
  const std::optional<Fusion> fusion = fusion_of(epilogue, out);
  if (!fusion) return false;
  const LibraryMatmul matmul(a, b, out, epilogue.beta, *fusion);
  if ((fusion->aux.defined() && !matmul.aux_fits()) || !matmul.launch()) return false;
  if (epilogue.relu) unary(UnaryOp::relu, out, out);
  return true;
}

// out' = b'·a', which leaves rows of out contiguous where its columns were.
bool is_transposed(const Array& out) {
  const std::optional<MatrixLayout> layout = matrix_layout(out);
  return layout && layout->transposed;
}

void plain_matmul(const Array& a, const Array& b, const Array& out, float beta) {
  check(LibraryMatmul(a, b, out, beta, {}).launch(), "cuBLASLt has no algorithm for a matmul of ",
        a.shape(), " and ", b.shape(), " of dtype ", name_of(a.dtype()));
}

// Everything but the column sums, through cuBLASLt.
void library_matmul(const Array& a, const Array& b, const Array& out,
                    const MatmulEpilogue& epilogue) {
  const bool plain = is_plain(epilogue);
  if (out.numel() == 0) return;
  if (a.size(-1) == 0) {  // an empty sum
    if (epilogue.beta == 0) fill(out, 0);
    apply_epilogue(epilogue, out);
    return;
  }
  if (a.size(-1) == 1 && plain && epilogue.beta == 0 && a.dtype() == out.dtype()) {
    // A product and no sum: half the time of the library's general kernel for K = 1.
    binary(BinaryOp::mul, a.expand(out.shape()), b.expand(out.shape()), out);
    return;
  }
  if (!has_contiguous_rows(out)) {
    if (plain && is_transposed(out)) {
      library_matmul(b.transpose(-2, -1), a.transpose(-2, -1), out.transpose(-2, -1), epilogue);
      return;
    }
    const Array dense =
        epilogue.beta != 0 ? out.clone() : Array::empty(out.shape(), out.dtype(), out.device());
    library_matmul(a, b, dense, epilogue);
    copy(dense, out);
    return;
  }
  const Array left = matrix_layout(a) ? a : a.contiguous();
  const Array right = matrix_layout(b) ? b : b.contiguous();
  if (!plain && launch_fused(left, right, out, epilogue)) return;
  plain_matmul(left, right, out, epilogue.beta);
  apply_epilogue(epilogue, out);
}

void sum_columns(const Array& out, const MatmulEpilogue& epilogue) {
  if (epilogue.out_sums.defined()) reduce(ReduceOp::sum, out, epilogue.out_sums.unsqueeze(0), 0);
}

// The matmul as one of fused_matmul.h, if it is of a size for which that may pay.
std::optional<FusedProblem> fused_problem(FusedProblem::Kind kind, const Array& a,
                                          const Array& out) {
  constexpr int64_t kLeastMultiplications = int64_t{1} << 31;  // about 64 tiles' worth of K = 2048
  if (out.dims() != 2 || !is_half(out.dtype()) || a.dtype() != out.dtype() ||
      out.numel() * a.size(1) < kLeastMultiplications)
    return std::nullopt;
  FusedProblem problem;
  problem.kind = kind;
  problem.type = cuda_type(out.dtype());
  problem.m = out.size(0);
  problem.n = out.size(1);
  problem.k = a.size(1);
  return problem;
}

std::optional<FusedProblem> gelu_problem(const Array& a, const Array& out,
                                         const MatmulEpilogue& epilogue) {
  const Array& pre = epilogue.pre_activation;
  if (epilogue.gelu == epilogue.dgelu || (epilogue.dgelu && epilogue.bias.defined()) ||
      epilogue.beta != 0 || (pre.defined() && pre.shares_storage(out)))
    return std::nullopt;
  std::optional<FusedProblem> problem =
      fused_problem(epilogue.dgelu ? FusedProblem::gelu_backward : FusedProblem::gelu, a, out);
  if (!problem) return problem;
  problem->has_input = pre.defined();
  problem->column_sums = epilogue.out_sums.defined();
  problem->recomputed_gelu = epilogue.recomputed_gelu.defined();
  return problem;
}

std::optional<FusedProblem> relu_problem(const Array& a, const Array& out,
                                         const MatmulEpilogue& epilogue) {
  if (epilogue.relu == epilogue.drelu || epilogue.beta != 0 ||
      (epilogue.drelu && epilogue.pre_activation.shares_storage(out)))
    return std::nullopt;
  std::optional<FusedProblem> problem =
      fused_problem(epilogue.drelu ? FusedProblem::relu_backward : FusedProblem::relu, a, out);
  if (problem) problem->column_sums = epilogue.out_sums.defined();
  return problem;
}

Array bias_for(const Array& out, const MatmulEpilogue& epilogue) {
  return epilogue.bias.defined() ? epilogue.bias.to(out.dtype()).contiguous() : Array();
}

bool launch_relu(const Array& a, const Array& b, const Array& out, const MatmulEpilogue& epilogue) {
  if (epilogue.drelu)
    return fused_matmul_relu_backward(a, b, epilogue.pre_activation, out, epilogue.out_sums);
  if (!fused_matmul_relu(a, b.transpose(0, 1), bias_for(out, epilogue), out)) return false;
  sum_columns(out, epilogue);
  return true;
}

bool launch_gelu(const Array& a, const Array& b, const Array& out, const MatmulEpilogue& epilogue) {
  if (epilogue.dgelu)
    return fused_matmul_gelu_backward(a, b, epilogue.pre_activation, out, epilogue.out_sums,
                                      epilogue.recomputed_gelu);
  if (!fused_matmul_gelu(a, b.transpose(0, 1), bias_for(out, epilogue), epilogue.pre_activation,
                         out))
    return false;
  sum_columns(out, epilogue);
  return true;
}

}  // namespace

void matmul(const Array& a, const Array& b, const Array& out, const MatmulEpilogue& epilogue) {
  const auto library = [&] {
    if (epilogue.drelu) {
      library_matmul(a, b, out, {});
      relu_gradient(epilogue.pre_activation, out, out, epilogue.out_sums);
      return;
    }
    // First, because the library's matmuls may write over pre_activation.
    if (epilogue.recomputed_gelu.defined())
      unary(UnaryOp::gelu_tanh, epilogue.pre_activation, epilogue.recomputed_gelu);
    library_matmul(a, b, out, epilogue);
    sum_columns(out, epilogue);
  };
  const bool is_relu = epilogue.relu || epilogue.drelu;
  const auto own = [&] {
    return is_relu ? launch_relu(a, b, out, epilogue) : launch_gelu(a, b, out, epilogue);
  };
  const std::optional<FusedProblem> problem =
      is_relu ? relu_problem(a, out, epilogue) : gelu_problem(a, out, epilogue);
  if (!problem || !prefers_own_kernel(*problem, own, library) || !own()) library();
  if (epilogue.a_sums.defined()) sum_rows(a, epilogue);
}

void matmul_swiglu(const Array& x, const Array& weight, const Array& pre, const Array& hidden) {
  const auto library = [&] {
    const int64_t width = hidden.size(1);
    const Array both =
        pre.defined() ? pre : Array::empty({x.size(0), 2 * width}, x.dtype(), x.device());
    matmul(x, weight.transpose(0, 1), both, {});
    swiglu(both.slice(1, 0, width), both.slice(1, width), hidden);
  };
  const auto own = [&] { return fused_matmul_swiglu(x, weight, pre, hidden); };
  std::optional<FusedProblem> problem = fused_problem(FusedProblem::swiglu, x, hidden);
  if (problem) problem->has_input = pre.defined();
  if (!problem || !prefers_own_kernel(*problem, own, library) || !own()) library();
}

void matmul_swiglu_backward(const Array& dy, const Array& weight, const Array& gate,
                            const Array& up, const Array& dgate, const Array& dup) {
  const auto library = [&] {
    const Array dh = Array::empty(gate.shape(), gate.dtype(), gate.device());
    matmul(dy, weight, dh, {});
    swiglu_backward(gate, up, dh, dgate, dup, 0);
  };
  const auto own = [&] { return fused_matmul_swiglu_backward(dy, weight, gate, up, dgate, dup); };
  const std::optional<FusedProblem> problem =
      fused_problem(FusedProblem::swiglu_backward, dy, dgate);
  if (!problem || !prefers_own_kernel(*problem, own, library) || !own()) library();
}

}  // namespace binade::kernels::cuda
