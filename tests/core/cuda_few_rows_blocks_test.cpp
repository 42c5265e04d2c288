// Halves of a layer for few rows, each in one kernel, against their definitions: sums and norms in
// double, attention by the kernels that have their own tests.
#include <cmath>

#include "core/decode_cases.h"
#include "core/few_rows_cases.h"

using namespace binade;
using namespace binade::test;
using kernels::FewRows;
using kernels::FewRowsLayer;

namespace {

// The rows in one piece, rounded once: in f64.
Array whole(const FewRows& in) {
  Matrix x(in.x);
  if (in.parts.defined()) {
    const Matrix parts(in.parts.view({in.parts.size(0) * x.rows, x.columns}));
    for (int64_t p = 0; p < in.parts.size(0); ++p)
      for (size_t i = 0; i < x.values.size(); ++i)
        x.values[i] += parts.values[static_cast<size_t>(p) * x.values.size() + i];
  }
  return on_device(Array::from(x.values, in.x.shape()).to(in.x.dtype()), test_gpu());
}

struct Stream {
  int64_t rows, columns, parts;
};
FewRows stream(Inputs& make, const Stream& s) {
  FewRows in = make.rows(s.rows, s.columns, true);
  in.sum = gpu_empty({s.rows, s.columns}, make.dtype);
  if (s.parts > 0)
    in.parts = gpu_random({s.parts, s.rows, s.columns}, DType::f32, make.random, 0.3);
  return in;
}

// What all parts add up to, in f32.
Array added(const Array& parts) {
  const Matrix all(parts.view({parts.size(0), parts.size(1) * parts.size(2)}));
  std::vector<double> sums(static_cast<size_t>(all.columns), 0.0);
  for (int64_t p = 0; p < all.rows; ++p)
    for (int64_t i = 0; i < all.columns; ++i) sums[static_cast<size_t>(i)] += all(p, i);
  return Array::from(sums, {parts.size(1), parts.size(2)});
}

// Within so many roundings of the dtype to values of the size of 1 or of the expected one.
void check_added(const Array& parts, const std::vector<double>& expected, DType dtype,
                 double roundings) {
  const double unit = dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
  const std::vector<double> got = added(parts).view({-1}).to_vector<double>();
  REQUIRE(got.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(got[i] - expected[i]) / std::max(std::abs(expected[i]), 1.0));
  CHECK(worst <= roundings * unit);
}

// The sum is one of f32 that is rounded to a half: a tie may fall to the other side.
void check_whole(const FewRows& in, const Array& expected) {
  check_close(in.sum, Matrix(expected.view({-1, 1})).values, 2.05);
}

// Roundings that what is rotated may be off, at sizes of up to 4: the sums of the two kernels
// differ in order, so each of two inputs, of sizes up to 8, may be rounded to the other side.
constexpr double kTurned = 4.1;

struct AttentionCase {
  int64_t slots, tokens, heads, key_heads, dim, columns, outputs, capacity, parts;
  bool biased, tree;
};
const std::vector<AttentionCase> kAttentionCases = {
    {1, 1, 9, 3, 64, 576, 576, 300, 12, false, false},
    {1, 1, 9, 3, 64, 576, 576, 300, 0, false, false},
    {3, 1, 4, 2, 64, 72, 40, 70, 17, true, false},
    {2, 5, 6, 2, 64, 264, 136, 100, 3, true, true},
    {8, 1, 2, 1, 64, 128, 64, 200, 2, false, false},
    {1, 16, 3, 1, 64, 200, 72, 150, 1, false, true},
    {2, 1, 4, 1, 64, 1032, 200, 2000, 4, true, false},
    {1, 1, 4, 1, 64, 1032, 200, 90, 17, false, false},
    {1, 8, 9, 3, 64, 576, 576, 300, 12, false, true},
    {1, 1, 20, 1, 64, 96, 64, 1000, 2, false, false},
};

}  // namespace

TEST_CASE("the attention half of a layer for few rows is its parts' on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const AttentionCase& c : kAttentionCases) {
      INFO(dtype << ", " << c.slots << " slots, " << c.tokens << " tokens, heads of " << c.dim
                 << ", " << c.columns << " columns, capacity " << c.capacity << ", biases "
                 << c.biased << ", tree " << c.tree);
      Inputs make{.dtype = dtype};
      const int64_t rows = c.slots * c.tokens;
      const FewRows in = stream(make, {rows, c.columns, c.parts});
      const kernels::FewRowsAttention layers{make.layer(c.heads * c.dim, c.columns, c.biased),
                                             make.layer(c.key_heads * c.dim, c.columns, c.biased),
                                             make.layer(c.key_heads * c.dim, c.columns, c.biased),
                                             gpu_random({rows, c.dim / 2}, DType::f32, make.random),
                                             gpu_random({rows, c.dim / 2}, DType::f32, make.random),
                                             c.dim,
                                             make.layer(c.outputs, c.heads * c.dim, c.biased)};
      // The second slot does not run, the third has no room behind its first token.
      std::vector<int32_t> lengths(static_cast<size_t>(c.slots),
                                   static_cast<int32_t>(c.capacity - c.tokens));
      std::vector<int32_t> running(lengths.size(), 1);
      if (c.slots > 1) lengths[1] = 2;
      if (c.slots > 2) running[1] = 0;
      if (c.slots > 2) lengths[2] = static_cast<int32_t>(c.capacity - 1);
      if (c.slots > 3) lengths[3] = 0;
      kernels::PassRows pass;
      pass.lengths = on_device(i32_array(lengths, {c.slots}), test_gpu());
      pass.running = on_device(i32_array(running, {c.slots}), test_gpu());
      Array visible;
      if (c.tree) {
        std::vector<int64_t> words;
        for (int64_t t = 0; t < c.tokens; ++t)
          words.push_back(
              static_cast<int64_t>((make.random() & ((uint64_t{1} << t) - 1)) | uint64_t{1} << t));
        visible = on_device(Array::from(words, {c.tokens}), test_gpu());
      }
      const Array keys = make.half({c.slots, c.key_heads, c.capacity, c.dim});
      const Array values = make.half({c.slots, c.key_heads, c.capacity, c.dim});
      const Array keys_before = keys.clone(), values_before = values.clone();
      const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dim)));

      FewRows one_piece = in;
      one_piece.x = whole(in);
      one_piece.parts = {};
      const Array expected_keys = keys.clone(), expected_values = values.clone();
      const Array q = gpu_empty({rows, c.heads * c.dim}, dtype);
      const Array attended = gpu_empty(q.shape(), dtype);
      const auto by_head = [&](const Array& x) {
        return x.view({c.slots, c.tokens, c.heads, c.dim}).transpose(1, 2);
      };
      const Array parts = gpu_empty({c.key_heads, rows, c.outputs}, DType::f32);
      REQUIRE(kernels::suits_attention_block(in, layers, pass, c.slots, c.capacity));
      if constexpr (kCudaBuilt) {
        kernels::cuda::few_rows_attention_inputs(one_piece, layers, pass, q, expected_keys,
                                                 expected_values);
        kernels::cuda::cached_attention(by_head(q), expected_keys, expected_values, pass, visible,
                                        scale, 0, by_head(attended));
        check_same_bits(
            [&] {
              keys.copy_from(keys_before);
              values.copy_from(values_before);
              kernels::cuda::few_rows_attention_block(in, layers, pass, visible, scale, keys,
                                                      values, parts);
            },
            {parts, in.sum});
        kernels::cuda::few_rows_attention_block(in, layers, pass, visible, scale, keys, values,
                                                parts);
      }
      check_whole(in, one_piece.x);
      check_close(keys, Matrix(expected_keys.view({-1, 1})).values, kTurned, 4);
      check_close(values, Matrix(expected_values.view({-1, 1})).values, kTurned, 4);
      check_added(parts, layer_of(Matrix(attended), layers.output), dtype, 4);
    }
}

TEST_CASE("projections of few rows that come in parts are those of their sum on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const AttentionCase& c : {AttentionCase{1, 1, 9, 3, 64, 576, 0, 300, 12, false, false},
                                   AttentionCase{3, 4, 4, 2, 128, 72, 0, 70, 0, true, false},
                                   AttentionCase{1, 16, 4, 2, 64, 264, 0, 70, 3, true, false},
                                   AttentionCase{2, 9, 4, 2, 64, 264, 0, 70, 3, true, false},
                                   AttentionCase{1, 64, 9, 3, 64, 576, 0, 90, 12, false, false}}) {
      INFO(dtype << ", " << c.slots << " slots, " << c.tokens << " tokens, heads of " << c.dim
                 << ", " << c.columns << " columns, " << c.parts << " parts");
      Inputs make{.dtype = dtype};
      const int64_t rows = c.slots * c.tokens;
      const FewRows in = stream(make, {rows, c.columns, c.parts});
      const kernels::FewRowsAttention layers{make.layer(c.heads * c.dim, c.columns, c.biased),
                                             make.layer(c.key_heads * c.dim, c.columns, c.biased),
                                             make.layer(c.key_heads * c.dim, c.columns, c.biased),
                                             gpu_random({rows, c.dim / 2}, DType::f32, make.random),
                                             gpu_random({rows, c.dim / 2}, DType::f32, make.random),
                                             c.dim};
      kernels::PassRows pass;
      pass.lengths = Array::full({c.slots}, 3, DType::i32, test_gpu());
      const Array keys = make.half({c.slots, c.key_heads, c.capacity, c.dim});
      const Array values = make.half({c.slots, c.key_heads, c.capacity, c.dim});
      const Array expected_keys = keys.clone(), expected_values = values.clone();
      const Array q = gpu_empty({rows, c.heads * c.dim}, dtype),
                  expected_q = gpu_empty(q.shape(), dtype);
      REQUIRE(kernels::suits_attention_inputs_block(in, layers));
      FewRows one_piece = in;
      one_piece.x = whole(in);
      one_piece.parts = {};
      // Row by row: the kernel it is compared with takes few.
      for (int64_t t = 0; t < c.tokens; ++t) {
        const auto of_token = [&](const Array& x) {
          return x.view({c.slots, c.tokens, x.size(1)}).select(1, t).contiguous();
        };
        FewRows row = one_piece;
        row.x = of_token(one_piece.x);
        row.sum = {};
        kernels::FewRowsAttention turned = layers;
        turned.cos = of_token(layers.cos);
        turned.sin = of_token(layers.sin);
        kernels::PassRows own = pass;
        own.first = t;
        const Array of_row = gpu_empty({c.slots, c.heads * c.dim}, dtype);
        if constexpr (kCudaBuilt)
          kernels::cuda::few_rows_attention_inputs(row, turned, own, of_row, expected_keys,
                                                   expected_values);
        expected_q.view({c.slots, c.tokens, c.heads * c.dim}).select(1, t).copy_from(of_row);
      }
      if constexpr (kCudaBuilt) {
        check_same_bits(
            [&] {
              kernels::cuda::few_rows_attention_inputs_block(in, layers, pass, q, keys, values);
            },
            {q, in.sum});
        kernels::cuda::few_rows_attention_inputs_block(in, layers, pass, q, keys, values);
      }
      check_whole(in, one_piece.x);
      check_close(q, Matrix(expected_q.view({-1, 1})).values, kTurned, 4);
      check_close(keys, Matrix(expected_keys.view({-1, 1})).values, kTurned, 4);
      check_close(values, Matrix(expected_values.view({-1, 1})).values, kTurned, 4);
    }
}

TEST_CASE("the MLP half of a layer for few rows is its parts' on the GPU", "[few-rows][cuda]") {
  require_gpu();
  struct Case {
    Stream in;
    int64_t hidden, outputs;
  };
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const Case& c :
         {Case{{1, 576, 3}, 1536, 576}, Case{{1, 576, 0}, 1536, 576}, Case{{3, 40, 17}, 8, 24},
          Case{{8, 264, 1}, 200, 136}, Case{{16, 96, 5}, 2056, 72}, Case{{9, 1024, 2}, 2048, 1024},
          Case{{17, 264, 2}, 200, 136}, Case{{64, 576, 12}, 1536, 576}})
      for (const bool biased : {false, true}) {
        INFO(dtype << ", " << c.in.rows << " rows, " << c.in.columns << " columns, " << c.in.parts
                   << " parts, " << c.hidden << " between, " << c.outputs << " outputs, biases "
                   << biased);
        Inputs make{.dtype = dtype};
        const FewRows in = stream(make, c.in);
        const FewRowsLayer gate = make.layer(c.hidden, c.in.columns, biased),
                           up = make.layer(c.hidden, c.in.columns, biased),
                           down = make.layer(c.outputs, c.hidden, biased);
        REQUIRE(kernels::suits_mlp_block(in, gate, up, down));
        FewRows one_piece = in;
        one_piece.x = whole(in);
        const Matrix x = normed(one_piece);
        std::vector<double> g = layer_of(x, gate);
        const std::vector<double> u = layer_of(x, up);
        for (size_t i = 0; i < g.size(); ++i) {
          const double a = rounded(g[i], dtype), b = rounded(u[i], dtype);
          g[i] = rounded(a / (1 + std::exp(-a)) * b, dtype);
        }
        const Array hidden = Array::from(g, {c.in.rows, c.hidden});
        Array parts;
        if constexpr (kCudaBuilt) {
          parts = gpu_empty({kernels::cuda::mlp_block_parts(c.hidden), c.in.rows, c.outputs},
                            DType::f32);
          check_same_bits([&] { kernels::cuda::few_rows_mlp_block(in, gate, up, down, parts); },
                          {parts, in.sum});
          kernels::cuda::few_rows_mlp_block(in, gate, up, down, parts);
        }
        check_whole(in, one_piece.x);
        check_added(parts, layer_of(Matrix(hidden), down), dtype, 4);
      }
}

TEST_CASE("the norm of few rows that come in parts is that of their sum on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const Stream& s : {Stream{1, 576, 12}, Stream{3, 40, 0}, Stream{16, 1032, 3}}) {
      Inputs make{.dtype = dtype};
      const FewRows in = stream(make, s);
      FewRows one_piece = in;
      one_piece.x = whole(in);
      const Array out = gpu_empty({s.rows, s.columns}, dtype);
      if constexpr (kCudaBuilt)
        check_same_bits([&] { kernels::cuda::few_rows_norm(in, out); }, {out, in.sum});
      if constexpr (kCudaBuilt) kernels::cuda::few_rows_norm(in, out);
      check_whole(in, one_piece.x);
      check_close(out, normed(one_piece).values, 2.1);
    }
}

TEST_CASE("blocks that are too large for shared memory are named as such on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  Inputs make{.dtype = DType::f16};
  const FewRows in = stream(make, {4, 64, 2});
  const FewRowsLayer gate = make.layer(32, 64, false), down = make.layer(64, 32, false);
  CHECK(kernels::suits_mlp_block(in, gate, gate, down));
  FewRows without_sum = in;
  without_sum.sum = {};
  CHECK_FALSE(kernels::suits_mlp_block(without_sum, gate, gate, down));
  FewRows other_parts = in;
  other_parts.parts = gpu_random({2, 5, 64}, DType::f32, make.random);
  CHECK_FALSE(kernels::suits_mlp_block(other_parts, gate, gate, down));
  CHECK_FALSE(kernels::suits_mlp_block(in, gate, gate, make.layer(64, 40, false)));
  const FewRows wide = stream(make, {1, 2048, 0});
  const FewRowsLayer large = make.layer(8192, 2048, false);
  CHECK_FALSE(kernels::suits_mlp_block(wide, large, large, make.layer(2048, 8192, false)));

  kernels::FewRowsAttention layers{make.layer(128, 64, false),
                                   make.layer(64, 64, false),
                                   make.layer(64, 64, false),
                                   gpu_random({4, 32}, DType::f32, make.random),
                                   gpu_random({4, 32}, DType::f32, make.random),
                                   64,
                                   make.layer(64, 128, false)};
  kernels::PassRows pass;
  CHECK(kernels::suits_attention_block(in, layers, pass, 4, 100));
  CHECK_FALSE(kernels::suits_attention_block(in, layers, pass, 4, 30000));
  CHECK_FALSE(kernels::suits_attention_block(stream(make, {16, 64, 2}), layers, pass, 16, 100));
  const auto with_head_dim = [&](int64_t dim) {
    kernels::FewRowsAttention other = layers;
    other.head_dim = dim;
    return kernels::suits_attention_block(in, other, pass, 4, 100);
  };
  CHECK_FALSE(with_head_dim(32));
  for (const int64_t dim : {-64, 0, 1, 48, 128, 256})  // the layers are not made of such heads
    CHECK_FALSE(with_head_dim(dim));
  const FewRowsLayer wide_head = make.layer(128, 64, false);
  const kernels::FewRowsAttention wide_heads{
      wide_head, wide_head, wide_head, layers.cos, layers.sin, 128, make.layer(64, 128, false)};
  CHECK(kernels::suits_attention_inputs_block(in, wide_heads));  // the projections alone
  CHECK_FALSE(kernels::suits_attention_block(in, wide_heads, pass, 4, 100));
  layers.key = make.layer(128, 64, false);  // more keys than values
  CHECK_FALSE(kernels::suits_attention_block(in, layers, pass, 4, 100));
  layers.key = make.layer(64, 64, false);
  layers.output = {};
  CHECK_FALSE(kernels::suits_attention_block(in, layers, pass, 4, 100));
}
