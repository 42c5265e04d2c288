// Attention and rotary positions.
#include <binade/core/random.h>

#include "op_table.h"

namespace binade::test {

namespace {

// What core/random.h says of the first draw of an op inside a step.
constexpr uint64_t kFirstOpPlace = 0xc00000;

struct AttentionSetting {
  bool causal = false;
  int64_t window = 0;
  double scale = 0.5;
  std::function<double(const Index&)> bias = nullptr;  // added at (b, h, i, j)
  double dropout = 0;                                  // at seed 5, step 2, place 0
};

Values attention_of(const Values& q, const Values& k, const Values& v,
                    const AttentionSetting& setting) {
  const int64_t queries = q.size(2), keys = k.size(2), group = q.size(1) / k.size(1);
  Shape out = q.shape;
  out[3] = v.size(3);
  return fill(out, [&](const Index& at) {
    const int64_t b = at[0], h = at[1], i = at[2];
    std::vector<double> scores, values;
    std::vector<bool> kept;
    for (int64_t j = 0; j < keys; ++j) {
      double score = 0;
      for (int64_t d = 0; d < q.size(3); ++d)
        score += q({b, h, i, d}) * k({b, h / group, j, d}) * setting.scale;
      if (setting.bias) score += setting.bias({b, h, i, j});
      if (setting.causal && j > i + keys - queries) score = -INFINITY;
      if (setting.window > 0 && j <= i + keys - queries - setting.window) score = -INFINITY;
      const auto element = static_cast<uint64_t>(((b * q.size(1) + h) * queries + i) * keys + j);
      const float draw = uniform_of(philox(5, 2, kFirstOpPlace, element / 4).word[element % 4]);
      scores.push_back(score);
      values.push_back(v({b, h / group, j, at[3]}));
      kept.push_back(draw >= static_cast<float>(setting.dropout));
    }
    if (std::count(scores.begin(), scores.end(), -INFINITY) == std::ssize(scores)) return 0.0;
    const double logsum = log_sum_exp(scores);
    double sum = 0;
    for (size_t j = 0; j < scores.size(); ++j)
      if (kept[j]) sum += std::exp(scores[j] - logsum) * values[j] / (1 - setting.dropout);
    return sum;
  });
}

// Keys and columns side by side along T, for attention_of with a mask that says who sees what.
Values side_by_side(const std::vector<const Values*>& parts) {
  Shape shape = parts[0]->shape;
  const int64_t length = shape[2];
  shape[2] *= std::ssize(parts);
  return fill(shape, [&](const Index& i) {
    return (*parts[static_cast<size_t>(i[2] / length)])({i[0], i[1], i[2] % length, i[3]});
  });
}

}  // namespace

void add_attention_rows(OpTable& table) {
  const char* name = "scaled_dot_product_attention";
  const auto row = [&](const char* variant, const Shape& q, const Shape& kv,
                       AttentionSetting setting) {
    // Probabilities are rounded to the half type before they meet v, in forward and backward.
    table
        .add(
            name, variant, {real(q), real(kv), real(kv)},
            [setting](const TensorList& in) -> TensorList {
              RandomState::current().begin_step(5, 2);
              AttentionOptions options;
              options.causal = setting.causal;
              options.window = setting.window;
              if (setting.scale != 0.5) options.scale = setting.scale;
              options.dropout = setting.dropout;
              options.training = setting.dropout > 0;
              return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
            },
            [setting](const Lists& in) -> Lists {
              return {attention_of(in[0], in[1], in[2], setting)};
            })
        .rounded(3);
  };
  row("full", {2, 2, 3, 4}, {2, 2, 5, 4}, {});
  row("causal", {2, 2, 5, 4}, {2, 2, 5, 4}, {.causal = true});
  row("causal, more keys", {1, 2, 3, 4}, {1, 2, 5, 4}, {.causal = true});
  row("window", {2, 2, 6, 4}, {2, 2, 6, 4}, {.causal = true, .window = 3});
  row("window, more keys", {1, 2, 3, 4}, {1, 2, 6, 4}, {.causal = true, .window = 2});
  row("grouped heads", {2, 4, 3, 4}, {2, 2, 3, 4}, {.causal = true});
  row("scale", {1, 2, 3, 4}, {1, 2, 3, 4}, {.scale = 0.25});
  row("dropout", {1, 2, 3, 4}, {1, 2, 5, 4}, {.dropout = 0.25});

  // Values of another size than queries and keys: shorter and longer.
  const auto value_row = [&](const char* variant, int64_t value_size, AttentionSetting setting) {
    table
        .add(
            name, variant, {real({2, 4, 3, 4}), real({2, 2, 5, 4}), real({2, 2, 5, value_size})},
            [setting](const TensorList& in) -> TensorList {
              AttentionOptions options;
              options.causal = setting.causal;
              if (setting.scale != 0.5) options.scale = setting.scale;
              return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
            },
            [setting](const Lists& in) -> Lists {
              return {attention_of(in[0], in[1], in[2], setting)};
            })
        .rounded(3)
        .of_one_size();
  };
  value_row("shorter values", 3, {});
  value_row("longer values", 6, {.causal = true});
  value_row("longer values, scale", 9, {.scale = 0.25});

  // The mask has a gradient here.
  const auto learned = [&](const char* variant, const Shape& q, const Shape& kv,
                           const Shape& mask_shape, AttentionSetting setting) {
    table
        .add(
            name, variant, {real(q, -1, 1), real(kv, -1, 1), real(kv), real(mask_shape)},
            [setting](const TensorList& in) -> TensorList {
              AttentionOptions options;
              options.causal = setting.causal;
              options.window = setting.window;
              options.mask = in[3];
              return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
            },
            [setting](const Lists& in) -> Lists {
              AttentionSetting all = setting;
              all.bias = [&](const Index& i) { return in[3](i); };
              return {attention_of(in[0], in[1], in[2], all)};
            })
        .rounded(3)
        .of_one_size();
  };
  learned("mask with a gradient", {2, 2, 3, 4}, {2, 2, 5, 4}, {2, 1, 5}, {});
  learned("mask with a gradient, grouped heads, window", {2, 4, 5, 4}, {2, 2, 5, 4}, {4, 5, 5},
          {.causal = true, .window = 2});
  // The first query sees no key.
  learned("mask with a gradient, more queries", {1, 2, 4, 4}, {1, 2, 3, 4}, {1, 2, 4, 3},
          {.causal = true});
  table
      .add(
          name, "mask with a gradient, longer values",
          {real({1, 2, 3, 4}, -1, 1), real({1, 2, 3, 4}, -1, 1), real({1, 2, 3, 5}), real({3, 3})},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.mask = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            return {attention_of(in[0], in[1], in[2],
                                 {.bias = [&](const Index& i) { return in[3](i); }})};
          })
      .rounded(3)
      .of_one_size();

  table
      .add(
          name, "bool mask, one row sees nothing",
          {real({1, 2, 3, 4}), real({1, 2, 4, 4}), real({1, 2, 4, 4}),
           mask({3, 4}, {1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1})},
          [name](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.mask = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            return {attention_of(in[0], in[1], in[2], {.bias = [&](const Index& i) {
                                   return in[3](i) != 0 ? 0 : -INFINITY;
                                 }})};
          })
      .rounded(3);
  table
      .add(
          name, "added mask",
          {real({1, 2, 3, 4}), real({1, 2, 4, 4}), real({1, 2, 4, 4}),
           real({2, 1, 4}).as(Input::Dtype::f32)},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.mask = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            return {attention_of(in[0], in[1], in[2],
                                 {.bias = [&](const Index& i) { return in[3](i); }})};
          })
      .rounded(3);

  table
      .add(
          name, "documents",
          {real({2, 2, 5, 8}), real({2, 1, 5, 8}), real({2, 1, 5, 8}),
           integers({2, 5}, {0, 0, 1, 1, 1, 4, 3, 3, 3, 4}, Input::Dtype::i32)},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.causal = true;
            options.documents = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            return {attention_of(
                in[0], in[1], in[2],
                {.causal = true, .scale = 1 / std::sqrt(8.0), .bias = [&](const Index& i) {
                   return in[3]({i[0], i[2]}) == in[3]({i[0], i[3]}) ? 0 : -INFINITY;
                 }})};
          })
      .rounded(3);

  // Two rows of slots, in no order: a text and an image, two samples, a noised image between its
  // markers, spare slots. The rule is that of BAGEL's sequences: earlier splits but noised ones,
  // and one's own, a text up to itself.
  const Shape slot_shape{2, 4, 6};
  const std::vector<double> slots = {0, 0, 0, 1, 0, -1, 0, 2, 4, 1, 3, 0,  // row 0: sample, order
                                     0, 1, 1, 0, 0, 0,  0, 1, 1, 0, 0, 0,  // split, mode
                                     5, 5, 5, 5, 5, 5,  5, 0, 3, 1, 2, 4,  // row 1
                                     2, 0, 1, 0, 1, 1,  0, 0, 2, 0, 2, 2};
  table
      .add(
          name, "splits",
          {real({2, 2, 6, 8}), real({2, 1, 6, 8}), real({2, 1, 6, 8}),
           integers(slot_shape, slots, Input::Dtype::i32)},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.query_slots = in[3];
            options.key_slots = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            const auto bias = [&](const Index& at) {
              const auto q = [&](int64_t field) { return in[3]({at[0], field, at[2]}); };
              const auto k = [&](int64_t field) { return in[3]({at[0], field, at[3]}); };
              if (q(0) < 0 || q(0) != k(0)) return -INFINITY;
              const bool own = q(2) == k(2);
              const bool seen = own ? q(3) != 0 || k(1) <= q(1) : k(1) < q(1) && k(3) != 2;
              return seen ? 0.0f : -INFINITY;
            };
            return {attention_of(in[0], in[1], in[2], {.scale = 1 / std::sqrt(8.0), .bias = bias})};
          })
      .rounded(3);

  // 4 query heads and 2 key heads of size 4.
  const auto packed_of = [](const Values& qkv, int64_t first, int64_t count) {
    const int64_t size = qkv.size(2) / 8;
    return fill({qkv.size(0), count, qkv.size(1), size}, [&](const Index& i) {
      return qkv({i[0], i[2], (first + i[1]) * size + i[3]});
    });
  };
  const auto merged = [](const Values& y) {
    const int64_t size = y.size(3);
    return fill({y.size(0), y.size(2), y.size(1) * size}, [&](const Index& i) {
      return y({i[0], i[2] / size, i[1], i[2] % size});
    });
  };
  table
      .add(
          "packed_attention", "", {real({2, 3, 32})},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.causal = true;
            return {packed_attention(in[0], 4, 2, options)};
          },
          [=](const Lists& in) -> Lists {
            return {merged(attention_of(packed_of(in[0], 0, 4), packed_of(in[0], 4, 2),
                                        packed_of(in[0], 6, 2), {.causal = true}))};
          })
      .rounded(3);
  for (const bool in_place : {false, true})
    table
        .add(
            "packed_attention", in_place ? "rotated in place" : "rotated",
            {real({2, 3, 32}), real({3, 1}).as(Input::Dtype::f32),
             real({3, 1}).as(Input::Dtype::f32)},
            [in_place](const TensorList& in) -> TensorList {
              AttentionOptions options;
              options.causal = true;
              options.rope_cos = in[1];
              options.rope_sin = in[2];
              return {packed_attention(in_place ? in[0] + 0.0 : in[0], 4, 2, options)};
            },
            [=](const Lists& in) -> Lists {
              const auto turned = [&](const Values& x) {  // the first two of four, one pair
                return fill(x.shape, [&](const Index& i) {
                  if (i[3] >= 2 * in[1].size(1)) return x(i);
                  Index other = i;
                  other[3] = 1 - i[3];
                  const double sign = i[3] == 0 ? -1 : 1;
                  return x(i) * in[1]({i[2], 0}) + sign * x(other) * in[2]({i[2], 0});
                });
              };
              return {merged(attention_of(turned(packed_of(in[0], 0, 4)),
                                          turned(packed_of(in[0], 4, 2)), packed_of(in[0], 6, 2),
                                          {.causal = true}))};
            })
        .rounded(8);

  const auto columns_row = [&](const char* variant, const Shape& q, const Shape& kv, double scale) {
    const Shape documents{kv[0], kv[2]};
    std::vector<double> numbers;
    for (int64_t n = 0; n < kv[0] * kv[2]; ++n)
      numbers.push_back(static_cast<double>(n % kv[2] < 2 ? 0 : 7));
    table
        .add(
            "attention_with_columns", variant,
            {real(q), real(kv), real(kv), real(kv), real(kv), real(kv), real(kv),
             integers(documents, numbers, Input::Dtype::i32)},
            [scale](const TensorList& in) -> TensorList {
              AttentionOptions options;
              options.causal = true;
              options.documents = in[7];
              options.scale = scale;
              return {attention_with_columns(in[0], in[1], in[2], {in[3], in[4]}, {in[5], in[6]},
                                             options)};
            },
            [scale](const Lists& in) -> Lists {
              const int64_t length = in[0].size(2);
              const auto bias = [&](const Index& at) {
                const int64_t i = at[2], j = at[3];
                const bool sees =
                    j < length ? j <= i && in[7]({at[0], i}) == in[7]({at[0], j}) : j % length == i;
                return sees ? 0 : -INFINITY;
              };
              return {attention_of(in[0], side_by_side({&in[1], &in[3], &in[4]}),
                                   side_by_side({&in[2], &in[5], &in[6]}),
                                   {.scale = scale, .bias = bias})};
            })
        .rounded(3)
        .of_one_size();
  };
  columns_row("two columns", {2, 2, 5, 8}, {2, 2, 5, 8}, 0.5);
  columns_row("grouped heads", {1, 4, 3, 4}, {1, 2, 3, 4}, 0.25);
  columns_row("a wide head", {1, 2, 2, 40}, {1, 1, 2, 40}, 0.1);

  table.add(
      "rope", "part of the head",
      {real({2, 2, 3, 6}), real({3, 2}).as(Input::Dtype::f32), real({3, 2}).as(Input::Dtype::f32)},
      [](const TensorList& in) -> TensorList { return {rope(in[0], in[1], in[2])}; },
      [](const Lists& in) -> Lists {
        return {fill(in[0].shape, [&](const Index& i) {
          const int64_t d = i[3], t = i[2];
          if (d >= 2 * in[1].size(1)) return in[0](i);
          Index other = i;
          other[3] = d < 2 ? d + 2 : d - 2;
          const double cos = in[1]({t, d % 2}), sin = in[2]({t, d % 2});
          return in[0](i) * cos + (d < 2 ? -1 : 1) * in[0](other) * sin;
        })};
      });
}

}  // namespace binade::test
