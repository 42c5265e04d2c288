// Draws by weight. A row is cut into groups of a vector a lane, and the groups into 32 stretches, a
// lane each. A block keeps the groups of a chunk of a row in registers, where it finds the largest
// weight, which says what a unit is, and the groups' sums. Then a warp draws from a row: a draw
// falls into one lane's stretch, of that into one group, of that into one lane's weights. Sums are
// of integers, so their order does not matter.
#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/common/warp_scan.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kWarps = kBlock / kWarp;
constexpr int kHeld = 8;  // groups of a warp
constexpr int kChunkGroups = kHeld * kWarps;
template <class T>
constexpr int kEach = kVecWidth<T>;  // weights of a lane in a group
template <class T>
constexpr int kGroup = kWarp* kEach<T>;

// The largest and the smallest of weights, neither beyond 0; NaN wins, so that it is seen.
template <class C>
struct Ends {
  C largest, smallest;
  __device__ __forceinline__ bool valid() const {
    return largest > 0 && largest < C(INFINITY) && smallest >= 0;
  }
};
struct JoinEnds {
  template <class C>
  __device__ __forceinline__ Ends<C> operator()(const Ends<C>& a, const Ends<C>& b) const {
    return {Max()(a.largest, b.largest), Min()(a.smallest, b.smallest)};
  }
};
struct AddCounts {
  __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};

template <class C>
struct Drawing {
  int64_t rows, width, draws, groups, chunks;  // groups and chunks: of a row
  bool vectors;                                // whether all rows begin at 16-byte addresses
  uint64_t seed, place;
  const int64_t* step;
  uint32_t* fault;
  Ends<C>* ends;   // (rows)
  uint64_t* sums;  // (rows, groups): what is left in a group
  uint8_t* taken;  // (rows, groups, kWarp): bit i for a lane's ith weight; null: nothing is
};

// multinomial_weight() for the weights of a row.
template <class C>
struct Units {
  double largest, scale;

  __device__ explicit Units(double most)
      : largest(most), scale(most > 0x1p-900 ? 0x1p40 / most : 0) {}
  __device__ __forceinline__ uint64_t of(C weight) const {
    double scaled = __dmul_rn(static_cast<double>(weight), scale);
    if constexpr (sizeof(C) == 8)  // no float is so small
      if (scale == 0) scaled = __dmul_rn(static_cast<double>(weight) / largest, 0x1p40);
    // Beside 2^52 the mantissa's bits are a whole number, rounded as by rint().
    return static_cast<uint64_t>(__double_as_longlong(__dadd_rn(scaled, 0x1p52)) -
                                 __double_as_longlong(0x1p52));
  }
};

// A lane's weights of a group; 0 beyond the row.
template <class T>
__device__ __forceinline__ Vec<T, kEach<T>> load_weights(const T* row, int64_t begin, int64_t width,
                                                         bool vectors) {
  if (vectors && begin + kEach<T> <= width) return load_vec<kEach<T>>(row + begin);
  Vec<T, kEach<T>> weights;
#pragma unroll
  for (int i = 0; i < kEach<T>; ++i)
    weights[i] = begin + i < width ? row[begin + i] : narrow<T>(ComputeOf<T>(0));
  return weights;
}

// A block's chunk of a row.
template <class T>
struct Chunk {
  using C = ComputeOf<T>;
  int64_t row, first;  // first: the warp's first group; the others are kWarps apart
  int number;
  Vec<T, kEach<T>> held[kHeld];

  __device__ __forceinline__ Chunk(const T* weights, const Drawing<C>& drawing) {
    const auto chunks = static_cast<unsigned>(drawing.chunks);
    row = blockIdx.x / chunks;
    number = static_cast<int>(blockIdx.x % chunks);
    first = int64_t{number} * kChunkGroups + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int k = 0; k < kHeld; ++k)
      held[k] = load_weights(weights + row * drawing.width,
                             (first + k * kWarps) * kGroup<T> + lane * kEach<T>, drawing.width,
                             drawing.vectors);
  }
  // All threads of the block have it.
  __device__ __forceinline__ Ends<C> ends() const {
    Ends<C> ends{C(0), C(0)};
#pragma unroll
    for (int k = 0; k < kHeld; ++k)
#pragma unroll
      for (int i = 0; i < kEach<T>; ++i) {
        const C weight = widen(held[k][i]);
        ends = JoinEnds()(ends, Ends<C>{weight, weight});
      }
    return block_reduce<kBlock>(ends, JoinEnds(), Ends<C>{C(0), C(0)});
  }
};

// For rows of several chunks.
template <class T>
__global__ void __launch_bounds__(kBlock)
    chunk_ends_kernel(const T* weights, const Drawing<ComputeOf<T>> drawing,
                      Ends<ComputeOf<T>>* ends) {
  const auto own = Chunk<T>(weights, drawing).ends();
  if (threadIdx.x == 0) ends[blockIdx.x] = own;
}

// Σ over the warp's lanes of numbers below 2^44.
__device__ __forceinline__ uint64_t warp_total(uint64_t value) {
  constexpr int kLow = 22;
  const unsigned low = __reduce_add_sync(0xffffffffu, static_cast<unsigned>(value) % (1u << kLow));
  const unsigned high = __reduce_add_sync(0xffffffffu, static_cast<unsigned>(value >> kLow));
  return (static_cast<uint64_t>(high) << kLow) + low;
}

// sums, and ends of whole rows, of which `chunk_ends` has those of their chunks; null: there is
// one.
template <class T>
__global__ void __launch_bounds__(kBlock)
    group_sums_kernel(const T* weights, const Drawing<ComputeOf<T>> drawing,
                      const Ends<ComputeOf<T>>* chunk_ends) {
  using C = ComputeOf<T>;
  const Chunk<T> chunk(weights, drawing);
  Ends<C> ends{C(0), C(0)};
  if (chunk_ends == nullptr) {
    ends = chunk.ends();
  } else {
    for (int64_t c = threadIdx.x; c < drawing.chunks; c += kBlock)
      ends = JoinEnds()(ends, chunk_ends[chunk.row * drawing.chunks + c]);
    ends = block_reduce<kBlock>(ends, JoinEnds(), Ends<C>{C(0), C(0)});
  }
  if (threadIdx.x == 0 && chunk.number == 0) drawing.ends[chunk.row] = ends;
  const Units<C> units(static_cast<double>(ends.largest));
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t group = chunk.first + k * kWarps;
    if (group >= drawing.groups) break;  // the whole warp
    uint64_t sum = 0;
#pragma unroll
    for (int i = 0; i < kEach<T>; ++i) sum += units.of(widen(chunk.held[k][i]));
    sum = warp_total(ends.valid() ? sum : 0);
    const int64_t place = chunk.row * drawing.groups + group;
    if (lane == 0) drawing.sums[place] = sum;
    if (drawing.taken != nullptr) drawing.taken[place * kWarp + lane] = 0;
  }
}

// The lane in whose share of `own` the target lies, counted from lane 0 on, and what lies before
// it; −1 if it lies behind all.
struct Hit {
  int lane;
  uint64_t before;
};
__device__ __forceinline__ Hit find_lane(uint64_t own, uint64_t through, uint64_t target) {
  const unsigned beyond = __ballot_sync(0xffffffffu, through > target);
  const int lane = beyond == 0 ? -1 : __ffs(static_cast<int>(beyond)) - 1;
  return {lane, __shfl_sync(0xffffffffu, through - own, lane < 0 ? 0 : lane)};
}

// The group of [first, end) in which the target lies, which becomes what lies of it in that group.
__device__ __forceinline__ int64_t find_group(const uint64_t* sums, int64_t first, int64_t end,
                                              uint64_t& target) {
  constexpr int kFew = 4;  // that are sooner read one by one
  int64_t group = first;
  if (end - first <= kFew) {
    for (uint64_t sum = sums[group]; target >= sum && group + 1 < end; sum = sums[++group])
      target -= sum;
    return group;
  }
  for (; group < end; group += kWarp) {
    const int64_t own = group + threadIdx.x % kWarp;
    const uint64_t sum = own < end ? sums[own] : 0;
    const uint64_t through = warp_scan(sum, AddCounts());
    const Hit hit = find_lane(sum, through, target);
    if (hit.lane >= 0) {
      target -= hit.before;
      return group + hit.lane;
    }
    target -= __shfl_sync(0xffffffffu, through, kWarp - 1);
  }
  return end - 1;  // not reached: the target lies in [first, end)
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(kBlock)
    multinomial_kernel(const T* weights, const Drawing<ComputeOf<T>> drawing, int64_t* out) {
  using C = ComputeOf<T>;
  const int64_t number = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (number >= drawing.rows) return;  // the whole warp
  const int64_t groups = drawing.groups;
  const T* const row = weights + number * drawing.width;
  const Units<C> units(static_cast<double>(drawing.ends[number].largest));
  uint64_t* const sums = drawing.sums + number * groups;
  uint8_t* const taken =
      drawing.taken == nullptr ? nullptr : drawing.taken + number * groups * kWarp;
  out += number * drawing.draws;
  const int64_t stretch = ceil_div(groups, kWarp);  // groups of a lane
  uint64_t own = 0;
  for (int64_t g = lane * stretch; g < min(groups, (lane + 1) * stretch); ++g) own += sums[g];
  uint64_t through = warp_scan(own, AddCounts());
  uint64_t total = __shfl_sync(0xffffffffu, through, kWarp - 1);
  const auto step = static_cast<uint64_t>(*drawing.step);

  uint64_t bits = 0;  // of this lane's draw, of 32
  for (int64_t s = 0; s < drawing.draws; ++s) {
    if (s % kWarp == 0)
      bits = multinomial_bits(drawing.seed, step, drawing.place,
                              static_cast<uint64_t>(number * drawing.draws + s + lane));
    if (total == 0) {
      if (lane == 0) {
        note_fault(drawing.fault, DeviceFault::index_out_of_range);
        out[s] = 0;
      }
      continue;
    }
    uint64_t target =
        __umul64hi(__shfl_sync(0xffffffffu, bits, static_cast<int>(s % kWarp)), total);
    const Hit owner = find_lane(own, through, target);
    target -= owner.before;
    const int64_t first = owner.lane * stretch;
    const int64_t group = find_group(sums, first, min(groups, first + stretch), target);

    uint64_t mine[kEach<T>], in_lane = 0;
    const int64_t begin = group * kGroup<T> + lane * kEach<T>;
    const auto read = load_weights(row, begin, drawing.width, drawing.vectors);
    const unsigned gone = taken == nullptr ? 0 : taken[group * kWarp + lane];
#pragma unroll
    for (int i = 0; i < kEach<T>; ++i) {
      mine[i] = (gone >> i & 1u) != 0 ? 0 : units.of(widen(read[i]));
      in_lane += mine[i];
    }
    const Hit hit = find_lane(in_lane, warp_scan(in_lane, AddCounts()), target);
    uint64_t drawn = 0;
    if (lane == hit.lane) {
      target -= hit.before;
      int which = 0;
      drawn = mine[0];
#pragma unroll
      for (int i = 0; i + 1 < kEach<T>; ++i) {
        if (which < i || target < mine[i]) continue;
        target -= mine[i];
        which = i + 1;
        drawn = mine[i + 1];
      }
      out[s] = begin + which;
      if (taken != nullptr) {
        taken[group * kWarp + lane] = static_cast<uint8_t>(gone | 1u << which);
        sums[group] -= drawn;
      }
    }
    if (taken != nullptr) {
      drawn = __shfl_sync(0xffffffffu, drawn, hit.lane);
      total -= drawn;
      if (lane >= owner.lane) through -= drawn;
      if (lane == owner.lane) own -= drawn;
    }
    __syncwarp();
  }
}

}  // namespace

void multinomial(const Array& weights, const PhiloxKey& key, bool replacement, const Array& out) {
  if (out.numel() == 0) return;
  visit_floating(weights.dtype(), "multinomial", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const int64_t rows = weights.size(0), width = weights.size(1);
    const int64_t groups = ceil_div(width, kGroup<T>), chunks = ceil_div(groups, kChunkGroups);
    const Workspace<Ends<C>> ends(rows), chunk_ends(chunks == 1 ? 1 : rows * chunks);
    const Workspace<uint64_t> sums(rows * groups);
    const Workspace<uint8_t> taken(replacement ? 1 : rows * groups * kWarp);
    const Drawing<C> drawing{rows,
                             width,
                             out.size(1),
                             groups,
                             chunks,
                             rows_aligned(weights.data(), width, size_of(weights.dtype())),
                             key.seed,
                             key.place,
                             device_data<const int64_t>(key.step),
                             ::binade::cuda::fault_word(),
                             ends.data(),
                             sums.data(),
                             replacement ? nullptr : taken.data()};
    const T* const data = device_data<const T>(weights);
    const unsigned blocks = one_block_each(rows * chunks);
    if (chunks > 1)
      launch("multinomial", chunk_ends_kernel<T>, blocks, kBlock, 0, data, drawing,
             chunk_ends.data());
    launch("multinomial", group_sums_kernel<T>, blocks, kBlock, 0, data, drawing,
           chunks == 1 ? nullptr : chunk_ends.data());
    launch("multinomial", multinomial_kernel<T>, one_block_each(ceil_div(rows, kWarps)), kBlock, 0,
           data, drawing, device_data<int64_t>(out));
  });
}

}  // namespace binade::kernels::cuda
