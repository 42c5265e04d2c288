#include <binade/core/kernels/few_rows.h>

#if BINADE_HAVE_CUDA
#include <binade/core/cuda/runtime.h>
#endif

#include <algorithm>

namespace binade::kernels {
namespace {

[[maybe_unused]] bool is_aligned(const Array& array) {
  return reinterpret_cast<uintptr_t>(array.data()) % 16 == 0;
}

}  // namespace

bool suits_few_rows([[maybe_unused]] const FewRows& in,
                    [[maybe_unused]] const std::vector<FewRowsLayer>& layers) {
#if BINADE_HAVE_CUDA
  const Array& x = in.x;
  if (!x.device().is_cuda() || (x.dtype() != DType::f16 && x.dtype() != DType::bf16)) return false;
  if (x.dims() != 2 || x.size(0) == 0 || x.size(0) > kMostFewRows || x.size(1) == 0 ||
      x.size(1) % 8 != 0 || !x.is_contiguous() || !is_aligned(x))
    return false;
  if (in.norm.defined() && (in.norm.dtype() != DType::f32 || !in.norm.is_contiguous() ||
                            in.norm.device() != x.device() || !is_aligned(in.norm)))
    return false;
  const auto suits = [&](const FewRowsLayer& layer) {
    const Array& weight = layer.weight;
    return weight.dtype() == x.dtype() && weight.device() == x.device() && weight.dims() == 2 &&
           weight.size(1) == x.size(1) && weight.size(0) % 8 == 0 && weight.is_contiguous() &&
           is_aligned(weight) &&
           (!layer.bias.defined() ||
            (layer.bias.dtype() == x.dtype() && layer.bias.is_contiguous() &&
             layer.bias.device() == x.device()));
  };
  if (!std::all_of(layers.begin(), layers.end(), suits)) return false;
  const ::binade::cuda::DeviceScope scope(x.device());
  return ::binade::cuda::device_properties().major >= 8;
#else
  return false;
#endif
}

}  // namespace binade::kernels
