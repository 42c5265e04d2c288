#include <binade/core/kernels/cpu/matmul/packed_panels.h>

#include <immintrin.h>

#include <binade/core/kernels/cpu/common/lanes.h>

namespace binade::kernels::cpu {

namespace {

constexpr int64_t kPage = 4096 / sizeof(float);

// to[i·width + line] = from[line·leading + i] for 8 lines and 8 i.
void transpose_8x8(const float* from, int64_t leading, float* to, int64_t width) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 4; ++i) {
    const __m256 upper = _mm256_loadu_ps(from + 2 * i * leading);
    const __m256 lower = _mm256_loadu_ps(from + (2 * i + 1) * leading);
    pairs[2 * i] = _mm256_unpacklo_ps(upper, lower);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(upper, lower);
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 2; ++i) {
      const __m256 upper = pairs[4 * half + i], lower = pairs[4 * half + 2 + i];
      quads[4 * half + 2 * i] = _mm256_shuffle_ps(upper, lower, _MM_SHUFFLE(1, 0, 1, 0));
      quads[4 * half + 2 * i + 1] = _mm256_shuffle_ps(upper, lower, _MM_SHUFFLE(3, 2, 3, 2));
    }
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * width, _mm256_permute2f128_ps(quads[i], quads[4 + i], 0x20));
    _mm256_storeu_ps(to + (4 + i) * width, _mm256_permute2f128_ps(quads[i], quads[4 + i], 0x31));
  }
}

// One micro-panel: panel[i·width + line] = lines(line, i) for `count` lines, 0 up to `width`.
void pack_panel(Block<const float> lines, int64_t count, int64_t k, int64_t width, float* panel) {
  constexpr int64_t kGroup = 8;  // lines at a time; the last group overlaps the one before it
  const auto group_at = [&](int64_t line) { return std::min(line, count - kGroup); };
  const auto at = [&](int64_t line, int64_t i) {
    return lines.data + (lines.transposed ? i * lines.leading + line : line * lines.leading + i);
  };
  // Lines far apart lie in pages of their own, which the processor does not fetch ahead across.
  constexpr int64_t kAhead = 16;
  int64_t done = 0;  // along k, by whole vectors
  if (count >= kGroup && lines.transposed) {
    for (; done < k; ++done) {
      float* to = panel + done * width;
      for (int64_t line = 0; line < count; line += kGroup) {
        const int64_t group = group_at(line);
        __builtin_prefetch(at(group, done + kAhead));
        _mm256_storeu_ps(to + group, _mm256_loadu_ps(at(group, done)));
      }
    }
  } else if (count >= kGroup) {
    // A cache line of each of eight lines at a time: more of them may not fit the cache's sets.
    constexpr int64_t kStep = 16;
    for (; done + kStep <= k; done += kStep) {
      for (int64_t line = 0; line < count; line += kGroup) {
        const int64_t group = group_at(line);
        for (int64_t ahead = 0; ahead < kGroup; ++ahead)
          __builtin_prefetch(at(group + kAhead + ahead, done));
        for (int64_t i = done; i < done + kStep; i += 8)
          transpose_8x8(at(group, i), lines.leading, panel + i * width + group, width);
      }
    }
  }
  for (; done < k; ++done)
    for (int64_t line = 0; line < count; ++line) panel[done * width + line] = *at(line, done);
  if (count < width)
    for (int64_t i = 0; i < k; ++i)
      std::fill(panel + i * width + count, panel + (i + 1) * width, 0.0f);
}

// Whole micro-panels of a b that lies by rows: a row's part of all of them at a time, as rows may
// lie pages apart.
void copy_panels(int64_t k, int64_t panels, Block<const float> b, int64_t width, float* packed) {
  constexpr int64_t kVector = 8, kAhead = 8;
  for (int64_t i = 0; i < k; ++i) {
    const float* from = b.data + i * b.leading;
    float* to = packed + i * width;
    for (int64_t panel = 0; panel < panels; ++panel, from += width, to += k * width) {
      __builtin_prefetch(from + kAhead * b.leading);
      for (int64_t j = 0; j < width; j += kVector)
        _mm256_store_ps(to + j, _mm256_loadu_ps(from + j));
    }
  }
}

}  // namespace

Block<const float> rows_of_a(int64_t m, int64_t k, Block<const float> a, float* buffer) {
  // Rows a multiple of a page apart fall into the same sets of the first-level cache: copied.
  if (!a.transposed && (a.leading % kPage != 0 || m == 1)) return a;
  if (a.transposed) {
    // A row of the result is a line of a micro-panel k wide.
    pack_panel({a.data, a.leading, false}, k, m, k, buffer);
  } else {
    for (int64_t row = 0; row < m; ++row)
      std::copy_n(a.data + row * a.leading, k, buffer + row * k);
  }
  return {buffer, k, false};
}

void pack_b(int64_t k, int64_t n, Block<const float> b, float* packed) {
  const int64_t width = micro_kernel().columns;
  int64_t first = 0;
  if (!b.transposed) {
    constexpr int64_t kPanelsAtOnce = 8;
    while (first + width <= n) {
      const int64_t panels = std::min((n - first) / width, kPanelsAtOnce);
      copy_panels(k, panels, b.from(0, first), width, packed + first * k);
      first += panels * width;
    }
  }
  for (; first < n; first += width)
    pack_panel(b.from(0, first).flipped(), std::min(width, n - first), k, width,
               packed + first * k);
}

void multiply_packed(int64_t m, int64_t n, int64_t k, Block<const float> rows,
                     PackedColumns columns, bool accumulate, float* c, int64_t leading_c) {
  const MicroKernel& kernel = micro_kernel();
  const EvenParts panels(m, kernel.rows);
  for (int64_t column = 0; column < n; column += kernel.columns) {
    const int64_t width = std::min(kernel.columns, n - column);
    const float* right = columns.data + column / kernel.columns * columns.panel;
    // While rows stream by this panel, each tile fetches a part of the next.
    const float* const next = column + kernel.columns < n ? right + columns.panel : right;
    constexpr int64_t kCacheLine = 64 / sizeof(float);
    const int64_t part = k / MicroKernel::kFetchSteps * kCacheLine;
    for (int64_t panel = 0; panel < panels.count; ++panel) {
      const int64_t row = panels.begin(panel), count = panels.length(panel);
      const float* left = rows.data + row * rows.leading;
      float* target = c + row * leading_c + column;
      const auto multiply = kernel.multiply[count - 1];
      const float* const ahead = next + std::min(panel * part, k * kernel.columns);
      if (width == kernel.columns) {
        multiply(k, left, rows.leading, right, accumulate, target, leading_c, ahead);
        continue;
      }
      // The last columns, in a tile of whole vectors first.
      alignas(64) float tile[MicroKernel::kMostRows * MicroKernel::kMostColumns];
      multiply(k, left, rows.leading, right, false, tile, kernel.columns, ahead);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < width; ++j) {
          float& element = target[i * leading_c + j];
          const float product = tile[i * kernel.columns + j];
          element = accumulate ? element + product : product;
        }
    }
  }
}

void multiply_by_panels(int64_t m, int64_t n, int64_t k, Block<const float> a, Block<const float> b,
                        bool accumulate, float* c, int64_t leading_c) {
  const MicroKernel& kernel = micro_kernel();
  const EvenParts steps(k, kPackedDepth), panels(m, kernel.rows);
  // A column of a b whose rows lie pages apart meets few sets of the first-level cache.
  constexpr int64_t kRowsForPages = 4;
  const bool in_place =
      !b.transposed && !worth_packing(m, false) && (b.leading % kPage != 0 || m >= kRowsForPages);
  thread_local Workspace<float> row_buffer, packed;
  for (int64_t step = 0; step < steps.count; ++step) {
    const int64_t first = steps.begin(step), length = steps.length(step);
    const Block<const float> rows =
        rows_of_a(m, length, a.from(0, first), row_buffer.reserve(m * steps.longest()));
    const bool add = accumulate || step > 0;
    int64_t column = 0;
    for (; in_place && column + kernel.columns <= n; column += kernel.columns)
      for (int64_t panel = 0; panel < panels.count; ++panel)
        kernel.multiply_in_place[panels.length(panel) - 1](
            length, rows.data + panels.begin(panel) * rows.leading, rows.leading,
            b.from(first, column).data, b.leading, add,
            c + panels.begin(panel) * leading_c + column, leading_c);
    // So many columns at a time that they stay in the second level of the cache.
    constexpr int64_t kPackedAtOnce = 1 << 16;
    const int64_t group =
        std::max<int64_t>(kPackedAtOnce / length / kernel.columns, 1) * kernel.columns;
    for (; column < n; column += group) {
      const int64_t width = std::min(group, n - column);
      float* const right = packed.reserve(packed_columns(width) * length);
      pack_b(length, width, b.from(first, column), right);
      multiply_packed(m, width, length, rows, {right, length * kernel.columns}, add, c + column,
                      leading_c);
    }
  }
}

void multiply_packed_in_steps(int64_t m, int64_t n, int64_t k, Block<const float> a,
                              PackedColumns columns, bool accumulate, float* c, int64_t leading_c) {
  const int64_t width = micro_kernel().columns;
  const EvenParts steps(k, kPackedDepth);
  thread_local Workspace<float> buffer;
  for (int64_t step = 0; step < steps.count; ++step) {
    const int64_t first = steps.begin(step), length = steps.length(step);
    const Block<const float> rows =
        rows_of_a(m, length, a.from(0, first), buffer.reserve(m * steps.longest()));
    multiply_packed(m, n, length, rows, {columns.data + first * width, columns.panel},
                    accumulate || step > 0, c, leading_c);
  }
}

bool VectorEngine::pack_b(int64_t k, int64_t n, Block<const float> b, float* packed) const {
  cpu::pack_b(k, n, b, packed);
  return true;
}

VectorEngine::Rows VectorEngine::take_rows(int64_t m, int64_t k, Block<const float> a,
                                           float* buffer, float* sums) const {
  const Block<const float> rows = rows_of_a(m, k, a, buffer);
  if (sums != nullptr) {
    for (int64_t i = 0; i < m; ++i) {
      const float* line = rows.data + i * rows.leading;
      sums[i] = sum_of<float>(k, [=](int64_t j) { return line[j]; });
    }
  }
  return {rows, m, k, true};
}

void VectorEngine::multiply(const Rows& rows, int64_t n, const float* columns, bool accumulate,
                            float* c, int64_t leading_c) const {
  const PackedColumns packed{columns, rows.k * micro_kernel().columns};
  multiply_packed(rows.m, n, rows.k, rows.block, packed, accumulate, c, leading_c);
}

void RightOperand<float>::assign(int64_t k, int64_t n, Block<const float> b, int64_t rows) {
  b_ = b;
  packed_ = nullptr;
  if (!worth_packing(rows, b.transposed)) return;
  float* const packed = workspace_.reserve(packed_columns(n) * k);
  pack_b(k, n, b, packed);
  packed_ = packed;
  depth_ = k;
}

void RightOperand<float>::multiply(int64_t m, int64_t n, int64_t k, Block<const float> a,
                                   int64_t row, int64_t column, bool accumulate, float* c,
                                   int64_t leading_c) const {
  if (packed_ == nullptr) return gemm(m, n, k, a, b_.from(row, column), accumulate, c, leading_c);
  const int64_t width = micro_kernel().columns;
  multiply_packed_in_steps(m, n, k, a, {packed_ + column * depth_ + row * width, depth_ * width},
                           accumulate, c, leading_c);
}

}  // namespace binade::kernels::cpu
