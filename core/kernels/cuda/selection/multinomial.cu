// Draws by weight, one block a row. Each thread sums a stretch of the row; a draw falls into one
// thread's stretch, which that thread walks. Sums are of integers, so their order does not matter.
#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

struct Drawing {
  int64_t width, draws;
  bool replacement;
  uint64_t seed, place;
  const int64_t* step;
  uint32_t* fault;
};

// NaN wins, so that it is seen.
struct Extent {
  double largest, smallest;
};
struct ExtentFold {
  __device__ Extent operator()(const Extent& a, const Extent& b) const {
    return {Max()(a.largest, b.largest), Min()(a.smallest, b.smallest)};
  }
};

// `taken` (N, K), zeroed, notes what was drawn; read without replacement only.
template <class T>
__global__ void __launch_bounds__(kBlock)
    multinomial_kernel(const T* weights, const Drawing drawing, uint8_t* taken, int64_t* out) {
  __shared__ uint64_t sums[kBlock];
  const int64_t row = blockIdx.x, width = drawing.width;
  weights += row * width;
  taken += drawing.replacement ? 0 : row * width;
  out += row * drawing.draws;
  const int64_t each = ceil_div(width, kBlock);
  const int64_t begin = min(width, threadIdx.x * each), end = min(width, begin + each);

  Extent extent{0, 0};
  for (int64_t i = begin; i < end; ++i) {
    const auto weight = static_cast<double>(widen(weights[i]));
    extent = ExtentFold()(extent, {weight, weight});
  }
  extent = block_reduce<kBlock>(extent, ExtentFold(), Extent{0, 0});
  const double largest = extent.largest;
  const bool valid = largest > 0 && largest < INFINITY && extent.smallest >= 0;
  const auto units = [&](int64_t i) {
    return multinomial_weight(static_cast<double>(widen(weights[i])), largest);
  };

  uint64_t own = 0;
  if (valid)
    for (int64_t i = begin; i < end; ++i) own += units(i);
  for (int64_t s = 0; s < drawing.draws; ++s) {
    sums[threadIdx.x] = own;
    __syncthreads();
    uint64_t before = 0, total = 0;
    for (int t = 0; t < kBlock; ++t) {
      if (t == static_cast<int>(threadIdx.x)) before = total;
      total += sums[t];
    }
    __syncthreads();  // the sums have been read
    if (total == 0) {
      if (threadIdx.x == 0) {
        note_fault(drawing.fault, DeviceFault::index_out_of_range);
        out[s] = 0;
      }
      continue;
    }
    const auto element = static_cast<uint64_t>(row * drawing.draws + s);
    const uint64_t bits = multinomial_bits(drawing.seed, static_cast<uint64_t>(*drawing.step),
                                           drawing.place, element);
    const uint64_t target = __umul64hi(bits, total);
    if (target < before || target - before >= own) continue;  // in another thread's stretch
    uint64_t sum = before;
    for (int64_t i = begin; i < end; ++i) {
      if (!drawing.replacement && taken[i] != 0) continue;
      const uint64_t weight = units(i);
      sum += weight;
      if (sum <= target) continue;
      out[s] = i;
      if (!drawing.replacement) {
        taken[i] = 1;
        own -= weight;
      }
      break;
    }
  }
}

}  // namespace

void multinomial(const Array& weights, const PhiloxKey& key, bool replacement, const Array& out) {
  if (out.numel() == 0) return;
  const Workspace<uint8_t> taken(replacement ? 1 : weights.numel());
  if (!replacement)
    ::binade::cuda::check_cuda(
        cudaMemsetAsync(taken.data(), 0, static_cast<size_t>(weights.numel()),
                        ::binade::cuda::current_stream()),
        "multinomial");
  const Drawing drawing{weights.size(1),
                        out.size(1),
                        replacement,
                        key.seed,
                        key.place,
                        device_data<const int64_t>(key.step),
                        ::binade::cuda::fault_word()};
  visit_floating(weights.dtype(), "multinomial", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    launch("multinomial", multinomial_kernel<T>, one_block_each(weights.size(0)), kBlock, 0,
           device_data<const T>(weights), drawing, taken.data(), device_data<int64_t>(out));
  });
}

}  // namespace binade::kernels::cuda
