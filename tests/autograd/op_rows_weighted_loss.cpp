// Losses with weights and normalisers; their results are f32 for half inputs.
#include "op_table.h"

namespace binade::test {

namespace {

const std::pair<Reduction, const char*> kReductions[] = {
    {Reduction::mean, "mean"}, {Reduction::sum, "sum"}, {Reduction::none, "none"}};

double weight_of(const Values* weight, int64_t target) {
  if (target == -100) return 0;
  return weight ? (*weight)({target}) : 1;
}

// Σ losses / Σ weights of the targets, Σ losses, or the losses.
Values reduced_by_weight(const Values& losses, const Values& targets, const Values* weight,
                         Reduction reduction) {
  if (reduction == Reduction::none) return losses;
  if (reduction == Reduction::sum) return scalar(total(losses.data));
  double weights = 0;
  for (const double target : targets.data)
    weights += weight_of(weight, static_cast<int64_t>(target));
  return scalar(weights != 0 ? total(losses.data) / weights : 0);
}

// As PyTorch has it: (1 − ε)·w[y]·(−log p[y]) + ε/V·Σ w[c]·(−log p[c]).
Values weighted_rows(const Values& logits, const Values& targets, const Values& weight,
                     double smoothing) {
  return fill(targets.shape, [&](const Index& at) {
    const auto target = static_cast<int64_t>(targets(at));
    if (target == -100) return 0.0;
    const std::vector<double> x = row(logits, at);
    const double logsum = log_sum_exp(x);
    double loss = 0;
    for (size_t c = 0; c < x.size(); ++c) {
      const double share = smoothing / static_cast<double>(x.size()) +
                           (static_cast<int64_t>(c) == target ? 1 - smoothing : 0);
      loss += share * weight({static_cast<int64_t>(c)}) * (logsum - x[c]);
    }
    return loss;
  });
}

Input class_weights(int64_t classes) {
  return real({classes}, 0.5, 2).as(Input::Dtype::statistics).fixed();
}

void add_cross_entropy(OpTable& table) {
  const Input logits = real({2, 3, 5}, -6, 6);
  const Input targets = integers({2, 3}, {4, -100, 0, 3, 3, -100});
  for (const double smoothing : {0.0, 0.25})
    for (const auto& [reduction, name] : kReductions)
      table
          .add(
              "cross_entropy", concat("class weights, ", name, smoothing > 0 ? ", smoothed" : ""),
              {logits, targets, class_weights(5)},
              [=, reduction = reduction](const TensorList& in) -> TensorList {
                CrossEntropyOptions options;
                options.label_smoothing = smoothing;
                options.reduction = reduction;
                options.weight = in[2];
                return {cross_entropy(in[0], in[1], options)};
              },
              [=, reduction = reduction](const Lists& in) -> Lists {
                return {reduced_by_weight(weighted_rows(in[0], in[1], in[2], smoothing), in[1],
                                          &in[2], reduction)};
              })
          .wide()
          .of_one_size();
  table
      .add(
          "cross_entropy", "class weights, normaliser, padding columns",
          {logits, integers({2, 3}, {2, -100, 0, 3, 3, 1}), class_weights(4),
           integers({}, {8}, Input::Dtype::f32)},
          [](const TensorList& in) -> TensorList {
            CrossEntropyOptions options;
            options.weight = in[2];
            options.normaliser = in[3];
            options.classes = 4;
            return {cross_entropy(in[0], in[1], options)};
          },
          [](const Lists& in) -> Lists {
            const Values kept =
                fill({in[0].size(0), in[0].size(1), 4}, [&](const Index& i) { return in[0](i); });
            return {scalar(total(weighted_rows(kept, in[1], in[2], 0).data) / 8)};
          })
      .wide()
      .of_one_size();
}

void add_nll(OpTable& table) {
  const Input targets = integers({2, 3}, {4, -100, 0, 3, 3, -100});
  const auto rows = [](const Lists& in, const Values* weight) {
    return fill(in[1].shape, [&](Index at) {
      const auto target = static_cast<int64_t>(in[1](at));
      if (target == -100) return 0.0;
      at.push_back(target);
      return -weight_of(weight, target) * in[0](at);
    });
  };
  for (const bool weighted : {false, true})
    for (const auto& [reduction, name] : kReductions) {
      std::vector<Input> inputs = {real({2, 3, 5}, -4, 0), targets};
      if (weighted) inputs.push_back(class_weights(5));
      table
          .add(
              "nll_loss", concat(name, weighted ? ", class weights" : ""), inputs,
              [=, reduction = reduction](const TensorList& in) -> TensorList {
                NllOptions options{reduction};
                if (weighted) options.weight = in[2];
                return {nll_loss(in[0], in[1], options)};
              },
              [=, reduction = reduction](const Lists& in) -> Lists {
                const Values* weight = weighted ? &in[2] : nullptr;
                return {reduced_by_weight(rows(in, weight), in[1], weight, reduction)};
              })
          .wide()
          .of_one_size();
    }
  table
      .add(
          "nll_loss", "no valid target", {real({2, 3}, -4, 0), integers({2}, {-100, -100})},
          [](const TensorList& in) -> TensorList { return {nll_loss(in[0], in[1])}; },
          [](const Lists&) -> Lists { return {scalar(0)}; })
      .wide()
      .of_one_size();
}

void add_soft_targets(OpTable& table) {
  for (const auto& [reduction, name] : kReductions)
    table
        .add(
            "cross_entropy_soft", concat("class weights, smoothed, ", name),
            {real({2, 3, 5}, -6, 6), real({2, 3, 5}, 0, 1), class_weights(5)},
            [reduction = reduction](const TensorList& in) -> TensorList {
              SoftTargetOptions options{reduction};
              options.label_smoothing = 0.25;
              options.weight = in[2];
              return {cross_entropy_soft(in[0], in[1], options)};
            },
            [reduction = reduction](const Lists& in) -> Lists {
              const Values losses = fill({in[0].size(0), in[0].size(1)}, [&](const Index& at) {
                const std::vector<double> x = row(in[0], at), t = row(in[1], at);
                const double logsum = log_sum_exp(x);
                double loss = 0;
                for (size_t c = 0; c < x.size(); ++c)
                  loss += in[2]({static_cast<int64_t>(c)}) *
                          (0.75 * t[c] + 0.25 / static_cast<double>(x.size())) * (logsum - x[c]);
                return loss;
              });
              if (reduction == Reduction::none) return {losses};
              const double sum = total(losses.data);
              return {scalar(reduction == Reduction::sum
                                 ? sum
                                 : sum / static_cast<double>(losses.data.size()))};
            })
        .wide()
        .of_one_size();
}

using Formula = double (*)(double, double);

double bce(double x, double t) {
  return t * std::log1p(std::exp(-x)) + (1 - t) * std::log1p(std::exp(x));
}

void add_elementwise(OpTable& table) {
  for (const auto& [reduction, name] : kReductions)
    table
        .add(
            "l1_loss", name, {real({3, 4}), real({3, 4})},
            [reduction = reduction](const TensorList& in) -> TensorList {
              return {l1_loss(in[0], in[1], {reduction})};
            },
            [reduction = reduction](const Lists& in) -> Lists {
              const Values losses =
                  map(in[0], in[1], [](double x, double t) { return std::abs(x - t); });
              if (reduction == Reduction::none) return {losses};
              const double sum = total(losses.data);
              return {scalar(reduction == Reduction::sum
                                 ? sum
                                 : sum / static_cast<double>(losses.data.size()))};
            })
        .wide();
  // Every loss of two tensors over the step's normaliser.
  using Loss = Tensor (*)(const Tensor&, const Tensor&, const Tensor&);
  const std::tuple<const char*, Loss, Formula> losses[] = {
      {"l1_loss",
       [](const Tensor& x, const Tensor& t, const Tensor& n) {
         return l1_loss(x, t, {Reduction::none, n});
       },
       [](double x, double t) { return std::abs(x - t); }},
      {"mse_loss",
       [](const Tensor& x, const Tensor& t, const Tensor& n) {
         return mse_loss(x, t, {Reduction::mean, n});
       },
       [](double x, double t) { return (x - t) * (x - t); }},
      {"bce_with_logits_loss",
       [](const Tensor& x, const Tensor& t, const Tensor& n) {
         return bce_with_logits_loss(x, t, {Reduction::mean, n});
       },
       bce},
      {"smooth_l1_loss",
       [](const Tensor& x, const Tensor& t, const Tensor& n) {
         return smooth_l1_loss(x, t, 0.5, {Reduction::mean, n});
       },
       [](double x, double t) {
         const double d = std::abs(x - t);
         return d < 0.5 ? d * d : d - 0.25;
       }},
      {"kl_div_loss",
       [](const Tensor& x, const Tensor& t, const Tensor& n) {
         return kl_div_loss(x, t, {Reduction::mean, n});
       },
       [](double x, double t) { return t * (std::log(t) - x); }},
  };
  for (const auto& [name, loss, formula] : losses)
    table
        .add(
            name, "normaliser",
            {real({3, 4}), real({3, 4}, 0.0625, 1), integers({1}, {16}, Input::Dtype::f32)},
            [loss = loss](const TensorList& in) -> TensorList {
              return {loss(in[0], in[1], in[2])};
            },
            [formula = formula](const Lists& in) -> Lists {
              return {scalar(total(map(in[0], in[1], formula).data) / 16)};
            })
        .wide();
  for (const auto& [variant, weight, pos_weight] :
       {std::tuple("weight", true, false), std::tuple("pos_weight", false, true),
        std::tuple("weight and pos_weight", true, true)})
    table
        .add(
            "bce_with_logits_loss", variant,
            {real({3, 4}, -6, 6), real({3, 4}, 0, 1), real({3, 1}, 0.5, 2).fixed(),
             real({4}, 0.5, 2).fixed()},
            [=, weight = weight, pos_weight = pos_weight](const TensorList& in) -> TensorList {
              BceOptions options;
              if (weight) options.weight = in[2];
              if (pos_weight) options.pos_weight = in[3];
              // Both are looked at in every row, for their devices.
              return {bce_with_logits_loss(in[0], in[1], options) +
                      to(sum(in[2] * 0.0), DType::f32) + to(sum(in[3] * 0.0), DType::f32)};
            },
            [=, weight = weight, pos_weight = pos_weight](const Lists& in) -> Lists {
              const Values losses = fill(in[0].shape, [&](const Index& at) {
                const double x = in[0](at), t = in[1](at);
                const double wanted = t * std::log1p(std::exp(-x)) * (pos_weight ? in[3](at) : 1);
                return (wanted + (1 - t) * std::log1p(std::exp(x))) * (weight ? in[2](at) : 1);
              });
              return {scalar(total(losses.data) / static_cast<double>(losses.data.size()))};
            })
        .wide();
}

}  // namespace

void add_weighted_loss_rows(OpTable& table) {
  add_cross_entropy(table);
  add_nll(table);
  add_soft_targets(table);
  add_elementwise(table);
}

}  // namespace binade::test
