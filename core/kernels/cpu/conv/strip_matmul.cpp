#include <binade/core/kernels/cpu/conv/strip_matmul.h>

#include <algorithm>
#include <array>
#include <utility>

#include <binade/core/kernels/cpu/conv/strip_kernel.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

namespace {

using Vector = PatchReader<float>::Vector;
using Line = PatchReader<float>::Line;
constexpr int64_t kLanes = PatchReader<float>::kLanes;
constexpr int kMostRows = 6, kMostVectors = 2;  // 12 sums, two vectors and an element of a

template <int Rows, int Vectors>
void add_tile(const Vector (&sums)[Rows][Vectors], float* c, int64_t leading_c) {
#pragma GCC unroll 6
  for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      float* const target = c + row * leading_c + v * kLanes;
      Vector old;
      std::memcpy(&old, target, sizeof(Vector));
      old += sums[row][v];
      std::memcpy(target, &old, sizeof(Vector));
    }
}

// c (Rows, vectors) += a · b, packed: a's row r along a run is where the run lies + places[r].
template <int Rows, int Vectors>
void multiply_run_tile(std::span<const Line> runs, const float* a, const int64_t* places,
                       const float* b, float* c, int64_t leading_c) {
  Vector sums[Rows][Vectors] = {};
  for (const Line& run : runs) {
    const float* rows[Rows];
#pragma GCC unroll 6
    for (int row = 0; row < Rows; ++row) rows[row] = a + run.base + places[row];
    for (int64_t i = 0; i < run.count; ++i) {
      Vector right[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) std::memcpy(&right[v], b + v * kLanes, sizeof(Vector));
#pragma GCC unroll 6
      for (int row = 0; row < Rows; ++row) {
        const Vector left = rows[row][i] - Vector{};
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sums[row][v] += left * right[v];
      }
      b += kMostVectors * kLanes;
    }
  }
  add_tile(sums, c, leading_c);
}

using MultiplyRuns = void (*)(std::span<const Line>, const float*, const int64_t*, const float*,
                              float*, int64_t);
template <int... Row>
constexpr auto run_tiles(std::integer_sequence<int, Row...>) {
  return std::array<std::array<MultiplyRuns, kMostVectors>, sizeof...(Row)>{
      {{&multiply_run_tile<Row + 1, 1>, &multiply_run_tile<Row + 1, 2>}...}};
}
constexpr auto kRunTiles = run_tiles(std::make_integer_sequence<int, kMostRows>());  // [rows − 1]
constexpr int64_t kWidth = kMostVectors * kLanes;

// Where the rows of the loaded channels begin: an element of the kernel each.
std::vector<int64_t> places_of(const PatchReader<float>& reader, int64_t channels) {
  std::vector<int64_t> places;
  for (int64_t c = 0; c < channels; ++c)
    for (const int64_t tap : reader.taps()) places.push_back(c * reader.channel_pitch() + tap);
  return places;
}

// Calls multiply(vectors, c, leading) for `columns` columns at `target`, at most those of a tile:
// in place, or, where these are not whole vectors of `lanes`, beside it.
template <class Multiply>
void through_tile(int64_t lanes, int64_t rows, int64_t columns, float* target, int64_t leading,
                  const Multiply& multiply) {
  constexpr int64_t kMost = StripKernel::kMostColumns;
  const int64_t vectors = (columns + lanes - 1) / lanes;
  if (columns == vectors * lanes) return multiply(vectors, target, leading);
  alignas(64) float tile[StripKernel::kMostRows * kMost];
  for (int64_t row = 0; row < rows; ++row) std::fill_n(tile + row * kMost, vectors * lanes, 0.0f);
  multiply(vectors, tile, kMost);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t j = 0; j < columns; ++j) target[row * leading + j] += tile[row * kMost + j];
}

}  // namespace

bool worth_reading_strips(int64_t columns, int64_t filters) {
  // In cycles of a row of pixels and an element of the kernel: tiles, and what packing costs a
  // panel.
  const StripKernel& kernel = strip_kernel();
  const int64_t width = kernel.columns(), rest = columns % width;
  const auto rows = static_cast<double>(kernel.rows);
  const auto panels = static_cast<double>((filters + kernel.rows - 1) / kernel.rows);
  const double last = rest > kernel.lanes ? 1 : rest > 0 ? kernel.single : 0;
  const double tiles = rows * (static_cast<double>(columns / width) + last);
  constexpr double kPacking = 8;
  const double whole = static_cast<double>(columns) / static_cast<double>(width);
  return columns >= kernel.lanes && tiles * panels <= whole * (rows * panels + kPacking);
}

bool worth_reading_runs(int64_t run) {
  constexpr int64_t kEnough = 12;  // to repay finding six rows
  return micro_kernel().columns == kWidth && run >= kEnough;
}

void multiply_strips(const PatchReader<float>& reader, int64_t channels, int64_t filters,
                     Block<const float> a, float* sums, int64_t leading) {
  const StripKernel& kernel = strip_kernel();
  thread_local Workspace<float> row_buffer;
  const std::vector<int64_t> places = places_of(reader, channels);
  const auto k = static_cast<int64_t>(places.size());
  const Block<const float> rows = rows_of_a(filters, k, a, row_buffer.reserve(filters * k));
  const EvenParts panels(filters, kernel.rows);
  for (const Line& line : reader.lines())
    for (int64_t i = 0; i < line.count; i += kernel.columns())
      for (int64_t panel = 0; panel < panels.count; ++panel) {
        const int64_t row = panels.begin(panel), height = panels.length(panel);
        through_tile(kernel.lanes, height, std::min(line.count - i, kernel.columns()),
                     sums + row * leading + line.first + i, leading,
                     [&](int64_t vectors, float* c, int64_t leading_c) {
                       kernel.multiply[height - 1][vectors - 1](
                           k, rows.data + row * rows.leading, rows.leading,
                           reader.data() + line.base + i, places.data(), c, leading_c);
                     });
      }
}

void multiply_runs(const PatchReader<float>& reader, std::span<const Line> runs, int64_t channels,
                   int64_t filters, const float* b, int64_t panel, float* sums) {
  const std::vector<int64_t> places = places_of(reader, channels);
  const EvenParts heights(static_cast<int64_t>(places.size()), kMostRows);
  for (int64_t filter = 0; filter < filters; filter += kWidth, b += panel)
    for (int64_t part = 0; part < heights.count; ++part) {
      const int64_t row = heights.begin(part), height = heights.length(part);
      through_tile(kLanes, height, std::min(filters - filter, kWidth),
                   sums + row * filters + filter, filters,
                   [&](int64_t vectors, float* c, int64_t leading_c) {
                     kRunTiles[static_cast<size_t>(height - 1)][static_cast<size_t>(vectors - 1)](
                         runs, reader.data(), places.data() + row, b, c, leading_c);
                   });
    }
}

}  // namespace binade::kernels::cpu
