// The layers of a decoder for the few rows of a step of decoding: what core/kernels/few_rows.h has,
// where it suits the weights.
#include <binade/autograd/observer.h>
#include <binade/core/kernels/few_rows.h>
#include <binade/nn/models/llama.h>

namespace binade::nn {
namespace {

kernels::FewRowsLayer few_rows_layer(const Linear& linear) {
  return {linear.weight()->tensor().array(),
          linear.bias() ? linear.bias()->tensor().array() : Array()};
}

// Whether the layers are nothing but weights and biases that the kernels take.
bool suits(const kernels::FewRows& in, std::initializer_list<const Linear*> layers) {
  std::vector<kernels::FewRowsLayer> all;
  for (const Linear* layer : layers) {
    if (layer->adapter()) return false;
    all.push_back(few_rows_layer(*layer));
  }
  return kernels::suits_few_rows(in, all);
}

// Rows as wide as a layer's outputs, for the layer behind it.
kernels::FewRows rows_behind(const kernels::FewRows& in, const Linear& layer) {
  return {Array::empty({in.x.size(0), layer.out_features()}, in.x.dtype(), in.x.device()), {}, 0};
}

Array linear_and_add(const Array& x, const Linear& layer, const Array& residual) {
  Array out = Array::empty(residual.shape(), residual.dtype(), residual.device());
  if constexpr (kCudaBuilt) {
    const ::binade::cuda::DeviceScope scope(out.device());
    kernels::cuda::few_rows_linear(x, few_rows_layer(layer), residual, out);
  }
  return out;
}

// x (B, T, dim) as rows that go through a norm.
kernels::FewRows normed_rows(const Tensor& x, const RmsNorm& norm) {
  return {x.array().contiguous().view({x.size(0) * x.size(1), x.size(2)}),
          norm.weight()->tensor().array(), norm.eps()};
}

}  // namespace

Array KeyValueStore::attend_few_rows(int64_t, const kernels::FewRows&,
                                     const kernels::FewRowsAttention&, double) {
  fail("this key-value store takes projected rows only: see takes_few_rows()");
}

bool SelfAttention::decodes(const kernels::FewRows& in, const Sequence& sequence,
                            const RotaryTables& rotary) const {
  if (!sequence.cache || !sequence.cache->takes_few_rows() || q_norm_ || rotary.shared() ||
      2 * rotary.cos().size(1) != options_.head_size() || options_.head_size() % 16 != 0 ||
      !suits(in, {q_proj_.get(), k_proj_.get(), v_proj_.get()}))
    return false;
  return suits(rows_behind(in, *q_proj_), {o_proj_.get()});
}

Array SelfAttention::decode(const kernels::FewRows& in, const Array& residual,
                            const Sequence& sequence, const RotaryTables& rotary) const {
  const kernels::FewRowsAttention layers{few_rows_layer(*q_proj_), few_rows_layer(*k_proj_),
                                         few_rows_layer(*v_proj_), rotary.cos().array(),
                                         rotary.sin().array(),     options_.head_size()};
  const Array attended =
      sequence.cache->attend_few_rows(options_.layer, in, layers, options_.scale);
  return linear_and_add(attended, *o_proj_, residual);
}

bool SwigluMlp::decodes(const kernels::FewRows& in) const {
  return suits(in, {gate_proj_.get(), up_proj_.get()}) &&
         suits(rows_behind(in, *gate_proj_), {down_proj_.get()});
}

Array SwigluMlp::decode(const kernels::FewRows& in, const Array& residual) const {
  const kernels::FewRows hidden = rows_behind(in, *gate_proj_);
  if constexpr (kCudaBuilt) {
    const ::binade::cuda::DeviceScope scope(in.x.device());
    kernels::cuda::few_rows_swiglu(in, few_rows_layer(*gate_proj_), few_rows_layer(*up_proj_),
                                   hidden.x);
  }
  return linear_and_add(hidden.x, *down_proj_, residual);
}

bool LlamaBlock::decodes(const Tensor& x, const Sequence& sequence,
                         const RotaryTables& rotary) const {
  // An observer looks at every op.
  if (!sequence.cache || !sequence.cache->takes_few_rows() || grad_enabled() ||
      current_op_observer() != nullptr)
    return false;
  const kernels::FewRows in = normed_rows(x, *input_layernorm_);
  return self_attn_->decodes(in, sequence, rotary) && mlp_->decodes(in);
}

Tensor LlamaBlock::decode(const Tensor& x, const Sequence& sequence,
                          const RotaryTables& rotary) const {
  const kernels::FewRows in = normed_rows(x, *input_layernorm_);
  const Array middle = self_attn_->decode(in, in.x, sequence, rotary);
  const kernels::FewRows normed = {middle, post_attention_layernorm_->weight()->tensor().array(),
                                   post_attention_layernorm_->eps()};
  return Tensor(mlp_->decode(normed, middle).view(x.shape()));
}

}  // namespace binade::nn
