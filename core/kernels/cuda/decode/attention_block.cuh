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
  int x, norm, squares, first, projected, warps, shares, attended, second, results, bytes;
};
template <class T>
__host__ __device__ AttentionPlaces places_of(const AttentionBlock<T>& p, int splits) {
  Pieces pieces;
  AttentionPlaces at{};
  const int rows = p.in.rows;
  at.x = pieces.take(rows * row_bytes(p.in.columns));
  at.norm = pieces.take(p.in.columns * 4);
  at.squares = pieces.take(square_bytes(rows));
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

// Threads of a block: with attention, as many again read the cache.
__host__ __device__ constexpr int attention_threads(bool whole) {
  return whole ? 2 * kBlockThreads : kBlockThreads;
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

  KeyShare() = default;
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

// The part of a block that reads the cache: a warp has kWarpKeys keys and values at a time, the old
// ones of which are under way while others of the block make the new ones.
template <int kDim, int kHalves, class T>
class CacheReader {
 public:
  __device__ __forceinline__ CacheReader(const AttentionBlock<T>& block,
                                         const AttentionPlaces& places, unsigned char* memory,
                                         int rank, int key_head)
      : p_(block),
        projected_(memory + places.projected),
        warps_(reinterpret_cast<float*>(memory + places.warps)),
        shares_(reinterpret_cast<float*>(memory + places.shares)),
        rank_(rank),
        key_head_(key_head),
        tiles_((block.slot_queries() + kQueryRows - 1) / kQueryRows),
        items_(block.batch * block.shares * tiles_),
        thread_(threadIdx.x % kBlockThreads),
        warp_(thread_ / kWarp),
        lane_(thread_ % kWarp) {}

  // Begins to read what the first share needs of earlier passes.
  __device__ __forceinline__ void begin() {
    if (rank_ >= items_) return;
    take(rank_);
    load_old(share_.begin + warp_ * kWarpKeys);
  }
  // Behind the cluster's barrier that the new queries, keys and values came before.
  __device__ __forceinline__ void answer() {
    for (int item = rank_; item < items_; item += kCluster) {
      if (item != rank_) {
        take(item);
        load_old(share_.begin + warp_ * kWarpKeys);
      }
      WarpSoftmax<kDim, kHalves> softmax;
      const unsigned char* queries =
          projected_ + (share_.b * p_.slot_queries() + share_.first_query) * row_bytes(kDim);
      bool first = true;
      for (int begin = share_.begin + warp_ * kWarpKeys; begin < share_.stop;
           begin += kBlockWarps * kWarpKeys) {
        if (!first) load_old(begin);
        load_new(begin);
        softmax.template attend<T>(held_, queries, row_bytes(kDim), asked_, p_.scale, seen_, first);
        first = false;
      }
      softmax.finish();
      hand_over(softmax);
    }
  }

 private:
  // The share of an item, and what this lane's queries see of pending tokens.
  __device__ __forceinline__ void take(int item) {
    const int slot = divide(item / p_.shares, tiles_).quotient;
    share_ = KeyShare<T>(p_, item, key_head_, SlotView(p_.pass, slot));
    asked_ = min(kQueryRows, p_.slot_queries() - share_.first_query);
#pragma unroll
    for (int r = 0; r < kHalves; ++r) {
      const int row = lane_ / 4 + r * 8;
      const int t = divide(share_.first_query + row, p_.pass.tokens).rest;
      const bool counts = row < asked_ && t < share_.count;
      sees_[r] = counts ? pending_seen(p_.pass, p_.visible, p_.visible_row, share_.b, t) : 0;
      first_[r] = counts ? 0 : share_.length;
    }
  }
  // Keys from `begin` on that the cache has, and what is seen of them.
  __device__ __forceinline__ void load_old(int begin) {
    held_.clear();
    const int stop = min(share_.stop, share_.old);
    held_.load([&](int kind, int i) -> const T* {
      return begin + i < stop
                 ? (kind == 0 ? share_.keys : share_.values) + int64_t{begin + i} * kDim
                 : nullptr;
    });
    seen_ = 0;
#pragma unroll
    for (int r = 0; r < kHalves; ++r)
      seen_ |= lane_keys(seen_keys(begin, share_.stop, share_.length, first_[r], sees_[r]))
               << (4 * r);
  }
  // Those of this pass, as the blocks of the cluster gave them.
  __device__ __forceinline__ void load_new(int begin) {
    if (begin + kWarpKeys <= share_.old) return;
    held_.load([&](int kind, int i) -> const T* {
      const int t = begin + i - share_.old;
      if (t < 0 || begin + i >= share_.stop) return nullptr;
      const int row = p_.in.rows * (p_.group() + kind) + share_.b * p_.pass.tokens + t;
      return reinterpret_cast<const T*>(projected_ + row * row_bytes(kDim));
    });
  }
  // The warps' sums become the block's, which all blocks of the cluster get.
  __device__ __forceinline__ void hand_over(const WarpSoftmax<kDim, kHalves>& softmax) {
    constexpr int kFloats = share_floats(kDim);
    const int used = min(kBlockWarps, (share_.stop - share_.begin + kWarpKeys - 1) / kWarpKeys);
    if (warp_ < used) softmax.leave(asked_, warps_ + warp_ * asked_ * kFloats);
    block_sync(Party::attend);
    const int query = share_.b * p_.slot_queries() + share_.first_query;
    for (int place = thread_; place < asked_ * kDim; place += kBlockThreads) {
      const int row = place / kDim, d = place % kDim;
      const Merged all = merge_parts(
          used, [&](int n) { return part_of<kDim>(warps_ + (n * asked_ + row) * kFloats, d); });
      float* to = shares_ + ((query + row) * p_.shares + share_.number) * kFloats;
      for_each_block(to + d,
                     [&](uint32_t address) { put_word(address, __float_as_uint(all.sum)); });
      if (d == 0)
        for_each_block(to + kDim, [&](uint32_t address) {
          put_words(address, {__float_as_uint(all.largest), __float_as_uint(all.total)});
        });
    }
    block_sync(Party::attend);
  }

  const AttentionBlock<T>& p_;
  const unsigned char* projected_;
  float *warps_, *shares_;
  int rank_, key_head_, tiles_, items_, thread_, warp_, lane_;
  KeyShare<T> share_;
  int asked_ = 0;
  int first_[kHalves] = {};  // of the prefix that is seen
  uint64_t sees_[kHalves] = {};
  WarpKeys<kDim> held_;
  unsigned seen_ = 0;
};

#endif

// Heads of kDim elements. Without kWhole it ends with the queries, and keys and values in the
// cache.
template <bool kWhole, int kUnits, int kDim, class T>
__global__ void __launch_bounds__(attention_threads(kWhole), 1)
    attention_block_kernel(const AttentionBlock<T> p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kSplits = first_splits(kUnits);
  extern __shared__ __align__(128) unsigned char memory[];
  const AttentionPlaces at = places_of(p, kSplits);
  const int rank = blockIdx.x % kCluster, key_head = blockIdx.x / kCluster, rows = p.in.rows;
  const int group = p.group(), width = p.width(), tokens = p.pass.tokens;
  const int columns = p.in.columns, head_bytes = row_bytes(kDim);
  unsigned char* x = memory + at.x;
  float* norm = reinterpret_cast<float*>(memory + at.norm);
  float* results = reinterpret_cast<float*>(memory + at.results);
  unsigned char* projected = memory + at.projected;
  // Half of a whole block's warps read the cache.
  if constexpr (kWhole) {
    if (threadIdx.x >= kBlockThreads) {
      const bool together = NormedRows<T>(p.in, rank, false, nullptr, nullptr, nullptr).together();
      const auto read = [&](auto reader) {
        cluster_begin();
        let_next_start();
        wait_for_previous();
        reader.begin();
        cluster_wait();
        if (together) {
          cluster_sync();
          cluster_sync();
        }
        cluster_sync();
        reader.answer();
        cluster_sync();
      };
      if (p.tile_queries() <= 8)
        read(CacheReader<kDim, 1, T>(p, at, memory, rank, key_head));
      else
        read(CacheReader<kDim, 2, T>(p, at, memory, rank, key_head));
      return;
    }
  }
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
  const NormedRows<T> stream(p.in, rank, key_head == 0, norm,
                             reinterpret_cast<float*>(memory + at.squares), x);
  const int pairs_here = rows * p.pairs * (kTile / 2);
  const PairPlace first_place = pair_place<kDim>(threadIdx.x, p.pairs, rank, group);
  cluster_begin();
  let_next_start();
  wait_for_previous();
  cluster_wait();  // all blocks have begun: their memory may be written

  // What two pairs of results are rotated with, and whose they are.
  struct Turn {
    float2 cos, sin;
    SlotView slot;
  };
  const auto turn_of = [&](const PairPlace& place) {
    Turn turn{{1, 1}, {0, 0}, SlotView(p.pass, divide(place.row, tokens).quotient)};
    if (place.kind == 0 || place.kind == 1) {
      const int from = place.row * (kDim / 2) + place.d;
      turn.cos = *reinterpret_cast<const float2*>(p.cos + from);
      turn.sin = *reinterpret_cast<const float2*>(p.sin + from);
    }
    return turn;
  };
  // Read before it is needed.
  const Turn first_turn = turn_of(threadIdx.x < pairs_here ? first_place : PairPlace{});
  copies_done<kWhole ? 1 : 0>();
  stream.make();
  multiply_rows<kUnits, kSplits, T>(x, rows, memory + at.first, row_bytes(columns), 2 * p.pairs,
                                    steps_of(columns), results);
  block_sync();
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
      const SlotView& slot = turn.slot;
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
    const float* shares = reinterpret_cast<const float*>(memory + at.shares);
    copies_done<0>();
    cluster_sync();

    for (int place = threadIdx.x; place < rows * width; place += kBlockThreads) {
      const int query = place / kDim, d = place % kDim;
      const float* from = shares + query * p.shares * share_floats(kDim);
      const Merged all = merge_parts(
          p.shares, [&](int n) { return part_of<kDim>(from + n * share_floats(kDim), d); });
      const Quotient slot = divide(query, p.slot_queries()), head = divide(slot.rest, tokens);
      const int row = slot.quotient * tokens + head.rest;
      T* to = reinterpret_cast<T*>(memory + at.attended + row * row_bytes(width));
      to[head.quotient * kDim + d] =
          narrow<T>(all.total == 0 ? 0.0f : __fdividef(all.sum, all.total));
    }
    block_sync();
    multiply_rows<kUnits, kSecondSplits, T>(memory + at.attended, rows, memory + at.second,
                                            row_bytes(width), p.out_tiles, steps_of(width),
                                            results);
    block_sync();
    write_part(results, rows, p.out_tiles, rank * p.out_tiles * kTile, p.outputs,
               key_head == 0 ? p.output_bias : nullptr,
               p.parts + int64_t{key_head} * rows * p.outputs);
  }
#endif
}

}  // namespace binade::kernels::cuda
