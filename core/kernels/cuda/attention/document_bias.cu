#include <binade/core/kernels/cuda/attention/document_bias.h>

#include <algorithm>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr float kLow = -3e4f;  // f16 goes down to −65504

// Block b·T + i writes a row.
template <class T>
__global__ void __launch_bounds__(kBlock)
    document_bias_kernel(const int32_t* documents, int length, int window, T* out) {
  const int64_t row = blockIdx.x;
  const int32_t* others = documents + row / length * length;
  const int32_t own = documents[row];
  const int first = static_cast<int>(row % length) + 1 - window;  // inside the window
  for (int j = threadIdx.x; j < length; j += kBlock)
    out[row * length + j] = narrow<T>(others[j] == own && j >= first ? 0.0f : kLow);
}

}  // namespace

Array document_bias(const Array& documents, int64_t window, DType dtype) {
  const int64_t batch = documents.size(0), length = documents.size(1);
  Array out = Array::empty({batch, 1, length, length}, dtype, documents.device());
  const auto run = [&]<class T>(T) {
    launch("document_bias", document_bias_kernel<T>, one_block_each(batch * length), kBlock, 0,
           device_data<const int32_t>(documents), static_cast<int>(length),
           static_cast<int>(window > 0 ? std::min(window, length) : length), device_data<T>(out));
  };
  switch (dtype) {
    case DType::f16:
      run(__half{});
      break;
    case DType::bf16:
      run(__nv_bfloat16{});
      break;
    case DType::f64:
      run(double{});
      break;
    default:
      run(float{});
  }
  return out;
}

}  // namespace binade::kernels::cuda
