// Losses; their results are f32 for half inputs.
#include "op_table.h"

namespace binade::test {

namespace {

const std::pair<Reduction, const char*> kReductions[] = {
    {Reduction::mean, "mean"}, {Reduction::sum, "sum"}, {Reduction::none, "none"}};

Values reduced(const Values& losses, Reduction reduction) {
  if (reduction == Reduction::none) return losses;
  const double sum = total(losses.data);
  return scalar(reduction == Reduction::sum ? sum : sum / static_cast<double>(losses.data.size()));
}

// Rows over the last dimension.
Values per_row(const Values& x, const std::function<double(const Index&)>& loss) {
  Shape shape = x.shape;
  shape.erase(shape.dims() - 1);
  return fill(shape, loss);
}

// −Σ target·log softmax(logits) of one row, target = (1 − ε)·onehot + ε/V.
Values cross_entropy_rows(const Values& logits, const Values& targets, double smoothing) {
  return per_row(logits, [&](const Index& at) {
    const auto target = static_cast<int64_t>(targets(at));
    if (target == -100) return 0.0;
    const std::vector<double> x = row(logits, at);
    const double logsum = log_sum_exp(x);
    double loss = 0;
    for (size_t v = 0; v < x.size(); ++v) {
      const double share = smoothing / static_cast<double>(x.size()) +
                           (static_cast<int64_t>(v) == target ? 1 - smoothing : 0);
      loss -= share * (x[v] - logsum);
    }
    return loss;
  });
}

// The sum over rows by the number of those that count; 0 where none does.
double mean_of_valid(const Values& losses, const Values& targets) {
  const auto ignored = std::count(targets.data.begin(), targets.data.end(), -100.0);
  const double valid = static_cast<double>(targets.data.size()) - static_cast<double>(ignored);
  return valid > 0 ? total(losses.data) / valid : 0;
}

void add_cross_entropy(OpTable& table) {
  const Input logits = real({2, 3, 7}, -6, 6);
  const Input targets = integers({2, 3}, {6, -100, 0, 3, 3, -100});
  for (const double smoothing : {0.0, 0.125})
    for (const auto& [reduction, name] : kReductions)
      table
          .add(
              "cross_entropy", concat(name, smoothing > 0 ? ", smoothed" : ""), {logits, targets},
              [=, reduction = reduction](const TensorList& in) -> TensorList {
                CrossEntropyOptions options;
                options.label_smoothing = smoothing;
                options.reduction = reduction;
                return {cross_entropy(in[0], in[1], options)};
              },
              [=, reduction = reduction](const Lists& in) -> Lists {
                const Values rows = cross_entropy_rows(in[0], in[1], smoothing);
                if (reduction == Reduction::mean) return {scalar(mean_of_valid(rows, in[1]))};
                return {reduced(rows, reduction)};
              })
          .wide();
  table
      .add(
          "cross_entropy", "normaliser, i32",
          {logits, integers({2, 3}, {6, -100, 0, 3, 3, 5}, Input::Dtype::i32),
           integers({}, {8}, Input::Dtype::f32)},
          [](const TensorList& in) -> TensorList {
            CrossEntropyOptions options;
            options.normaliser = in[2];
            return {cross_entropy(in[0], in[1], options)};
          },
          [](const Lists& in) -> Lists {
            return {scalar(total(cross_entropy_rows(in[0], in[1], 0).data) / 8)};
          })
      .wide();
  table
      .add(
          "cross_entropy", "no valid target", {logits, integers({2, 3}, std::vector(6, -100.0))},
          [](const TensorList& in) -> TensorList { return {cross_entropy(in[0], in[1])}; },
          [](const Lists&) -> Lists { return {scalar(0)}; })
      .wide();
  table
      .add(
          "cross_entropy", "padding columns", {logits, integers({2, 3}, {4, -100, 0, 3, 3, 2})},
          [](const TensorList& in) -> TensorList {
            CrossEntropyOptions options;
            options.classes = 5;
            return {cross_entropy(in[0], in[1], options)};
          },
          [](const Lists& in) -> Lists {
            const Values kept =
                fill({in[0].size(0), in[0].size(1), 5}, [&](const Index& i) { return in[0](i); });
            return {scalar(mean_of_valid(cross_entropy_rows(kept, in[1], 0), in[1]))};
          })
      .wide();
  for (const auto& [reduction, name] : kReductions)
    table
        .add(
            "cross_entropy_soft", name, {real({2, 3, 5}, -6, 6), real({2, 3, 5}, 0, 1)},
            [reduction = reduction](const TensorList& in) -> TensorList {
              return {cross_entropy_soft(in[0], in[1], {reduction})};
            },
            [reduction = reduction](const Lists& in) -> Lists {
              return {reduced(per_row(in[0],
                                      [&](const Index& at) {
                                        const auto x = row(in[0], at), p = row(in[1], at);
                                        double loss = 0;
                                        for (size_t v = 0; v < x.size(); ++v)
                                          loss -= p[v] * (x[v] - log_sum_exp(x));
                                        return loss;
                                      }),
                              reduction)};
            })
        .wide();
}

// Numbers of which products and short sums are exact in every dtype, logits too.
Input coarse(const Shape& shape, int64_t step) {
  Input input = real(shape);
  for (int64_t i = 0; i < shape.numel(); ++i)
    input.values.push_back(static_cast<double>((step * i + 3) % 9 - 4) / 4);
  return input;
}

// x (…, D) · weightᵀ of the first `classes` rows of weight (V, D).
Values linear_values(const Values& x, const Values& weight, int64_t classes) {
  Shape shape = x.shape;
  shape[shape.dims() - 1] = classes;
  return fill(shape, [&](const Index& at) {
    Index from = at;
    double sum = 0;
    for (int64_t d = 0; d < weight.shape[1]; ++d) {
      from.back() = d;
      sum += x(from) * weight({at.back(), d});
    }
    return sum;
  });
}

void add_linear_cross_entropy(OpTable& table) {
  const Input x = coarse({2, 3, 5}, 7), weight = coarse({8, 5}, 5);
  const Input targets = integers({2, 3}, {6, -100, 0, 3, 3, 5});
  struct Variant {
    const char* name;
    Reduction reduction;
    double smoothing;
    int64_t classes, rows_per_chunk;
  };
  for (const Variant& v : {Variant{"mean", Reduction::mean, 0, 0, 0},
                           Variant{"sum, smoothed", Reduction::sum, 0.125, 0, 4},
                           Variant{"padding classes", Reduction::mean, 0, 7, 1},
                           Variant{"padding classes, smoothed", Reduction::mean, 0.25, 7, 5}})
    table
        .add(
            "linear_cross_entropy", v.name, {x, weight, targets},
            [=](const TensorList& in) -> TensorList {
              LinearCrossEntropyOptions options;
              options.reduction = v.reduction;
              options.label_smoothing = v.smoothing;
              options.classes = v.classes;
              options.rows_per_chunk = v.rows_per_chunk;
              return {linear_cross_entropy(in[0], in[1], in[2], options)};
            },
            [=](const Lists& in) -> Lists {
              const Values logits =
                  linear_values(in[0], in[1], v.classes ? v.classes : in[1].size(0));
              const Values losses = cross_entropy_rows(logits, in[2], v.smoothing);
              return {scalar(v.reduction == Reduction::sum ? total(losses.data)
                                                           : mean_of_valid(losses, in[2]))};
            })
        .differentiable_once("cross_entropy(linear(x, weight), targets, options)")
        .wide();
  table
      .add(
          "linear_cross_entropy", "normaliser, i32",
          {coarse({4, 5}, 5), weight, integers({4}, {7, -100, 0, 2}, Input::Dtype::i32),
           integers({}, {8}, Input::Dtype::f32)},
          [](const TensorList& in) -> TensorList {
            LinearCrossEntropyOptions options;
            options.normaliser = in[3];
            options.reduction = Reduction::none;
            return {linear_cross_entropy(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            const Values logits = linear_values(in[0], in[1], in[1].size(0));
            return {scalar(total(cross_entropy_rows(logits, in[2], 0).data) / 8)};
          })
      .differentiable_once("cross_entropy(linear(x, weight), targets, options)")
      .wide();
  table
      .add(
          "linear_cross_entropy", "square",
          {coarse({5, 5}, 7), coarse({5, 5}, 5), integers({5}, {4, -100, 0, 3, 3})},
          [](const TensorList& in) -> TensorList {
            return {linear_cross_entropy(in[0], in[1], in[2])};
          },
          [](const Lists& in) -> Lists {
            const Values logits = linear_values(in[0], in[1], in[1].size(0));
            return {scalar(mean_of_valid(cross_entropy_rows(logits, in[2], 0), in[2]))};
          })
      .differentiable_once("cross_entropy(linear(x, weight), targets, options)")
      .wide();
}

// Two heads, one with a residual block, whose rows share the hidden ones.
void add_multi_head_loss(OpTable& table) {
  const Input hidden = coarse({2, 3, 5}, 7), weight = coarse({8, 5}, 5), block = coarse({5, 5}, 4);
  const Input labels = integers({2, 2, 3}, {6, -100, 0, 3, 3, 5, 1, 1, -100, 7, -100, 4});
  const auto rows_of = [](const Values& all, int64_t k) {
    return fill({2, 3}, [&](const Index& i) { return all({k, i[0], i[1]}); });
  };
  table
      .add(
          "multi_head_loss", "a block, a shared weight", {hidden, weight, block, labels},
          [](const TensorList& in) -> TensorList {
            std::vector<DecodingHead> heads(2);
            heads[0].weight = heads[1].weight = in[1];
            heads[1].blocks = {{in[2], {}}};
            heads[1].coefficient = 0.5;
            MultiHeadLossOptions options;
            options.classes = 8;
            options.rows_per_chunk = 4;
            return {multi_head_loss(in[0], heads, in[3], options).loss};
          },
          [=](const Lists& in) -> Lists {
            const Values pre = linear_values(in[0], in[2], in[2].size(0));
            const Values after =
                map(in[0], pre, [](double h, double z) { return h + z / (1 + std::exp(-z)); });
            const Values first = rows_of(in[3], 0), second = rows_of(in[3], 1);
            const auto mean_loss = [&](const Values& x, const Values& targets) {
              return mean_of_valid(
                  cross_entropy_rows(linear_values(x, in[1], in[1].size(0)), targets, 0), targets);
            };
            return {scalar(mean_loss(in[0], first) + 0.5 * mean_loss(after, second))};
          })
      .differentiable_once("use cross_entropy() of each head")
      .wide()
      .no_half()  // what leaves a block is rounded before the loss: multi_head_loss_test.cpp has
                  // half
      .of_one_size();
  table
      .add(
          "shifted_labels", "", {integers({2, 3}, {1, 2, 3, 4, 5, 6})},
          [](const TensorList& in) -> TensorList {
            return {shifted_labels(in[0], {}, {0, 1})};
          },
          [](const Lists& in) -> Lists {
            return {fill({2, 2, 3}, [&](const Index& i) {
              return i[2] + i[0] < 3 ? in[0]({i[1], i[2] + i[0]}) : -100.0;
            })};
          })
      .constant()
      .of_one_size();
}

using Loss = Tensor (*)(const Tensor&, const Tensor&, const LossOptions&);
using Formula = double (*)(double, double);

OpRow& elementwise(OpTable& table, const char* name, const char* variant, Loss loss,
                   Formula formula, Reduction reduction, const Input& x, const Input& target) {
  return table
      .add(
          name, variant, {x, target},
          [=](const TensorList& in) -> TensorList { return {loss(in[0], in[1], {reduction})}; },
          [=](const Lists& in) -> Lists {
            return {reduced(map(in[0], in[1], formula), reduction)};
          })
      .wide();
}

}  // namespace

void add_loss_rows(OpTable& table) {
  add_cross_entropy(table);
  add_linear_cross_entropy(table);
  add_multi_head_loss(table);
  for (const auto& [reduction, name] : kReductions) {
    elementwise(
        table, "mse_loss", name, mse_loss, [](double x, double t) { return (x - t) * (x - t); },
        reduction, real({3, 4}), real({3, 4}));
    elementwise(
        table, "bce_with_logits_loss", name,
        [](const Tensor& x, const Tensor& t, const LossOptions& options) {
          return bce_with_logits_loss(x, t, {options.reduction});
        },
        [](double x, double t) {
          return t * std::log1p(std::exp(-x)) + (1 - t) * std::log1p(std::exp(x));
        },
        reduction, real({3, 4}, -6, 6), real({3, 4}, 0, 1));
    elementwise(
        table, "smooth_l1_loss", name,
        [](const Tensor& x, const Tensor& t, const LossOptions& options) {
          return smooth_l1_loss(x, t, 0.5, options);
        },
        [](double x, double t) {
          const double d = std::abs(x - t);
          return d < 0.5 ? d * d : d - 0.25;
        },
        reduction, real({3, 4}), real({3, 4}));
    table
        .add(
            "kl_div_loss", name, {real({3, 4}, -3, 0), real({3, 4}, 0.0625, 1)},
            [reduction = reduction](const TensorList& in) -> TensorList {
              return {kl_div_loss(in[0], in[1], {reduction})};
            },
            [reduction = reduction](const Lists& in) -> Lists {
              return {reduced(per_row(in[0],
                                      [&](const Index& at) {
                                        const auto x = row(in[0], at), t = row(in[1], at);
                                        double loss = 0;
                                        for (size_t v = 0; v < x.size(); ++v)
                                          loss += t[v] * (std::log(t[v]) - x[v]);
                                        return loss;
                                      }),
                              reduction)};
            })
        .wide();
  }
}

}  // namespace binade::test
