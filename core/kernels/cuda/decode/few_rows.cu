// Layers for few rows. A block of eight warps takes tiles of eight rows of the weight; `splits` of
// its warps share the columns of one.
#include <binade/core/kernels/few_rows.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/decode/block_launch.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;

// A weight is read once: past the first-level cache, and past nothing else.
__device__ __forceinline__ uint4 load_once(const void* data) {
  uint4 words;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(data));
  return words;
}

template <class T>
struct Rows {
  const T* x;
  const float* norm;
  float eps;
  int rows, columns;

  // Eight columns of a row; 0 beyond the end.
  __device__ __forceinline__ uint4 load(int row, int column) const {
    if (row >= rows || column >= columns) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(x + int64_t{row} * columns + column);
  }
  __device__ __forceinline__ void load_norm(int column, float (&weight)[8]) const {
    if (column < columns) {
      detail::load_run<8>(norm + column, weight);
      return;
    }
#pragma unroll
    for (float& w : weight) w = 0;
  }
};

// Where a tile of a layer's results goes: `first` is its first row in the weight.
template <class T>
struct LinearEnd {
  static constexpr int kParts = 1;
  static constexpr bool kNorm = false;
  const T *weight, *bias, *residual;
  T* out;
  int n;

  __device__ __forceinline__ const T* rows_of(int tile, int, int columns) const {
    return weight + int64_t{tile} * kTile * columns;
  }
  // What finish() reads beside sums.
  struct Read {
    float added;
  };
  __device__ __forceinline__ Read read(int tile, int row, int column) const {
    const int to = tile * kTile + column;
    return {(bias ? widen(bias[to]) : 0.0f) +
            (residual ? widen(residual[int64_t{row} * n + to]) : 0.0f)};
  }
  __device__ __forceinline__ void finish(int tile, int row, int column, const Read& read,
                                         const float (&sums)[1]) const {
    out[int64_t{row} * n + tile * kTile + column] = narrow<T>(sums[0] + read.added);
  }
};

template <class T>
struct SwigluEnd {
  static constexpr int kParts = 2;
  static constexpr bool kNorm = true;
  const T *gate, *up, *gate_bias, *up_bias;
  T* out;
  int n;

  __device__ __forceinline__ const T* rows_of(int tile, int part, int columns) const {
    return (part == 0 ? gate : up) + int64_t{tile} * kTile * columns;
  }
  struct Read {
    float gate, up;
  };
  __device__ __forceinline__ Read read(int tile, int, int column) const {
    const int to = tile * kTile + column;
    return {gate_bias ? widen(gate_bias[to]) : 0.0f, up_bias ? widen(up_bias[to]) : 0.0f};
  }
  __device__ __forceinline__ void finish(int tile, int row, int column, const Read& read,
                                         const float (&sums)[2]) const {
    const int to = tile * kTile + column;
    const float g = widen(narrow<T>(sums[0] + read.gate));
    const float u = widen(narrow<T>(sums[1] + read.up));
    out[int64_t{row} * n + to] = narrow<T>(g / (1 + expf(-g)) * u);
  }
};

// A tile is eight elements of the first half of a head, and the eight that they are rotated with.
template <class T, bool kNormed>
struct AttentionEnd {
  static constexpr int kParts = 2;
  static constexpr bool kNorm = kNormed;
  const T* weights[3];
  const T* biases[3];
  const float *cos, *sin;
  PassView pass;
  T *queries, *keys, *values;
  int heads, key_heads, dim, capacity;

  struct Place {
    int kind, head, first;  // kind: queries, keys, values
  };
  __device__ __forceinline__ Place place_of(int tile) const {
    const int tiles = dim / (2 * kTile), head = tile / tiles, first = tile % tiles * kTile;
    if (head < heads) return {0, head, first};
    if (head < heads + key_heads) return {1, head - heads, first};
    return {2, head - heads - key_heads, first};
  }
  __device__ __forceinline__ const T* rows_of(int tile, int part, int columns) const {
    const Place place = place_of(tile);
    const int row = place.head * dim + place.first + part * dim / 2;
    return weights[place.kind] + int64_t{row} * columns;
  }
  struct Read {
    float a, b, cos, sin;
    T* to;  // null: nowhere
  };
  __device__ __forceinline__ Read read(int tile, int row, int column) const {
    const Place place = place_of(tile);
    const int d = place.first + column, half = dim / 2;
    Read read{0, 0, 1, 0, nullptr};
    if (const T* bias = biases[place.kind]) {
      read.a = widen(bias[place.head * dim + d]);
      read.b = widen(bias[place.head * dim + d + half]);
    }
    if (place.kind != 2) {
      read.cos = cos[row * half + d];
      read.sin = sin[row * half + d];
    }
    if (place.kind == 0) {
      read.to = queries + (int64_t{row} * heads + place.head) * dim + d;
    } else {
      const int batch = row / pass.tokens, token = row % pass.tokens;
      const int at = pass.begin(batch) + token;
      if (token < pass.count(batch) && at < capacity)
        read.to = (place.kind == 1 ? keys : values) +
                  ((int64_t{pass.slot(batch)} * key_heads + place.head) * capacity + at) * dim + d;
    }
    return read;
  }
  __device__ __forceinline__ void finish(int, int, int, const Read& read,
                                         const float (&sums)[2]) const {
    if (!read.to) return;
    const float a = widen(narrow<T>(sums[0] + read.a)), b = widen(narrow<T>(sums[1] + read.b));
    read.to[0] = narrow<T>(a * read.cos - b * read.sin);
    read.to[dim / 2] = narrow<T>(b * read.cos + a * read.sin);
  }
};

// Steps that a warp has under way, as far as registers last.
template <int kUnits, int kParts>
inline constexpr int kAhead = kUnits == 8   ? 2
                              : kUnits == 4 ? (kParts == 1 ? 4 : 2)
                              : kParts == 1 ? 6
                              : kUnits == 2 ? 3
                                            : 4;

struct Result {
  int tile, row, column, group;
};

static_assert(kFewRowsApart == 4 * kRowUnit && kMostFewRows == 8 * kRowUnit);

// Rows come in units of eight, two of which are a tile.
template <int kUnits, class T, class End>
__global__ void __launch_bounds__(kThreads, 2)
    few_rows_kernel(const Rows<T> in, const End end, int tiles, int splits) {
  constexpr bool kNorm = End::kNorm;
  constexpr int kParts = End::kParts, kRows = kUnits * kRowUnit, kRowTiles = (kUnits + 1) / 2;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int groups = kWarps / splits, split = warp % splits;
  const int tile = blockIdx.x * groups + warp / splits;
  const int steps = (in.columns + kStep - 1) / kStep;
  const int own_row = lane / 4, own_column = lane % 4 * 8;  // of a tile and a step

  const T* weight[kParts];
#pragma unroll
  for (int p = 0; p < kParts; ++p)
    weight[p] = tile < tiles
                    ? end.rows_of(tile, p, in.columns) + int64_t{own_row} * in.columns + own_column
                    : nullptr;
  const auto load_weight = [&](int p, int step) {
    return tile < tiles && step * kStep + own_column < in.columns
               ? load_once(weight[p] + step * kStep)
               : make_uint4(0, 0, 0, 0);
  };
  constexpr int kSteps = kAhead<kUnits, kParts>;
  uint4 ahead[kSteps][kParts];
#pragma unroll
  for (int i = 0; i < kSteps; ++i)
#pragma unroll
    for (int p = 0; p < kParts; ++p) ahead[i][p] = load_weight(p, split + i * splits);
  float norm[kNorm ? kSteps : 1][8];
#pragma unroll
  for (int i = 0; kNorm && i < kSteps; ++i)
    in.load_norm((split + i * splits) * kStep + own_column, norm[i]);
  let_next_start();
  wait_for_previous();

  uint4 x[kSteps][kUnits];
  const auto load_rows = [&](int first) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
#pragma unroll
      for (int u = 0; u < kUnits; ++u)
        x[i][u] = in.load(u * kRowUnit + own_row, (first + i * splits) * kStep + own_column);
  };
  load_rows(split);
  // The first result that this thread will write; most have one at the most.
  const int results = groups * in.rows * kTile;
  const auto result_of = [&](int i) {
    return Result{static_cast<int>(blockIdx.x) * groups + i / kTile / in.rows, i / kTile % in.rows,
                  i % kTile, i / kTile / in.rows};
  };
  typename End::Read early{};
  if (const Result to = result_of(threadIdx.x); threadIdx.x < results && to.tile < tiles)
    early = end.read(to.tile, to.row, to.column);

  // The norm's sums: those of a warp's own columns, then of all warps that share a tile.
  __shared__ float squares[kNorm ? kWarps : 1][kRows];
  float rstd[kUnits];
  if constexpr (kNorm) {
    float mine[kUnits] = {};
    for (int first = split; first < steps; first += kSteps * splits) {
      if (first != split) load_rows(first);
#pragma unroll
      for (int i = 0; i < kSteps; ++i)
#pragma unroll
        for (int u = 0; u < kUnits; ++u) mine[u] += squares_of<T>(x[i][u]);
    }
    if (steps > kSteps * splits) load_rows(split);  // the first were overwritten
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      float sum = mine[u];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (lane % 4 == 0) squares[warp][u * kRowUnit + own_row] = sum;
    }
    __syncthreads();
    const int group = warp - split;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      float sum = 0;
      for (int s = 0; s < splits; ++s) sum += squares[group + s][u * kRowUnit + own_row];
      rstd[u] = rsqrtf(sum / static_cast<float>(in.columns) + in.eps);
    }
  }

  float sums[kParts][kRowTiles][4] = {};
  for (int first = split; first < steps; first += kSteps * splits) {
    if (first != split) load_rows(first);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      uint4 now[kParts];
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        now[p] = ahead[i][p];
        ahead[i][p] = load_weight(p, first + (i + kSteps) * splits);
      }
      if constexpr (kNorm) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) normalise<T>(x[i][u], rstd[u], norm[i]);
        in.load_norm((first + (i + kSteps) * splits) * kStep + own_column, norm[i]);
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const uint4 upper = x[i][2 * r];
        const uint4 lower = 2 * r + 1 < kUnits ? x[i][2 * r + 1] : make_uint4(0, 0, 0, 0);
        const uint32_t one[4] = {upper.x, lower.x, upper.y, lower.y};
        const uint32_t two[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
        for (int p = 0; p < kParts; ++p) {
          multiply_add(sums[p][r], in.x, one, now[p].x, now[p].y);
          multiply_add(sums[p][r], in.x, two, now[p].z, now[p].w);
        }
      }
    }
  }

  __shared__ float parts[kWarps][kParts][kRows][kTile];
#pragma unroll
  for (int p = 0; p < kParts; ++p)
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        parts[warp][p][u * kRowUnit + own_row][lane % 4 * 2 + e] = sums[p][u / 2][u % 2 * 2 + e];
  __syncthreads();
  for (int i = threadIdx.x; i < results; i += kThreads) {
    const Result to = result_of(i);
    if (to.tile >= tiles) break;
    float total[kParts] = {};
#pragma unroll
    for (int p = 0; p < kParts; ++p)
      for (int s = 0; s < splits; ++s)
        total[p] += parts[to.group * splits + s][p][to.row][to.column];
    const auto read = i == threadIdx.x ? early : end.read(to.tile, to.row, to.column);
    end.finish(to.tile, to.row, to.column, read, total);
  }
}

// As many warps a tile as leave a few blocks for each multiprocessor.
int splits_for(int64_t tiles, int64_t columns) {
  const int64_t blocks = 4 * ::binade::cuda::device_properties().multiprocessors;
  int splits = kWarps;
  while (splits > 1 && (tiles * splits > blocks * kWarps || splits * kStep > columns)) splits /= 2;
  return splits;
}

template <class T, class End>
void run(const char* name, const FewRows& in, const End& end, int64_t tiles) {
  const Rows<T> rows{
      device_data<const T>(in.x), in.norm.defined() ? device_data<const float>(in.norm) : nullptr,
      static_cast<float>(in.eps), static_cast<int>(in.x.size(0)), static_cast<int>(in.x.size(1))};
  const int splits = splits_for(tiles, rows.columns);
  const dim3 grid(one_block_each(ceil_div(tiles, kWarps / splits)));
  const auto with = [&]<int kUnits>(std::integral_constant<int, kUnits>) {
    launch_early(name, few_rows_kernel<kUnits, T, End>, grid, kThreads, EarlyOptions{}, rows, end,
                 static_cast<int>(tiles), splits);
  };
  if (rows.rows <= kRowUnit) return with(std::integral_constant<int, 1>());
  if (rows.rows <= 2 * kRowUnit) return with(std::integral_constant<int, 2>());
  if (rows.rows <= kFewRowsApart) return with(std::integral_constant<int, 4>());
  if constexpr (End::kParts > 1)
    fail(name, " takes up to ", kFewRowsApart, " rows, got ", rows.rows);
  else
    with(std::integral_constant<int, 8>());
}

}  // namespace

void few_rows_linear(const Array& x, const FewRowsLayer& layer, const Array& residual,
                     const Array& out) {
  const FewRows in{x, {}, 0};
  visit_half(x.dtype(), "few_rows_linear", [&]<class T>(T) {
    const auto n = static_cast<int>(layer.weight.size(0));
    run<T>("few_rows_linear", in,
           LinearEnd<T>{device_data<const T>(layer.weight), data_or_null<T>(layer.bias),
                        data_or_null<T>(residual), device_data<T>(out), n},
           n / kTile);
  });
}

void few_rows_swiglu(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& up,
                     const Array& out) {
  visit_half(in.x.dtype(), "few_rows_swiglu", [&]<class T>(T) {
    const auto n = static_cast<int>(gate.weight.size(0));
    run<T>(
        "few_rows_swiglu", in,
        SwigluEnd<T>{device_data<const T>(gate.weight), device_data<const T>(up.weight),
                     data_or_null<T>(gate.bias), data_or_null<T>(up.bias), device_data<T>(out), n},
        n / kTile);
  });
}

void few_rows_attention_inputs(const FewRows& in, const FewRowsAttention& layers,
                               const PassRows& rows, const Array& queries, const Array& cached_keys,
                               const Array& cached_values) {
  const int64_t dim = layers.head_dim,
                tokens = in.x.size(0) /
                         (rows.slots.defined() ? rows.slots.size(0) : cached_keys.size(0));
  const int64_t heads = layers.query.weight.size(0) / dim,
                key_heads = layers.key.weight.size(0) / dim;
  visit_half(in.x.dtype(), "few_rows_attention_inputs", [&]<class T>(T) {
    const auto with = [&]<bool kNormed>(std::bool_constant<kNormed>) {
      const AttentionEnd<T, kNormed> end{
          {device_data<const T>(layers.query.weight), device_data<const T>(layers.key.weight),
           device_data<const T>(layers.value.weight)},
          {data_or_null<T>(layers.query.bias), data_or_null<T>(layers.key.bias),
           data_or_null<T>(layers.value.bias)},
          device_data<const float>(layers.cos),
          device_data<const float>(layers.sin),
          PassView(rows, tokens),
          device_data<T>(queries),
          device_data<T>(cached_keys),
          device_data<T>(cached_values),
          static_cast<int>(heads),
          static_cast<int>(key_heads),
          static_cast<int>(dim),
          static_cast<int>(cached_keys.size(2))};
      run<T>("few_rows_attention_inputs", in, end, (heads + 2 * key_heads) * dim / (2 * kTile));
    };
    if (in.norm.defined())
      with(std::true_type());
    else
      with(std::false_type());
  });
}

}  // namespace binade::kernels::cuda
