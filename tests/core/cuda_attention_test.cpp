// Attention and rotary embedding on the GPU against those on the CPU: cuDNN's fused kernels for
// f16 and bf16, matmuls and a softmax for the rest.
#include <binade/core/cuda/libraries.h>
#include <binade/core/kernels/attention.h>

#include <functional>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using kernels::AttentionParams;

namespace {

struct Case {
  int64_t batch, heads, key_heads, queries, keys, dim;
  bool causal;
};

// (B, H, T, D) views of new random memory: packed rows (B, T, n, H, D), or dense.
Array heads_of(const Shape& shape, bool packed, DType dtype, Random& random) {
  if (!packed) return random_array(shape, dtype, random);
  return random_array({shape[0], shape[2], 3, shape[1], shape[3]}, dtype, random)
      .select(2, 1)
      .transpose(1, 2);
}

// The arrays of a forward and a backward pass: 0–2 q, k, v, 3 out, 4 logsumexp, 5 dout, 6–8 dq, dk,
// dv, 9 mask, 10 the step.
std::vector<Array> arrays_of(const Case& c, DType dtype, bool packed, Random& random) {
  const Shape q = {c.batch, c.heads, c.queries, c.dim}, k = {c.batch, c.key_heads, c.keys, c.dim};
  const auto make = [&](const Shape& shape) { return heads_of(shape, packed, dtype, random); };
  std::vector<Array> arrays = {make(q), make(k), make(k), make(q)};
  arrays.push_back(random_array({c.batch, c.heads, c.queries},
                                dtype == DType::f64 ? DType::f64 : DType::f32, random));
  arrays.push_back(make(q));
  // Gradients of size 1 rather than 1/√T, so that absolute errors count.
  for (int64_t i = 0; i < arrays[5].numel(); ++i) write(arrays[5], i, 4 * read(arrays[5], i));
  for (const Shape& shape : {q, k, k}) arrays.push_back(make(shape));
  return arrays;
}

// Compares forward, then backward from the CPU's out and logsumexp. `params` gives the parameters
// from the arrays.
void compare(const Case& c, std::vector<Array> arrays,
             const std::function<AttentionParams(const std::vector<Array>&)>& params) {
  INFO(arrays[0].dtype() << ", B " << c.batch << ", H " << c.heads << '/' << c.key_heads << ", T "
                         << c.queries << '/' << c.keys << ", D " << c.dim << ", causal " << c.causal
                         << ", strides " << arrays[0].strides());
  // Fused kernels round the probabilities to halves before the second matmul, and use the
  // hardware's exponential.
  const double slack = 4;
  compare_devices(
      [&](const auto& v) {
        BINADE_DISPATCH(v[0].device(), attention(v[0], v[1], v[2], params(v), v[3], v[4]));
      },
      arrays, slack);
  // compare_devices has left the CPU's results in the arrays. In the backward pass the gradients
  // of scores are rounded, too.
  compare_devices(
      [&](const auto& v) {
        BINADE_DISPATCH(v[0].device(), attention_backward(v[0], v[1], v[2], v[3], v[4], v[5],
                                                          params(v), v[6], v[7], v[8]));
      },
      arrays, 2 * slack);
}

AttentionParams plain_params(const Case& c) {
  AttentionParams params;
  params.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.dim)));
  params.causal = c.causal;
  return params;
}

}  // namespace

TEST_CASE("attention agrees on both devices", "[cuda][attention]") {
  require_gpu();
  Random random(11);
  for (const DType dtype : kFloatingDTypes)
    for (const Case& c : {Case{2, 3, 3, 64, 64, 64, true}, Case{1, 4, 2, 128, 128, 32, false},
                          Case{2, 6, 2, 33, 70, 64, true},   // the last query sees all keys
                          Case{1, 2, 1, 40, 24, 16, false},  // more queries than keys
                          Case{1, 2, 1, 1, 65, 64, true},    // decoding
                          Case{1, 1, 1, 17, 17, 128, true}, Case{1, 2, 2, 9, 11, 20, true},
                          Case{1, 1, 1, 1, 1, 8, true}})
      for (const bool packed : {false, true})
        compare(c, arrays_of(c, dtype, packed, random),
                [&](const auto&) { return plain_params(c); });
}

TEST_CASE("a causal mask with more queries than keys leaves rows empty", "[cuda][attention]") {
  require_gpu();
  Random random(12);
  const Case c{1, 2, 1, 24, 16, 16, true};
  for (const DType dtype : kFloatingDTypes) {
    const std::vector<Array> arrays = arrays_of(c, dtype, false, random);
    compare(c, arrays, [&](const auto&) { return plain_params(c); });
    for (int64_t i = 0; i < 8 * c.dim; ++i) CHECK(read(arrays[3], i) == 0);
  }
}

TEST_CASE("attention with masks agrees on both devices", "[cuda][attention]") {
  require_gpu();
  Random random(13);
  const Case c{2, 4, 2, 12, 19, 16, false};
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : {Shape{2, 4, 12, 19}, Shape{1, 1, 12, 19}, Shape{2, 1, 1, 19}})
      for (const bool boolean : {true, false}) {
        std::vector<Array> arrays = arrays_of(c, dtype, false, random);
        Array mask = Array::empty(shape, boolean ? DType::boolean : dtype);
        fill_random(mask, random);
        if (boolean)  // a row that may attend to nothing
          for (int64_t j = 0; j < 19; ++j) write(mask, j, 0);
        arrays.push_back(mask);
        compare(c, arrays, [&](const auto& v) {
          AttentionParams params = plain_params(c);
          params.mask = v[9];
          return params;
        });
      }
}

// In half types through cuDNN, where the sizes suit it.
TEST_CASE("attention within packed documents agrees on both devices", "[cuda][attention]") {
  require_gpu();
  Random random(15);
  for (const DType dtype : kFloatingDTypes)
    for (const Case& c : {Case{2, 4, 2, 64, 64, 64, true}, Case{1, 3, 3, 136, 136, 32, true},
                          Case{2, 2, 1, 19, 19, 16, false}}) {
      std::vector<Array> arrays = arrays_of(c, dtype, true, random);
      std::vector<int32_t> documents;  // of every length from 1, numbered anew in each row
      for (int64_t b = 0; b < c.batch; ++b)
        for (int32_t document = 0; std::ssize(documents) < (b + 1) * c.queries; ++document)
          for (int32_t i = 0; i <= document + b && std::ssize(documents) < (b + 1) * c.queries; ++i)
            documents.push_back(document);
      arrays.push_back(Array::from(documents, {c.batch, c.queries}));
      compare(c, arrays, [&](const auto& v) {
        AttentionParams params = plain_params(c);
        params.documents = v[9];
        return params;
      });
    }
}

// In half types through cuDNN's left bound, or, beside documents, as a bias.
TEST_CASE("attention within a window agrees on both devices", "[cuda][attention]") {
  require_gpu();
  Random random(16);
  for (const DType dtype : kFloatingDTypes)
    for (const Case& c : {Case{2, 4, 2, 128, 128, 64, true}, Case{1, 2, 2, 200, 200, 32, true},
                          Case{2, 6, 2, 33, 70, 64, true}, Case{1, 2, 1, 1, 65, 64, true},
                          Case{1, 2, 1, 24, 16, 16, true}, Case{1, 2, 2, 9, 11, 20, true}})
      for (const int64_t window : {1, 7, 64, 500})
        for (const bool documents : {false, true}) {
          if (documents && c.queries != c.keys) continue;
          INFO("window " << window << ", documents " << documents);
          std::vector<Array> arrays = arrays_of(c, dtype, true, random);
          std::vector<int32_t> ids;
          for (int64_t i = 0; i < c.batch * c.queries; ++i)
            ids.push_back(static_cast<int32_t>(i % c.queries / 40));
          if (documents) arrays.push_back(Array::from(ids, {c.batch, c.queries}));
          compare(c, arrays, [&](const auto& v) {
            AttentionParams params = plain_params(c);
            params.window = window;
            if (documents) params.documents = v[9];
            return params;
          });
        }
}

TEST_CASE("attention drops the same probabilities on both devices", "[cuda][attention]") {
  require_gpu();
  Random random(14);
  const Case c{2, 2, 1, 21, 34, 16, true};
  for (const DType dtype : kFloatingDTypes) {
    std::vector<Array> arrays = arrays_of(c, dtype, false, random);
    arrays.push_back(Array::empty({1}, dtype));  // no mask
    arrays.push_back(Array::full({}, 5, DType::i64));
    compare(c, arrays, [&](const auto& v) {
      AttentionParams params = plain_params(c);
      params.dropout = 0.3f;
      params.key = {77, v[10], 3};
      return params;
    });
  }
}

TEST_CASE("attention has the same bits each time and in a graph", "[cuda][attention]") {
  require_gpu();
  Random random(15);
  if constexpr (kCudaBuilt) cuda::set_deterministic(true);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Case c{2, 4, 2, 256, 256, 64, true};
    std::vector<Array> v;
    for (const Array& array : arrays_of(c, dtype, true, random))
      v.push_back(on_device(array, test_gpu()));
    const AttentionParams params = plain_params(c);
    check_same_bits(
        [&] { BINADE_DISPATCH(v[0].device(), attention(v[0], v[1], v[2], params, v[3], v[4])); },
        {v[3], v[4]});
    BINADE_DISPATCH(v[0].device(), attention(v[0], v[1], v[2], params, v[3], v[4]));
    check_same_bits(
        [&] {
          BINADE_DISPATCH(v[0].device(), attention_backward(v[0], v[1], v[2], v[3], v[4], v[5],
                                                            params, v[6], v[7], v[8]));
        },
        {v[6], v[7], v[8]});
  }
  if constexpr (kCudaBuilt) cuda::set_deterministic(false);
}

TEST_CASE("rotary embedding agrees on both devices", "[cuda][attention]") {
  require_gpu();
  Random random(16);
  for (const DType dtype : kFloatingDTypes)
    for (const int64_t turned : {64, 32, 6})
      for (const bool packed : {false, true})
        for (const bool inverse : {false, true}) {
          const Array x = heads_of({2, 3, 10, 64}, packed, dtype, random);
          const Array out = heads_of({2, 3, 10, 64}, !packed, dtype, random);
          const Array cos = random_array({10, turned / 2}, DType::f32, random);
          const Array sin = random_array({10, turned / 2}, DType::f32, random);
          INFO(dtype << ", turned " << turned << ", packed " << packed << ", inverse " << inverse);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), rope(v[0], v[1], v[2], inverse, v[3]));
              },
              {x, cos, sin, out});
          compare_devices(  // in place
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), rope(v[0], v[1], v[2], inverse, v[0]));
              },
              {x, cos, sin});
        }
}
