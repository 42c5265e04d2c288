// Indexing by tensors and masks, folds by index, choosing positions.
#include <binade/core/random.h>

#include "op_table.h"

namespace binade::test {

namespace {

// What core/random.h says of the first draw of an op inside a step.
constexpr uint64_t kFirstOpPlace = 0xc00000;

// x[…] with index tensors (and slices: nullptr) as NumPy has it: positions of x by result position.
struct Picked {
  Shape shape;
  std::function<Index(const Index&)> source;
};

Picked pick(const Shape& x, const std::vector<const Values*>& indices) {
  Shape spread;
  std::vector<int> indexed, others;
  for (int d = 0; d < x.dims(); ++d) {
    const bool given = d < static_cast<int>(indices.size()) && indices[static_cast<size_t>(d)];
    (given ? indexed : others).push_back(d);
    if (given) spread = broadcast_shape(spread, indices[static_cast<size_t>(d)]->shape);
  }
  const bool neighbours = indexed.back() - indexed.front() + 1 == static_cast<int>(indexed.size());
  const int front = neighbours ? indexed.front() : 0;  // dimensions before the spread ones
  Picked picked;
  for (int i = 0; i < front; ++i) picked.shape.push_back(x[others[static_cast<size_t>(i)]]);
  for (const int64_t size : spread) picked.shape.push_back(size);
  for (size_t i = static_cast<size_t>(front); i < others.size(); ++i)
    picked.shape.push_back(x[others[i]]);
  picked.source = [=](const Index& at) {
    const Index place(at.begin() + front, at.begin() + front + spread.dims());
    Index source(static_cast<size_t>(x.dims()));
    for (const int d : indexed) {
      const auto position = static_cast<int64_t>((*indices[static_cast<size_t>(d)])(place));
      source[static_cast<size_t>(d)] = position < 0 ? position + x[d] : position;
    }
    for (size_t i = 0; i < others.size(); ++i)
      source[static_cast<size_t>(others[i])] =
          at[static_cast<int>(i) < front ? i : i + static_cast<size_t>(spread.dims())];
    return source;
  };
  return picked;
}

struct Indexing {
  const char* variant;
  std::vector<Input> indices;
  std::vector<int> where;  // the dimension of each
};

std::vector<Indexing> indexings() {
  const auto by = [](const Shape& shape, std::vector<double> values) {
    return integers(shape, std::move(values));
  };
  return {
      {"one in front", {by({3}, {2, 0, -1})}, {0}},
      {"one in the middle", {by({2, 2}, {0, 3, 1, 3})}, {1}},
      {"two neighbours", {by({3}, {0, 2, 1}), by({3}, {3, -4, 0})}, {0, 1}},
      {"two at the back", {by({2, 1}, {0, 3}), by({2}, {1, 0})}, {1, 2}},
      {"apart", {by({3}, {0, 2, 2}), by({3}, {1, 0, 1})}, {0, 2}},
      {"all", {by({2}, {2, 1}), by({2}, {0, -1}), by({2}, {1, 1})}, {0, 1, 2}},
  };
}

// The list that index() takes, from inputs behind the first `before`.
template <class T>
std::vector<T> placed(const Indexing& indexing, const std::vector<T>& in, size_t before) {
  std::vector<T> list(static_cast<size_t>(indexing.where.back()) + 1);
  for (size_t i = 0; i < indexing.where.size(); ++i)
    list[static_cast<size_t>(indexing.where[i])] = in[before + i];
  return list;
}

Picked picked_by(const Indexing& indexing, const Lists& in, size_t before) {
  std::vector<const Values*> pointers;
  for (const Values& values : in) pointers.push_back(&values);
  return pick(in[0].shape, placed(indexing, pointers, before));
}

void add_indexing(OpTable& table) {
  const Shape shape{3, 4, 2};
  for (const Indexing& indexing : indexings()) {
    std::vector<Input> inputs = {real(shape)};
    inputs.insert(inputs.end(), indexing.indices.begin(), indexing.indices.end());
    table.add(
        "index", indexing.variant, inputs,
        [=](const TensorList& in) -> TensorList { return {index(in[0], placed(indexing, in, 1))}; },
        [=](const Lists& in) -> Lists {
          const Picked picked = picked_by(indexing, in, 1);
          return {fill(picked.shape, [&](const Index& at) { return in[0](picked.source(at)); })};
        });

    Lists like = {{shape, std::vector<double>(24)}};
    for (const Input& input : indexing.indices) like.push_back({input.shape, input.values});
    const Shape values = picked_by(indexing, like, 1).shape;
    inputs.insert(inputs.begin() + 1, real(values));
    for (const bool accumulate : {false, true})
      table
          .add(
              "index_put", concat(indexing.variant, accumulate ? ", added" : ""), inputs,
              [=](const TensorList& in) -> TensorList {
                return {index_put(in[0], placed(indexing, in, 2), in[1], accumulate)};
              },
              [=](const Lists& in) -> Lists {
                const Picked picked = picked_by(indexing, in, 2);
                Values result = in[0];
                for_each_index(picked.shape, [&](const Index& at) {
                  int64_t flat = 0;
                  const Index source = picked.source(at);
                  for (size_t d = 0; d < source.size(); ++d)
                    flat = flat * in[0].shape[static_cast<int>(d)] + source[d];
                  double& place = result.data[static_cast<size_t>(flat)];
                  place = (accumulate ? place : 0) + in[1](at);
                });
                return {result};
              })
          .of_one_size();
  }
  table
      .add(
          "index_put", "one value, i32",
          {real({3, 2}), real({}), integers({2}, {2, 0}, Input::Dtype::i32)},
          [](const TensorList& in) -> TensorList { return {index_put(in[0], {in[2]}, in[1])}; },
          [](const Lists& in) -> Lists {
            return {fill(in[0].shape,
                         [&](const Index& at) { return at[0] == 1 ? in[0](at) : in[1]({}); })};
          })
      .of_one_size();
  for (const auto& [variant, shape] :
       {std::pair("of one shape", Shape{3, 5}), std::pair("broadcast", Shape{5})}) {
    std::vector<double> chosen;
    for (int64_t i = 0; i < shape.numel(); ++i) chosen.push_back(i * i % 3 == 1 ? 1 : 0);
    table.add(
        "masked_select", variant, {real({3, 5}), mask(shape, chosen)},
        [](const TensorList& in) -> TensorList { return {masked_select(in[0], in[1])}; },
        [](const Lists& in) -> Lists {
          Values result{{0}, {}};
          for_each_index(broadcast_shape(in[0].shape, in[1].shape), [&](const Index& at) {
            if (in[1](at) != 0) result.data.push_back(in[0](at));
          });
          result.shape = {static_cast<int64_t>(result.data.size())};
          return {result};
        });
  }
}

double folded(ScatterReduce reduce, const std::vector<double>& x) {
  double result = reduce == ScatterReduce::prod ? 1 : 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (reduce == ScatterReduce::prod)
      result *= x[i];
    else if (reduce == ScatterReduce::amax)
      result = i == 0 ? x[i] : std::max(result, x[i]);
    else if (reduce == ScatterReduce::amin)
      result = i == 0 ? x[i] : std::min(result, x[i]);
    else
      result += x[i];
  }
  return reduce == ScatterReduce::mean ? result / static_cast<double>(x.size()) : result;
}

void add_scatter_reduce(OpTable& table) {
  const std::pair<ScatterReduce, const char*> kinds[] = {{ScatterReduce::sum, "sum"},
                                                         {ScatterReduce::prod, "prod"},
                                                         {ScatterReduce::mean, "mean"},
                                                         {ScatterReduce::amax, "amax"},
                                                         {ScatterReduce::amin, "amin"}};
  Input zeros = real({4, 3});
  zeros.values = {1, 0, 2, 0, 0, 1, 3, 2, 0, 1, -1, 2};
  for (const auto& [kind, name] : kinds)
    for (const bool include_self : {true, false})
      for (const bool with_zeros : {false, true}) {
        if (with_zeros && kind != ScatterReduce::prod) continue;
        OpRow& row = table.add(
            "scatter_reduce",
            concat(name, include_self ? "" : ", without self", with_zeros ? ", zeros" : ""),
            {with_zeros ? zeros : distinct({4, 3}), with_zeros ? zeros : distinct({4, 3}),
             integers({4, 3}, {0, 1, 3, 0, 1, 3, 2, 1, 0, 0, 3, 0})},
            [kind = kind, include_self](const TensorList& in) -> TensorList {
              return {scatter_reduce(in[0], 0, in[2], in[1] * 1.03125, kind, include_self)};
            },
            [kind = kind, include_self](const Lists& in) -> Lists {
              return {fill(in[0].shape, [&](const Index& at) {
                std::vector<double> all;
                for (int64_t i = 0; i < in[2].size(0); ++i)
                  if (static_cast<int64_t>(in[2]({i, at[1]})) == at[0])
                    all.push_back(in[1]({i, at[1]}) * 1.03125);
                if (include_self || all.empty()) all.insert(all.begin(), in[0](at));
                return folded(kind, all);
              })};
            });
        row.no_repeats().rounded(2).of_one_size();
        if (kind == ScatterReduce::prod)
          row.differentiable_once("take prod", "with ScatterReduce::prod");
      }
}

void add_choices(OpTable& table) {
  const auto counted = [](const Values& x, int64_t length,
                          const std::function<double(size_t)>& weight) {
    Values counts = fill({length}, [](const Index&) { return 0.0; });
    for (size_t i = 0; i < x.data.size(); ++i)
      counts.data[static_cast<size_t>(x.data[i])] += weight(i);
    return counts;
  };
  const Input numbers = integers({7}, {3, 0, 1, 3, 3, 0, 5});
  table
      .add(
          "bincount", "numbers", {numbers},
          [](const TensorList& in) -> TensorList {
            return {bincount(in[0]), bincount(in[0], {}, 8)};
          },
          [counted](const Lists& in) -> Lists {
            const auto one = [](size_t) { return 1.0; };
            return {counted(in[0], 6, one), counted(in[0], 8, one)};
          })
      .constant()
      .of_one_size();
  table
      .add(
          "bincount", "weights", {numbers, real({7})},
          [](const TensorList& in) -> TensorList { return {bincount(in[0], in[1], 7)}; },
          [counted](const Lists& in) -> Lists {
            return {counted(in[0], 7, [&](size_t i) { return in[1].data[i]; })};
          })
      .no_repeats()
      .of_one_size();
  table
      .add(
          "one_hot", "", {integers({2, 3}, {0, 2, 1, 3, 3, 0})},
          [](const TensorList& in) -> TensorList {
            return {one_hot(in[0], 4), one_hot(in[0], 5, DType::f16)};
          },
          [](const Lists& in) -> Lists {
            const auto of = [&](int64_t classes) {
              Shape shape = in[0].shape;
              shape.push_back(classes);
              return fill(shape, [&](Index at) {
                const auto place = static_cast<double>(at.back());
                at.pop_back();
                return in[0](at) == place ? 1.0 : 0.0;
              });
            };
            return {of(4), of(5)};
          })
      .constant();
  for (const bool right : {false, true})
    for (const bool shared : {false, true}) {
      Input sorted = real(shared ? Shape{5} : Shape{2, 5}).fixed();
      sorted.values = {-1, 0, 0, 0.5, 2};
      if (!shared) sorted.values.insert(sorted.values.end(), {1, 1, 1, 3, 4});
      Input values = real({2, 4}).fixed();
      values.values = {0, -2, 3, 0.5, 1, 4, 0.25, 3};
      table
          .add(
              "searchsorted",
              concat(right ? "behind equal ones" : "before equal ones", shared ? ", one row" : ""),
              {sorted, values},
              [=](const TensorList& in) -> TensorList {
                return {searchsorted(in[0], in[1], right)};
              },
              [=](const Lists& in) -> Lists {
                return {fill(in[1].shape, [&](const Index& at) {
                  double before = 0;
                  for (int64_t i = 0; i < in[0].size(-1); ++i) {
                    const double element = shared ? in[0]({i}) : in[0]({at[0], i});
                    before += element < in[1](at) || (right && element == in[1](at));
                  }
                  return before;
                })};
              })
          .constant()
          .repeats = false;
    }
  Input some = real({3, 7}).fixed();
  some.values = {0, 0, 1, 2, 0.5, 3, 1, 1, 0, 2, 1, 0, 4, 1, 2, 1, 3, 0.25, 1, 0, 0};
  for (const auto& [replacement, zeros] : {std::pair(false, false), std::pair(true, false),
                                           std::pair(false, true), std::pair(true, true)})
    table
        .add(
            "multinomial",
            concat(replacement ? "with replacement" : "without", zeros ? ", weights of 0" : ""),
            {zeros ? some : real({3, 7}, 0.1, 2).fixed()},
            [replacement = replacement](const TensorList& in) -> TensorList {
              RandomState::current().begin_step(5, 2);
              return {multinomial(in[0], 5, replacement)};
            },
            [replacement = replacement](const Lists& in) -> Lists {
              const int64_t width = in[0].size(1);
              Values result{{in[0].size(0), 5}, {}};
              for (int64_t row = 0; row < in[0].size(0); ++row) {
                std::vector<uint64_t> units;
                double largest = 0;
                for (int64_t i = 0; i < width; ++i) largest = std::max(largest, in[0]({row, i}));
                for (int64_t i = 0; i < width; ++i)
                  units.push_back(
                      static_cast<uint64_t>(std::rint(in[0]({row, i}) / largest * 0x1p40)));
                for (int64_t s = 0; s < 5; ++s) {
                  const auto draw = static_cast<uint64_t>(row * 5 + s);
                  const PhiloxBlock block = philox(5, 2, kFirstOpPlace, draw / 2);
                  const uint64_t bits =
                      (uint64_t{block.word[2 * (draw % 2)]} << 32) | block.word[2 * (draw % 2) + 1];
                  uint64_t total = 0;
                  for (const uint64_t unit : units) total += unit;
                  // bits / 2^64 of the total
                  auto target = static_cast<uint64_t>(static_cast<long double>(bits) /
                                                      18446744073709551616.0L *
                                                      static_cast<long double>(total));
                  size_t at = 0;
                  while (target >= units[at]) target -= units[at++];
                  result.data.push_back(static_cast<double>(at));
                  if (!replacement) units[at] = 0;
                }
              }
              return {result};
            })
        .constant()
        .of_one_size();
  table
      .add(
          "embedding", "padding_idx", {real({4, 3}), integers({5}, {1, 0, 1, 3, 2})},
          [](const TensorList& in) -> TensorList {
            // The gradient of what is read at the padding does not arrive.
            const Tensor x = embedding(in[0], in[1], 1);
            return {masked_fill(
                x, unsqueeze(equal(in[1], Tensor::scalar(1, DType::i64, in[1].device())), -1), 0)};
          },
          [](const Lists& in) -> Lists {
            return {fill({in[1].size(0), in[0].size(1)}, [&](const Index& at) {
              const auto row = static_cast<int64_t>(in[1]({at[0]}));
              return row == 1 ? 0.0 : in[0]({row, at[1]});
            })};
          })
      .of_one_size();
}

}  // namespace

void add_selection_rows(OpTable& table) {
  add_indexing(table);
  add_scatter_reduce(table);
  add_choices(table);
}

}  // namespace binade::test
