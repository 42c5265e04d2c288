// Keeping a key-value cache: places, writing, compaction, lengths.
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

namespace {

__global__ void __launch_bounds__(kBlock)
    positions_kernel(PassView pass, int batch, const int32_t* depths, int depth_row, int capacity,
                     int spare, uint32_t* fault, int32_t* positions) {
  const int i = blockIdx.x * kBlock + threadIdx.x;
  if (i >= batch * pass.tokens) return;
  const int b = i / pass.tokens, t = i % pass.tokens;
  const int length = pass.length(b), count = pass.count(b);
  const bool full = count > 0 && length + pass.first + count > capacity + spare;
  if (full && t == 0) note_fault(fault, DeviceFault::cache_full);
  const int depth = depths ? depths[b * depth_row + t] : pass.first + t;
  positions[i] = t < count && !full ? min(length + depth, capacity - 1) : 0;
}

// Rows of D elements in items of kVec; strides in elements.
template <class Item>
struct HeadRows {
  Item* data;
  int64_t batch_stride, head_stride, row_stride;  // in items
  __device__ __forceinline__ Item* at(int64_t batch, int64_t head, int64_t row) const {
    return data + batch * batch_stride + head * head_stride + row * row_stride;
  }
};

// An item of a row a thread, of keys (blockIdx.y = 0) and values (1).
template <class Item>
__global__ void __launch_bounds__(kBlock)
    write_kernel(PassView pass, int heads, int items, int64_t total, int capacity,
                 HeadRows<const Item> keys, HeadRows<const Item> values, HeadRows<Item> cached_keys,
                 HeadRows<Item> cached_values) {
  const HeadRows<const Item>& from = blockIdx.y == 0 ? keys : values;
  const HeadRows<Item>& to = blockIdx.y == 0 ? cached_keys : cached_values;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < total; i += step) {
    const int item = static_cast<int>(i % items);
    const int64_t row = i / items;
    // Tokens outermost but for the batch: a projection has the heads of a token side by side.
    const int head = static_cast<int>(row % heads);
    const int t = static_cast<int>(row / heads % pass.tokens);
    const int b = static_cast<int>(row / heads / pass.tokens);
    const int place = pass.begin(b) + t;
    if (t < pass.count(b) && place < capacity)
      to.at(pass.slot(b), head, place)[item] = from.at(b, head, t)[item];
  }
}

// Whether rows of `bytes` can be moved in items of 16 bytes.
bool moves_wide(const Array& array, int64_t bytes) {
  const int64_t item = size_of(array.dtype());
  bool wide = bytes % 16 == 0 && reinterpret_cast<uintptr_t>(array.data()) % 16 == 0;
  for (int d = 0; d + 1 < array.dims(); ++d) wide = wide && array.stride(d) * item % 16 == 0;
  return wide;
}

template <class Item>
HeadRows<Item> rows_of(const Array& array) {
  const int64_t item = size_of(array.dtype()), wide = sizeof(Item);
  return {static_cast<Item*>(device_pointer(array)), array.stride(0) * item / wide,
          array.stride(1) * item / wide, array.stride(2) * item / wide};
}

// Calls visit(Item{}) with what rows of all arrays can be moved in.
template <class Visit>
void visit_items(std::initializer_list<Array> arrays, int64_t bytes, const Visit& visit) {
  bool wide = true;
  for (const Array& array : arrays) wide = wide && moves_wide(array, bytes);
  if (wide) return visit(uint4{});
  switch (size_of(arrays.begin()->dtype())) {
    case 2:
      return visit(uint16_t{});
    case 4:
      return visit(uint32_t{});
    default:
      return visit(uint64_t{});
  }
}

// A thread moves one item of all accepted rows, in their order: none is written before it was read,
// as a node never moves up.
template <class Item>
__global__ void __launch_bounds__(kBlock)
    compact_kernel(PassView pass, const int32_t* nodes, int batch, int64_t layers, int64_t slots,
                   int64_t heads, int64_t capacity, int items, uint32_t* fault, Item* keys,
                   Item* values) {
  Item* cache = blockIdx.y == 0 ? keys : values;
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= layers * batch * heads * items) return;
  const int64_t item = i % items, head = i / items % heads;
  const int b = static_cast<int>(i / items / heads % batch);
  const int64_t layer = i / items / heads / batch;
  const int length = pass.length(b), count = pass.count(b);
  Item* rows =
      cache + (((layer * slots + pass.slot(b)) * heads + head) * capacity + length) * items + item;
  int last = -1;
  for (int n = 0; n < count; ++n) {
    const int node = nodes[b * pass.tokens + n];
    if (node <= last || node >= kMostPending || length + node >= capacity) {
      note_fault(fault, DeviceFault::bad_tree_node);
      continue;
    }
    last = node;
    if (node != n) rows[n * items] = rows[int64_t{node} * items];
  }
}

__global__ void __launch_bounds__(kBlock)
    set_lengths_kernel(PassView pass, int batch, bool add, int32_t* lengths) {
  const int b = blockIdx.x * kBlock + threadIdx.x;
  if (b >= batch) return;
  const int count = pass.counts[b];
  if (count < 0) return;
  int32_t* length = lengths + pass.slot(b);
  *length = add ? *length + count : count;
}

}  // namespace

void cache_positions(const PassRows& rows, const Array& depths, int64_t capacity, int64_t spare,
                     const Array& positions) {
  const int64_t batch = positions.size(0), tokens = positions.size(1);
  launch("cache_positions", positions_kernel, one_block_each(ceil_div(batch * tokens, kBlock)),
         kBlock, 0, PassView(rows, tokens), static_cast<int>(batch), i32_or_null(depths),
         static_cast<int>(depths.defined() && depths.dims() == 2 ? tokens : 0),
         static_cast<int>(capacity), static_cast<int>(spare), ::binade::cuda::fault_word(),
         device_data<int32_t>(positions));
}

void cache_write(const Array& keys, const Array& values, const PassRows& rows,
                 const Array& cached_keys, const Array& cached_values) {
  const int64_t bytes = keys.size(3) * size_of(keys.dtype());
  visit_items({keys, values, cached_keys, cached_values}, bytes, [&](auto tag) {
    using Item = decltype(tag);
    const int64_t items = bytes / static_cast<int64_t>(sizeof(Item));
    const int64_t total = keys.size(0) * keys.size(1) * keys.size(2) * items;
    dim3 grid(grid_for(total), 2);
    launch("cache_write", write_kernel<Item>, grid, kBlock, 0, PassView(rows, keys.size(2)),
           static_cast<int>(keys.size(1)), static_cast<int>(items), total,
           static_cast<int>(cached_keys.size(2)), rows_of<const Item>(keys),
           rows_of<const Item>(values), rows_of<Item>(cached_keys), rows_of<Item>(cached_values));
  });
}

void cache_compact(const Array& nodes, const PassRows& rows, const Array& keys,
                   const Array& values) {
  const int64_t batch = nodes.size(0), layers = keys.size(0), heads = keys.size(2);
  const int64_t bytes = keys.size(4) * size_of(keys.dtype());
  visit_items({keys, values}, bytes, [&](auto tag) {
    using Item = decltype(tag);
    const int64_t items = bytes / static_cast<int64_t>(sizeof(Item));
    dim3 grid(one_block_each(ceil_div(layers * batch * heads * items, kBlock)), 2);
    launch("cache_compact", compact_kernel<Item>, grid, kBlock, 0, PassView(rows, nodes.size(1)),
           device_data<const int32_t>(nodes), static_cast<int>(batch), layers, keys.size(1), heads,
           keys.size(3), static_cast<int>(items), ::binade::cuda::fault_word(),
           device_data<Item>(keys), device_data<Item>(values));
  });
}

void cache_set_lengths(const PassRows& rows, bool add) {
  const int64_t batch = rows.counts.size(0);
  launch("cache_set_lengths", set_lengths_kernel, one_block_each(ceil_div(batch, kBlock)), kBlock,
         0, PassView(rows, 1), static_cast<int>(batch), add, device_data<int32_t>(rows.lengths));
}

}  // namespace binade::kernels::cuda
