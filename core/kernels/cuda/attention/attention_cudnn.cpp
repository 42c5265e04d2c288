// The only file that includes cudnn_frontend.h, which takes long to compile.
#include <binade/core/kernels/cuda/attention/attention_cudnn.h>

#define CUDNN_FRONTEND_SKIP_JSON_LIB  // graphs are not written to files
#include <cudnn_frontend.h>

#include <bit>
#include <initializer_list>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include <binade/core/cuda/libraries.h>
#include <binade/core/cuda/library_handles.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/log.h>

#include <binade/core/kernels/cuda/common/device_pointer.h>

namespace binade::kernels::cuda {

namespace {

namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// Names of the arrays in a graph.
enum Uid : int64_t { kQ = 1, kK, kV, kOut, kLogsumexp, kDOut, kDQ, kDK, kDV, kBias };

constexpr int64_t kMaxHeadSize = 256;

struct Plan {
  std::unique_ptr<Graph> graph;  // null: cuDNN does not take this problem
  int64_t workspace_bytes = 0;
};

bool takes(const AttentionParams& params, const Array& q, const Array& k, const Array& logsumexp,
           std::initializer_list<const Array*> views) {
  if (!is_half(q.dtype()) || params.mask.defined() || params.splits.defined() || params.dropout > 0)
    return false;
  if (params.causal && q.size(2) > k.size(2)) return false;
  // One query a head is a token being decoded: the keys grow by one every time, and a plan for each
  // length would cost far more than the plain matmuls do.
  if (q.size(2) == 1) return false;
  if (q.numel() == 0 || k.numel() == 0 || q.size(3) % 8 != 0 || q.size(3) > kMaxHeadSize)
    return false;
  if (logsumexp.dtype() != DType::f32 || !logsumexp.is_contiguous()) return false;
  for (const Array* view : views) {
    if (view->dtype() != q.dtype() || view->stride(3) != 1) return false;
    if (std::bit_cast<uintptr_t>(view->data()) % 16 != 0) return false;
    for (int dim = 0; dim < 3; ++dim)
      if (view->size(dim) > 1 && (view->stride(dim) <= 0 || view->stride(dim) % 8 != 0))
        return false;
  }
  return true;
}

// All that a plan depends on.
std::vector<int64_t> key_of(const AttentionParams& params, bool backward, bool biased,
                            std::initializer_list<const Array*> views) {
  std::vector<int64_t> key = {binade::cuda::current_device(),
                              backward,
                              backward && binade::cuda::deterministic(),
                              params.causal,
                              params.window,
                              biased,
                              std::bit_cast<int32_t>(static_cast<float>(params.scale))};
  for (const Array* view : views) {
    key.push_back(static_cast<int64_t>(view->dtype()));
    key.insert(key.end(), view->shape().begin(), view->shape().end());
    key.insert(key.end(), view->strides().begin(), view->strides().end());
  }
  return key;
}

// The dims or strides of a view. Dimensions of size 1 get the stride they would have in a dense
// array: theirs says nothing, and cuDNN takes some for an overlap.
std::vector<int64_t> dims_of(const Array& view) {
  return {view.shape().begin(), view.shape().end()};
}
std::vector<int64_t> strides_of(const Array& view) {
  std::vector<int64_t> strides(view.strides().begin(), view.strides().end());
  strides[3] = 1;
  for (int dim = 2; dim >= 0; --dim)
    if (view.size(dim) == 1) strides[dim] = strides[dim + 1] * view.size(dim + 1);
  return strides;
}

std::unique_ptr<Graph> new_graph(const Array& q) {
  auto graph = std::make_unique<Graph>();
  graph->set_io_data_type(q.dtype() == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

Tensor input(Graph& graph, const Array& view, Uid uid) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_uid(uid)
                          .set_dim(dims_of(view))
                          .set_stride(strides_of(view)));
}

void output(const Tensor& tensor, const Array& view, Uid uid) {
  tensor->set_output(true).set_uid(uid).set_dim(dims_of(view)).set_stride(strides_of(view));
}

// logsumexp (B, Hq, Tq) as cuDNN's (B, Hq, Tq, 1).
Array as_statistics(const Array& logsumexp) {
  return logsumexp.unsqueeze(3);
}

template <class Options>
Options options_of(const AttentionParams& params, const Array& q, const Array& k) {
  Options options;
  options.set_name("attention").set_attn_scale(static_cast<float>(params.scale));
  if (params.causal && q.size(2) > 1) {  // a single query sees every key
    options
        .set_diagonal_alignment(q.size(2) == k.size(2) ? fe::DiagonalAlignment_t::TOP_LEFT
                                                       : fe::DiagonalAlignment_t::BOTTOM_RIGHT)
        .set_diagonal_band_right_bound(0);
    if (params.window > 0) options.set_diagonal_band_left_bound(params.window);
  }
  return options;
}

Plan build(std::unique_ptr<Graph> graph, const Array& q, const Array& k) {
  Plan plan;
  fe::error_t status = graph->build(binade::cuda::cudnn_handle(), {fe::HeurMode_t::A});
  if (status.is_good()) status = graph->get_workspace_size(plan.workspace_bytes);
  if (status.is_good()) {
    plan.graph = std::move(graph);
  } else {
    log_warning("attention of queries ", q.shape(), " and keys ", k.shape(),
                " goes without cuDNN's fused kernels and needs more time and memory: ",
                status.get_message());
  }
  return plan;
}

// The plan of a key, built at its first use. Plans belong to the thread, as cuDNN's handle does.
template <class Build>
const Plan& plan_of(const std::vector<int64_t>& key, const Build& make) {
  thread_local std::map<std::vector<int64_t>, Plan> plans;
  const auto found = plans.find(key);
  return found != plans.end() ? found->second : plans.emplace(key, make()).first->second;
}

bool execute(const Plan& plan, const Array& bias, std::unordered_map<int64_t, void*> arrays) {
  if (!plan.graph) return false;
  if (bias.defined()) arrays[kBias] = device_pointer(bias);
  const Array scratch = binade::cuda::workspace(plan.workspace_bytes);
  fe::error_t status = plan.graph->execute(binade::cuda::cudnn_handle(), arrays, scratch.data());
  check(status.is_good(), "cuDNN's attention failed: ", status.get_message());
  return true;
}

}  // namespace

bool cudnn_attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
                     const Array& bias, const Array& out, const Array& logsumexp) {
  const std::initializer_list<const Array*> views = {&q, &k, &v, &out};
  if (!takes(params, q, k, logsumexp, views)) return false;
  const Plan& plan = plan_of(key_of(params, false, bias.defined(), views), [&] {
    std::unique_ptr<Graph> graph = new_graph(q);
    auto options = options_of<fe::graph::SDPA_attributes>(params, q, k);
    options.set_generate_stats(true);
    if (bias.defined()) options.set_bias(input(*graph, bias, kBias));
    const auto [attended, statistics] =
        graph->sdpa(input(*graph, q, kQ), input(*graph, k, kK), input(*graph, v, kV), options);
    output(attended, out, kOut);
    output(statistics, as_statistics(logsumexp), kLogsumexp);
    statistics->set_data_type(fe::DataType_t::FLOAT);
    return build(std::move(graph), q, k);
  });
  return execute(plan, bias,
                 {{kQ, device_pointer(q)},
                  {kK, device_pointer(k)},
                  {kV, device_pointer(v)},
                  {kOut, device_pointer(out)},
                  {kLogsumexp, device_pointer(logsumexp)}});
}

bool cudnn_attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                              const Array& logsumexp, const Array& dout,
                              const AttentionParams& params, const Array& bias, const Array& dq,
                              const Array& dk, const Array& dv) {
  const std::initializer_list<const Array*> views = {&q, &k, &v, &out, &dout, &dq, &dk, &dv};
  if (!takes(params, q, k, logsumexp, views)) return false;
  const Plan& plan = plan_of(key_of(params, true, bias.defined(), views), [&] {
    std::unique_ptr<Graph> graph = new_graph(q);
    auto options = options_of<fe::graph::SDPA_backward_attributes>(params, q, k);
    options.set_deterministic_algorithm(binade::cuda::deterministic());
    if (bias.defined()) options.set_bias(input(*graph, bias, kBias));
    const Tensor statistics = input(*graph, as_statistics(logsumexp), kLogsumexp);
    statistics->set_data_type(fe::DataType_t::FLOAT);
    const auto [grad_q, grad_k, grad_v] = graph->sdpa_backward(
        input(*graph, q, kQ), input(*graph, k, kK), input(*graph, v, kV), input(*graph, out, kOut),
        input(*graph, dout, kDOut), statistics, options);
    output(grad_q, dq, kDQ);
    output(grad_k, dk, kDK);
    output(grad_v, dv, kDV);
    return build(std::move(graph), q, k);
  });
  return execute(plan, bias,
                 {{kQ, device_pointer(q)},
                  {kK, device_pointer(k)},
                  {kV, device_pointer(v)},
                  {kOut, device_pointer(out)},
                  {kLogsumexp, device_pointer(logsumexp)},
                  {kDOut, device_pointer(dout)},
                  {kDQ, device_pointer(dq)},
                  {kDK, device_pointer(dk)},
                  {kDV, device_pointer(dv)}});
}

}  // namespace binade::kernels::cuda
