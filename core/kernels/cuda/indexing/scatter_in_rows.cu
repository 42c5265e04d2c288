// Folds by index within rows, without a sort. A block holds a row of out in shared memory and takes
// its elements in their order, as many at a time as it has threads. Those that meet in one place
// take turns, the first one first: each bids for its place with a number that is larger the later
// the turn and the earlier the element, and the largest bid has the turn. So every place folds its
// elements in their order, as a sort would bring them.
#include <binade/core/kernels/cuda/indexing/indexing.cuh>
#include <binade/core/kernels/cuda/indexing/scatter_rules.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kRowBlock = 512;
constexpr int kAhead = 4;  // elements of a thread that are loaded before the first one has its turn
constexpr int64_t kMostTurns = int64_t{1} << 22;  // bids are turn · kRowBlock + order, in 32 bits

extern __shared__ uint64_t row_memory[];

// rows: index, out and source, cut to their first element along the dimension.
template <class T>
__global__ void __launch_bounds__(kRowBlock)
    fold_in_rows_kernel(const __grid_constant__ Layout rows, IndexReader index, int64_t length,
                        int64_t index_stride, int64_t source_stride, int64_t out_stride,
                        const Folding<T> rule, const T* source, T* out) {
  using State = typename Folding<T>::State;
  const int width = static_cast<int>(index.size), thread = threadIdx.x;
  State* states = reinterpret_cast<State*>(row_memory);
  uint32_t* bids = reinterpret_cast<uint32_t*>(states + width);  // 0: nothing came
  uint32_t* counts = bids + width;                               // for means
  const bool counted = rule.fold == ScatterFold::mean;
  int64_t offset[3];
  locate(rows, blockIdx.x, offset);
  T* const row = out + offset[1];
  for (int i = thread; i < width; i += kRowBlock) {
    states[i] = rule.start(row[i * out_stride]);
    bids[i] = 0;
    if (counted) counts[i] = 0;
  }
  __syncthreads();

  uint32_t turn = 1;
  for (int64_t first = thread; first - thread < length; first += kRowBlock * kAhead) {
    int64_t places[kAhead];
    T elements[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t i = first + k * kRowBlock;
      if (i >= length) continue;
      places[k] = index.read(offset[0] + i * index_stride);
      elements[k] = source[offset[2] + i * source_stride];
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (first - thread + k * kRowBlock >= length) break;
      const bool exists = first + k * kRowBlock < length;
      const int place = exists ? static_cast<int>(index.checked(places[k])) : -1;
      bool waits = place >= 0;  // kBadIndex is −1
      do {
        const uint32_t bid = turn * kRowBlock + (kRowBlock - 1 - thread);
        if (waits) atomicMax(bids + place, bid);
        __syncthreads();
        if (waits && bids[place] == bid) {
          states[place] = rule.join(states[place], elements[k]);
          if (counted) ++counts[place];
          waits = false;
        }
        ++turn;
      } while (__syncthreads_or(waits) != 0);
    }
  }

  for (int i = thread; i < width; i += kRowBlock)
    if (bids[i] != 0) row[i * out_stride] = rule.finish(states[i], counted ? counts[i] : 0);
}

}  // namespace

bool fold_in_rows(const Array& out, int dim, const Array& index, const Array& source,
                  const Folding<float>& rule) {
  constexpr int64_t kManyRows = 64;  // that keep most of a device busy
  const int64_t width = out.size(dim), length = index.size(dim);
  const int64_t row_count = index.numel() / length;
  const bool all_meet = index.stride(dim) == 0;  // a turn each
  if (row_count < kManyRows || width > 8 * length || length >= kMostTurns || all_meet) return false;
  const Array first_index = index.slice(dim, 0, 1), first_source = source.slice(dim, 0, 1);
  Array first_out = out;
  for (int d = 0; d < out.dims(); ++d)
    first_out = first_out.slice(d, 0, d == dim ? 1 : index.size(d));
  const Layout rows = make_layout({&first_index, &first_out, &first_source}, 1);
  bool done = false;
  visit_all(out.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    if constexpr (!std::is_same_v<T, bool>) {
      const bool counted = rule.fold == ScatterFold::mean;
      const size_t bytes = static_cast<size_t>(width) * (sizeof(ComputeOf<T>) + (counted ? 8 : 4));
      if (bytes > ::binade::cuda::device_properties().shared_bytes_per_block) return;
      launch("scatter_in_rows", fold_in_rows_kernel<T>, one_block_each(row_count), kRowBlock, bytes,
             rows, IndexReader(index, width), length, index.stride(dim), source.stride(dim),
             out.stride(dim), Folding<T>{rule.fold, rule.include_self},
             device_data<const T>(source), device_data<T>(out));
      done = true;
    }
  });
  return done;
}

}  // namespace binade::kernels::cuda
