#include <catch2/catch.hpp>

#include <limits>

#include <binade/core/kernels/attention.h>
#include <binade/core/random.h>

#include "kernel_arrays.h"

using namespace binade;
using namespace binade::test;
using kernels::AttentionParams;

namespace {

struct Sizes {
  int64_t batches, heads, key_heads, queries, keys, dim;
};

// What the definition gives, in f64, with the whole matrix of probabilities.
struct Reference {
  std::vector<double> out, logsumexp, dq, dk, dv;
};

Reference reference(const Sizes& s, const Array& q, const Array& k, const Array& v,
                    const AttentionParams& params, const std::vector<double>& dout) {
  Reference r;
  r.out.assign(static_cast<size_t>(q.numel()), 0);
  r.dq = r.out;
  r.logsumexp.assign(static_cast<size_t>(s.batches * s.heads * s.queries), -INFINITY);
  r.dk.assign(static_cast<size_t>(k.numel()), 0);
  r.dv = r.dk;
  const std::vector<double> qs = values_of(q), ks = values_of(k), vs = values_of(v);
  std::vector<double> mask;
  const bool is_bool = params.mask.defined() && params.mask.dtype() == DType::boolean;
  if (params.mask.defined())
    mask = values_of(params.mask.expand({s.batches, s.heads, s.queries, s.keys}));
  for (int64_t row = 0; row < s.batches * s.heads * s.queries; ++row) {
    const int64_t i = row % s.queries, head = row / s.queries % s.heads;
    const int64_t batch = row / s.queries / s.heads;
    const int64_t first_key =
        (batch * s.key_heads + head / (s.heads / s.key_heads)) * s.keys;  // row of k and v
    const auto at = [&](int64_t rows, int64_t d) { return static_cast<size_t>(rows * s.dim + d); };
    std::vector<double> p(static_cast<size_t>(s.keys)), keep(p), dp(p);
    double total = 0;
    for (int64_t j = 0; j < s.keys; ++j) {
      const size_t e = static_cast<size_t>(row * s.keys + j);
      double score = 0;
      for (int64_t d = 0; d < s.dim; ++d) score += qs[at(row, d)] * ks[at(first_key + j, d)];
      score *= params.scale;
      bool seen = !params.causal || j <= i + s.keys - s.queries;
      if (params.window > 0) seen = seen && j > i + s.keys - s.queries - params.window;
      if (is_bool) seen = seen && mask[e] != 0;
      if (!is_bool && !mask.empty()) score += mask[e];
      p[static_cast<size_t>(j)] = seen ? std::exp(score) : 0;
      total += p[static_cast<size_t>(j)];
      keep[static_cast<size_t>(j)] = 1;
      if (params.dropout > 0) {
        const uint64_t step = static_cast<uint64_t>(*params.key.step.data<int64_t>());
        const PhiloxBlock block = philox(params.key.seed, step, params.key.place, e / 4);
        keep[static_cast<size_t>(j)] =
            uniform_of(block.word[e % 4]) >= params.dropout ? 1 / (1.0 - params.dropout) : 0;
      }
    }
    if (total == 0) continue;
    r.logsumexp[static_cast<size_t>(row)] = std::log(total);
    double dot = 0;  // Σ probability · its gradient
    for (int64_t j = 0; j < s.keys; ++j) {
      const size_t jj = static_cast<size_t>(j);
      p[jj] /= total;
      for (int64_t d = 0; d < s.dim; ++d) {
        r.out[at(row, d)] += p[jj] * keep[jj] * vs[at(first_key + j, d)];
        r.dv[at(first_key + j, d)] += p[jj] * keep[jj] * dout[at(row, d)];
        dp[jj] += keep[jj] * dout[at(row, d)] * vs[at(first_key + j, d)];
      }
      dot += p[jj] * dp[jj];
    }
    for (int64_t j = 0; j < s.keys; ++j) {
      const double ds =
          p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - dot) * params.scale;
      for (int64_t d = 0; d < s.dim; ++d) {
        r.dq[at(row, d)] += ds * ks[at(first_key + j, d)];
        r.dk[at(first_key + j, d)] += ds * qs[at(row, d)];
      }
    }
  }
  return r;
}

// (B, H, T, D) views into one packed (B, T, heads · D) array; q's heads first, then k's, then v's.
struct Packed {
  Array q, k, v;
};
Packed packed(const Sizes& s, DType dtype, Random& random) {
  const auto part = [&](const Array& whole, int64_t first, int64_t heads, int64_t positions) {
    const int64_t row = whole.size(-1);
    return Array::view_of(whole.storage(), dtype, {s.batches, heads, positions, s.dim},
                          {positions * row, s.dim, row, 1}, first * s.dim);
  };
  if (s.queries == s.keys) {
    const Array all =
        random_array({s.batches, s.keys, (s.heads + 2 * s.key_heads) * s.dim}, dtype, random);
    return {part(all, 0, s.heads, s.keys), part(all, s.heads, s.key_heads, s.keys),
            part(all, s.heads + s.key_heads, s.key_heads, s.keys)};
  }
  const Array queries = random_array({s.batches, s.queries, s.heads * s.dim}, dtype, random);
  const Array both = random_array({s.batches, s.keys, 2 * s.key_heads * s.dim}, dtype, random);
  return {part(queries, 0, s.heads, s.queries), part(both, 0, s.key_heads, s.keys),
          part(both, s.key_heads, s.key_heads, s.keys)};
}

struct Result {
  Array out, logsumexp;
  Packed gradients;
};

Result run(const Sizes& s, const Packed& in, const AttentionParams& params, const Array& dout,
           DType statistics = DType::f32) {
  const DType dtype = in.q.dtype();
  Random random(9);
  Result result;
  // As the model uses it: (B, T, H, D) in memory.
  result.out = random_array({s.batches, s.queries, s.heads, s.dim}, dtype, random).transpose(1, 2);
  result.logsumexp = Array::empty({s.batches, s.heads, s.queries}, statistics);
  kernels::cpu::attention(in.q, in.k, in.v, params, result.out, result.logsumexp);
  result.gradients = packed(s, dtype, random);
  kernels::cpu::attention_backward(in.q, in.k, in.v, result.out, result.logsumexp, dout, params,
                                   result.gradients.q, result.gradients.k, result.gradients.v);
  return result;
}

void compare(const Sizes& s, const AttentionParams& params, DType dtype, uint64_t seed) {
  CAPTURE(s.batches, s.heads, s.key_heads, s.queries, s.keys, s.dim, name_of(dtype));
  Random random(seed);
  const Packed in = packed(s, dtype, random);
  const Array dout =
      random_array({s.batches, s.queries, s.heads, s.dim}, dtype, random).transpose(1, 2);
  const DType statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
  const Result got = run(s, in, params, dout, statistics);
  const Reference want = reference(s, in.q, in.k, in.v, params, values_of(dout));
  // Inside all is f32 (f64): sums of up to ~300 terms of order 1. Half adds its last rounding, and
  // in the gradients of the scores the rounding of `out`.
  const double inside = dtype == DType::f64 ? 1e-12 : 1e-5;
  const double rounding = is_half(dtype) ? epsilon_of(dtype) : 0;
  CHECK(worst_error(got.out, want.out) <= inside + rounding);
  for (int64_t i = 0; i < got.logsumexp.numel(); ++i) {
    const double expected = want.logsumexp[static_cast<size_t>(i)];
    if (std::isinf(expected))
      CHECK(read(got.logsumexp, i) == expected);
    else
      CHECK(std::abs(read(got.logsumexp, i) - expected) <= inside * (1 + std::abs(expected)));
  }
  CHECK(worst_error(got.gradients.v, want.dv) <= 2 * inside + rounding);
  CHECK(worst_error(got.gradients.q, want.dq) <= 10 * inside + 6 * rounding);
  CHECK(worst_error(got.gradients.k, want.dk) <= 10 * inside + 6 * rounding);
}

const DType kFloating[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_CASE("cpu attention equals the definition", "[attention][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  const Sizes sizes = GENERATE(Sizes{2, 3, 3, 17, 17, 8},     // smaller than a block
                               Sizes{1, 4, 2, 130, 130, 16},  // grouped heads, several blocks
                               Sizes{1, 2, 1, 70, 300, 24},   // a cache: more keys than queries
                               Sizes{1, 1, 1, 90, 40, 5},     // fewer keys than queries
                               Sizes{2, 6, 2, 1, 270, 32},    // decoding
                               Sizes{1, 2, 2, 1, 1, 3});
  AttentionParams params;
  params.scale = 1 / std::sqrt(static_cast<float>(sizes.dim));
  params.causal = GENERATE(false, true);
  compare(sizes, params, dtype, 11);
}

TEST_CASE("cpu attention within a window equals the definition", "[attention][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  // Several blocks of 32 queries and 256 keys, whose borders the windows cross.
  const Sizes sizes =
      GENERATE(Sizes{2, 3, 3, 17, 17, 8}, Sizes{1, 4, 2, 300, 300, 8}, Sizes{1, 2, 1, 70, 300, 24},
               Sizes{1, 1, 1, 90, 40, 5}, Sizes{2, 6, 2, 1, 270, 32});
  AttentionParams params;
  params.scale = 1 / std::sqrt(static_cast<float>(sizes.dim));
  params.causal = true;
  params.window = GENERATE(1, 40, 257);
  SECTION("alone") {}
  SECTION("with a mask") {
    Random random(21);
    params.mask = Array::empty({sizes.queries, sizes.keys}, DType::boolean);
    std::bernoulli_distribution coin(0.6);
    for (int64_t i = 0; i < params.mask.numel(); ++i) write(params.mask, i, coin(random));
  }
  compare(sizes, params, dtype, 22);
}

TEST_CASE("cpu attention does not read what a window hides", "[attention][cpu]") {
  const Sizes sizes{1, 1, 1, 700, 700, 4};
  Random random(23);
  const Packed in = packed(sizes, DType::f32, random);
  AttentionParams params;
  params.causal = true;
  params.window = 100;
  const Array dout = random_array({1, 1, 700, 4}, DType::f32, random);
  const Result before = run(sizes, in, params, dout);
  for (int64_t j = 0; j < 200; ++j)  // no query from 299 on sees them
    for (int64_t d = 0; d < 4; ++d)
      for (const Array& side : {in.k, in.v})
        write(side.select(0, 0).select(0, 0).select(0, j), d, 7);
  const Result after = run(sizes, in, params, dout);
  const auto of = [](const Array& array) { return values_of(array.slice(2, 299)); };
  CHECK(of(after.out) == of(before.out));
  CHECK(of(after.gradients.q) == of(before.gradients.q));
  CHECK(of(after.gradients.k) == of(before.gradients.k));
  CHECK(values_of(after.out) != values_of(before.out));
}

TEST_CASE("cpu attention with masks", "[attention][cpu]") {
  const DType dtype = GENERATE(DType::f64, DType::f32, DType::bf16);
  const Sizes sizes = GENERATE(Sizes{2, 4, 2, 66, 66, 8}, Sizes{2, 4, 2, 1, 301, 8});
  const auto [b, h, unused, tq, tk, d] = sizes;
  const Shape shape =
      GENERATE_COPY(Shape{b, h, tq, tk}, Shape{b, 1, 1, tk}, Shape{tq, tk}, Shape{h, tq, 1});
  Random random(12);
  AttentionParams params;
  params.scale = 0.3f;
  params.causal = GENERATE(false, true);
  SECTION("bool") {
    params.mask = Array::empty(shape, DType::boolean);
    std::bernoulli_distribution coin(0.6);
    for (int64_t i = 0; i < params.mask.numel(); ++i) write(params.mask, i, coin(random));
  }
  SECTION("added") {
    params.mask = random_array(shape, dtype == DType::bf16 ? DType::bf16 : DType::f32, random);
    for (int64_t i = 0; i < params.mask.numel(); i += 3) write(params.mask, i, -INFINITY);
  }
  compare(sizes, params, dtype, 13);
}

TEST_CASE("cpu attention: a row that may attend to nothing is zero", "[attention][cpu]") {
  const Sizes sizes{1, 2, 2, 5, 7, 4};
  Random random(14);
  AttentionParams params;
  params.mask = Array::empty({5, 7}, GENERATE(DType::boolean, DType::f32));
  const double never = params.mask.dtype() == DType::boolean ? 0 : -INFINITY;
  const double always = params.mask.dtype() == DType::boolean ? 1 : 0;
  for (int64_t i = 0; i < 35; ++i) write(params.mask, i, i / 7 == 3 ? never : always);
  const Packed in = packed(sizes, DType::f32, random);
  const Array dout = random_array({1, 2, 5, 4}, DType::f32, random);
  const Result result = run(sizes, in, params, dout);
  for (int64_t i = 0; i < result.out.numel(); ++i) {
    const bool empty_row = i / 4 % 5 == 3;
    CHECK((read(result.out, i) == 0) == empty_row);
    CHECK((read(result.gradients.q, i) == 0) == empty_row);
  }
  for (const Array& gradient : {result.gradients.k, result.gradients.v})
    for (const double value : values_of(gradient)) CHECK(std::isfinite(value));
}

TEST_CASE("cpu attention with dropout draws the mask of its key", "[attention][cpu]") {
  const DType dtype = GENERATE(DType::f64, DType::f32, DType::f16);
  // Odd numbers of keys: rows begin inside a block of four random words.
  const Sizes sizes = GENERATE(Sizes{2, 4, 2, 67, 67, 8}, Sizes{2, 4, 2, 1, 259, 8});
  AttentionParams params;
  params.scale = 0.3f;
  params.causal = GENERATE(false, true);
  params.dropout = 0.25f;
  params.key.seed = 77;
  params.key.place = 5;
  params.key.step = array_of({3}, {}, DType::i64);
  compare(sizes, params, dtype, 15);
}

TEST_CASE("cpu attention's gradient equals finite differences", "[attention][cpu]") {
  const Sizes sizes{1, 4, 2, 6, 9, 5};
  Random random(16);
  AttentionParams params;
  params.scale = 0.4f;
  params.causal = GENERATE(false, true);
  params.mask = random_array({4, 1, 9}, DType::f64, random);
  params.dropout = GENERATE(0.f, 0.3f);
  params.key.seed = 78;
  params.key.step = array_of({1}, {}, DType::i64);
  const Packed in = packed(sizes, DType::f64, random);
  const Array dout = random_array({1, 4, 6, 5}, DType::f64, random);
  const Result result = run(sizes, in, params, dout, DType::f64);
  const Array out = Array::empty({1, 4, 6, 5}, DType::f64);
  const Array logsumexp = Array::empty({1, 4, 6}, DType::f64);
  const auto loss = [&] {
    kernels::cpu::attention(in.q, in.k, in.v, params, out, logsumexp);
    double sum = 0;
    for (int64_t i = 0; i < out.numel(); ++i) sum += read(out, i) * read(dout, i);
    return sum;
  };
  const std::pair<Array, Array> pairs[] = {
      {in.q, result.gradients.q}, {in.k, result.gradients.k}, {in.v, result.gradients.v}};
  for (const auto& [input, gradient] : pairs)
    CHECK(worst_difference(input, gradient, loss) <= 1e-8);
}

TEST_CASE("cpu attention gives the same bits twice", "[attention][cpu]") {
  const Sizes sizes{2, 4, 2, 150, 150, 32};
  Random random(17);
  AttentionParams params;
  params.scale = 0.2f;
  params.causal = true;
  const Packed in = packed(sizes, DType::f32, random);
  const Array dout = random_array({2, 4, 150, 32}, DType::f32, random);
  const Result once = run(sizes, in, params, dout), again = run(sizes, in, params, dout);
  CHECK(values_of(once.out) == values_of(again.out));
  CHECK(values_of(once.gradients.q) == values_of(again.gradients.q));
  CHECK(values_of(once.gradients.k) == values_of(again.gradients.k));
  CHECK(values_of(once.gradients.v) == values_of(again.gradients.v));
}

TEST_CASE("cpu rope turns pairs by their angle and back", "[attention][rope][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  const int64_t batches = 2, heads = 3, positions = 9, dim = 10, pairs = GENERATE(5, 3);
  Random random(18);
  Array cos = Array::empty({positions, pairs}, DType::f32),
        sin = Array::empty({positions, pairs}, DType::f32);
  for (int64_t i = 0; i < positions * pairs; ++i) {
    const double angle = static_cast<double>(i / pairs) * std::pow(10.0, -(i % pairs) * 0.5);
    write(cos, i, std::cos(angle));
    write(sin, i, std::sin(angle));
  }
  // (B, T, H, D) in memory.
  const Array x = random_array({batches, positions, heads, dim}, dtype, random).transpose(1, 2);
  const Array out = Array::empty({batches, heads, positions, dim}, dtype);
  const bool inverse = GENERATE(false, true);
  std::vector<double> expected = values_of(x);
  for (int64_t row = 0; row < batches * heads * positions; ++row)
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t t = row % positions;
      const double c = read(cos, t * pairs + i), s = read(sin, t * pairs + i) * (inverse ? -1 : 1);
      double &a = expected[static_cast<size_t>(row * dim + i)],
             &b = expected[static_cast<size_t>(row * dim + i + pairs)];
      const double turned = a * c - b * s;
      b = b * c + a * s;
      a = turned;
    }
  kernels::cpu::rope(x, cos, sin, inverse, out);
  CHECK(worst_error(out, expected) <= 4 * epsilon_of(dtype));
  const std::vector<double> before = values_of(x);
  kernels::cpu::rope(x, cos, sin, inverse, x);  // in place
  CHECK(values_of(x) == values_of(out));
  kernels::cpu::rope(x, cos, sin, !inverse, x);
  CHECK(worst_error(x, before) <= 8 * epsilon_of(dtype) + 1e-7);  // cos² + sin² = 1 in f32
}
