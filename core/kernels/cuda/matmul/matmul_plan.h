// One cuBLASLt matmul: its description, the algorithm chosen for it, and its launch. And the
// choice between it and a matmul of fused_matmul.h.
#pragma once

#include <cublasLt.h>

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>

namespace binade::kernels::cuda {

// d (m × n) = op(a) (m × k) · op(b) (k × n) + beta · d, column-major, `batch` times. What decides
// which algorithms are possible and which is fastest; the key of the table of algorithms. Every
// member is an int64_t, so that the table can be written as rows of numbers.
struct MatmulProblem {
  int64_t input_type = 0, output_type = 0;  // cudaDataType_t
  int64_t compute_type = 0;                 // cublasComputeType_t
  int64_t transpose_a = 0, transpose_b = 0;
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldd = 0;
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_d = 0;  // elements
  int64_t accumulate = 0;                                       // beta: 0 or 1
  int64_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  int64_t ld_aux = 0, stride_aux = 0;
  int64_t alignment = 16;  // bytes that all pointers are multiples of, at most 16

  auto operator<=>(const MatmulProblem&) const = default;
};

struct MatmulOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* d = nullptr;
  const void* bias = nullptr;  // (m)
  void* aux = nullptr;         // GELU's input, d's layout with ld_aux
};

struct MatmulAlgorithm {
  cublasLtMatmulAlgo_t algorithm;
  int64_t workspace_bytes;
};

// The algorithm for a problem, or nothing when cuBLASLt has none (then try without an epilogue).
// The first call for a problem times cuBLASLt's suggestions on the current stream, once per
// process; under capture or in deterministic mode it takes the first suggestion. The timed runs
// write to `operands.d` where the matmul overwrites it anyway.
std::optional<MatmulAlgorithm> choose_algorithm(const MatmulProblem& problem,
                                                const MatmulOperands& operands);

// Queues the matmul on the current stream.
void launch_matmul(const MatmulProblem& problem, const MatmulOperands& operands,
                   const MatmulAlgorithm& algorithm);

// What decides whether a matmul of fused_matmul.h is faster than cuBLASLt's, in the same table.
struct FusedProblem {
  enum Kind : int64_t { gelu, gelu_backward, swiglu, swiglu_backward, relu, relu_backward };

  int64_t type = 0;  // cudaDataType_t
  int64_t m = 0, n = 0, k = 0;
  Kind kind = gelu;
  int64_t has_input = 0;  // the activation's input is stored, or read
  int64_t column_sums = 0;
  int64_t recomputed_gelu = 0;  // backward stores GELU of its input, too

  auto operator<=>(const FusedProblem&) const = default;
};

// Whether to run `own` rather than `library`, which do the same; `own` returns false if it cannot.
// The first call for a problem times them on the current stream, once per process; inside a capture
// or in deterministic mode `own` is taken. Both may run several times, so that they must not read
// what they write.
bool prefers_own_kernel(const FusedProblem& problem, const std::function<bool()>& own,
                        const std::function<void()>& library);

}  // namespace binade::kernels::cuda
