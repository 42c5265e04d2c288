// Panels of f32, and matmuls of them on one thread: b, and where need be a, are laid out in the
// order the micro-kernel reads them. That costs a pass over an operand, which is repaid for every
// row (of a) or column (of b) it meets. Private to this folder.
#pragma once

#include <algorithm>

#include <binade/core/kernels/cpu/matmul/block_gemm.h>
#include <binade/core/kernels/cpu/matmul/micro_kernel.h>

namespace binade::kernels::cpu {

// `size` cut into the fewest parts of at most `most`, all of nearly one size.
struct EvenParts {
  int64_t size, count;

  EvenParts(int64_t whole, int64_t most)
      : size(whole), count(std::max<int64_t>((whole + most - 1) / most, 1)) {}
  int64_t begin(int64_t part) const { return size * part / count; }
  int64_t length(int64_t part) const { return begin(part + 1) - begin(part); }
  int64_t longest() const { return (size + count - 1) / count; }
};

// The step along k that is multiplied at a time: a micro-panel of b and a few rows of a stay in the
// first two levels of the cache.
inline constexpr int64_t kPackedDepth = 512;

// Floats that columns of b take when packed along k: whole micro-panels.
inline int64_t packed_columns(int64_t columns) {
  const int64_t panel = micro_kernel().columns;
  return (columns + panel - 1) / panel * panel;
}

// a's (m, k) by rows, as the micro-kernel reads it: where it lies if it lies by rows, otherwise
// transposed into `buffer`, which has room for m · k floats.
Block<const float> rows_of_a(int64_t m, int64_t k, Block<const float> a, float* buffer);
// b's (k, n) into packed_columns(n) · k floats, aligned to 64 bytes.
void pack_b(int64_t k, int64_t n, Block<const float> b, float* packed);

// Packed columns of b: its micro-panels lie `panel` floats apart.
struct PackedColumns {
  const float* data;
  int64_t panel;
};

// c (m, n, by rows) = a · b, or c += a · b when `accumulate`, on the calling thread. `rows` is what
// rows_of_a gave.
void multiply_packed(int64_t m, int64_t n, int64_t k, Block<const float> rows,
                     PackedColumns columns, bool accumulate, float* c, int64_t leading_c);

// The same for rows of a as they are, with k cut into steps of kPackedDepth.
void multiply_packed_in_steps(int64_t m, int64_t n, int64_t k, Block<const float> a,
                              PackedColumns columns, bool accumulate, float* c, int64_t leading_c);

// The same for a b as it is: columns of it are packed and multiplied, so many at a time that they
// stay in the cache, or, where few rows meet a b that lies by rows, read in place. An element's
// bits do not depend on which of them it was.
void multiply_by_panels(int64_t m, int64_t n, int64_t k, Block<const float> a, Block<const float> b,
                        bool accumulate, float* c, int64_t leading_c);

// How BlockedMatmul (blocked_matmul.cpp) multiplies f32: an engine packs columns of b, makes rows
// of a ready, and multiplies these. This one works on the vectors of the micro-kernel.
class VectorEngine {
 public:
  using Source = float;  // what operands are converted to where they are something else …
  using Packed = float;  // … and what they are packed as
  // Of k: what is packed of b at a time, and what is multiplied at a time. Of rows: of a task, and
  // what these are a multiple of.
  static constexpr int64_t kMostDepth = 4096, kStep = kPackedDepth, kRows = 64, kRowStep = 1;
  static constexpr int64_t kMostPacked = int64_t{4} << 20;  // elements: the last level of the cache
  static constexpr bool kCopiesRows = false;  // whether rows of a are always made ready in a buffer
  static constexpr int64_t kFewRows = 0;      // up to which all of a is made ready beforehand

  static int64_t column_step() { return micro_kernel().columns; }  // columns of a panel
  static int64_t depth(int64_t k) { return k; }                    // packed elements of a column

  // Rows of a made ready, in place or in a buffer of row_buffer(m, k) elements.
  struct Rows {
    Block<const float> block;
    int64_t m, k;
    bool usable;  // whether the engine can multiply them
  };
  // Returns whether the engine can multiply what it packed.
  bool pack_b(int64_t k, int64_t n, Block<const float> b, Packed* packed) const;
  int64_t row_buffer(int64_t m, int64_t k) const { return m * k; }
  // `sums`, if not null, has room for a multiple of 16 numbers and receives the sums of a's rows.
  Rows take_rows(int64_t m, int64_t k, Block<const float> a, Packed* buffer, float* sums) const;
  // c (m, n) (+)= rows · packed columns, whose panels follow one another.
  void multiply(const Rows& rows, int64_t n, const Packed* columns, bool accumulate, float* c,
                int64_t leading_c) const;
};

// Whether packing all of b pays for matmuls with `rows` rows of a in all: a transposed b needs it
// more.
inline bool worth_packing(int64_t rows, bool b_is_transposed) {
  return rows >= (b_is_transposed ? 16 : 64);
}

// b made ready once for several matmuls on one thread, which have `rows` rows of a in all. What is
// assigned must live as long as it is multiplied.
template <class T>
class RightOperand;

template <>
class RightOperand<float> {
 public:
  void assign(int64_t k, int64_t n, Block<const float> b, int64_t rows);

  // c (m, n) (+)= a (m, k) · b's rows from `row` and columns from `column`, which is a multiple of
  // kColumnStep.
  static constexpr int64_t kColumnStep = MicroKernel::kMostColumns;
  void multiply(int64_t m, int64_t n, int64_t k, Block<const float> a, int64_t row, int64_t column,
                bool accumulate, float* c, int64_t leading_c) const;

 private:
  Workspace<float> workspace_;
  Block<const float> b_;
  const float* packed_ = nullptr;  // null where packing does not pay
  int64_t depth_ = 0;
};

template <>
class RightOperand<double> {
 public:
  void assign(int64_t, int64_t, Block<const double> b, int64_t) { b_ = b; }
  void multiply(int64_t m, int64_t n, int64_t k, Block<const double> a, int64_t row, int64_t column,
                bool accumulate, double* c, int64_t leading_c) const {
    gemm(m, n, k, a, b_.from(row, column), accumulate, c, leading_c);
  }

 private:
  Block<const double> b_;
};

}  // namespace binade::kernels::cpu
