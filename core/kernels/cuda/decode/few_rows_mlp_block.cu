// The second half of a Llama layer for few rows, and the norm of a stream that it leaves in parts.
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/decode/block_launch.cuh>
#include <binade/core/kernels/cuda/decode/mlp_block.cuh>

namespace binade::kernels::cuda {

namespace {

// Clusters that an MLP is cut into at most: as many as a device of 132 multiprocessors runs at
// once.
constexpr int64_t kMostClusters = 16;
template <class T>
MlpBlock<T> mlp_block(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& down) {
  MlpBlock<T> p{stream_rows<T>(in)};
  p.hidden = static_cast<int>(gate.weight.size(0));
  p.outputs = static_cast<int>(down.weight.size(0));
  p.tiles = tiles_each(p.hidden, kMostClusters * kCluster);
  p.out_tiles = tiles_each(p.outputs, kCluster);
  return p;
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

bool mlp_block_fits(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& down) {
  return fits(bytes_of(mlp_block<__half>(in, gate, down)));
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
      launch_block(name, mlp_block_kernel<kUnits, T>, mlp_block_parts(p.hidden), kBlockThreads, p);
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
