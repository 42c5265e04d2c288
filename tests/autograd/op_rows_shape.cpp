// Views, rearrangements, reading and writing by index.
#include "op_table.h"

namespace binade::test {

namespace {

Values reshaped(const Values& x, const Shape& shape) {
  return {shape, x.data};
}

// A row whose reference says which element of the input each output element is.
OpRow& rearrangement(OpTable& table, const char* name, const char* variant, const Shape& from,
                     const Shape& to, std::function<Tensor(const Tensor&)> op,
                     std::function<Index(const Index&)> source) {
  return table
      .add(
          name, variant, {real(from)},
          [op = std::move(op)](const TensorList& in) -> TensorList { return {op(in[0])}; },
          [to, source = std::move(source)](const Lists& in) -> Lists {
            return {fill(to, [&](const Index& i) { return in[0](source(i)); })};
          })
      .of_one_size();
}

void add_reshapes(OpTable& table) {
  const auto row = [&](const char* name, const char* variant, const Shape& from, const Shape& to,
                       Tensor (*op)(const Tensor&)) {
    table
        .add(
            name, variant, {real(from)},
            [op](const TensorList& in) -> TensorList { return {op(in[0])}; },
            [to](const Lists& in) -> Lists { return {reshaped(in[0], to)}; })
        .of_one_size();
  };
  row("reshape", "", {2, 3, 4}, {6, 4}, [](const Tensor& x) { return reshape(x, {6, 4}); });
  row("reshape", "-1", {2, 3, 4}, {4, 6}, [](const Tensor& x) { return reshape(x, {4, -1}); });
  row("reshape", "to a scalar", {1, 1}, {}, [](const Tensor& x) { return reshape(x, {}); });
  row("reshape", "no elements", {0, 3}, {3, 0}, [](const Tensor& x) { return reshape(x, {3, 0}); });
  row("flatten", "all", {2, 3, 4}, {24}, [](const Tensor& x) { return flatten(x); });
  row("flatten", "back", {2, 3, 4}, {2, 12}, [](const Tensor& x) { return flatten(x, 1); });
  row("flatten", "front", {2, 3, 4}, {6, 4}, [](const Tensor& x) { return flatten(x, 0, -2); });
  row("unsqueeze", "middle", {2, 3}, {2, 1, 3}, [](const Tensor& x) { return unsqueeze(x, 1); });
  row("unsqueeze", "behind", {2, 3}, {2, 3, 1}, [](const Tensor& x) { return unsqueeze(x, -1); });
  row("squeeze", "", {2, 1, 3}, {2, 3}, [](const Tensor& x) { return squeeze(x, -2); });
  row("contiguous", "", {3, 4}, {3, 4}, contiguous);
  row("clone", "", {3, 4}, {3, 4}, clone);
}

void add_views(OpTable& table) {
  rearrangement(
      table, "transpose", "", {2, 3, 4}, {4, 3, 2},
      [](const Tensor& x) { return transpose(x, 0, -1); },
      [](const Index& i) -> Index {
        return {i[2], i[1], i[0]};
      });
  rearrangement(
      table, "permute", "", {2, 3, 4}, {4, 2, 3},
      [](const Tensor& x) {
        return permute(x, {2, 0, -2});
      },
      [](const Index& i) -> Index {
        return {i[1], i[2], i[0]};
      });
  rearrangement(
      table, "slice", "step", {3, 7}, {3, 3}, [](const Tensor& x) { return slice(x, 1, 1, -1, 2); },
      [](const Index& i) -> Index {
        return {i[0], 1 + 2 * i[1]};
      });
  rearrangement(
      table, "slice", "to the end", {5, 2}, {3, 2}, [](const Tensor& x) { return slice(x, 0, 2); },
      [](const Index& i) -> Index {
        return {i[0] + 2, i[1]};
      });
  rearrangement(
      table, "slice", "empty", {5, 2}, {0, 2}, [](const Tensor& x) { return slice(x, 0, 3, 3); },
      [](const Index& i) { return i; });
  rearrangement(
      table, "select", "", {2, 3, 4}, {2, 4}, [](const Tensor& x) { return select(x, 1, 2); },
      [](const Index& i) -> Index {
        return {i[0], 2, i[1]};
      });
  rearrangement(
      table, "select", "from the back", {3, 4}, {3},
      [](const Tensor& x) { return select(x, -1, -1); },
      [](const Index& i) -> Index {
        return {i[0], 3};
      });
  rearrangement(
      table, "expand", "", {3, 1}, {2, 3, 4},
      [](const Tensor& x) {
        return expand(x, {2, 3, 4});
      },
      [](const Index& i) -> Index {
        return {i[1], 0};
      });
}

void add_joins(OpTable& table) {
  table
      .add(
          "cat", "", {real({2, 3}), real({2, 1}), real({2, 0}), real({2, 2})},
          [](const TensorList& in) -> TensorList { return {cat(in, -1)}; },
          [](const Lists& in) -> Lists {
            return {fill({2, 6}, [&](const Index& i) {
              if (i[1] < 3) return in[0](i);
              return i[1] < 4 ? in[1]({i[0], 0}) : in[3]({i[0], i[1] - 4});
            })};
          })
      .of_one_size();
  table.add(
      "cat", "of one shape", {real({2, 3}), real({2, 3})},
      [](const TensorList& in) -> TensorList { return {cat(in, 0)}; },
      [](const Lists& in) -> Lists {
        const int64_t rows = in[0].size(0);
        return {fill({rows + in[1].size(0), in[0].size(1)}, [&](const Index& i) {
          return i[0] < rows ? in[0](i) : in[1]({i[0] - rows, i[1]});
        })};
      });
  table.add(
      "stack", "", {real({2, 3}), real({2, 3})},
      [](const TensorList& in) -> TensorList { return {stack(in, 1)}; },
      [](const Lists& in) -> Lists {
        return {fill({in[0].size(0), 2, in[0].size(1)}, [&](const Index& i) {
          return in[static_cast<size_t>(i[1])]({i[0], i[2]});
        })};
      });
  table
      .add(
          "split", "a smaller last part", {real({2, 5})},
          [](const TensorList& in) -> TensorList { return split(in[0], 2, 1); },
          [](const Lists& in) -> Lists {
            Lists parts;
            for (int64_t start : {0, 2, 4})
              parts.push_back(fill({2, std::min<int64_t>(2, 5 - start)}, [&](const Index& i) {
                return in[0]({i[0], i[1] + start});
              }));
            return parts;
          })
      .of_one_size();
  table
      .add(
          "split", "one part unused", {real({2, 5})},
          [](const TensorList& in) -> TensorList {
            const TensorList parts = split(in[0], 2, 1);  // one of a dimension of 0
            return TensorList{parts[parts.size() > 1 ? 1 : 0]};
          },
          [](const Lists& in) -> Lists {
            return {fill({2, 2}, [&](const Index& i) { return in[0]({i[0], i[1] + 2}); })};
          })
      .of_one_size();
  // The parts of 5 columns, so many each.
  const auto parts_of = [](std::vector<int64_t> sizes) {
    return [sizes](const Lists& in) -> Lists {
      Lists parts;
      int64_t start = 0;
      for (const int64_t size : sizes) {
        parts.push_back(fill({2, size}, [&](const Index& i) {
          return in[0]({i[0], i[1] + start});
        }));
        start += size;
      }
      return parts;
    };
  };
  table
      .add(
          "split", "by sizes, one of them 0", {real({2, 5})},
          [](const TensorList& in) -> TensorList {
            return split(in[0], std::vector<int64_t>{1, 0, 4}, -1);
          },
          parts_of({1, 0, 4}))
      .of_one_size();
  table
      .add(
          "chunk", "a smaller last part", {real({2, 5})},
          [](const TensorList& in) -> TensorList { return chunk(in[0], 3, 1); },
          parts_of({2, 2, 1}))
      .of_one_size();
  table
      .add(
          "chunk", "fewer parts than asked for", {real({2, 5})},
          [](const TensorList& in) -> TensorList { return chunk(in[0], 4, 1); },
          parts_of({2, 2, 1}))
      .of_one_size();
  table.add(
      "to", "dtype there and back", {real({3, 4})},
      [](const TensorList& in) -> TensorList { return {to(to(in[0], DType::f64), in[0].dtype())}; },
      [](const Lists& in) -> Lists { return {in[0]}; });
  table
      .add(
          "to", "integers truncate", {real({3, 4}, -4, 4)},
          [](const TensorList& in) -> TensorList { return {to(in[0], DType::i64)}; },
          [](const Lists& in) -> Lists {
            return {map(in[0], [](double x) { return std::trunc(x); })};
          })
      .constant();
}

// ---- by index -----------------------------------------------------------------------------------

// The line of `index` along dim 1, or a single one.
double written(const Values& x, const Values& index, const Values& source, const Index& at,
               bool add) {
  double value = x(at);
  if (at[0] >= index.size(0)) return value;
  for (int64_t j = 0; j < index.size(1); ++j) {
    if (static_cast<int64_t>(index({at[0], j})) != at[1]) continue;
    value = add ? value + source({at[0], j}) : source({at[0], j});
  }
  return value;
}

void add_indexing(OpTable& table) {
  table.add(
      "embedding", "repeated rows", {real({6, 3}), integers({2, 4}, {5, 0, 2, 2, 2, 1, 5, 2})},
      [](const TensorList& in) -> TensorList { return {embedding(in[0], in[1])}; },
      [](const Lists& in) -> Lists {
        return {fill({in[1].size(0), in[1].size(1), in[0].size(1)}, [&](const Index& i) {
          return in[0]({static_cast<int64_t>(in[1]({i[0], i[1]})), i[2]});
        })};
      });
  table.add(
      "embedding", "i32, one index", {real({6, 3}), integers({}, {4}, Input::Dtype::i32)},
      [](const TensorList& in) -> TensorList { return {embedding(in[0], in[1])}; },
      [](const Lists& in) -> Lists {
        return {fill({in[0].size(1)}, [&](const Index& i) { return in[0]({4, i[0]}); })};
      });
  table.add(
      "gather", "", {real({3, 5}), integers({2, 3}, {4, 0, 0, 1, 4, 2})},
      [](const TensorList& in) -> TensorList { return {gather(in[0], -1, in[1])}; },
      [](const Lists& in) -> Lists {
        return {fill(in[1].shape, [&](const Index& i) {
          return in[0]({i[0], static_cast<int64_t>(in[1](i))});
        })};
      });
  const auto scattering = [&](const char* variant, bool add, const Input& x, const Input& index) {
    return &table.add(
        add ? "scatter_add" : "scatter", variant, {x, index, real(index.shape)},
        [=](const TensorList& in) -> TensorList {
          return {add ? scatter_add(in[0], 1, in[1], in[2]) : scatter(in[0], 1, in[1], in[2])};
        },
        [=](const Lists& in) -> Lists {
          return {fill(in[0].shape,
                       [&](const Index& at) { return written(in[0], in[1], in[2], at, add); })};
        });
  };
  for (const bool add : {false, true}) {
    const Input repeated = integers({2, 3}, {4, 0, 0, 1, 4, 1});
    scattering("", add, real({3, 5}), integers({2, 3}, {4, 0, 3, 1, 4, 2}));
    scattering("repeated places", add, real({3, 5}), repeated);
    scattering("of one shape", add, real({2, 3}), integers({2, 3}, {2, 0, 0, 1, 2, 1}));
  }
  table.add(
      "index_select", "", {real({3, 5}), integers({4}, {4, 0, 0, 2}, Input::Dtype::i32)},
      [](const TensorList& in) -> TensorList { return {index_select(in[0], 1, in[1])}; },
      [](const Lists& in) -> Lists {
        return {fill({in[0].size(0), in[1].size(0)}, [&](const Index& i) {
          return in[0]({i[0], static_cast<int64_t>(in[1]({i[1]}))});
        })};
      });
  for (const auto& [variant, x, index] :
       {std::tuple("", real({4, 3}), integers({5}, {3, 0, 3, 1, 3})),
        std::tuple("of one shape", real({4, 3}), integers({4}, {3, 0, 3, 1}))})
    table.add(
        "index_add", variant, {x, index, real({index.shape[0], 3})},
        [](const TensorList& in) -> TensorList { return {index_add(in[0], 0, in[1], in[2])}; },
        [](const Lists& in) -> Lists {
          return {fill(in[0].shape, [&](const Index& at) {
            double value = in[0](at);
            for (int64_t j = 0; j < in[1].size(0); ++j)
              if (static_cast<int64_t>(in[1]({j})) == at[0]) value += in[2]({j, at[1]});
            return value;
          })};
        });
}

}  // namespace

void add_shape_rows(OpTable& table) {
  add_reshapes(table);
  add_views(table);
  add_joins(table);
  add_indexing(table);
}

}  // namespace binade::test
