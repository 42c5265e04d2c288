#include <binade/heads/rank/losses.h>

#include <algorithm>
#include <limits>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/heads/rank/loss_table.h>

namespace binade::heads::rank {

using namespace ops;
using kernels::RankLoss;
using kernels::RankLossParams;

namespace {

bool draws(const RankLossParams& params) {
  return params.loss == RankLoss::xe_ndcg || params.random_ties != 0;
}

// `count`: elements that it must have; -1: any number.
void check_array(const char* what, const Array& array, DType dtype, int64_t count,
                 const Tensor& scores) {
  check(array.defined(), "rank_loss: ", what, " are missing");
  check(array.dtype() == dtype && array.dims() == 1 && (count < 0 || array.numel() == count) &&
            array.device() == scores.device(),
        "rank_loss: ", what, " must be ", dtype, ' ',
        count < 0 ? "(Q + 1)" : concat('(', count, ')'), " on ", scores.device(), ", got ",
        array.shape(), ' ', array.dtype(), " on ", array.device());
}

}  // namespace

Tensor rank_loss(const Tensor& scores, const Lists& lists, const LossSpec& spec,
                 const Tensor& normaliser) {
  constexpr const char* kOp = "rank_loss";
  const LossInfo& info = spec.info();
  check_floating(kOp, "scores", scores);
  const bool single = info.outputs == Outputs::score;
  if (!single && scores.dims() == 1)  // one number of each, as two grades take
    return rank_loss(reshape(scores, {scores.size(0), 1}), lists, spec, normaliser);
  check(scores.dims() == (single ? 1 : 2), "rank_loss: ", info.name,
        single ? " reads one score a document, scores (N)"
               : " reads several numbers of a document, scores (N, columns)",
        "; got ", Kind{scores});
  check(scores.dtype() != DType::f64 || scores.device().is_cpu(),
        "rank_loss: on a GPU losses are computed in f32; convert scores with to(scores, "
        "DType::f32)");
  check_array("labels", lists.labels, DType::f32, scores.size(0), scores);
  check_array("offsets", lists.offsets, DType::i64, -1, scores);
  check(lists.offsets.numel() > 0, "rank_loss: offsets of Q lists are Q + 1 numbers, got none");
  if (lists.weights.defined())
    check_array("weights", lists.weights, DType::f32, scores.size(0), scores);
  if (lists.list_weights.defined())
    check_array("weights of lists", lists.list_weights, DType::f32, lists.offsets.numel() - 1,
                scores);
  check_constant(kOp, "normaliser", normaliser);
  check(!normaliser.defined() || (is_floating(normaliser.dtype()) && normaliser.numel() == 1),
        "rank_loss: normaliser must be one f32 number, got ", Kind{normaliser});
  check_device(kOp, {scores, normaliser});

  const Device device = scores.device();
  const DType dtype = statistics_dtype(scores.dtype());
  const RankLossParams params = params_of(spec);
  const auto contiguous = [](const Array& array) {
    return array.defined() ? array.contiguous() : Array();
  };
  const kernels::RankLists arrays{scores.array().to(dtype).contiguous(), contiguous(lists.offsets),
                                  contiguous(lists.labels), contiguous(lists.weights),
                                  contiguous(lists.list_weights)};
  PhiloxKey key;
  if (draws(params)) {
    RandomState& random = RandomState::current();
    key = {random.seed(), random.step_on(device), random.next_place()};
  }
  const Array losses = Array::empty({lists.offsets.numel() - 1}, dtype, device);
  const Array gradient = Array::empty(scores.shape(), dtype, device);
  BINADE_DISPATCH(device, rank_loss(arrays, params, key, losses, gradient));

  const Array divisor = normaliser.defined() ? normaliser.array().to(dtype).reshape({}) : Array();
  const auto divided = [divisor](const Array& x) {
    if (!divisor.defined()) return x;
    const Array quotient = empty_like(x);
    BINADE_DISPATCH(x.device(), binary(kernels::BinaryOp::div, x, divisor, quotient));
    return quotient;
  };
  const Array sum = Array::empty({}, dtype, device);
  BINADE_DISPATCH(device, reduce(kernels::ReduceOp::sum, losses, sum.view({1}), 0));
  const auto fused = [gradient, divided](Backward& backward) {
    const auto to = backward.slot(0).open();
    if (!to) return;
    const Array factor = divided(backward.grad());
    BINADE_DISPATCH(factor.device(), scale(gradient, factor, to.array, to.beta));
  };
  return record(kOp, {scores}, divided(sum),
                OnceDifferentiable{fused, "write the loss in ops of autograd/ops.h"});
}

int64_t usable_lists(const LossSpec& spec, std::span<const int64_t> offsets,
                     std::span<const float> labels) {
  const auto rule = static_cast<kernels::RankUsable>(spec.info().usable);
  int64_t count = 0;
  for (size_t q = 0; q + 1 < offsets.size(); ++q) {
    check(offsets[q] >= 0 && offsets[q] <= offsets[q + 1] &&
              offsets[q + 1] <= static_cast<int64_t>(labels.size()),
          "offsets of lists must not fall and end within the ", labels.size(), " labels; list ", q,
          " is rows ", offsets[q], " to ", offsets[q + 1]);
    float least = std::numeric_limits<float>::max(), largest = -least;
    for (const float label : labels.subspan(static_cast<size_t>(offsets[q]),
                                            static_cast<size_t>(offsets[q + 1] - offsets[q]))) {
      least = std::min(least, label);
      largest = std::max(largest, label);
    }
    count += kernels::is_usable(rule, offsets[q + 1] - offsets[q], least, largest);
  }
  return count;
}

int64_t output_columns(const LossSpec& spec, int64_t largest_label) {
  check(largest_label >= 0, "labels start at 0, the largest cannot be ", largest_label);
  switch (spec.info().outputs) {
    case Outputs::score:
      return 1;
    case Outputs::thresholds:
      return std::max<int64_t>(largest_label, 1);
    default:
      return std::max<int64_t>(largest_label, 1) + 1;
  }
}

Tensor ranking_scores(const Tensor& outputs, const LossSpec& spec) {
  const LossInfo& info = spec.info();
  check_floating("ranking_scores", "outputs", outputs);
  if (info.outputs != Outputs::score && outputs.dims() == 1)
    return ranking_scores(reshape(outputs, {outputs.size(0), 1}), spec);
  check(outputs.dims() == (info.outputs == Outputs::score ? 1 : 2), "ranking_scores: ", info.name,
        " makes (N", info.outputs == Outputs::score ? ")" : ", columns)", ", got ", Kind{outputs});
  if (info.outputs == Outputs::score) return outputs;
  const Tensor x = to(outputs, statistics_dtype(outputs.dtype()));
  if (info.outputs == Outputs::classes) {
    const Tensor grades(Array::arange(x.size(1), x.dtype(), x.device()));
    return sum(softmax(x) * grades, {-1});
  }
  // The mean of s − b_k is s but for a constant; σ(s_k) is the chance of a grade above k.
  return info.name == "prank" ? mean(x, {-1}) : sum(sigmoid(x), {-1});
}

}  // namespace binade::heads::rank
