#include <binade/core/kernels/cpu/matmul/bf16_split.h>

#include <algorithm>

#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

namespace {

constexpr int64_t kLines = TileKernel::kLines, kPair = 2 * kLines;
constexpr int64_t kSumTiles = 16;  // of k: 512

// c (rows, columns) = or += the corner of a pair of tiles.
void keep(const float* tile, int64_t rows, int64_t columns, bool add, float* c, int64_t leading_c) {
  for (int64_t i = 0; i < rows; ++i, tile += kPair, c += leading_c) {
    if (!add)
      std::copy_n(tile, columns, c);
    else
      for (int64_t j = 0; j < columns; ++j) c[j] += tile[j];
  }
}

}  // namespace

template <class T>
bool Bf16SplitEngine<T>::pack_b(int64_t k, int64_t n, Block<const T> b, uint16_t* packed) const {
  const auto split = tile_kernel()->split_b[kParts - 1][b.transposed ? 0 : 1];
  return split(n, k, b.data, b.leading, packed, nullptr);
}

template <class T>
typename Bf16SplitEngine<T>::Rows Bf16SplitEngine<T>::take_rows(int64_t m, int64_t k,
                                                                Block<const T> a, uint16_t* buffer,
                                                                float* sums) const {
  const auto split = tile_kernel()->split_a[kParts - 1][a.transposed ? 1 : 0];
  return {buffer, m, k, split(m, k, a.data, a.leading, buffer, sums)};
}

template <class T>
void Bf16SplitEngine<T>::multiply(const Rows& rows, int64_t n, const uint16_t* columns,
                                  bool accumulate, float* c, int64_t leading_c) const {
  const TileKernel& kernel = *tile_kernel();
  const TileScope scope(kernel);
  const int64_t line = depth(rows.k), panel = kLines * line;
  // The rounding errors of one long sum would grow with its length.
  const EvenParts sums(tiles(rows.k), kSumTiles);
  alignas(64) float tile[kPair * kPair];
  const auto at = [&](int64_t column, int64_t sum) {  // of b
    return columns + column * line + sums.begin(sum) * TileKernel::kElements * kParts;
  };
  for (int64_t column = 0; column < n; column += kPair) {
    const int64_t width = std::min(kPair, n - column);
    for (int64_t sum = 0; sum < sums.count; ++sum) {
      const bool last = sum + 1 == sums.count;
      const int64_t length = sums.length(sum);
      const uint16_t* const right = at(column, sum);
      const uint16_t* ahead = last ? at(column + kPair, 0) : at(column, sum + 1);
      for (int64_t row = 0; row < rows.m; row += kPair) {
        const int64_t height = std::min(kPair, rows.m - row);
        const auto multiply =
            kernel.multiply[kParts - 1][height > kLines ? 1 : 0][width > kLines ? 1 : 0];
        const uint16_t* const left = rows.panels + row * line + (right - at(column, 0));
        float* const target = c + row * leading_c + column;
        const bool add = accumulate || sum > 0;
        if (height % kLines == 0 && width % kLines == 0) {
          multiply(length, left, panel, right, panel, ahead, add, target, leading_c);
        } else {
          multiply(length, left, panel, right, panel, ahead, false, tile, kPair);
          keep(tile, height, width, add, target, leading_c);
        }
        ahead += length * TileKernel::kElements * kParts / TileKernel::kFetches;
      }
    }
  }
}

template class Bf16SplitEngine<float>;
template class Bf16SplitEngine<Half>;
template class Bf16SplitEngine<BFloat16>;

}  // namespace binade::kernels::cpu
