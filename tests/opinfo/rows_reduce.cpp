#include <cmath>

#include "sample.h"

namespace binade::opinfo {

namespace {

Axes axes_of(Sample& s, int position = 1) {
  Axes axes;
  if (s.given(position, "dim"))
    for (const int64_t axis : s.integers(position, "dim")) axes.push_back(static_cast<int>(axis));
  return axes;
}

using Reduction = Tensor (*)(const Tensor&, const Axes&, bool);

Row reduction(const char* op, Reduction function) {
  return {op, [function](Sample& s) -> TensorList {
            const Axes axes = axes_of(s);
            return {function(s.tensor(0), axes, s.flag(2, "keepdim", false))};
          }};
}

TensorList variance(Sample& s) {
  const Tensor x = s.tensor(0);
  // var(x, unbiased), var(x, dim, unbiased, keepdim), var(x, dim, correction = …).
  const Axes axes = axes_of(s);
  double correction = s.number(-1, "correction", 1);
  if (s.given(-1, "unbiased")) correction = s.flag(-1, "unbiased", true) ? 1 : 0;
  return {var(x, axes, correction, s.flag(-1, "keepdim", false))};
}

double order_of(Sample& s, int position, const char* name, double otherwise) {
  const double p = s.given(position, name) ? s.number(position, name) : otherwise;
  if (p < 0) throw NotOffered("a norm of an order below 0");
  return p;
}

// max(x), max(x, dim) and max(x, other).
Row extreme(const char* op, Reduction over_all,
            std::pair<Tensor, Tensor> (*along)(const Tensor&, int, bool),
            Tensor (*of_two)(const Tensor&, const Tensor&)) {
  return {op, [=](Sample& s) -> TensorList {
            const Tensor x = s.tensor(0);
            if (s.is_tensor(1, "other")) return {of_two(x, s.tensor(1, "other"))};
            if (!s.given(1, "dim")) return {over_all(x, {}, false)};
            if (x.dims() == 0) throw NotOffered("a scalar");
            const auto [values, indices] =
                along(x, static_cast<int>(s.integer(1, "dim")), s.flag(2, "keepdim", false));
            return {values, indices};
          }};
}

using ArgExtreme = Tensor (*)(const Tensor&, int, bool);

Row arg_extreme(const char* op, ArgExtreme function) {
  return {op, [function](Sample& s) -> TensorList {
            const Tensor x = s.tensor(0);
            const bool keep = s.flag(2, "keepdim", false);
            if (s.given(1, "dim"))
              return {function(x, static_cast<int>(s.integer(1, "dim")), keep)};
            if (keep) throw NotOffered("keepdim without dim");
            return {function(flatten(x), 0, false)};
          }};
}

TensorList along(Sample& s, Tensor (*function)(const Tensor&, int)) {
  const Tensor x = s.tensor(0);
  if (x.dims() == 0) throw NotOffered("softmax of a scalar");
  return {function(x, static_cast<int>(s.integer(1, "dim")))};
}

}  // namespace

std::vector<Row> reduction_rows() {
  return {
      reduction("sum", sum),
      reduction("mean", mean),
      reduction("amax", max),
      reduction("amin", min),
      {"logsumexp",
       [](Sample& s) -> TensorList {
         const Axes axes = axes_of(s);
         if (axes.empty() && s.tensor(0).dims() > 0) throw NotOffered("no dimension");
         return {logsumexp(s.tensor(0), axes, s.flag(2, "keepdim", false))};
       }},
      {"var", variance},
      arg_extreme("argmax", argmax),
      arg_extreme("argmin", argmin),
      {"cumsum",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         return {cumsum(s.tensor(0), static_cast<int>(s.integer(1, "dim")))};
       }},
      {"sort",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         const int dim = static_cast<int>(s.integer(1, "dim", -1));
         const bool descending = s.flag(2, "descending", false);
         s.flag(-1, "stable", false);  // ours always is
         const auto [values, indices] = sort(s.tensor(0), dim, descending);
         return {values, indices};
       }},
      {"topk",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         const int dim = static_cast<int>(s.integer(2, "dim", -1));
         const bool largest = s.flag(3, "largest", true);
         s.flag(4, "sorted", true);  // ours always are
         const auto [values, indices] = topk(s.tensor(0), s.integer(1, "k"), dim, largest);
         return {values, indices};
       }},
      extreme("max", max, max_with_indices, maximum),
      extreme("min", min, min_with_indices, minimum),
      reduction("any", any),
      reduction("all", all),
      {"prod",
       [](Sample& s) -> TensorList {
         s.only(-1, "dtype", nullptr);
         const Axes axes = axes_of(s);
         return {prod(s.tensor(0), axes, s.flag(2, "keepdim", false))};
       }},
      {"cumprod",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         return {cumprod(s.tensor(0), static_cast<int>(s.integer(1, "dim")))};
       }},
      {"std",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         const Axes axes = axes_of(s);
         double correction = s.number(-1, "correction", 1);
         if (s.given(-1, "unbiased")) correction = s.flag(-1, "unbiased", true) ? 1 : 0;
         return {stddev(x, axes, correction, s.flag(-1, "keepdim", false))};
       }},
      {"norm",
       [](Sample& s) -> TensorList {
         if (s.given(1, "p") && !s.is_number(1, "p") && s.text(1, "p", "") != "fro")
           throw NotOffered("the norm of matrices " + s.text(1, "p", ""));
         const double p = s.is_number(1, "p") ? order_of(s, 1, "p", 2) : 2;
         const Axes axes = axes_of(s, 2);
         return {norm(s.tensor(0), p, axes, s.flag(3, "keepdim", false))};
       }},
      {"linalg.norm",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         const Axes axes = axes_of(s, 2);
         const bool of_matrices =
             s.given(1, "ord") && axes.size() != 1 && (x.dims() != 1 || axes.size() > 1);
         if (of_matrices) throw NotOffered("norms of matrices");
         return {norm(x, order_of(s, 1, "ord", 2), axes, s.flag(3, "keepdim", false))};
       }},
      {"linalg.vector_norm",
       [](Sample& s) -> TensorList {
         const double p = order_of(s, 1, "ord", 2);
         const Axes axes = axes_of(s, 2);
         return {norm(s.tensor(0), p, axes, s.flag(3, "keepdim", false))};
       }},
      {"cdist",
       [](Sample& s) -> TensorList {
         s.text(3, "compute_mode", "");  // how, not what
         return {cdist(s.tensor(0), s.tensor(1, "x2"), order_of(s, 2, "p", 2))};
       }},
      {"nn.functional.normalize",
       [](Sample& s) -> TensorList {
         const double p = order_of(s, 1, "p", 2);
         if (s.tensor(0).dims() == 0) throw NotOffered("a scalar");
         return {normalize(s.tensor(0), p, static_cast<int>(s.integer(2, "dim", 1)),
                           s.number(3, "eps", 1e-12))};
       }},
      {"nn.functional.cosine_similarity",
       [](Sample& s) -> TensorList {
         return {cosine_similarity(s.tensor(0), s.tensor(1, "x2"),
                                   static_cast<int>(s.integer(2, "dim", 1)),
                                   s.number(3, "eps", 1e-8))};
       }},
      {"softmax", [](Sample& s) { return along(s, softmax); }},
      {"log_softmax", [](Sample& s) { return along(s, log_softmax); }},
  };
}

}  // namespace binade::opinfo
