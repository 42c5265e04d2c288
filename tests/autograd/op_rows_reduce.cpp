// Reductions, scans, orderings, softmax.
#include <numeric>

#include "op_table.h"

namespace binade::test {

namespace {

double mean_of(const std::vector<double>& x) {
  return total(x) / static_cast<double>(x.size());
}

double largest_of(const std::vector<double>& x) {
  return *std::max_element(x.begin(), x.end());
}

double smallest_of(const std::vector<double>& x) {
  return *std::min_element(x.begin(), x.end());
}

double variance_of(const std::vector<double>& x, double correction) {
  const double mean = mean_of(x);
  double sum = 0;
  for (double value : x) sum += (value - mean) * (value - mean);
  // As PyTorch: too few values are divided by 0.
  return sum / std::max(static_cast<double>(x.size()) - correction, 0.0);
}

using Reduction3 = Tensor (*)(const Tensor&, const Axes&, bool);
using Fold = double (*)(const std::vector<double>&);

void add_reduction(OpTable& table, const char* name, Reduction3 op, Fold fold, const Input& input) {
  const std::vector<std::tuple<const char*, Axes, bool>> faces = {{"all", {}, false},
                                                                  {"last", {-1}, false},
                                                                  {"first kept", {0}, true},
                                                                  {"outer two", {0, 2}, false},
                                                                  {"middle", {1}, false}};
  for (const auto& [variant, axes, keep] : faces)
    table
        .add(
            name, variant, {input},
            [op, axes = axes, keep = keep](const TensorList& in) -> TensorList {
              return {op(in[0], axes, keep)};
            },
            [fold, axes = axes, keep = keep](const Lists& in) -> Lists {
              return {reduce(in[0], axes, keep, fold)};
            })
        .no_repeats();
}

// Positions along `axis` in the order that `before` puts the elements in; ties by position.
std::vector<int64_t> order_of(const std::vector<double>& line, bool descending) {
  std::vector<int64_t> order(line.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const double x = line[static_cast<size_t>(a)], y = line[static_cast<size_t>(b)];
    return descending ? x > y : x < y;
  });
  return order;
}

std::vector<double> line_of(const Values& x, Index at, int axis) {
  std::vector<double> line;
  for (int64_t i = 0; i < x.shape[axis]; ++i) {
    at[static_cast<size_t>(axis)] = i;
    line.push_back(x(at));
  }
  return line;
}

// {values, positions} of the first `k` along `axis`.
Lists ordered(const Values& x, int axis, bool descending, int64_t k) {
  Shape shape = x.shape;
  shape[axis] = k;
  const auto position = [&](const Index& at) {
    return order_of(line_of(x, at, axis),
                    descending)[static_cast<size_t>(at[static_cast<size_t>(axis)])];
  };
  return {fill(shape,
               [&](const Index& at) {
                 Index from = at;
                 from[static_cast<size_t>(axis)] = position(at);
                 return x(from);
               }),
          fill(shape, [&](const Index& at) { return static_cast<double>(position(at)); })};
}

void add_orderings(OpTable& table) {
  for (const bool descending : {false, true})
    for (const int axis : {0, 1})
      table
          .add(
              "sort", concat(descending ? "descending" : "ascending", ", axis ", axis),
              {distinct({5, 4})},
              [=](const TensorList& in) -> TensorList {
                const auto [values, indices] = sort(in[0], axis, descending);
                return {values, indices};
              },
              [=](const Lists& in) -> Lists {
                return ordered(in[0], axis, descending, in[0].shape[axis]);
              })
          .no_repeats();
  Input ties = real({8});
  ties.values = {1, 0, 1, 2, 0, 2, 1, 0};
  for (const bool descending : {false, true})
    table
        .add(
            "sort", descending ? "stable, descending" : "stable", {ties},
            [=](const TensorList& in) -> TensorList {
              const auto [values, indices] = sort(in[0], 0, descending);
              return {values, indices};
            },
            [=](const Lists& in) -> Lists { return ordered(in[0], 0, descending, in[0].size(0)); })
        .constant();
  for (const int axis : {0, 1})
    table
        .add(
            "topk", concat("axis ", axis), {distinct({5, 4})},
            [=](const TensorList& in) -> TensorList {
              const auto [values, indices] = topk(in[0], 3, axis);
              return {values, indices};
            },
            [=](const Lists& in) -> Lists { return ordered(in[0], axis, true, 3); })
        .no_repeats();
}

Values softmax_of(const Values& x, int axis, bool logarithm) {
  return fill(x.shape, [&](const Index& at) {
    const double log_share = x(at) - log_sum_exp(line_of(x, at, axis));
    return logarithm ? log_share : std::exp(log_share);
  });
}

}  // namespace

void add_reduction_rows(OpTable& table) {
  const Input x = real({3, 4, 5});
  add_reduction(table, "sum", sum, total, x);
  add_reduction(table, "mean", mean, mean_of, x);
  add_reduction(table, "max", max, largest_of, distinct({3, 4, 5}));
  add_reduction(table, "min", min, smallest_of, distinct({3, 4, 5}));
  add_reduction(table, "logsumexp", logsumexp, log_sum_exp, real({3, 4, 5}, -8, 8));
  add_reduction(
      table, "var",
      [](const Tensor& x, const Axes& axes, bool keep) { return var(x, axes, 1, keep); },
      [](const std::vector<double>& x) { return variance_of(x, 1); }, x);
  table.add(
      "var", "no correction", {real({4, 6})},
      [](const TensorList& in) -> TensorList { return {var(in[0], {1}, 0)}; },
      [](const Lists& in) -> Lists {
        return {reduce(in[0], {1}, false,
                       [](const std::vector<double>& x) { return variance_of(x, 0); })};
      });
  for (const auto& [name, op, largest] :
       {std::tuple("argmax", &argmax, true), std::tuple("argmin", &argmin, false)})
    for (const int axis : {0, 1, 2})
      table
          .add(
              name, concat("axis ", axis), {distinct({3, 4, 5})},
              [op = op, axis](const TensorList& in) -> TensorList {
                return {op(in[0], axis, axis == 1)};
              },
              [largest = largest, axis](const Lists& in) -> Lists {
                return {reduce(in[0], {axis}, axis == 1, [=](const std::vector<double>& x) {
                  return static_cast<double>(order_of(x, largest)[0]);
                })};
              })
          .constant();
  for (const int axis : {0, -1})
    table.add(
        "cumsum", concat("axis ", axis), {real({4, 5})},
        [=](const TensorList& in) -> TensorList { return {cumsum(in[0], axis)}; },
        [=](const Lists& in) -> Lists {
          const int dim = axis < 0 ? axis + 2 : axis;
          return {fill(in[0].shape, [&](const Index& at) {
            const std::vector<double> line = line_of(in[0], at, dim);
            return std::accumulate(line.begin(), line.begin() + at[static_cast<size_t>(dim)] + 1,
                                   0.0);
          })};
        });
  add_orderings(table);
  for (const int axis : {-1, 1, 0}) {
    const int dim = axis < 0 ? axis + 3 : axis;
    table.add(
        "softmax", concat("axis ", axis), {real({3, 4, 5}, -8, 8)},
        [=](const TensorList& in) -> TensorList { return {softmax(in[0], axis)}; },
        [=](const Lists& in) -> Lists { return {softmax_of(in[0], dim, false)}; });
    table.add(
        "log_softmax", concat("axis ", axis), {real({3, 4, 5}, -8, 8)},
        [=](const TensorList& in) -> TensorList { return {log_softmax(in[0], axis)}; },
        [=](const Lists& in) -> Lists { return {softmax_of(in[0], dim, true)}; });
  }
}

}  // namespace binade::test
