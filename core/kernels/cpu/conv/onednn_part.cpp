#include <binade/core/kernels/cpu/conv/onednn_part.h>

#if BINADE_HAVE_ONEDNN

#include <omp.h>

#include <string_view>

namespace binade::kernels::cpu {

namespace {

using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}
const dnnl::stream& stream() {
  thread_local const dnnl::stream own(engine());
  return own;
}

// Kernels are made for the calling thread alone: their work is a part of the whole already.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_ = omp_get_max_threads();
};

Desc plain(const Dims& dims, const Dims& strides) {
  return {dims, dnnl::memory::data_type::f32, strides};
}
Desc any(const Desc& desc) {
  return {desc.dims(), dnnl::memory::data_type::f32, dnnl::memory::format_tag::any};
}
Desc weight_desc(const ConvPart& part) {
  const int64_t row = part.columns.kernel, plane = part.rows.kernel * row;
  const int64_t channels = part.channels / part.groups, filters = part.filters / part.groups;
  if (part.groups == 1)
    return plain({filters, channels, part.rows.kernel, row}, {part.weight_filter, plane, row, 1});
  return plain({part.groups, filters, channels, part.rows.kernel, row},
               {filters * part.weight_filter, part.weight_filter, plane, row, 1});
}

// Memory of a thread for each role that a buffer can have.
enum Buffer { kX, kY, kScratchpad, kBuffers };
float* buffer(Buffer role, int64_t numbers) {
  thread_local Workspace<float> buffers[kBuffers];
  return buffers[role].reserve(numbers);
}
int64_t numbers(const Desc& desc) {
  return static_cast<int64_t>((desc.get_size() + sizeof(float) - 1) / sizeof(float));
}

dnnl::memory memory(const Desc& desc, const float* data) {
  return {desc, engine(), const_cast<float*>(data)};
}

void move(const dnnl::reorder& reorder, const Desc& from, const float* data, const Desc& to,
          float* target) {
  dnnl::memory source = memory(from, data), destination = memory(to, target);
  reorder.execute(stream(), source, destination);
}

}  // namespace

OneDnnPart::Layout OneDnnPart::inward(const Desc& plain, const Desc& blocked) {
  if (plain == blocked) return {plain, blocked, {}};
  return {plain, blocked, dnnl::reorder({engine(), plain, engine(), blocked})};
}
OneDnnPart::Layout OneDnnPart::outward(const Desc& plain, const Desc& blocked, bool accumulate) {
  if (plain == blocked && !accumulate) return {plain, blocked, {}};
  dnnl::primitive_attr attributes;
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.f);
    attributes.set_post_ops(sum);
  }
  return {plain, blocked, dnnl::reorder({engine(), blocked, engine(), plain, attributes})};
}

template <class Kernel>
void OneDnnPart::choose(const typename Kernel::primitive_desc& chosen) {
  // Others are not worth their way: a loop over the definition, or a matmul of copied patches.
  if (!std::string_view(chosen.impl_info_str()).starts_with("jit"))
    throw dnnl::error(dnnl_unimplemented, "no direct kernel");
  kernel_ = Kernel(chosen);
  scratchpad_ = chosen.scratchpad_desc();
}

OneDnnPart::OneDnnPart(const ConvPart& part) : pass_(part.pass) {
  const OneThread one;
  const ConvPartAxis &rows = part.rows, &columns = part.columns;
  const Desc x = plain({part.images, part.channels, rows.size, columns.size},
                       {part.x_image, part.x_plane, columns.size, 1});
  const Desc y = plain({part.images, part.filters, rows.outputs, columns.outputs},
                       {part.y_image, part.y_plane, columns.outputs, 1});
  const Desc weight = weight_desc(part);
  const Dims strides{rows.stride, columns.stride};
  const Dims dilation{rows.dilation - 1, columns.dilation - 1};
  const Dims before{rows.before, columns.before}, after{rows.after, columns.after};
  if (part.bias) bias_ = plain({part.filters}, {1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;

  const dnnl::convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, direct, any(x), any(weight), bias_, any(y), strides,
       dilation, before, after},
      attributes, engine());
  switch (part.pass) {
    case ConvPass::output:
      choose<dnnl::convolution_forward>(forward);
      x_ = inward(x, forward.src_desc());
      weight_ = inward(weight, forward.weights_desc());
      y_ = outward(y, forward.dst_desc(), false);
      break;
    case ConvPass::input_gradient: {
      const dnnl::convolution_backward_data::primitive_desc backward(
          {direct, any(x), any(weight), any(y), strides, dilation, before, after}, attributes,
          engine(), forward);
      choose<dnnl::convolution_backward_data>(backward);
      y_ = inward(y, backward.diff_dst_desc());
      weight_ = inward(weight, backward.weights_desc());
      x_ = outward(x, backward.diff_src_desc(), part.accumulate);
      break;
    }
    case ConvPass::weight_gradient: {
      const dnnl::convolution_backward_weights::primitive_desc backward(
          {direct, any(x), any(weight), any(y), strides, dilation, before, after}, attributes,
          engine(), forward);
      choose<dnnl::convolution_backward_weights>(backward);
      x_ = inward(x, backward.src_desc());
      y_ = inward(y, backward.diff_dst_desc());
      weight_ = outward(weight, backward.diff_weights_desc(), part.accumulate);
      break;
    }
  }
}

int64_t OneDnnPart::weight_numbers() const {
  return numbers(weight_.blocked);
}
int64_t OneDnnPart::source_numbers() const {
  return numbers(source().blocked);
}
bool OneDnnPart::shares_source_with(const OneDnnPart& other) const {
  return source().blocked == other.source().blocked;
}
bool OneDnnPart::shares_weight_with(const OneDnnPart& other) const {
  return weight_.blocked == other.weight_.blocked;
}

void OneDnnPart::pack(const Layout& layout, const float* from, float* packed) {
  if (layout.move) return move(*layout.move, layout.plain, from, layout.blocked, packed);
  std::copy_n(from, numbers(layout.blocked), packed);
}
void OneDnnPart::pack_weight(const float* weight, float* packed) const {
  pack(weight_, weight, packed);
}
void OneDnnPart::pack_source(const float* from, float* packed) const {
  pack(source(), from, packed);
}
void OneDnnPart::unpack_weight(const float* packed, float* weight) const {
  if (weight_.move) return move(*weight_.move, weight_.blocked, packed, weight_.plain, weight);
  std::copy_n(packed, weight_numbers(), weight);
}

// The arguments of one run.
class OneDnnPart::Run {
 public:
  explicit Run(const OneDnnPart& part) : part_(part) {
    arguments_.emplace(DNNL_ARG_SCRATCHPAD,
                       memory(part.scratchpad_, buffer(kScratchpad, numbers(part.scratchpad_))));
  }
  void give(int role, const Desc& desc, const float* data) {
    arguments_.emplace(role, memory(desc, data));
  }
  void read(int role, const Layout& layout, const float* data, Buffer own) {
    if (layout.move) {
      float* const blocked = buffer(own, numbers(layout.blocked));
      move(*layout.move, layout.plain, data, layout.blocked, blocked);
      data = blocked;
    }
    give(role, layout.blocked, data);
  }
  void read(int role, const Layout& layout, Source source, Buffer own) {
    if (source.packed)
      give(role, layout.blocked, source.data);
    else
      read(role, layout, source.data, own);
  }
  void execute() { part_.kernel_.execute(stream(), arguments_); }
  void write(int role, const Layout& layout, float* data, Buffer own) {
    float* const blocked = layout.move ? buffer(own, numbers(layout.blocked)) : data;
    give(role, layout.blocked, blocked);
    execute();
    if (layout.move) move(*layout.move, layout.blocked, blocked, layout.plain, data);
  }

 private:
  const OneDnnPart& part_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

void OneDnnPart::output(Source source, const float* weight, const float* bias, float* y) const {
  Run run(*this);
  run.read(DNNL_ARG_SRC, x_, source, kX);
  run.give(DNNL_ARG_WEIGHTS, weight_.blocked, weight);
  if (bias != nullptr) run.give(DNNL_ARG_BIAS, bias_, bias);
  run.write(DNNL_ARG_DST, y_, y, kY);
}

void OneDnnPart::input_gradient(Source source, const float* weight, float* dx) const {
  Run run(*this);
  run.read(DNNL_ARG_DIFF_DST, y_, source, kY);
  run.give(DNNL_ARG_WEIGHTS, weight_.blocked, weight);
  run.write(DNNL_ARG_DIFF_SRC, x_, dx, kX);
}

void OneDnnPart::weight_gradient(Source source, const float* dy, float* dweight) const {
  Run run(*this);
  run.read(DNNL_ARG_SRC, x_, source, kX);
  run.read(DNNL_ARG_DIFF_DST, y_, dy, kY);
  run.give(DNNL_ARG_DIFF_WEIGHTS, weight_.blocked, dweight);
  run.execute();
}

}  // namespace binade::kernels::cpu

#endif
