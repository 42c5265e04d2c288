// The layers of a decoder for the few rows of a step of decoding: what core/kernels/few_rows.h has,
// where it suits the weights.
#include <binade/nn/decode.h>

#include <binade/autograd/observer.h>
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

// residual: or undefined.
Array linear_and_add(const Array& x, const Linear& layer, const Array& residual) {
  Array out = Array::empty({x.size(0), layer.out_features()}, x.dtype(), x.device());
  if constexpr (kCudaBuilt) {
    const ::binade::cuda::DeviceScope scope(out.device());
    kernels::cuda::few_rows_linear(x, few_rows_layer(layer), residual, out);
  }
  return out;
}

// The rows in front of a norm; `sum` is where they go in one piece.
kernels::FewRows before_norm(const kernels::FewRows& stream, const RmsNorm& norm,
                             const Array& sum = {}) {
  return {stream.x, norm.weight()->tensor().array(), norm.eps(), stream.parts, sum};
}

Array like(const Array& x) {
  return Array::empty(x.shape(), x.dtype(), x.device());
}

// The shape of x with another last size.
Shape with_last(Shape shape, int64_t size) {
  shape[shape.dims() - 1] = size;
  return shape;
}

// out: rows (M, dim) of any stride.
void norm_few_rows(const kernels::FewRows& in, const Array& out) {
  if constexpr (kCudaBuilt) {
    const ::binade::cuda::DeviceScope scope(out.device());
    kernels::cuda::few_rows_norm(in, out);
  }
}

// Whether nobody wants to see the ops that the kernels take the place of.
bool unseen() {
  return !grad_enabled() && current_op_observer() == nullptr;
}

}  // namespace

kernels::FewRows few_rows(const Tensor& x) {
  return {x.array().contiguous().view({x.numel() / x.size(-1), x.size(-1)}), {}, 0};
}

DecodedStream decoded_norm(const kernels::FewRows& stream, const RmsNorm& norm) {
  if (!stream.parts.defined()) return {stream.x, norm.forward(Tensor(stream.x)).array()};
  DecodedStream decoded{like(stream.x), like(stream.x)};
  norm_few_rows(before_norm(stream, norm, decoded.whole), decoded.normed);
  return decoded;
}

bool is_few_rows(const Tensor& x) {
  return unseen() && x.device().is_cuda() && x.numel() <= kernels::kMostFewRows * x.size(-1);
}

kernels::FewRows joined_rows(const std::vector<NormedInput>& inputs) {
  const Tensor& x = inputs.front().x;
  int64_t width = 0;
  for (const NormedInput& input : inputs) width += input.x.size(-1);
  return {Array::empty({x.numel() / x.size(-1), width}, x.dtype(), x.device()), {}, 0};
}

void put_norms(const std::vector<NormedInput>& inputs, const kernels::FewRows& joined) {
  int64_t begin = 0;
  for (const NormedInput& input : inputs) {
    const int64_t end = begin + input.x.size(-1);
    const Array to = joined.x.slice(1, begin, end);
    if (input.norm)
      norm_few_rows(before_norm(few_rows(input.x), *input.norm), to);
    else
      to.copy_from(few_rows(input.x).x);
    begin = end;
  }
}

bool decodes_layer(const SelfAttention& attention, const GatedMlp& mlp, const RmsNorm& norm,
                   const kernels::FewRows& read, const kernels::FewRows& residual,
                   const Sequence& sequence, const RotaryTables& rotary) {
  return sequence.cache && !norm.from_one() && attention.decodes(read, sequence, rotary) &&
         mlp.decodes(before_norm(residual, norm));
}

kernels::FewRows decode_layer(const SelfAttention& attention, const GatedMlp& mlp,
                              const RmsNorm& norm, const kernels::FewRows& read,
                              const kernels::FewRows& residual, const Sequence& sequence,
                              const RotaryTables& rotary) {
  const Array middle = attention.decode(read, residual.x, sequence, rotary);
  return {mlp.decode(before_norm({middle, {}, 0}, norm), middle), {}, 0};
}

Tensor few_rows_of_norms(const std::vector<NormedInput>& inputs, const Linear& layer) {
  const Tensor& x = inputs.front().x;
  if (!is_few_rows(x) || x.dtype() != layer.weight()->tensor().dtype()) return {};
  const kernels::FewRows joined = joined_rows(inputs);
  if (joined.x.size(1) != layer.in_features() || !suits(joined, {&layer})) return {};
  put_norms(inputs, joined);
  return Tensor(
      linear_and_add(joined.x, layer, {}).view(with_last(x.shape(), layer.out_features())));
}

Tensor output_logits(const Tensor& hidden, const Tensor& weight) {
  if (!unseen() || !hidden.device().is_cuda() ||
      hidden.numel() > kernels::kVeryFewRows * hidden.size(-1))
    return linear(hidden, weight);
  const kernels::FewRows in = few_rows(hidden);
  const kernels::FewRowsLayer layer{weight.array(), {}};
  if (!kernels::suits_few_rows(in, {layer})) return linear(hidden, weight);
  const Array out = Array::empty({in.x.size(0), weight.size(0)}, in.x.dtype(), in.x.device());
  if constexpr (kCudaBuilt) {
    const ::binade::cuda::DeviceScope scope(out.device());
    kernels::cuda::few_rows_linear(in.x, layer, {}, out);
  }
  return Tensor(out.view(with_last(hidden.shape(), weight.size(0))));
}

Array KeyValueStore::attend_few_rows(int64_t, const kernels::FewRows&,
                                     const kernels::FewRowsAttention&, double) {
  fail("this key-value store takes projected rows only: see takes_few_rows()");
}

kernels::FewRowsAttention SelfAttention::decoded_layers(const RotaryTables& rotary,
                                                        bool with_output) const {
  kernels::FewRowsAttention layers{few_rows_layer(*q_proj_), few_rows_layer(*k_proj_),
                                   few_rows_layer(*v_proj_), rotary.cos().array(),
                                   rotary.sin().array(),     options_.head_size()};
  if (with_output) layers.output = few_rows_layer(*o_proj_);
  return layers;
}

bool SelfAttention::decodes(const kernels::FewRows& in, const Sequence& sequence,
                            const RotaryTables& rotary) const {
  if (!sequence.cache || !sequence.cache->takes_few_rows(options_.window) || q_norm_ || qkv_proj_ ||
      !options_.rotary || rotary.shared() || 2 * rotary.cos().size(1) != options_.head_size() ||
      options_.head_size() % 16 != 0 || !suits(in, {q_proj_.get(), k_proj_.get(), v_proj_.get()}) ||
      !suits(rows_behind(in, *q_proj_), {o_proj_.get()}))
    return false;
  const int64_t rows = in.x.size(0);
  if (!in.sum.defined()) return rows <= kernels::kFewRowsApart;
  // From two rows on attention is faster in a kernel of its own, with many blocks.
  const kernels::FewRowsAttention layers = decoded_layers(rotary, true);
  if (rows <= kernels::kFewRowsApart)
    return rows == 1 && sequence.cache->attends_in_block(in, layers);
  return kernels::suits_attention_inputs_block(in, layers);
}

Array SelfAttention::decode(const kernels::FewRows& in, const Array& residual,
                            const Sequence& sequence, const RotaryTables& rotary) const {
  const kernels::FewRowsAttention layers = decoded_layers(rotary, in.sum.defined());
  const Array attended =
      sequence.cache->attend_few_rows(options_.layer, in, layers, options_.scale);
  if (attended.dims() == 3) return attended;
  return linear_and_add(attended, *o_proj_, residual);
}

bool GatedMlp::decodes(const kernels::FewRows& in) const {
  if (gate_up_proj_ || activation_ != Activation::silu) return false;
  if (!suits(in, {gate_proj_.get(), up_proj_.get()}) ||
      !suits(rows_behind(in, *gate_proj_), {down_proj_.get()}))
    return false;
  if (!in.sum.defined()) return in.x.size(0) <= kernels::kFewRowsApart;
  return kernels::suits_mlp_block(in, few_rows_layer(*gate_proj_), few_rows_layer(*up_proj_),
                                  few_rows_layer(*down_proj_));
}

Array GatedMlp::decode(const kernels::FewRows& in, const Array& residual) const {
  if (in.sum.defined()) {
    Array parts;
    if constexpr (kCudaBuilt) {
      const ::binade::cuda::DeviceScope scope(in.x.device());
      parts = Array::empty({kernels::cuda::mlp_block_parts(gate_proj_->out_features()),
                            in.x.size(0), down_proj_->out_features()},
                           DType::f32, in.x.device());
      kernels::cuda::few_rows_mlp_block(in, few_rows_layer(*gate_proj_), few_rows_layer(*up_proj_),
                                        few_rows_layer(*down_proj_), parts);
    }
    return parts;
  }
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
  // Norms elsewhere or from one are not what the kernels compute.
  if (!sequence.cache || !unseen() || !input_layernorm_ || attention_norm_ || mlp_norm_ ||
      input_layernorm_->from_one())
    return false;
  const kernels::FewRows in = before_norm(few_rows(x), *input_layernorm_);
  return (self_attn_->decodes(in, sequence, rotary) && mlp_->decodes(in)) ||
         decodes_in_parts(few_rows(x), sequence, rotary);
}

// Both halves, or neither: what one leaves in parts the other has to take.
bool LlamaBlock::decodes_in_parts(const kernels::FewRows& stream, const Sequence& sequence,
                                  const RotaryTables& rotary) const {
  const kernels::FewRows in = before_norm(stream, *input_layernorm_, stream.x);
  return self_attn_->decodes(in, sequence, rotary) && mlp_->decodes(in);
}

Array LlamaBlock::decode(kernels::FewRows& stream, const Sequence& sequence,
                         const RotaryTables& rotary) const {
  const auto place_of = [](const kernels::FewRows& rows) {  // of the rows in one piece
    return rows.parts.defined() ? like(rows.x) : rows.x;
  };
  const bool in_parts = decodes_in_parts(stream, sequence, rotary);
  check(in_parts || !stream.parts.defined(),
        "a residual stream came in parts to a layer that takes it in one piece");
  Array entered = place_of(stream);
  const kernels::FewRows in = before_norm(stream, *input_layernorm_, in_parts ? entered : Array());
  const Array attended = self_attn_->decode(in, entered, sequence, rotary);
  stream = attended.dims() == 3 ? kernels::FewRows{entered, {}, 0, attended}
                                : kernels::FewRows{attended, {}, 0};
  const Array middle = place_of(stream);
  const Array behind =
      mlp_->decode(before_norm(stream, *pre_mlp_norm_, in_parts ? middle : Array()), middle);
  stream = in_parts ? kernels::FewRows{middle, {}, 0, behind} : kernels::FewRows{behind, {}, 0};
  return entered;
}

}  // namespace binade::nn
