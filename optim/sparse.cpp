#include <binade/optim/sparse.h>

#include <algorithm>
#include <cmath>

#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/optimizer.h>
#include <binade/optim/gradient_norm.h>
#include <binade/optim/state_loading.h>

namespace binade::optim {

namespace {

// Rows of a matrix (V, D) by index (U), as a copy.
Array rows_of(const Array& matrix, const Array& index) {
  const Array rows = Array::empty({index.size(0), matrix.size(1)}, matrix.dtype(), matrix.device());
  BINADE_DISPATCH(matrix.device(), embedding(matrix, index, rows));
  return rows;
}

void put_rows(const Array& matrix, const Array& index, const Array& rows) {
  BINADE_DISPATCH(matrix.device(), scatter(matrix, 0, index.unsqueeze(1).expand(rows.shape()), rows,
                                           /*add=*/false));
  matrix.bump_version();
}

void check_decay(const char* who, double weight_decay) {
  check(weight_decay >= 0 && std::isfinite(static_cast<float>(weight_decay)), who,
        ": the weight decay is 0 or more and finite, got ", weight_decay);
}

}  // namespace

SparseOptimizer::SparseOptimizer(const nn::Module& model) {
  if (const auto* table = dynamic_cast<const nn::SparseEmbedding*>(&model))
    tables_.push_back({"weight", table, {}});
  for (const auto& [name, module] : model.named_modules())
    if (const auto* table = dynamic_cast<const nn::SparseEmbedding*>(module))
      tables_.push_back({name + ".weight", table, {}});
  check(!tables_.empty(), "a sparse optimizer found no SparseEmbedding in the model");
  const Device device = tables_.front().embedding->weight().device();
  for (const Table& table : tables_)
    check(table.embedding->weight().device() == device,
          "the sparse tables of a model are on different devices");
  learning_rate_scalar_ = Array::zeros({}, DType::f32, device);
  step_scalar_ = Array::zeros({}, DType::i64, device);
}

void SparseOptimizer::add_moment(const std::string& name) {
  moments_.push_back(name);
  for (Table& table : tables_) {
    const Array& weight = table.embedding->weight();
    table.moments.push_back(Array::zeros(weight.shape(), weight.dtype(), weight.device()));
  }
}

void SparseOptimizer::zero_grad() {
  for (const Table& table : tables_) table.embedding->forget();
}

void SparseOptimizer::set_learning_rate(double learning_rate) {
  check(learning_rate >= 0 && std::isfinite(static_cast<float>(learning_rate)), name(),
        ": a learning rate is 0 or more and finite in f32, got ", learning_rate);
  learning_rate_ = learning_rate;
  learning_rate_scalar_.fill(learning_rate);
}

SparseOptimizer::Rows SparseOptimizer::gathered(const Table& table) const {
  std::vector<Rows> parts;
  for (const nn::SparseEmbedding::Touched& touched : table.embedding->touched())
    if (const Array gradient = touched.values.grad(); gradient.defined() && gradient.numel() > 0)
      parts.push_back({touched.rows, gradient});
  if (parts.empty()) return {};
  if (parts.size() == 1) return parts.front();
  std::vector<int64_t> all;
  for (const Rows& part : parts) {
    const std::vector<int64_t> rows = part.index.to_vector<int64_t>();
    all.insert(all.end(), rows.begin(), rows.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  const Array& first = parts.front().gradient;
  const auto count = static_cast<int64_t>(all.size());
  const Rows sums{Array::from(all, {count}, first.device()),
                  Array::zeros({count, first.size(1)}, first.dtype(), first.device())};
  for (const Rows& part : parts) {
    std::vector<int64_t> places;
    for (const int64_t row : part.index.to_vector<int64_t>())
      places.push_back(std::lower_bound(all.begin(), all.end(), row) - all.begin());
    BINADE_DISPATCH(
        first.device(),
        index_add(sums.gradient, 0, Array::from(places, part.index.shape(), first.device()),
                  part.gradient, 1));
  }
  return sums;
}

void SparseOptimizer::update(const Table& table, const Rows& rows, const UpdateContext& context) {
  const Array& weight = table.embedding->weight();
  const Array values = rows_of(weight, rows.index);
  std::vector<Array> moments;
  for (const Array& moment : table.moments) moments.push_back(rows_of(moment, rows.index));
  UpdateBuffers buffers{.grad = rows.gradient.contiguous().flatten(),
                        .master = values.flatten(),
                        .value = values.flatten(),
                        .moment1 = moments.empty() ? Array() : moments[0].flatten(),
                        .moment2 = moments.size() < 2 ? Array() : moments[1].flatten()};
  update_rows(buffers, context);
  put_rows(weight, rows.index, values);
  for (size_t i = 0; i < moments.size(); ++i) put_rows(table.moments[i], rows.index, moments[i]);
}

bool SparseOptimizer::step(double factor) {
  check(learning_rate_.has_value(), name(),
        ": the learning rate was never set; call set_learning_rate() before the first step");
  check(std::isfinite(factor), name(), ": gradients are multiplied by ", factor,
        ", which is not finite");
  const Device device = step_scalar_.device();
  const auto count = static_cast<int64_t>(tables_.size());
  const Array norm_sq = Array::zeros({count}, DType::f64, device);
  const Array first_bad = Array::empty({count}, DType::i64, device);
  const Array none = Array::from(std::vector<int64_t>{kNoBadGradient}, {1}, device);
  const Array scale = Array::full({}, factor, DType::f32, device);
  std::vector<Rows> touched;
  bool any = false;
  for (int64_t t = 0; t < count; ++t) {
    const Table& table = tables_[static_cast<size_t>(t)];
    check(table.embedding->weight().device() == device, name(), ": ", table.name,
          " has moved to another device since the optimizer was made");
    touched.push_back(gathered(table));
    const Array bad = first_bad.slice(0, t, t + 1);
    bad.copy_from(none);
    if (!touched.back().index.defined()) continue;
    any = true;
    measure_gradients(touched.back().gradient.contiguous().flatten(), scale, norm_sq.select(0, t),
                      bad.select(0, 0));
  }
  check(any, name(),
        ": no gradient reached a sparse table since zero_grad(): call backward() on a ",
        "loss that depends on one before the step");
  const Array found_inf = Array::zeros({}, DType::f32, device),
              norm = Array::zeros({}, DType::f32, device),
              grad_factor = Array::zeros({}, DType::f32, device);
  BINADE_DISPATCH(device, clip_factor(norm_sq, first_bad, scale, 0, found_inf, norm, grad_factor));
  if (found_inf.item() != 0) return false;
  for (size_t t = 0; t < tables_.size(); ++t)
    if (touched[t].index.defined())
      update(tables_[t], touched[t], {grad_factor, found_inf, learning_rate_scalar_, step_scalar_});
  BINADE_DISPATCH(device, advance_step(step_scalar_, found_inf));
  return true;
}

int64_t SparseOptimizer::steps_done() const {
  return step_scalar_.to_vector<int64_t>()[0];
}

nn::StateDict SparseOptimizer::state() const {
  nn::StateDict state;
  state["step"] = step_scalar_.clone();
  for (const Table& table : tables_)
    for (size_t i = 0; i < moments_.size(); ++i)
      state[moments_[i] + '.' + table.name] = table.moments[i];
  return state;
}

void SparseOptimizer::load_state(const nn::StateDict& saved) {
  nn::StateDict own = state();
  own["step"] = step_scalar_;
  load_arrays(name(), saved, own);
}

SparseAdamW::SparseAdamW(const nn::Module& model, const WholeModule& how,
                         const AdamWOptions& options)
    : SparseOptimizer(model), options_(options), weight_decay_(how.weight_decay) {
  check_options("SparseAdamW", options);
  check_decay("SparseAdamW", weight_decay_);
  if (how.learning_rate) set_learning_rate(*how.learning_rate);
  add_moment("exp_avg");
  add_moment("exp_avg_sq");
}

void SparseAdamW::update_rows(const UpdateBuffers& buffers, const UpdateContext& context) {
  BINADE_DISPATCH(buffers.grad.device(),
                  optimizer_update(buffers, context,
                                   kernels::AdamWParams{.beta1 = options_.beta1,
                                                        .beta2 = options_.beta2,
                                                        .eps = options_.eps,
                                                        .weight_decay = weight_decay_}));
}

SparseSgd::SparseSgd(const nn::Module& model, const WholeModule& how)
    : SparseOptimizer(model), weight_decay_(how.weight_decay) {
  check_decay("SparseSgd", weight_decay_);
  if (how.learning_rate) set_learning_rate(*how.learning_rate);
}

void SparseSgd::update_rows(const UpdateBuffers& buffers, const UpdateContext& context) {
  BINADE_DISPATCH(
      buffers.grad.device(),
      optimizer_update(buffers, context, kernels::SgdParams{.weight_decay = weight_decay_}));
}

}  // namespace binade::optim
