// Products, truths, extremes with positions, norms.
#include <numeric>

#include "op_table.h"

namespace binade::test {

namespace {

using Fold = std::function<double(const std::vector<double>&)>;
using Reduction3 = std::function<Tensor(const Tensor&, const Axes&, bool)>;

struct Face {
  const char* variant;
  Axes axes;
  bool keep;
};
const Face kFaces[] = {{"all", {}, false},
                       {"last", {-1}, false},
                       {"first kept", {0}, true},
                       {"outer two", {0, 2}, false},
                       {"middle", {1}, false}};

// The rows of a reduction; `adjust` says what holds for all of them.
template <class Adjust>
void reduction(OpTable& table, const char* name, const std::string& variant, const Reduction3& op,
               const Fold& fold, const Input& input, const Adjust& adjust) {
  for (const Face& face : kFaces) {
    OpRow& row = table.add(
        name, variant.empty() ? face.variant : concat(variant, ", ", face.variant), {input},
        [op, face](const TensorList& in) -> TensorList {
          return {op(in[0], face.axes, face.keep)};
        },
        [fold, face](const Lists& in) -> Lists {
          return {reduce(in[0], face.axes, face.keep, fold)};
        });
    adjust(row.no_repeats());
  }
}

const auto kAsIs = [](OpRow&) {};
const auto kConstant = [](OpRow& row) { row.constant(); };

double product_of(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 1.0, std::multiplies<>());
}

Fold norm_of(double p) {
  return [p](const std::vector<double>& x) {
    double result = 0;
    for (const double value : x) {
      const double size = std::abs(value);
      if (p == INFINITY)
        result = std::max(result, size);
      else
        result += p == 0 ? (value != 0 ? 1 : 0) : std::pow(size, p);
    }
    return p == 0 || p == INFINITY ? result : std::pow(result, 1 / p);
  };
}

std::vector<double> line_of(const Values& x, Index at, int axis) {
  std::vector<double> line;
  for (int64_t i = 0; i < x.shape[axis]; ++i) {
    at[static_cast<size_t>(axis)] = i;
    line.push_back(x(at));
  }
  return line;
}

void add_products(OpTable& table) {
  reduction(
      table, "prod", "",
      [](const Tensor& x, const Axes& axes, bool keep) { return prod(x, axes, keep); }, product_of,
      real({3, 2, 4}, 0.5, 1.5), kAsIs);
  Input zeros = real({3, 4});
  zeros.values = {1, 0, 2, -1, 0, 3, 0, 1, 2, 1, -1, 0.5};
  for (const int axis : {0, 1}) {
    table.add(
        "prod", concat("zeros, axis ", axis), {zeros},
        [=](const TensorList& in) -> TensorList { return {prod(in[0], {axis})}; },
        [=](const Lists& in) -> Lists { return {reduce(in[0], {axis}, false, product_of)}; });
    for (const auto& [variant, input] :
         {std::pair("", real({4, 5}, -1.5, 1.5)), std::pair("zeros, ", zeros)})
      table.add(
          "cumprod", concat(variant, "axis ", axis), {input},
          [=](const TensorList& in) -> TensorList { return {cumprod(in[0], axis)}; },
          [=](const Lists& in) -> Lists {
            return {fill(in[0].shape, [&](const Index& at) {
              std::vector<double> line = line_of(in[0], at, axis);
              line.resize(static_cast<size_t>(at[static_cast<size_t>(axis)]) + 1);
              return product_of(line);
            })};
          });
  }
}

void add_truths(OpTable& table) {
  const std::vector<double> values = {0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0,
                                      1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1};
  for (const bool bools : {true, false}) {
    Input input = bools ? mask({2, 3, 4}, values) : real({2, 3, 4}).fixed();
    if (!bools) {
      input.values = values;
      for (double& value : input.values) value *= -0.5;
    }
    const char* variant = bools ? "" : "of numbers";
    reduction(
        table, "any", variant,
        [](const Tensor& x, const Axes& axes, bool keep) { return any(x, axes, keep); },
        [](const std::vector<double>& x) -> double {
          return std::any_of(x.begin(), x.end(), [](double v) { return v != 0; });
        },
        input, kConstant);
    reduction(
        table, "all", variant,
        [](const Tensor& x, const Axes& axes, bool keep) { return all(x, axes, keep); },
        [](const std::vector<double>& x) -> double {
          return std::all_of(x.begin(), x.end(), [](double v) { return v != 0; });
        },
        input, kConstant);
  }
}

void add_extremes(OpTable& table) {
  Input ties = real({2, 6});
  ties.values = {1, 3, 0, 3, -1, 2, -4, -4, 5, 5, 5, -4};
  for (const bool largest : {true, false})
    for (const bool equal : {false, true})
      for (const int axis : {0, 1, -1}) {
        const Input input = equal ? ties : distinct({3, 4, 5});
        const int dim = axis < 0 ? axis + input.shape.dims() : axis;
        const auto position = [=](const std::vector<double>& x) {
          const auto at =
              largest ? std::max_element(x.begin(), x.end()) : std::min_element(x.begin(), x.end());
          return static_cast<double>(at - x.begin());
        };
        OpRow& row = table.add(
            largest ? "max_with_indices" : "min_with_indices",
            concat(equal ? "ties, axis " : "axis ", axis), {input},
            [=](const TensorList& in) -> TensorList {
              const bool keep = axis == 1;
              const auto [values, indices] = largest ? max_with_indices(in[0], axis, keep)
                                                     : min_with_indices(in[0], axis, keep);
              return {values, indices};
            },
            [=](const Lists& in) -> Lists {
              return {reduce(in[0], {dim}, axis == 1,
                             [=](const std::vector<double>& x) {
                               return x[static_cast<size_t>(position(x))];
                             }),
                      reduce(in[0], {dim}, axis == 1, position)};
            });
        if (equal)
          row.constant();
        else
          row.no_repeats();
      }
  for (const int axis : {0, 1})
    table
        .add(
            "topk", concat("smallest, axis ", axis), {distinct({5, 4})},
            [=](const TensorList& in) -> TensorList {
              const auto [values, indices] = topk(in[0], 2, axis, false);
              return {values, indices};
            },
            [=](const Lists& in) -> Lists {
              Shape shape = in[0].shape;
              shape[axis] = 2;
              const auto nth = [&](const Index& at) {
                const std::vector<double> line = line_of(in[0], at, axis);
                std::vector<size_t> order(line.size());
                std::iota(order.begin(), order.end(), size_t{0});
                std::sort(order.begin(), order.end(),
                          [&](size_t a, size_t b) { return line[a] < line[b]; });
                const size_t place = order[static_cast<size_t>(at[static_cast<size_t>(axis)])];
                return std::pair(line[place], static_cast<double>(place));
              };
              return {fill(shape, [&](const Index& at) { return nth(at).first; }),
                      fill(shape, [&](const Index& at) { return nth(at).second; })};
            })
        .no_repeats();
}

double variance_of(const std::vector<double>& x, double correction) {
  double mean = 0, sum = 0;
  for (const double value : x) mean += value / static_cast<double>(x.size());
  for (const double value : x) sum += (value - mean) * (value - mean);
  return sum / std::max(static_cast<double>(x.size()) - correction, 0.0);
}

Values normalized(const Values& x, double p, int axis, double eps) {
  return fill(x.shape, [&](const Index& at) {
    return x(at) / std::max(norm_of(p)(line_of(x, at, axis)), eps);
  });
}

const std::pair<double, const char*> kOrders[] = {
    {0, "0"}, {0.5, "1/2"}, {1, "1"}, {1.5, "3/2"}, {2, "2"}, {3, "3"}, {INFINITY, "infinity"}};

// Distances between rows, for what broadcasts in front.
Values distances(const Values& a, const Values& b, double p) {
  const auto front = [](Shape shape) {
    shape.erase(shape.dims() - 1);
    shape.erase(shape.dims() - 1);
    return shape;
  };
  Shape shape = broadcast_shape(front(a.shape), front(b.shape));
  shape.push_back(a.size(-2));
  shape.push_back(b.size(-2));
  return fill(shape, [&](const Index& at) {
    Index of_a = at, of_b = at;
    of_a[at.size() - 1] = of_b[at.size() - 1] = 0;
    of_b[at.size() - 2] = at.back();
    std::vector<double> between = line_of(a, of_a, a.shape.dims() - 1);
    for (int64_t i = 0; i < a.size(-1); ++i) {
      of_b.back() = i;
      between[static_cast<size_t>(i)] -= b(of_b);
    }
    return norm_of(p)(between);
  });
}

void add_distances(OpTable& table) {
  for (const auto& [p, variant] : kOrders)
    table.add(
        "cdist", concat("p ", variant), {real({3, 4}), real({5, 4}, 2, 6)},
        [p = p](const TensorList& in) -> TensorList { return {cdist(in[0], in[1], p)}; },
        [p = p](const Lists& in) -> Lists { return {distances(in[0], in[1], p)}; });
  for (const auto& [variant, a, b] :
       {std::tuple("a batch", Shape{2, 3, 4}, Shape{2, 5, 4}),
        std::tuple("one b for all", Shape{2, 3, 4}, Shape{5, 4}),
        std::tuple("both broadcast", Shape{2, 1, 3, 4}, Shape{3, 2, 4})})
    table
        .add(
            "cdist", variant, {real(a), real(b)},
            [](const TensorList& in) -> TensorList { return {cdist(in[0], in[1])}; },
            [](const Lists& in) -> Lists { return {distances(in[0], in[1], 2)}; })
        .of_one_size();
}

void add_norms(OpTable& table) {
  for (const auto& [p, variant] : kOrders) {
    const Reduction3 op = [p = p](const Tensor& x, const Axes& axes, bool keep) {
      return norm(x, p, axes, keep);
    };
    const bool anywhere = p == 0 || p == 1 || p == 2;  // no pole at 0, and no ties
    reduction(table, "norm", variant, op, norm_of(p),
              anywhere ? real({3, 4, 5}) : distinct({3, 4, 5}), kAsIs);
    for (const int axis : {1, -1})
      table
          .add(
              "normalize", concat("p ", variant, ", axis ", axis),
              {p == 0 ? real({4, 5}, 0.5, 2) : distinct({4, 5})},
              [p = p, axis](const TensorList& in) -> TensorList {
                return {normalize(in[0], p, axis)};
              },
              [p = p](const Lists& in) -> Lists { return {normalized(in[0], p, 1, 1e-12)}; })
          .no_repeats();
  }
  table.add(
      "normalize", "a large eps", {real({4, 5}, -0.5, 0.5)},
      [](const TensorList& in) -> TensorList { return {normalize(in[0], 2, 0, 4)}; },
      [](const Lists& in) -> Lists { return {normalized(in[0], 2, 0, 4)}; });
  for (const double correction : {1.0, 0.0})
    reduction(
        table, "stddev", concat("correction ", correction),
        [=](const Tensor& x, const Axes& axes, bool keep) {
          return stddev(x, axes, correction, keep);
        },
        [=](const std::vector<double>& x) { return std::sqrt(variance_of(x, correction)); },
        real({3, 4, 5}), kAsIs);
  const auto cosine = [](const std::vector<double>& a, const std::vector<double>& b) {
    double dot = 0;
    for (size_t i = 0; i < a.size(); ++i) dot += a[i] * b[i];
    return dot / std::max(norm_of(2)(a), 1e-8) / std::max(norm_of(2)(b), 1e-8);
  };
  for (const auto& [variant, other, axis] :
       {std::tuple("one shape", Shape{4, 5}, 1), std::tuple("broadcast", Shape{1, 5}, -1),
        std::tuple("axis 0", Shape{4, 5}, 0)})
    table
        .add(
            "cosine_similarity", variant, {real({4, 5}), real(other)},
            [axis = axis](const TensorList& in) -> TensorList {
              // Of one tensor with itself the cosine is 1 and the gradient rounding errors alone.
              return {cosine_similarity(in[0], 0.5 - square(in[1]), axis)};
            },
            [axis = axis, cosine](const Lists& in) -> Lists {
              const Values b = map(in[1], in[0], [](double b, double) { return 0.5 - b * b; });
              const Values a = map(in[0], in[1], [](double a, double) { return a; });
              const int dim = axis < 0 ? axis + 2 : axis;
              Shape kept = a.shape;
              kept[dim] = 1;
              Values result = fill(kept, [&](const Index& at) {
                return cosine(line_of(a, at, dim), line_of(b, at, dim));
              });
              result.shape.erase(dim);
              return {result};
            })
        .rounded(2);
}

}  // namespace

void add_fold_rows(OpTable& table) {
  add_products(table);
  add_truths(table);
  add_extremes(table);
  add_norms(table);
  add_distances(table);
}

}  // namespace binade::test
