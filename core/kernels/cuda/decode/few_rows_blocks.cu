// Halves of a Llama layer for few rows: how they are cut into blocks, and their launches.
#include <binade/core/kernels/few_rows.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/decode/attention_block.cuh>
#include <binade/core/kernels/cuda/decode/mlp_block.cuh>

namespace binade::kernels::cuda {

namespace {

// Clusters that an MLP is cut into at most: as many as a device of 132 multiprocessors runs at
// once.
constexpr int64_t kMostClusters = 16;
// Keys that a block reads for a pass, one tile of queries after the other; attention with more of
// them is better off with more blocks.
constexpr int64_t kMostKeys = 2048;

template <class T>
const T* data_or_null(const Array& array) {
  return array.defined() ? device_data<const T>(array) : nullptr;
}

template <class T>
StreamRows<T> stream_rows(const FewRows& in) {
  return {device_data<const T>(in.x),
          data_or_null<float>(in.parts),
          in.parts.defined() ? static_cast<int>(in.parts.size(0)) : 0,
          data_or_null<float>(in.norm),
          static_cast<float>(in.eps),
          in.sum.defined() ? device_data<T>(in.sum) : nullptr,
          static_cast<int>(in.x.size(0)),
          static_cast<int>(in.x.size(1))};
}

int tiles_each(int64_t rows, int64_t blocks) {
  return static_cast<int>(ceil_div(ceil_div(rows, kTile), blocks));
}

int64_t batch_of(const PassRows& rows, const Array& cached_keys) {
  return rows.slots.defined() ? rows.slots.size(0) : cached_keys.size(0);
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

template <class T>
MlpBlock<T> mlp_block(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& down) {
  MlpBlock<T> p{stream_rows<T>(in)};
  p.hidden = static_cast<int>(gate.weight.size(0));
  p.outputs = static_cast<int>(down.weight.size(0));
  p.tiles = tiles_each(p.hidden, kMostClusters * kCluster);
  p.out_tiles = tiles_each(p.outputs, kCluster);
  return p;
}

bool fits(int bytes) {
  return static_cast<size_t>(bytes) <= ::binade::cuda::device_properties().shared_bytes_per_block;
}

template <class Body>
void visit_half(DType dtype, const char* name, const Body& body) {
  if (dtype == DType::f16) return body(__half{});
  if (dtype == DType::bf16) return body(__nv_bfloat16{});
  fail(name, " takes f16 and bf16, got ", name_of(dtype));
}

// Calls body(integral_constant) with the units of eight of a kernel that takes so many rows.
template <class Body>
auto visit_units(int64_t rows, const Body& body) {
  if (rows <= kRowUnit) return body(std::integral_constant<int, 1>());
  if (rows <= kVeryFewRows) return body(std::integral_constant<int, kFewUnits>());
  return body(std::integral_constant<int, kMostUnits>());
}

// Shared memory that a block takes.
template <class Block>
int bytes_of(const Block& p) {
  return visit_units(p.in.rows, [&]<int kUnits>(std::integral_constant<int, kUnits>) {
    return places_of(p, first_splits(kUnits)).bytes;
  });
}

// launch_early() for blocks that have asked for more shared memory than a kernel has by itself.
template <class Block>
void launch_block(const char* name, void (*kernel)(Block), int64_t clusters, const Block& block) {
  const int bytes = bytes_of(block);
  ::binade::cuda::check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(one_block_each(clusters * kCluster));
  config.blockDim = kBlockThreads;
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = ::binade::cuda::current_stream();
  config.attrs = attributes;
  config.numAttrs = 2;
  nvtxRangePushA(name);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, block);
  nvtxRangePop();
  ::binade::cuda::check_cuda(status, name);
}

template <bool kWhole, int kUnits, class T>
void launch_attention(const char* name, const AttentionBlock<T>& p) {
  const auto kernel = p.dim == 64 ? attention_block_kernel<kWhole, kUnits, 64, T>
                                  : attention_block_kernel<kWhole, kUnits, 128, T>;
  launch_block(name, kernel, p.key_heads, p);
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    norm_kernel(const StreamRows<T> in, T* out, int64_t out_stride) {
  let_next_start();
  wait_for_previous();
  const int64_t begin = int64_t{blockIdx.x} * in.columns;
  T* row = out + int64_t{blockIdx.x} * out_stride;
  const auto value_at = [&](int c) {
    float sum = widen(in.x[begin + c]);
#pragma unroll 4
    for (int p = 0; p < in.part_count; ++p)
      sum += in.parts[int64_t{p} * in.rows * in.columns + begin + c];
    return narrow<T>(sum);
  };
  float squares = 0;
  for (int c = threadIdx.x; c < in.columns; c += kBlock) {
    const T value = value_at(c);
    row[c] = value;  // this thread comes back for it
    if (in.sum) in.sum[begin + c] = value;
    squares += widen(value) * widen(value);
  }
  squares = block_reduce<kBlock>(
      squares, [](float a, float b) { return a + b; }, 0.0f);
  const float rstd = rsqrtf(squares / static_cast<float>(in.columns) + in.eps);
  for (int c = threadIdx.x; c < in.columns; c += kBlock)
    row[c] = narrow<T>(widen(row[c]) * rstd * in.norm[c]);
}

}  // namespace

bool attention_inputs_block_fits(const FewRows& in, const FewRowsAttention& layers) {
  if (layers.head_dim != 64 && layers.head_dim != 128) return false;
  auto p = attention_block<__half>(in, layers, {}, 1, 0);
  p.queries = device_data<__half>(in.x);  // any: there is no attention
  return fits(bytes_of(p));
}

bool attention_block_fits(const FewRows& in, const FewRowsAttention& layers, const PassRows& rows,
                          const Array& cached_keys) {
  const auto p =
      attention_block<__half>(in, layers, rows, batch_of(rows, cached_keys), cached_keys.size(2));
  const int64_t items = int64_t{p.batch} * p.shares * ceil_div(p.slot_queries(), kQueryRows);
  if (p.in.rows > kVeryFewRows ||
      ceil_div(items, kCluster) * ceil_div(p.capacity, p.shares) > kMostKeys)
    return false;
  return fits(bytes_of(p));
}

bool mlp_block_fits(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& down) {
  return fits(bytes_of(mlp_block<__half>(in, gate, down)));
}

void few_rows_attention_block(const FewRows& in, const FewRowsAttention& layers,
                              const PassRows& rows, const Array& visible, float scale,
                              const Array& cached_keys, const Array& cached_values,
                              const Array& parts) {
  const char* name = "few_rows_attention_block";
  visit_half(in.x.dtype(), name, [&]<class T>(T) {
    AttentionBlock<T> p =
        attention_block<T>(in, layers, rows, batch_of(rows, cached_keys), cached_keys.size(2));
    p.visible = data_or_null<int64_t>(visible);
    p.visible_row = visible.defined() && visible.dims() == 2 ? p.pass.tokens : 0;
    p.keys = device_data<T>(cached_keys);
    p.values = device_data<T>(cached_values);
    p.parts = device_data<float>(parts);
    p.scale = scale * kLog2E;
    if (p.in.rows <= kRowUnit)
      launch_attention<true, 1>(name, p);
    else
      launch_attention<true, kFewUnits>(name, p);
  });
}

void few_rows_attention_inputs_block(const FewRows& in, const FewRowsAttention& layers,
                                     const PassRows& rows, const Array& queries,
                                     const Array& cached_keys, const Array& cached_values) {
  const char* name = "few_rows_attention_inputs_block";
  visit_half(in.x.dtype(), name, [&]<class T>(T) {
    AttentionBlock<T> p =
        attention_block<T>(in, layers, rows, batch_of(rows, cached_keys), cached_keys.size(2));
    p.keys = device_data<T>(cached_keys);
    p.values = device_data<T>(cached_values);
    p.queries = device_data<T>(queries);
    visit_units(p.in.rows, [&]<int kUnits>(std::integral_constant<int, kUnits>) {
      launch_attention<false, kUnits>(name, p);
    });
  });
}

int64_t mlp_block_parts(int64_t hidden) {
  return ceil_div(ceil_div(hidden, kTile), tiles_each(hidden, kMostClusters * kCluster) * kCluster);
}

void few_rows_mlp_block(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& up,
                        const FewRowsLayer& down, const Array& parts) {
  const char* name = "few_rows_mlp_block";
  visit_half(in.x.dtype(), name, [&]<class T>(T) {
    MlpBlock<T> p = mlp_block<T>(in, gate, down);
    p.gate = device_data<const T>(gate.weight);
    p.up = device_data<const T>(up.weight);
    p.down = device_data<const T>(down.weight);
    p.gate_bias = data_or_null<T>(gate.bias);
    p.up_bias = data_or_null<T>(up.bias);
    p.down_bias = data_or_null<T>(down.bias);
    p.parts = device_data<float>(parts);
    visit_units(p.in.rows, [&]<int kUnits>(std::integral_constant<int, kUnits>) {
      launch_block(name, mlp_block_kernel<kUnits, T>, mlp_block_parts(p.hidden), p);
    });
  });
}

void few_rows_norm(const FewRows& in, const Array& out) {
  visit_half(in.x.dtype(), "few_rows_norm", [&]<class T>(T) {
    launch_early("few_rows_norm", norm_kernel<T>, dim3(one_block_each(in.x.size(0))), kBlock,
                 EarlyOptions{}, stream_rows<T>(in), device_data<T>(out), out.stride(0));
  });
}

}  // namespace binade::kernels::cuda
