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

#if BINADE_HAVE_CUDA
namespace {

// The stream that enters a block, and whether the device has clusters.
bool suits_block(const FewRows& in) {
  const Array& x = in.x;
  const auto is_stream = [&](const Array& rows) {
    return rows.device() == x.device() && rows.is_contiguous() && is_aligned(rows);
  };
  if (!in.norm.defined() || !in.sum.defined() || in.sum.shape() != x.shape() ||
      in.sum.dtype() != x.dtype() || !is_stream(in.sum))
    return false;
  if (in.parts.defined() &&
      (in.parts.dims() != 3 || in.parts.size(1) != x.size(0) || in.parts.size(2) != x.size(1) ||
       in.parts.dtype() != DType::f32 || !is_stream(in.parts)))
    return false;
  const ::binade::cuda::DeviceScope scope(x.device());
  return ::binade::cuda::device_properties().major >= 9;
}

// Whether a layer takes so many columns.
bool continues(const FewRows& in, const FewRowsLayer& layer, int64_t columns) {
  const FewRows between{Array::empty({in.x.size(0), columns}, in.x.dtype(), in.x.device()), {}, 0};
  return suits_few_rows(between, {layer});
}

// Whether the projections are whole heads, as many queries for each key head.
bool are_heads(const FewRowsAttention& layers) {
  const int64_t dim = layers.head_dim, queries = layers.query.weight.size(0),
                keys = layers.key.weight.size(0);
  return dim > 0 && keys > 0 && keys % dim == 0 && queries % keys == 0 &&
         layers.value.weight.size(0) == keys;
}

}  // namespace
#endif

bool suits_attention_inputs_block([[maybe_unused]] const FewRows& in,
                                  [[maybe_unused]] const FewRowsAttention& layers) {
#if BINADE_HAVE_CUDA
  if (!suits_few_rows(in, {layers.query, layers.key, layers.value}) || !are_heads(layers) ||
      !suits_block(in))
    return false;
  const ::binade::cuda::DeviceScope scope(in.x.device());
  return cuda::attention_inputs_block_fits(in, layers);
#else
  return false;
#endif
}

bool suits_attention_block([[maybe_unused]] const FewRows& in,
                           [[maybe_unused]] const FewRowsAttention& layers,
                           [[maybe_unused]] const PassRows& rows, [[maybe_unused]] int64_t slots,
                           [[maybe_unused]] int64_t capacity) {
#if BINADE_HAVE_CUDA
  if (!suits_attention_inputs_block(in, layers) || !layers.output.weight.defined() ||
      !continues(in, layers.output, layers.query.weight.size(0)))
    return false;
  const ::binade::cuda::DeviceScope scope(in.x.device());
  return cuda::attention_block_fits(in, layers, rows, slots, capacity);
#else
  return false;
#endif
}

bool suits_mlp_block([[maybe_unused]] const FewRows& in, [[maybe_unused]] const FewRowsLayer& gate,
                     [[maybe_unused]] const FewRowsLayer& up,
                     [[maybe_unused]] const FewRowsLayer& down) {
#if BINADE_HAVE_CUDA
  if (!suits_few_rows(in, {gate, up}) || !suits_block(in) ||
      !continues(in, down, gate.weight.size(0)))
    return false;
  const ::binade::cuda::DeviceScope scope(in.x.device());
  return cuda::mlp_block_fits(in, gate, down);
#else
  return false;
#endif
}

}  // namespace binade::kernels
