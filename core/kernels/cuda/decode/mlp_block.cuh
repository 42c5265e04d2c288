// The second half of a Llama layer for few rows, in one kernel (private to this folder): norm, gate
// and up, SwiGLU, down. A cluster takes columns of the layer between, a block of it some of them;
// what they make is a part of the result, which the next kernel adds up.
#pragma once

#include <binade/core/kernels/cuda/decode/block_rows.cuh>

namespace binade::kernels::cuda {

template <class T>
struct MlpBlock {
  StreamRows<T> in;
  const T *gate, *up, *down, *gate_bias, *up_bias, *down_bias;
  float* parts;  // (clusters, rows, outputs)
  int hidden, outputs;
  int tiles;      // of `hidden`, a block
  int out_tiles;  // of `outputs`, a block
};

// Where a block has what, in shared memory.
struct MlpPlaces {
  int x, norm, squares, first, hidden, second, results, bytes;
};
template <class T>
__host__ __device__ MlpPlaces places_of(const MlpBlock<T>& p, int splits) {
  Pieces pieces;
  MlpPlaces at{};
  const int width = kCluster * p.tiles * kTile;  // of the cluster
  at.x = pieces.take(p.in.rows * row_bytes(p.in.columns));
  at.norm = pieces.take(p.in.columns * 4);
  at.squares = pieces.take(square_bytes(p.in.rows));
  at.first = pieces.take(2 * p.tiles * kTile * row_bytes(p.in.columns));
  at.hidden = pieces.take(p.in.rows * row_bytes(width));
  at.second = pieces.take(p.out_tiles * kTile * row_bytes(width));
  const int one = result_bytes(splits, p.in.rows, 2 * p.tiles),
            two = result_bytes(kSecondSplits, p.in.rows, p.out_tiles);
  at.results = pieces.take(one > two ? one : two);
  at.bytes = pieces.end;
  return at;
}

template <int kUnits, class T>
__global__ void __launch_bounds__(kBlockThreads, kBlocksAtOnce<kUnits>)
    mlp_block_kernel(const MlpBlock<T> p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char memory[];
  constexpr int kSplits = first_splits(kUnits);
  const MlpPlaces at = places_of(p, kSplits);
  const int rank = blockIdx.x % kCluster, cluster = blockIdx.x / kCluster, rows = p.in.rows;
  const int width = kCluster * p.tiles * kTile;
  const int own = (cluster * kCluster + rank) * p.tiles * kTile;  // the first of its columns
  unsigned char* x = memory + at.x;
  float* norm = reinterpret_cast<float*>(memory + at.norm);
  float* results = reinterpret_cast<float*>(memory + at.results);

  // Weights come before what earlier kernels wrote. Tiles of gate and up take turns.
  const int columns = p.in.columns;
  copy_weight(p.gate, memory + at.first, 2 * p.tiles * kTile, columns, columns, [&](int r) {
    const int to = own + r / (2 * kTile) * kTile + r % kTile;
    const T* weight = r / kTile % 2 == 0 ? p.gate : p.up;
    return to < p.hidden ? weight + int64_t{to} * columns : nullptr;
  });
  copy_norm(p.in.norm, norm, columns);
  close_copies();
  const int before = cluster * width;
  copy_weight(p.down, memory + at.second, p.out_tiles * kTile, width, p.hidden - before,
              [&](int r) {
                const int to = rank * p.out_tiles * kTile + r;
                return to < p.outputs ? p.down + int64_t{to} * p.hidden + before : nullptr;
              });
  close_copies();
  clear_ends(x, rows, columns);
  const NormedRows<T> stream(p.in, rank, cluster == 0, norm,
                             reinterpret_cast<float*>(memory + at.squares), x);
  const int mine = p.tiles * kTile;
  const Quotient first_result = divide(threadIdx.x, mine / 2);
  cluster_arrive();
  let_next_start();
  wait_for_previous();
  cluster_wait();  // all blocks have begun: their memory may be written

  copies_done<1>();
  stream.make();
  multiply_rows<kUnits, kSplits, T>(x, rows, memory + at.first, row_bytes(columns), 2 * p.tiles,
                                    steps_of(columns), results);
  block_sync();
  // Two columns at a time.
  for (int i = threadIdx.x; i < rows * mine / 2; i += kBlockThreads) {
    const Quotient place = i == threadIdx.x ? first_result : divide(i, mine / 2);
    const int row = place.quotient, column = 2 * place.rest, to = own + column;
    const int at_gate = column / kTile * 2 * kTile + column % kTile;
    float2 gate = result_at<kSplits>(results, rows, 2 * p.tiles, row, at_gate);
    float2 up = result_at<kSplits>(results, rows, 2 * p.tiles, row, at_gate + kTile);
    uint32_t word = 0;
    if (to < p.hidden) {
      if (p.gate_bias) {
        gate.x += widen(p.gate_bias[to]);
        gate.y += widen(p.gate_bias[to + 1]);
      }
      if (p.up_bias) {
        up.x += widen(p.up_bias[to]);
        up.y += widen(p.up_bias[to + 1]);
      }
      const auto value = [](float gate, float up) {
        const float g = widen(narrow<T>(gate)), u = widen(narrow<T>(up));
        return narrow<T>(__fdividef(g, 1 + __expf(-g)) * u);
      };
      const Vec<T, 2> values{value(gate.x, up.x), value(gate.y, up.y)};
      word = *reinterpret_cast<const uint32_t*>(&values);
    }
    for_each_block(memory + at.hidden + row * row_bytes(width) + (rank * mine + column) * 2,
                   [&](uint32_t address) { put_word(address, word); });
  }
  copies_done<0>();
  cluster_sync();
  multiply_rows<kUnits, kSecondSplits, T>(memory + at.hidden, rows, memory + at.second,
                                          row_bytes(width), p.out_tiles, steps_of(width), results);
  block_sync();
  write_part(results, rows, p.out_tiles, rank * p.out_tiles * kTile, p.outputs,
             cluster == 0 ? p.down_bias : nullptr, p.parts + int64_t{cluster} * rows * p.outputs);
#endif
}

}  // namespace binade::kernels::cuda
