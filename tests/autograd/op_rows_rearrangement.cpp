// Copies in another order: flipped, rolled, repeated, padded, cut to triangles.
#include "op_table.h"

namespace binade::test {

namespace {

int64_t wrapped(int64_t position, int64_t size) {
  return (position % size + size) % size;
}

using Source = std::function<Index(const Index& at, const Shape& from)>;

// A row whose reference says where an element comes from.
OpRow& rearrangement(OpTable& table, const char* name, const std::string& variant,
                     const Shape& from, std::function<Tensor(const Tensor&)> op,
                     std::function<Shape(const Shape&)> to, Source source) {
  return table.add(
      name, variant, {real(from)},
      [op = std::move(op)](const TensorList& in) -> TensorList { return {op(in[0])}; },
      [to = std::move(to), source = std::move(source)](const Lists& in) -> Lists {
        return {
            fill(to(in[0].shape), [&](const Index& at) { return in[0](source(at, in[0].shape)); })};
      });
}

Shape itself(const Shape& shape) {
  return shape;
}

void add_flips(OpTable& table) {
  const auto flipped = [&](const char* variant, std::vector<int> dims) {
    rearrangement(
        table, "flip", variant, {2, 3, 4}, [dims](const Tensor& x) { return flip(x, dims); },
        itself,
        [dims](Index at, const Shape& from) {
          for (const int dim : dims) {
            const int d = dim < 0 ? dim + from.dims() : dim;
            int64_t& position = at[static_cast<size_t>(d)];
            position = from[d] - 1 - position;
          }
          return at;
        });
  };
  flipped("last", {-1});
  flipped("first", {0});
  flipped("outer two", {0, 2});
  flipped("none", {});

  const auto rolled = [&](const char* variant, std::vector<int64_t> shifts, std::vector<int> dims) {
    rearrangement(
        table, "roll", variant, {2, 3, 4}, [=](const Tensor& x) { return roll(x, shifts, dims); },
        itself,
        [=](Index at, const Shape& from) {
          for (size_t i = 0; i < dims.size(); ++i) {
            int64_t& position = at[static_cast<size_t>(dims[i])];
            position = wrapped(position - shifts[i], from[dims[i]]);
          }
          return at;
        });
  };
  rolled("forwards", {1}, {2});
  rolled("backwards", {-5}, {1});
  rolled("two dimensions", {1, 2}, {0, 2});
  rearrangement(
      table, "roll", "flat", {2, 3}, [](const Tensor& x) { return roll(x, {4}); }, itself,
      [](const Index& at, const Shape& from) -> Index {
        const int64_t flat = wrapped(at[0] * from[1] + at[1] - 4, from.numel());
        return {flat / from[1], flat % from[1]};
      });
}

void add_repeats(OpTable& table) {
  const auto repeated = [&](const char* variant, const Shape& from, std::vector<int64_t> times) {
    rearrangement(
        table, "repeat", variant, from, [times](const Tensor& x) { return repeat(x, times); },
        [times](const Shape& from) {
          Shape to(times);
          const int added = to.dims() - from.dims();
          for (int d = 0; d < from.dims(); ++d) to[added + d] *= from[d];
          return to;
        },
        [times](const Index& at, const Shape& from) {
          const size_t added = times.size() - static_cast<size_t>(from.dims());
          Index source(at.begin() + static_cast<long>(added), at.end());
          for (size_t d = 0; d < source.size(); ++d) source[d] %= from[static_cast<int>(d)];
          return source;
        });
  };
  repeated("in place", {2, 3}, {2, 3});
  repeated("once", {2, 3}, {1, 1});
  repeated("a new dimension", {2, 3}, {2, 1, 2});
  repeated("nothing", {2, 3}, {0, 2});
  repeated("many dimensions", {2, 1, 2, 1, 2}, {2, 2, 1, 3, 2});
  repeated("as many as there may be", {2, 1, 1, 1, 2, 1, 1}, {2, 2, 1, 1, 1, 1, 1, 2});

  for (const int dim : {0, -1})
    rearrangement(
        table, "repeat_interleave", concat("dim ", dim), {2, 3},
        [dim](const Tensor& x) { return repeat_interleave(x, 3, dim); },
        [dim](Shape shape) {
          shape[dim < 0 ? 1 : 0] *= 3;
          return shape;
        },
        [dim](Index at, const Shape&) {
          at[dim < 0 ? 1 : 0] /= 3;
          return at;
        });
  table
      .add(
          "repeat_interleave", "counts", {real({3, 2}), integers({3}, {2, 0, 3})},
          [](const TensorList& in) -> TensorList { return {repeat_interleave(in[0], in[1], 0)}; },
          [](const Lists& in) -> Lists {
            const int64_t rows[] = {0, 0, 2, 2, 2};
            return {fill({5, in[0].size(1)}, [&](const Index& at) {
              return in[0]({rows[at[0]], at[1]});
            })};
          })
      .of_one_size();
}

// Where position `at` of a padded dimension comes from; −1: nowhere.
int64_t padding_source(int64_t at, int64_t before, int64_t size, PadMode mode) {
  const int64_t place = at - before;
  if (place >= 0 && place < size) return place;
  switch (mode) {
    case PadMode::reflect:
      return place < 0 ? -place : 2 * (size - 1) - place;
    case PadMode::replicate:
      return place < 0 ? 0 : size - 1;
    case PadMode::circular:
      return wrapped(place, size);
    default:
      return -1;
  }
}

void add_padding(OpTable& table) {
  const auto padded = [&](const char* variant, const Shape& from, std::vector<int64_t> padding,
                          PadMode mode) {
    table.add(
        "pad", variant, {real(from)},
        [=](const TensorList& in) -> TensorList { return {pad(in[0], padding, mode, 0.5)}; },
        [=](const Lists& in) -> Lists {
          Shape to = in[0].shape;
          std::vector<int64_t> before(static_cast<size_t>(to.dims()), 0);
          for (size_t pair = 0; pair < padding.size() / 2; ++pair) {
            const int dim = to.dims() - 1 - static_cast<int>(pair);
            before[static_cast<size_t>(dim)] = padding[2 * pair];
            to[dim] += padding[2 * pair] + padding[2 * pair + 1];
          }
          return {fill(to, [&](const Index& at) {
            Index source = at;
            for (size_t d = 0; d < at.size(); ++d) {
              source[d] = padding_source(at[d], before[d], in[0].shape[static_cast<int>(d)], mode);
              if (source[d] < 0) return 0.5;
            }
            return in[0](source);
          })};
        });
  };
  padded("constant", {2, 3}, {1, 2}, PadMode::constant);
  padded("constant, three dimensions", {2, 3, 4}, {0, 1, 2, 0, 1, 1}, PadMode::constant);
  padded("constant, cut", {4, 5}, {-1, 2, 1, -2}, PadMode::constant);
  padded("constant, nothing", {2, 3}, {}, PadMode::constant);
  for (const auto& [mode, name] :
       {std::pair(PadMode::reflect, "reflect"), std::pair(PadMode::replicate, "replicate"),
        std::pair(PadMode::circular, "circular")}) {
    padded(name, {2, 4}, {3, 2}, mode);
    padded(concat(name, ", two dimensions").c_str(), {2, 4, 3}, {1, 2, 3, 1}, mode);
    padded(concat(name, ", three dimensions").c_str(), {2, 3, 2, 3}, {2, 1, 1, 1, 0, 2}, mode);
  }
  padded("replicate, far", {2, 3}, {4, 7}, PadMode::replicate);
}

void add_triangles(OpTable& table) {
  for (const bool lower : {true, false})
    for (const int64_t diagonal : {int64_t{0}, int64_t{2}, int64_t{-1}, int64_t{-9}})
      for (const Shape& shape : {Shape{4, 5}, Shape{2, 3, 3}, Shape{2, 5, 8}})
        table.add(
            lower ? "tril" : "triu", concat("diagonal ", diagonal, " of ", shape), {real(shape)},
            [=](const TensorList& in) -> TensorList {
              return {lower ? tril(in[0], diagonal) : triu(in[0], diagonal)};
            },
            [=](const Lists& in) -> Lists {
              return {fill(in[0].shape, [&](const Index& at) {
                const int64_t place = at.back() - at[at.size() - 2];
                return (lower ? place <= diagonal : place >= diagonal) ? in[0](at) : 0.0;
              })};
            });
}

}  // namespace

void add_rearrangement_rows(OpTable& table) {
  add_flips(table);
  add_repeats(table);
  add_padding(table);
  add_triangles(table);
  rearrangement(
      table, "expand", "-1", {3, 1},
      [](const Tensor& x) {
        return expand(x, {2, -1, 4});
      },
      [](const Shape& from) {
        return Shape{2, from[0], 4};
      },
      [](const Index& at, const Shape&) -> Index {
        return {at[1], 0};
      })
      .of_one_size();
}

}  // namespace binade::test
