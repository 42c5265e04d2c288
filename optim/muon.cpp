#include <binade/optim/muon.h>

#include <algorithm>
#include <cmath>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/matmul.h>
#include <binade/core/kernels/optimizer.h>
#include <binade/core/kernels/reduce.h>

namespace binade::optim {

namespace {

bool is_hidden_matrix(const nn::NamedParameter& named) {
  if (named.parameter->shape().dims() != 2) return false;
  for (const char* outer : {"embed", "wte", "wpe", "head"})
    if (named.name.find(outer) != std::string::npos) return false;
  return true;
}

// Splits every group in Muon's part and AdamW's.
std::vector<ParameterGroup> split(std::vector<ParameterGroup> groups, double adamw_lr_factor) {
  std::vector<ParameterGroup> result;
  for (ParameterGroup& group : groups) {
    ParameterGroup matrices = group, rest = group;
    std::erase_if(matrices.parameters,
                  [](const nn::NamedParameter& named) { return !is_hidden_matrix(named); });
    std::erase_if(rest.parameters, is_hidden_matrix);
    rest.lr_factor *= adamw_lr_factor;
    if (!matrices.parameters.empty()) result.push_back(std::move(matrices));
    if (!rest.parameters.empty()) result.push_back(std::move(rest));
  }
  return result;
}

}  // namespace

Muon::Muon(std::vector<ParameterGroup> groups, const MuonOptions& options)
    : Optimizer(split(std::move(groups), options.adamw_lr_factor)), options_(options) {
  check(options.momentum > 0 && options.momentum < 1, "Muon needs a momentum in (0, 1), got ",
        options.momentum);
  check(options.iterations > 0, "Muon needs at least one iteration, got ", options.iterations);
  check_options("Muon's AdamW", options.adamw);
  add_moment("exp_avg");
  add_moment("exp_avg_sq", MomentOf::squares);
}

Muon::Muon(const nn::Module& module, const WholeModule& how, const MuonOptions& options)
    : Muon(one_group(module, how.weight_decay), options) {
  if (how.learning_rate) set_learning_rate(*how.learning_rate);
}

bool Muon::is_elementwise(const FlatGroup& group) const {
  return !is_hidden_matrix(group.members().front().parameter);
}

void Muon::update_group(size_t index, const UpdateBuffers& buffers, const UpdateContext& context) {
  const FlatGroup& group = groups()[index];
  if (is_elementwise(group)) {
    BINADE_DISPATCH(device(),
                    optimizer_update(buffers, context,
                                     kernels::AdamWParams{.lr_factor = group.lr_factor(),
                                                          .beta1 = options_.adamw.beta1,
                                                          .beta2 = options_.adamw.beta2,
                                                          .eps = options_.adamw.eps,
                                                          .weight_decay = group.weight_decay()}));
    return;
  }
  // SGD's kernel with a learning rate of zero moves the momentum alone, and not on a skipped step.
  UpdateBuffers momentum_only = buffers;
  momentum_only.moment2 = {};
  BINADE_DISPATCH(device(), optimizer_update(
                                momentum_only, context,
                                kernels::SgdParams{.lr_factor = 0, .momentum = options_.momentum}));
  const Array grad = Array::empty({group.numel()}, buffers.master.dtype(), device());
  BINADE_DISPATCH(device(), copy(buffers.grad, grad));
  const Array factor = context.grad_factor.to(grad.dtype()).expand(grad.shape());
  BINADE_DISPATCH(device(), binary(kernels::BinaryOp::mul, grad, factor, grad));
  BINADE_DISPATCH(device(), axpy(options_.momentum, buffers.moment1, grad));
  const Array directions = group.new_moment();
  for (const FlatGroup::Member& member : group.members())
    group.part(directions, member).copy_from(direction(group.part(grad, member)));
  UpdateContext unscaled = context;  // the direction has the factor in it
  unscaled.grad_factor = {};
  BINADE_DISPATCH(device(),
                  optimizer_update({directions, buffers.master, buffers.value, {}, {}}, unscaled,
                                   kernels::DirectionParams{.lr_factor = group.lr_factor(),
                                                            .weight_decay = group.weight_decay()}));
}

Array Muon::direction(const Array& update) const {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = update.size(0) > update.size(1);
  Array x = (tall ? update.transpose(0, 1) : update).clone();  // rows ≤ columns
  const Device device = x.device();
  const Array squares = Array::empty(x.shape(), x.dtype(), device);
  BINADE_DISPATCH(device, unary(kernels::UnaryOp::square, x, squares));
  const Array norm = Array::empty({1, 1}, x.dtype(), device);
  BINADE_DISPATCH(device, reduce(kernels::ReduceOp::sum, squares, norm, 0));
  BINADE_DISPATCH(device, unary(kernels::UnaryOp::sqrt, norm, norm));
  BINADE_DISPATCH(device,
                  binary_scalar(kernels::BinaryOp::add, norm, 1e-7, /*value_first=*/false, norm));
  BINADE_DISPATCH(device, binary(kernels::BinaryOp::div, x, norm.expand(x.shape()), x));

  const int64_t rows = x.size(0);
  const Array gram = Array::empty({rows, rows}, x.dtype(), device);
  const Array polynomial = Array::empty({rows, rows}, x.dtype(), device);
  for (int i = 0; i < options_.iterations; ++i) {
    BINADE_DISPATCH(device, matmul(x, x.transpose(0, 1), gram, {}));
    BINADE_DISPATCH(device, matmul(gram, gram, polynomial, {}));
    BINADE_DISPATCH(device,
                    binary_scalar(kernels::BinaryOp::mul, polynomial, c, false, polynomial));
    BINADE_DISPATCH(device, axpy(b, gram, polynomial));
    const Array next = Array::empty(x.shape(), x.dtype(), device);
    BINADE_DISPATCH(device, matmul(polynomial, x, next, {}));
    BINADE_DISPATCH(device, axpy(a, x, next));
    x = next;
  }
  const double scale = std::sqrt(
      std::max(1.0, static_cast<double>(update.size(0)) / static_cast<double>(update.size(1))));
  if (scale != 1)
    BINADE_DISPATCH(device, binary_scalar(kernels::BinaryOp::mul, x, scale, false, x));
  return tall ? x.transpose(0, 1) : x;
}

}  // namespace binade::optim
