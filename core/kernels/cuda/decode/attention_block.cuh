// The first half of a Llama layer for few rows, in one kernel (private to this folder): norm,
// queries, keys and values, rotation, the cache, attention against it, the output layer. A cluster
// takes one key head with the queries that read it; what it makes is a part of the result, which
// the next kernel adds up.
#pragma once

#include <binade/core/kernels/cuda/decode/attend.cuh>
#include <binade/core/kernels/cuda/decode/attend_mma.cuh>
#include <binade/core/kernels/cuda/decode/block_rows.cuh>

namespace binade::kernels::cuda {

template <class T>
struct AttentionBlock {
  StreamRows<T> in;
  const T* weights[3];  // queries, keys, values
  const T* biases[3];
  const T *output, *output_bias;
  const float *cos, *sin;  // (rows, dim / 2)
  PassView pass;
  const int64_t* visible;  // null: causal
  int visible_row;         // words of a row: 0 or T
  T *keys, *values;        // (slots, key heads, capacity, dim)
  T* queries;              // (rows, heads · dim): without attention; otherwise null
  float* parts;            // (key heads, rows, outputs): with it
  float scale;             // with log2(e)
  int heads, key_heads, dim, capacity, outputs, batch;
  int pairs;      // of tiles of queries, keys and values, a block
  int out_tiles;  // of outputs, a block
  int shares;     // of the keys of a slot, for a tile of queries

  __host__ __device__ int group() const { return heads / key_heads; }
  __host__ __device__ int width() const { return group() * dim; }
  // Queries of a slot that read a key head, and how many of them a block answers at a time.
  __host__ __device__ int slot_queries() const { return group() * pass.tokens; }
  __host__ __device__ int tile_queries() const {
    return slot_queries() < kQueryRows ? slot_queries() : kQueryRows;
  }
};

struct AttentionPlaces {
  int x, norm, first, projected, warps, shares, attended, second, results, bytes;
};
// Floats that a share of the keys, or a warp, leaves of a query.
__host__ __device__ constexpr int share_floats(int dim) {
  return dim + 4;  // sums, the largest score, the total
}
template <class T>
__host__ __device__ AttentionPlaces places_of(const AttentionBlock<T>& p, int splits) {
  Pieces pieces;
  AttentionPlaces at{};
  const int rows = p.in.rows;
  at.x = pieces.take(rows * row_bytes(p.in.columns));
  at.norm = pieces.take(p.in.columns * 4);
  at.first = pieces.take(2 * p.pairs * kTile * row_bytes(p.in.columns));
  const int one = result_bytes(splits, rows, 2 * p.pairs);
  if (p.queries) {
    at.results = pieces.take(one);
    at.bytes = pieces.end;
    return at;
  }
  at.projected = pieces.take(rows * (p.group() + 2) * row_bytes(p.dim));
  at.warps = pieces.take(kBlockWarps * p.tile_queries() * share_floats(p.dim) * 4);
  at.shares = pieces.take(rows * p.group() * p.shares * share_floats(p.dim) * 4);
  at.attended = pieces.take(rows * row_bytes(p.width()));
  at.second = pieces.take(p.out_tiles * kTile * row_bytes(p.width()));
  const int two = result_bytes(kSecondSplits, rows, p.out_tiles);
  at.results = pieces.take(one > two ? one : two);
  at.bytes = pieces.end;
  return at;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// Where two neighbours of the projections' results belong, and the two that they are rotated with.
struct PairPlace {
  int row, column;  // among the block's results
  int kind;         // queries, keys, values; negative: none
  int head, d;      // of the cluster's queries; of the first half of the head
};
template <int kDim>
__device__ __forceinline__ PairPlace pair_place(int i, int pairs_here, int rank, int group) {
  constexpr int kPairs = kDim / (2 * kTile), kEach = kTile / 2;
  const Quotient at = divide(i, pairs_here * kEach);
  const int pair = rank + at.rest / kEach * kCluster, head = pair / kPairs;
  const int column = at.rest % kEach * 2;
  PairPlace place;
  place.row = at.quotient;
  place.column = at.rest / kEach * 2 * kTile + column;
  place.d = pair % kPairs * kTile + column;
  place.kind = head < group ? 0 : head < group + 2 ? head - group + 1 : -1;
  place.head = head < group ? head : 0;
  return place;
}

// What the device knows of a slot, read before anything is done with it.
struct SlotView {
  int slot, length, count, running;

  __device__ __forceinline__ SlotView(const PassView& pass, int row)
      : slot(pass.slot(row)),
        length(pass.lengths ? pass.lengths[slot] : 0),
        count(pass.counts ? pass.counts[row] : pass.tokens),
        running(pass.running ? pass.running[slot] : 1) {}
  // Tokens that count.
  __device__ __forceinline__ int tokens(const PassView& pass) const {
    return running > 0 ? max(0, min(count, pass.tokens)) : 0;
  }
};

// A share of the keys of a slot, for a tile of the queries that read a key head.
template <class T>
struct KeyShare {
  int b, first_query, number, length, count;
  int begin, stop, old;  // keys, and where those of this pass begin
  const T *keys, *values;

  template <class Block>
  __device__ __forceinline__ KeyShare(const Block& p, int item, int key_head,
                                      const SlotView& slot) {
    number = item % p.shares;  // a power of two
    const Quotient at = divide(item / p.shares, (p.slot_queries() + kQueryRows - 1) / kQueryRows);
    b = at.quotient;
    first_query = at.rest * kQueryRows;
    count = slot.tokens(p.pass);
    length = slot.length;
    old = length + p.pass.first;
    const int end = count > 0 ? min(old + count, p.capacity) : 0;
    const int each = max((end + p.shares - 1) / p.shares, kLeastShare);
    begin = number * each;
    stop = min(begin + each, end);
    const int64_t rows = (int64_t{slot.slot} * p.key_heads + key_head) * p.capacity * p.dim;
    keys = p.keys + rows;
    values = p.values + rows;
  }
};

#endif

// Heads of kDim elements. Without kWhole it ends with the queries, and keys and values in the
// cache.
template <bool kWhole, int kUnits, int kDim, class T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    attention_block_kernel(const AttentionBlock<T> p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kSplits = first_splits(kUnits);
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionPlaces at = places_of(p, kSplits);
  const int rank = blockIdx.x % kCluster, key_head = blockIdx.x / kCluster, rows = p.in.rows;
  const int group = p.group(), width = p.width(), tokens = p.pass.tokens;
  const int columns = p.in.columns, head_bytes = row_bytes(kDim);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  unsigned char* x = memory + at.x;
  float* norm = reinterpret_cast<float*>(memory + at.norm);
  float* results = reinterpret_cast<float*>(memory + at.results);
  unsigned char* projected = memory + at.projected;
  const auto head_of = [&](const PairPlace& place) {  // among all of its kind
    return place.kind == 0 ? key_head * group + place.head : key_head;
  };

  // Weights come before what earlier kernels wrote.
  copy_weight(p.weights[0], memory + at.first, 2 * p.pairs * kTile, columns, columns, [&](int r) {
    const int first = r / (2 * kTile) * (kTile / 2);  // of the pair's results
    const PairPlace place = pair_place<kDim>(first, p.pairs, rank, group);
    const int row = head_of(place) * kDim + place.d + r / kTile % 2 * kDim / 2 + r % kTile;
    return place.kind >= 0 ? p.weights[place.kind] + int64_t{row} * columns : nullptr;
  });
  copy_norm(p.in.norm, norm, columns);
  close_copies();
  if constexpr (kWhole) {
    copy_weight(p.output, memory + at.second, p.out_tiles * kTile, width, width, [&](int r) {
      const int to = rank * p.out_tiles * kTile + r;
      return to < p.outputs ? p.output + (int64_t{to} * p.heads + key_head * group) * kDim
                            : nullptr;
    });
    close_copies();
    clear_ends(memory + at.attended, rows, width);
  }
  clear_ends(x, rows, columns);
  const RowsInParts<T> stream(p.in, rank, key_head == 0);
  const int pairs_here = rows * p.pairs * (kTile / 2);
  const PairPlace first_place = pair_place<kDim>(threadIdx.x, p.pairs, rank, group);
  const int items = p.batch * p.shares * ((p.slot_queries() + kQueryRows - 1) / kQueryRows);
  const int first_slot =
      rank < items ? divide(rank / p.shares, items / p.shares / p.batch).quotient : 0;
  cluster_arrive();
  let_next_start();
  wait_for_previous();
  cluster_wait();  // all blocks have begun: their memory may be written

  const SlotView seen_first(p.pass, first_slot);
  // What two pairs of results are rotated with, and where they go.
  struct Turn {
    float2 cos, sin;
  };
  const auto turn_of = [&](const PairPlace& place) {
    Turn turn{{1, 1}, {0, 0}};
    if (place.kind == 0 || place.kind == 1) {
      const int from = place.row * (kDim / 2) + place.d;
      turn.cos = *reinterpret_cast<const float2*>(p.cos + from);
      turn.sin = *reinterpret_cast<const float2*>(p.sin + from);
    }
    return turn;
  };
  Turn first_turn{};
  if (threadIdx.x < pairs_here) first_turn = turn_of(first_place);
  stream.add_up(x);
  copies_done<kWhole ? 1 : 0>();
  if (stream.alone)
    __syncthreads();
  else
    cluster_sync();

  // Old keys and values come while the new ones are made.
  const KeyShare<T> first_share(p, rank < items ? rank : 0, key_head, seen_first);
  const auto row_at = [&](const KeyShare<T>& share, int kind, int key, int stop) -> const T* {
    return key < stop ? (kind == 0 ? share.keys : share.values) + int64_t{key} * kDim : nullptr;
  };
  WarpKeys<kWhole ? kDim : 64> held;
  if constexpr (kWhole) {
    held.clear();
    if (rank < items)
      held.load([&](int kind, int i) {
        return row_at(first_share, kind, first_share.begin + warp * kWarpKeys + i,
                      min(first_share.stop, first_share.old));
      });
  }
  norm_rows(p.in, norm, x);
  multiply_rows<kUnits, kSplits, T>(x, rows, memory + at.first, row_bytes(columns), 2 * p.pairs,
                                    steps_of(columns), results);
  __syncthreads();
  for (int i = threadIdx.x; i < pairs_here; i += kBlockThreads) {
    const bool early = i == threadIdx.x;
    const PairPlace place = early ? first_place : pair_place<kDim>(i, p.pairs, rank, group);
    if (place.kind < 0) continue;
    const Turn turn = early ? first_turn : turn_of(place);
    const int64_t head = head_of(place);
    float2 a = result_at<kSplits>(results, rows, 2 * p.pairs, place.row, place.column);
    float2 b = result_at<kSplits>(results, rows, 2 * p.pairs, place.row, place.column + kTile);
    if (const T* bias = p.biases[place.kind]) {
      const T* own = bias + head * kDim + place.d;
      a.x += widen(own[0]);
      a.y += widen(own[1]);
      b.x += widen(own[kDim / 2]);
      b.y += widen(own[kDim / 2 + 1]);
    }
    const auto rounded = [](float value) { return widen(narrow<T>(value)); };
    a = {rounded(a.x), rounded(a.y)};
    b = {rounded(b.x), rounded(b.y)};
    const Vec<T, 2> one{narrow<T>(a.x * turn.cos.x - b.x * turn.sin.x),
                        narrow<T>(a.y * turn.cos.y - b.y * turn.sin.y)};
    const Vec<T, 2> two{narrow<T>(b.x * turn.cos.x + a.x * turn.sin.x),
                        narrow<T>(b.y * turn.cos.y + a.y * turn.sin.y)};
    const Quotient token = divide(place.row, tokens);
    if (place.kind != 0) {
      const SlotView slot(p.pass, token.quotient);
      const int to = slot.length + p.pass.first + token.rest;
      if (token.rest < slot.tokens(p.pass) && to < p.capacity) {
        T* there = (place.kind == 1 ? p.keys : p.values) +
                   ((int64_t{slot.slot} * p.key_heads + head) * p.capacity + to) * kDim + place.d;
        store_vec(there, one);
        store_vec(there + kDim / 2, two);
      }
    } else if (!kWhole) {
      T* there = p.queries + (int64_t{place.row} * p.heads + head) * kDim + place.d;
      store_vec(there, one);
      store_vec(there + kDim / 2, two);
    }
    if constexpr (kWhole) {
      // Rows: queries, slot by slot and head by head, then keys, then values.
      const int row = place.kind == 0 ? (token.quotient * group + place.head) * tokens + token.rest
                                      : rows * (group + place.kind - 1) + place.row;
      unsigned char* there = projected + row * head_bytes + place.d * 2;
      for_each_block(there, [&](uint32_t address) {
        put_word(address, *reinterpret_cast<const uint32_t*>(&one));
        put_word(address + kDim, *reinterpret_cast<const uint32_t*>(&two));
      });
    }
  }
  if constexpr (kWhole) {
    cluster_sync();
    float* warps = reinterpret_cast<float*>(memory + at.warps);
    float* shares = reinterpret_cast<float*>(memory + at.shares);
    for (int item = rank; item < items; item += kCluster) {
      KeyShare<T> share = first_share;
      if (item != rank) {
        const int slot = divide(item / p.shares, items / p.shares / p.batch).quotient;
        share = KeyShare<T>(p, item, key_head, SlotView(p.pass, slot));
      }
      const int asked = min(kQueryRows, p.slot_queries() - share.first_query);
      bool counts[2];
      uint64_t sees[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = lane / 4 + r * 8, t = divide(share.first_query + row, tokens).rest;
        counts[r] = row < asked && t < share.count;
        sees[r] = counts[r] ? pending_seen(p.pass, p.visible, p.visible_row, share.b, t) : 0;
      }
      WarpSoftmax<kDim> softmax;
      for (int begin = share.begin + warp * kWarpKeys; begin < share.stop;
           begin += kBlockWarps * kWarpKeys) {
        const bool early = item == rank && begin == share.begin + warp * kWarpKeys;
        if (!early) {
          held.clear();
          held.load([&](int kind, int i) {
            return row_at(share, kind, begin + i, min(share.stop, share.old));
          });
        }
        // Those of this pass, as the blocks of the cluster gave them.
        if (begin + kWarpKeys > share.old)
          held.load([&](int kind, int i) -> const T* {
            const int t = begin + i - share.old;
            if (t < 0 || begin + i >= share.stop) return nullptr;
            return reinterpret_cast<const T*>(
                projected + (rows * (group + kind) + share.b * tokens + t) * head_bytes);
          });
        softmax.template attend<T>(
            held, projected + (share.b * p.slot_queries() + share.first_query) * head_bytes,
            head_bytes, asked, p.scale, [&](int r, int i) {
              const int key = begin + i;
              if (key >= share.stop) return false;
              return key < share.length ? counts[r] : (sees[r] >> (key - share.length) & 1) != 0;
            });
      }
      softmax.finish();
      const int used = min(kBlockWarps, (share.stop - share.begin + kWarpKeys - 1) / kWarpKeys);
      if (warp < used) {
        float* of_warp = warps + warp * asked * share_floats(kDim);
        softmax.for_each_sum(
            asked, [&](int row, int d, float sum) { of_warp[row * share_floats(kDim) + d] = sum; });
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = lane / 4 + r * 8;
          if (lane % 4 != 0 || row >= asked) continue;
          of_warp[row * share_floats(kDim) + kDim] = softmax.largest[r];
          of_warp[row * share_floats(kDim) + kDim + 1] = softmax.total[r];
        }
      }
      __syncthreads();
      for (int place = threadIdx.x; place < asked * kDim; place += kBlockThreads) {
        const int row = place / kDim, d = place % kDim;
        const Merged all = merge_parts(used, [&](int n) -> Merged {
          const float* part = warps + (n * asked + row) * share_floats(kDim);
          return {part[kDim], part[kDim + 1], part[d]};
        });
        const int query = share.b * p.slot_queries() + share.first_query + row;
        float* to = shares + (query * p.shares + share.number) * share_floats(kDim);
        for_each_block(to + d,
                       [&](uint32_t address) { put_word(address, __float_as_uint(all.sum)); });
        if (d == 0)
          for_each_block(to + kDim, [&](uint32_t address) {
            put_words(address, {__float_as_uint(all.largest), __float_as_uint(all.total)});
          });
      }
      __syncthreads();
    }
    copies_done<0>();
    cluster_sync();

    for (int place = threadIdx.x; place < rows * width; place += kBlockThreads) {
      const int query = place / kDim, d = place % kDim;
      const float* from = shares + query * p.shares * share_floats(kDim);
      const Merged all = merge_parts(p.shares, [&](int n) -> Merged {
        const float* part = from + n * share_floats(kDim);
        return {part[kDim], part[kDim + 1], part[d]};
      });
      const Quotient slot = divide(query, p.slot_queries()), head = divide(slot.rest, tokens);
      const int row = slot.quotient * tokens + head.rest;
      T* to = reinterpret_cast<T*>(memory + at.attended + row * row_bytes(width));
      to[head.quotient * kDim + d] = narrow<T>(all.total == 0 ? 0.0f : all.sum / all.total);
    }
    __syncthreads();
    multiply_rows<kUnits, kSecondSplits, T>(memory + at.attended, rows, memory + at.second,
                                            row_bytes(width), p.out_tiles, steps_of(width),
                                            results);
    __syncthreads();
    write_part(results, rows, p.out_tiles, rank * p.out_tiles * kTile, p.outputs,
               key_head == 0 ? p.output_bias : nullptr,
               p.parts + int64_t{key_head} * rows * p.outputs);
  }
#endif
}

}  // namespace binade::kernels::cuda
