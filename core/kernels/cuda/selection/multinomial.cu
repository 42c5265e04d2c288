// Draws by weight, a warp a row, after a fold and a pass over all weights. A row is cut into groups
// of 128 weights, and the groups into 32 stretches, a lane each. A draw falls into one lane's
// stretch, of that into one group, of that into one lane's four weights: each is found by a scan
// within the warp. Sums are of integers, so their order does not matter.
#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/kernels/cuda/common/warp_scan.cuh>
#include <binade/core/kernels/cuda/reduce/fold.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kEach = 4;               // weights of a lane in a group
constexpr int kGroup = kWarp * kEach;  // weights

// The largest weight of a row and its smallest, neither beyond 0; NaN wins, so that it is seen.
struct Extent {
  double largest, smallest;
  __device__ __forceinline__ bool valid() const {
    return largest > 0 && largest < INFINITY && smallest >= 0;
  }
};
template <class C>
struct Ends {
  C largest, smallest;
};
template <class C>
struct ExtentFold : ValueFold<ExtentFold<C>, Ends<C>> {
  __device__ Ends<C> identity() const { return {C(0), C(0)}; }
  __device__ __forceinline__ Ends<C> value(C weight) const { return {weight, weight}; }
  __device__ __forceinline__ Ends<C> operator()(const Ends<C>& a, const Ends<C>& b) const {
    return {Max()(a.largest, b.largest), Min()(a.smallest, b.smallest)};
  }
};
template <class C>
struct ExtentStore : SingleStore<ExtentStore<C>> {
  Extent* extents;
  __device__ __forceinline__ void store(int64_t row, const Ends<C>& ends) const {
    extents[row] = {static_cast<double>(ends.largest), static_cast<double>(ends.smallest)};
  }
};

struct Drawing {
  int64_t rows, width, draws, groups;  // groups: of a row
  uint64_t seed, place;
  const int64_t* step;
  uint32_t* fault;
  const Extent* extents;  // (rows)
  uint64_t* sums;         // (rows, groups): what is left in a group
  uint8_t* taken;  // (rows, groups, kWarp), zeroed: bit i for a lane's ith weight; null: nothing is
};

struct AddCounts {
  __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};

// The lane in whose share of `own` the target lies, counted from lane 0 on, and what lies before
// it; −1 if it lies behind all.
struct Hit {
  int lane;
  uint64_t before;
};
__device__ __forceinline__ Hit find_lane(uint64_t own, uint64_t target, uint64_t& total) {
  const uint64_t through = warp_scan(own, AddCounts());
  total = __shfl_sync(0xffffffffu, through, kWarp - 1);
  const unsigned beyond = __ballot_sync(0xffffffffu, through > target);
  const int lane = beyond == 0 ? -1 : __ffs(static_cast<int>(beyond)) - 1;
  return {lane, __shfl_sync(0xffffffffu, through - own, lane < 0 ? 0 : lane)};
}

template <class T>
struct Row {
  const T* weights;
  int64_t width;
  double largest;

  // In units of the largest weight's share; 0 beyond the row.
  __device__ __forceinline__ uint64_t units(int64_t i) const {
    if (i >= width) return 0;
    return multinomial_weight(static_cast<double>(widen(weights[i])), largest);
  }
};

// sums, of the rows whose weights are such; 0 of others. A warp a group.
template <class T>
__global__ void __launch_bounds__(kBlock)
    group_sums_kernel(const T* weights, const Drawing drawing) {
  const int64_t task = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kWarp;
  if (task >= drawing.rows * drawing.groups) return;  // the whole warp
  const int64_t number = task / drawing.groups, group = task - number * drawing.groups;
  const Extent extent = drawing.extents[number];
  const Row<T> row{weights + number * drawing.width, drawing.width, extent.largest};
  const int lane = threadIdx.x % kWarp;
  uint64_t sum = 0;
  if (extent.valid()) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) sum += row.units(group * kGroup + i * kWarp + lane);
  }
  sum = warp_reduce(sum, AddCounts());
  if (lane == 0) drawing.sums[task] = sum;
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    multinomial_kernel(const T* weights, const Drawing drawing, int64_t* out) {
  const int64_t number = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (number >= drawing.rows) return;  // the whole warp
  const int64_t groups = drawing.groups;
  const Row<T> row{weights + number * drawing.width, drawing.width,
                   drawing.extents[number].largest};
  uint64_t* const sums = drawing.sums + number * groups;
  uint8_t* const taken =
      drawing.taken == nullptr ? nullptr : drawing.taken + number * groups * kWarp;
  out += number * drawing.draws;
  const int64_t stretch = ceil_div(groups, kWarp);  // groups of a lane
  uint64_t own = 0;
  for (int64_t g = lane * stretch; g < min(groups, (lane + 1) * stretch); ++g) own += sums[g];
  __syncwarp();

  for (int64_t s = 0; s < drawing.draws; ++s) {
    uint64_t total = 0;
    find_lane(own, 0, total);
    if (total == 0) {
      if (lane == 0) {
        note_fault(drawing.fault, DeviceFault::index_out_of_range);
        out[s] = 0;
      }
      continue;
    }
    const auto element = static_cast<uint64_t>(number * drawing.draws + s);
    const uint64_t bits = multinomial_bits(drawing.seed, static_cast<uint64_t>(*drawing.step),
                                           drawing.place, element);
    uint64_t target = __umul64hi(bits, total);
    const Hit owner = find_lane(own, target, total);
    target -= owner.before;

    int64_t group = owner.lane * stretch;
    const int64_t end = min(groups, group + stretch);
    for (; group < end; group += kWarp) {
      const Hit hit = find_lane(group + lane < end ? sums[group + lane] : 0, target, total);
      if (hit.lane < 0) {
        target -= total;
        continue;
      }
      target -= hit.before;
      group += hit.lane;
      break;
    }

    uint64_t mine[kEach], in_lane = 0;
    const int64_t begin = group * kGroup + lane * kEach;
    const unsigned gone = taken == nullptr ? 0 : taken[group * kWarp + lane];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      mine[i] = (gone >> i & 1u) != 0 ? 0 : row.units(begin + i);
      in_lane += mine[i];
    }
    const Hit hit = find_lane(in_lane, target, total);
    uint64_t drawn = 0;
    if (lane == hit.lane) {
      target -= hit.before;
      int i = 0;
      while (target >= mine[i]) target -= mine[i++];
      out[s] = begin + i;
      drawn = mine[i];
      if (taken != nullptr) {
        taken[group * kWarp + lane] = static_cast<uint8_t>(gone | 1u << i);
        sums[group] -= drawn;
      }
    }
    if (taken != nullptr) {
      drawn = __shfl_sync(0xffffffffu, drawn, hit.lane);
      if (lane == owner.lane) own -= drawn;
    }
    __syncwarp();
  }
}

}  // namespace

void multinomial(const Array& weights, const PhiloxKey& key, bool replacement, const Array& out) {
  if (out.numel() == 0) return;
  const int64_t rows = weights.size(0), width = weights.size(1), groups = ceil_div(width, kGroup);
  const Workspace<Extent> extents(rows);
  const Workspace<uint64_t> sums(rows * groups);
  const int64_t flags = replacement ? 1 : rows * groups * kWarp;
  const Workspace<uint8_t> taken(flags);
  if (!replacement)
    ::binade::cuda::check_cuda(cudaMemsetAsync(taken.data(), 0, static_cast<size_t>(flags),
                                               ::binade::cuda::current_stream()),
                               "multinomial");
  const Drawing drawing{rows,
                        width,
                        out.size(1),
                        groups,
                        key.seed,
                        key.place,
                        device_data<const int64_t>(key.step),
                        ::binade::cuda::fault_word(),
                        extents.data(),
                        sums.data(),
                        replacement ? nullptr : taken.data()};
  visit_floating(weights.dtype(), "multinomial", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    // The extents lie as the first column of the weights would, were it alone.
    const Array column =
        Array::view_of(weights.storage(), weights.dtype(), {rows, 1}, {1, 1}, weights.offset());
    fold_all("multinomial", FoldPlan(column, {&weights}, kFoldWidth<T>),
             OneSource<T>{device_data<const T>(weights)}, ExtentFold<ComputeOf<T>>(),
             ExtentStore<ComputeOf<T>>{{}, extents.data()});
    launch("multinomial", group_sums_kernel<T>,
           one_block_each(ceil_div(rows * groups, kBlock / kWarp)), kBlock, 0,
           device_data<const T>(weights), drawing);
    launch("multinomial", multinomial_kernel<T>, one_block_each(ceil_div(rows, kBlock / kWarp)),
           kBlock, 0, device_data<const T>(weights), drawing, device_data<int64_t>(out));
  });
}

}  // namespace binade::kernels::cuda
