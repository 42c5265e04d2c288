// The first half of a Llama layer for few rows: how it is cut into blocks, and its launch.
#include <binade/core/kernels/cuda/decode/attention_block.cuh>
#include <binade/core/kernels/cuda/decode/block_launch.cuh>

namespace binade::kernels::cuda {

namespace {

// Keys that a block reads for a pass; attention with more of them is better off with more blocks.
constexpr int64_t kMostKeys = 2048;

// Of the heads of blocks with attention: registers are short for more.
constexpr int kWholeDim = 64;

int64_t batch_of(const PassRows& rows, int64_t slots) {
  return rows.slots.defined() ? rows.slots.size(0) : slots;
}

// Without the cache and the outputs' places.
template <class T>
AttentionBlock<T> attention_block(const FewRows& in, const FewRowsAttention& layers,
                                  const PassRows& rows, int64_t batch, int64_t capacity) {
  const auto dim = static_cast<int>(layers.head_dim);
  AttentionBlock<T> p{
      stream_rows<T>(in),
      {device_data<const T>(layers.query.weight), device_data<const T>(layers.key.weight),
       device_data<const T>(layers.value.weight)},
      {data_or_null<T>(layers.query.bias), data_or_null<T>(layers.key.bias),
       data_or_null<T>(layers.value.bias)},
      data_or_null<T>(layers.output.weight),
      data_or_null<T>(layers.output.bias),
      device_data<const float>(layers.cos),
      device_data<const float>(layers.sin),
      PassView(rows, in.x.size(0) / batch)};
  p.heads = static_cast<int>(layers.query.weight.size(0)) / dim;
  p.key_heads = static_cast<int>(layers.key.weight.size(0)) / dim;
  p.dim = dim;
  p.capacity = static_cast<int>(capacity);
  p.outputs = layers.output.weight.defined() ? static_cast<int>(layers.output.weight.size(0)) : 0;
  p.batch = static_cast<int>(batch);
  p.pairs = tiles_each((p.group() + 2) * dim / 2, kCluster);
  p.out_tiles = tiles_each(p.outputs, kCluster);
  const int64_t queries = batch * ceil_div(p.slot_queries(), kQueryRows);
  p.shares = 1;
  while (2 * p.shares * queries <= kCluster) p.shares *= 2;
  return p;
}

}  // namespace

bool attention_inputs_block_fits(const FewRows& in, const FewRowsAttention& layers) {
  if (layers.head_dim != 64 && layers.head_dim != 128) return false;
  auto p = attention_block<__half>(in, layers, {}, 1, 0);
  p.queries = device_data<__half>(in.x);  // any: there is no attention
  return fits(bytes_of(p));
}

bool attention_block_fits(const FewRows& in, const FewRowsAttention& layers, const PassRows& rows,
                          int64_t slots, int64_t capacity) {
  const auto p = attention_block<__half>(in, layers, rows, batch_of(rows, slots), capacity);
  const int64_t items = int64_t{p.batch} * p.shares * ceil_div(p.slot_queries(), kQueryRows);
  // A block that would answer one tile of queries after the other leaves most of the device idle.
  if (p.dim != kWholeDim || p.in.rows > kVeryFewRows || items > kCluster ||
      ceil_div(p.capacity, p.shares) > kMostKeys)
    return false;
  return fits(bytes_of(p));
}

void few_rows_attention_block(const FewRows& in, const FewRowsAttention& layers,
                              const PassRows& rows, const Array& visible, float scale,
                              const Array& cached_keys, const Array& cached_values,
                              const Array& parts) {
  const char* name = "few_rows_attention_block";
  visit_half(in.x.dtype(), name, [&]<class T>(T) {
    AttentionBlock<T> p = attention_block<T>(in, layers, rows, batch_of(rows, cached_keys.size(0)),
                                             cached_keys.size(2));
    p.visible = data_or_null<int64_t>(visible);
    p.visible_row = visible.defined() && visible.dims() == 2 ? p.pass.tokens : 0;
    p.keys = device_data<T>(cached_keys);
    p.values = device_data<T>(cached_values);
    p.parts = device_data<float>(parts);
    p.scale = scale * kLog2E;
    launch_block(name,
                 p.in.rows <= kRowUnit ? attention_block_kernel<true, 1, kWholeDim, T>
                                       : attention_block_kernel<true, kFewUnits, kWholeDim, T>,
                 p.key_heads, attention_threads(true), p);
  });
}

void few_rows_attention_inputs_block(const FewRows& in, const FewRowsAttention& layers,
                                     const PassRows& rows, const Array& queries,
                                     const Array& cached_keys, const Array& cached_values) {
  const char* name = "few_rows_attention_inputs_block";
  visit_half(in.x.dtype(), name, [&]<class T>(T) {
    AttentionBlock<T> p = attention_block<T>(in, layers, rows, batch_of(rows, cached_keys.size(0)),
                                             cached_keys.size(2));
    p.keys = device_data<T>(cached_keys);
    p.values = device_data<T>(cached_values);
    p.queries = device_data<T>(queries);
    const auto with = [&]<int kDim>(std::integral_constant<int, kDim>) {
      launch_block(name,
                   p.in.rows <= kVeryFewRows ? attention_block_kernel<false, kFewUnits, kDim, T>
                                             : attention_block_kernel<false, kMostUnits, kDim, T>,
                   p.key_heads, attention_threads(false), p);
    };
    if (p.dim == 64)
      with(std::integral_constant<int, 64>());
    else
      with(std::integral_constant<int, 128>());
  });
}

}  // namespace binade::kernels::cuda
