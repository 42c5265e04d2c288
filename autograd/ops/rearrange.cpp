// Copies in another order, from shape.h: flipped, rolled, repeated, padded, cut to triangles.
#include <algorithm>
#include <numeric>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/rearrange.h>

namespace binade {

using namespace ops;

namespace {

std::vector<int> wrapped_dims(const char* op, const Tensor& x, const std::vector<int>& dims) {
  std::vector<int> result;
  for (const int dim : dims) {
    const int wrapped = x.shape().wrap_dim(dim);
    check(std::find(result.begin(), result.end(), wrapped) == result.end(), op, ": dimension ", dim,
          " is named twice for x ", Kind{x});
    result.push_back(wrapped);
  }
  return result;
}

using kernels::AxisMap;
using kernels::Beyond;

// The maps that copy x as it is, one a dimension.
std::vector<AxisMap> whole_maps(const Shape& shape) {
  std::vector<AxisMap> maps;
  for (const int64_t size : shape) maps.push_back({.size = size});
  return maps;
}

Array rearranged(const Array& x, const std::vector<AxisMap>& maps, const Shape& shape,
                 double number = 0) {
  const Array y = Array::empty(shape, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), rearrange(x, maps, number, y));
  return y;
}

// ---- padding -----------------------------------------------------------------------------------

// Elements added before and behind one dimension of `size`.
struct Edges {
  int64_t before = 0, behind = 0, size = 0;
};

struct Padding {
  std::vector<Edges> edges;  // by dimension
  Shape from, to;

  Padding(const Tensor& x, const std::vector<int64_t>& padding, PadMode mode)
      : edges(static_cast<size_t>(x.dims())), from(x.shape()), to(x.shape()) {
    check(padding.size() % 2 == 0 && padding.size() / 2 <= edges.size(), "pad: ", padding.size(),
          " numbers do not name a pair for each of the last dimensions of x ", Kind{x});
    for (size_t pair = 0; pair < padding.size() / 2; ++pair) {
      const int dim = x.dims() - 1 - static_cast<int>(pair);
      Edges& edge = edges[static_cast<size_t>(dim)];
      edge = {padding[2 * pair], padding[2 * pair + 1], x.size(dim)};
      check_fits(x, dim, edge, mode);
      to[dim] += edge.before + edge.behind;
    }
    for (int dim = 0; dim < x.dims(); ++dim) edges[static_cast<size_t>(dim)].size = x.size(dim);
  }

  // What rearranges x, in a mode other than constant.
  std::vector<AxisMap> maps(PadMode mode) const {
    std::vector<AxisMap> result = whole_maps(from);
    for (size_t dim = 0; dim < result.size(); ++dim) {
      result[dim].offset = -edges[dim].before;
      result[dim].beyond = mode == PadMode::reflect     ? Beyond::mirror
                           : mode == PadMode::replicate ? Beyond::edge
                                                        : Beyond::other_side;
    }
    return result;
  }

 private:
  static void check_fits(const Tensor& x, int dim, const Edges& edge, PadMode mode) {
    const int64_t size = x.size(dim), least = std::min(edge.before, edge.behind);
    if (mode == PadMode::constant) {
      check(size + std::min<int64_t>(edge.before, 0) + std::min<int64_t>(edge.behind, 0) >= 0,
            "pad: ", edge.before, " and ", edge.behind, " cut more than dimension ", dim, " of x ",
            Kind{x}, " has");
      return;
    }
    check(least >= 0, "pad: only constant padding may cut (be below 0), got ", edge.before, " and ",
          edge.behind);
    const int64_t most = std::max(edge.before, edge.behind);
    const int64_t available = mode == PadMode::reflect    ? size - 1
                              : mode == PadMode::circular ? size
                              : size > 0                  ? most
                                                          : 0;
    check(most <= std::max<int64_t>(available, 0), "pad: dimension ", dim, " of x ", Kind{x},
          " has too few elements for a padding of ", most, " in this mode");
  }
};

// In one pass: cutting is padding by less than nothing, and the gradient of the one the other.
Tensor pad_constant(const Tensor& x, const std::vector<int64_t>& padding, double value) {
  Shape shape = x.shape();
  std::vector<AxisMap> maps = whole_maps(shape);
  std::vector<int64_t> back;
  for (size_t pair = 0; pair < padding.size() / 2; ++pair) {
    const int dim = x.dims() - 1 - static_cast<int>(pair);
    const int64_t before = padding[2 * pair], behind = padding[2 * pair + 1];
    maps[static_cast<size_t>(dim)].offset = -before;
    shape[dim] += before + behind;
    back.insert(back.end(), {-before, -behind});
  }
  return record("pad", {x}, rearranged(x.array(), maps, shape, value),
                [back](const Tensor& dy) -> TensorList { return {pad_constant(dy, back, 0)}; });
}

Tensor pad_gradient(const Tensor& dy, const Padding& padding, PadMode mode);

Tensor pad_from_x(const Tensor& x, const Padding& padding, PadMode mode) {
  return record("pad", {x}, rearranged(x.array(), padding.maps(mode), padding.to),
                [padding, mode](const Tensor& dy) -> TensorList {
                  return {pad_gradient(dy, padding, mode)};
                });
}

Tensor pad_gradient(const Tensor& dy, const Padding& padding, PadMode mode) {
  const Array dx = Array::empty(padding.from, dy.dtype(), dy.device());
  BINADE_DISPATCH(dx.device(), rearrange_backward(dy.array(), padding.maps(mode), dx));
  return record("pad_gradient", {dy}, dx, [padding, mode](const Tensor& ddx) -> TensorList {
    return {pad_from_x(ddx, padding, mode)};
  });
}

Tensor triangle_of(const char* op, bool lower, const Tensor& x, int64_t diagonal) {
  check_defined(op, "x", x);
  check(x.dims() >= 2, op, ": x must be (…, R, C), got ", Kind{x});
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), triangle(x.array(), diagonal, lower, y));
  return record(op, {x}, y, [=](const Tensor& dy) -> TensorList {
    return {triangle_of(op, lower, dy, diagonal)};
  });
}

}  // namespace

Tensor flip(const Tensor& x, const std::vector<int>& dims_in) {
  check_defined("flip", "x", x);
  const std::vector<int> dims = wrapped_dims("flip", x, dims_in);
  std::vector<AxisMap> maps = whole_maps(x.shape());
  for (const int dim : dims) {
    AxisMap& map = maps[static_cast<size_t>(dim)];
    map.reversed = true;
    map.offset = map.size - 1;
  }
  const Array y = rearranged(x.array(), maps, x.shape());
  return record("flip", {x}, y,
                [dims](const Tensor& dy) -> TensorList { return {flip(dy, dims)}; });
}

Tensor roll(const Tensor& x, const std::vector<int64_t>& shifts_in,
            const std::vector<int>& dims_in) {
  check_defined("roll", "x", x);
  if (dims_in.empty()) {
    check(shifts_in.size() == 1, "roll: without dims there is one shift, got ", shifts_in.size());
    return reshape(roll(reshape(x, {x.numel()}), shifts_in, {0}), x.shape());
  }
  check(shifts_in.size() == dims_in.size(), "roll: ", shifts_in.size(), " shifts do not go with ",
        dims_in.size(), " dims");
  const std::vector<int> dims = wrapped_dims("roll", x, dims_in);
  std::vector<int64_t> shifts = shifts_in, back;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t size = std::max<int64_t>(x.size(dims[i]), 1);
    shifts[i] = (shifts[i] % size + size) % size;
    back.push_back(size - shifts[i]);
  }
  std::vector<AxisMap> maps = whole_maps(x.shape());
  for (size_t i = 0; i < dims.size(); ++i) {
    AxisMap& map = maps[static_cast<size_t>(dims[i])];
    map.offset = -shifts[i];
    map.beyond = Beyond::other_side;
  }
  const Array y = rearranged(x.array(), maps, x.shape());
  return record("roll", {x}, y,
                [back, dims](const Tensor& dy) -> TensorList { return {roll(dy, back, dims)}; });
}

Tensor repeat(const Tensor& x, const std::vector<int64_t>& repeats) {
  check_defined("repeat", "x", x);
  check(static_cast<int>(repeats.size()) >= x.dims() &&
            static_cast<int>(repeats.size()) <= kMaxDims &&
            std::all_of(repeats.begin(), repeats.end(), [](int64_t n) { return n >= 0; }),
        "repeat: there must be a number of repeats, not below 0, for every dimension of x ",
        Kind{x}, ", got ", repeats.size(), " numbers");
  const int added = static_cast<int>(repeats.size()) - x.dims();
  Shape sizes = Shape::filled(added, 1);
  for (const int64_t size : x.shape()) sizes.push_back(size);
  Tensor y = reshape(x, sizes);
  // A dimension that repeats becomes two, of which the front one is expanded: as many at a time as
  // there may be dimensions.
  for (int first = 0; first < sizes.dims();) {
    Shape from, to, joined;
    int next = 0;
    for (; next < sizes.dims(); ++next) {
      const int64_t times = repeats[static_cast<size_t>(next)];
      const bool doubles = next >= first && times != 1;
      if (doubles && from.dims() + 1 + sizes.dims() - next > kMaxDims) break;
      if (doubles) {
        from.push_back(1);
        to.push_back(times);
      }
      from.push_back(sizes[next]);
      to.push_back(sizes[next]);
      joined.push_back(doubles ? times * sizes[next] : sizes[next]);
    }
    if (next == first && next < sizes.dims()) {  // no dimension is left to double this one
      const auto times = static_cast<size_t>(repeats[static_cast<size_t>(first)]);
      y = times == 0 ? slice(y, first, 0, 0) : cat(std::vector<Tensor>(times, y), first);
      sizes = y.shape();
      ++first;
      continue;
    }
    const int done = next;
    for (; next < sizes.dims(); ++next) {
      from.push_back(sizes[next]);
      to.push_back(sizes[next]);
      joined.push_back(sizes[next]);
    }
    y = reshape(expand(reshape(y, from), to), joined);
    sizes = joined;
    first = done;
  }
  return y;
}

Tensor repeat_interleave(const Tensor& x, int64_t repeats, int dim_in) {
  check_defined("repeat_interleave", "x", x);
  check(repeats >= 0, "repeat_interleave: repeats must not be below 0, got ", repeats);
  const int dim = x.shape().wrap_dim(dim_in);
  Shape shape = x.shape(), folded{1, x.size(dim), repeats, 1};
  shape[dim] *= repeats;
  for (int d = 0; d < x.dims(); ++d)
    if (d != dim) folded[d < dim ? 0 : 3] *= x.size(d);
  std::vector<AxisMap> maps = whole_maps(x.shape());
  maps[static_cast<size_t>(dim)].repeats = std::max<int64_t>(repeats, 1);
  return record("repeat_interleave", {x}, rearranged(x.array(), maps, shape),
                [folded, from = x.shape()](const Tensor& dy) -> TensorList {
                  Shape each = folded;
                  each[2] = 1;
                  return {reshape(sum_to(reshape(dy, folded), each), from)};
                });
}

Tensor repeat_interleave(const Tensor& x, const Tensor& repeats, int dim_in) {
  check_defined("repeat_interleave", "x", x);
  check_index("repeat_interleave", "repeats", repeats);
  check_device("repeat_interleave", {x, repeats});
  const int dim = x.shape().wrap_dim(dim_in);
  check(repeats.shape() == Shape{x.size(dim)}, "repeat_interleave: repeats must be (", x.size(dim),
        ") for dimension ", dim, " of x ", Kind{x}, ", got ", Kind{repeats});
  std::vector<int64_t> positions;
  int64_t position = 0;
  for (const int64_t times : repeats.to_vector<int64_t>()) {
    check(times >= 0, "repeat_interleave: repeats must not be below 0, got ", times);
    positions.insert(positions.end(), static_cast<size_t>(times), position++);
  }
  const auto count = static_cast<int64_t>(positions.size());
  return index_select(x, dim, Tensor(Array::from(positions, {count}, x.device())));
}

Tensor pad(const Tensor& x, const std::vector<int64_t>& padding, PadMode mode, double value) {
  check_defined("pad", "x", x);
  const Padding edges(x, padding, mode);
  if (mode == PadMode::constant) return pad_constant(x, padding, value);
  check_floating("pad", "x", x);
  return pad_from_x(x, edges, mode);
}

Tensor tril(const Tensor& x, int64_t diagonal) {
  return triangle_of("tril", true, x, diagonal);
}

Tensor triu(const Tensor& x, int64_t diagonal) {
  return triangle_of("triu", false, x, diagonal);
}

}  // namespace binade
