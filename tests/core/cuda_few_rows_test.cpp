// The layers for few rows against their definitions in double.
#include <cmath>

#include "core/decode_cases.h"
#include "core/few_rows_cases.h"

using namespace binade;
using namespace binade::test;
using kernels::FewRows;
using kernels::FewRowsLayer;

namespace {

struct Case {
  int64_t rows, columns, outputs;
};
const std::vector<Case> kCases = {{1, 576, 96},  {1, 8, 8},     {3, 40, 24},    {8, 1536, 64},
                                  {9, 64, 160},  {11, 264, 32}, {16, 4104, 16}, {2, 32, 9000},
                                  {17, 576, 48}, {25, 72, 40},  {32, 3000, 8}};

}  // namespace

TEST_CASE("linear layers of few rows equal their definition on the GPU", "[few-rows][cuda]") {
  require_gpu();
  std::vector<Case> all = kCases;
  for (const Case& c : {Case{17, 576, 96}, Case{40, 72, 40}, Case{64, 1536, 64}}) all.push_back(c);
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const Case& c : all)
      for (const bool extras : {false, true}) {
        INFO(c.rows << " rows, " << c.columns << " columns, " << c.outputs << " outputs, " << dtype
                    << ", bias and residual " << extras);
        Inputs make{.dtype = dtype};
        const FewRows in = make.rows(c.rows, c.columns, false);
        const FewRowsLayer layer = make.layer(c.outputs, c.columns, extras);
        const Array residual = extras ? make.half({c.rows, c.outputs}) : Array();
        const Array out = gpu_empty({c.rows, c.outputs}, dtype);
        REQUIRE(kernels::suits_few_rows(in, {layer}));
        std::vector<double> expected = layer_of(normed(in), layer);
        if (extras) {
          const Matrix added(residual);
          for (size_t i = 0; i < expected.size(); ++i) expected[i] += added.values[i];
        }
        if constexpr (kCudaBuilt) {
          check_same_bits([&] { kernels::cuda::few_rows_linear(in.x, layer, residual, out); },
                          {out});
          kernels::cuda::few_rows_linear(in.x, layer, residual, out);
        }
        check_close(out, expected, 1.05);
      }
}

TEST_CASE("the first half of SwiGLU for few rows equals its definition on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const Case& c : kCases)
      for (const bool extras : {false, true}) {
        INFO(c.rows << " rows, " << c.columns << " columns, " << c.outputs << " outputs, " << dtype
                    << ", bias " << extras);
        Inputs make{.dtype = dtype};
        const FewRows in = make.rows(c.rows, c.columns, true);
        const FewRowsLayer gate = make.layer(c.outputs, c.columns, extras),
                           up = make.layer(c.outputs, c.columns, extras);
        const Array out = gpu_empty({c.rows, c.outputs}, dtype);
        const Matrix x = normed(in);
        const std::vector<double> g = layer_of(x, gate), u = layer_of(x, up);
        std::vector<double> expected;
        for (size_t i = 0; i < g.size(); ++i)
          expected.push_back(g[i] / (1 + std::exp(-g[i])) * u[i]);
        if constexpr (kCudaBuilt) kernels::cuda::few_rows_swiglu(in, gate, up, out);
        check_close(out, expected, 4);  // gate and up are rounded, too
      }
}

TEST_CASE("queries, keys and values of few rows equal matmuls, rotation and cache_write on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  const int64_t columns = 72, capacity = 20;
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const int64_t dim : {16, 64, 128})
      for (const int64_t tokens : {1, 2, 5, 7, 10})
        for (const bool extras : {false, true}) {
          // Without a norm the rows go in as they are.
          const bool biased = extras, with_norm = !extras || dim == 64;
          INFO(dtype << ", heads of " << dim << ", " << tokens << " tokens, biases " << biased
                     << ", norm " << with_norm);
          const int64_t heads = 4, key_heads = 2, slots = 3, rows = slots * tokens;
          Inputs make{.dtype = dtype};
          const FewRows in = make.rows(rows, columns, with_norm);
          const kernels::FewRowsAttention layers{
              make.layer(heads * dim, columns, biased),
              make.layer(key_heads * dim, columns, biased),
              make.layer(key_heads * dim, columns, biased),
              gpu_random({rows, dim / 2}, DType::f32, make.random),
              gpu_random({rows, dim / 2}, DType::f32, make.random),
              dim};
          // Slot 1 does not run, slot 2 has no room behind its first token.
          kernels::PassRows pass;
          pass.lengths = on_device(i32_array({2, 0, 19}, {3}), test_gpu());
          pass.running = on_device(i32_array({1, 0, 1}, {3}), test_gpu());
          const Array q = gpu_empty({rows, heads * dim}, dtype);
          const Array keys = make.half({slots, key_heads, capacity, dim});
          const Array values = make.half({slots, key_heads, capacity, dim});
          std::vector<double> expected_keys = Matrix(keys.view({-1, 1})).values,
                              expected_values = Matrix(values.view({-1, 1})).values;

          const Matrix x = normed(in), cos(layers.cos), sin(layers.sin);
          const auto projected = [&](const FewRowsLayer& layer, bool rotate) {
            std::vector<double> all = layer_of(x, layer);
            for (double& value : all) value = rounded(value, dtype);
            const auto width = layer.weight.size(0);
            for (int64_t r = 0; rotate && r < rows; ++r)
              for (int64_t first = 0; first < width; first += dim)
                for (int64_t d = 0; d < dim / 2; ++d) {
                  double& a = all[static_cast<size_t>(r * width + first + d)];
                  double& b = all[static_cast<size_t>(r * width + first + d + dim / 2)];
                  const double turned = a * cos(r, d) - b * sin(r, d);
                  b = b * cos(r, d) + a * sin(r, d);
                  a = turned;
                }
            return all;
          };
          const auto put = [&](const std::vector<double>& all, std::vector<double>& cache) {
            const std::vector<int64_t> lengths = {2, 0, 19};
            for (const int64_t slot : {0, 2})
              for (int64_t t = 0; t < tokens; ++t)
                for (int64_t h = 0; h < key_heads; ++h)
                  for (int64_t d = 0; d < dim; ++d) {
                    const int64_t at = lengths[static_cast<size_t>(slot)] + t;
                    if (at >= capacity) continue;
                    cache[static_cast<size_t>(((slot * key_heads + h) * capacity + at) * dim + d)] =
                        all[static_cast<size_t>(((slot * tokens + t) * key_heads + h) * dim + d)];
                  }
          };
          put(projected(layers.key, true), expected_keys);
          put(projected(layers.value, false), expected_values);
          if constexpr (kCudaBuilt)
            kernels::cuda::few_rows_attention_inputs(in, layers, pass, q, keys, values);
          // Inputs of a rotation are rounded at sizes of 1 to 4, also where its result is small; a
          // norm's rounding may fall to the other side.
          check_close(q, projected(layers.query, true), 1.5, 4);
          check_close(keys, expected_keys, 1.5, 4);
          check_close(values, expected_values, 1.5, 4);
        }
}

TEST_CASE("rows and layers that the kernels do not take are named as such on the GPU",
          "[few-rows][cuda]") {
  require_gpu();
  Inputs make{.dtype = DType::f16};
  const FewRows in = make.rows(4, 64, true);
  const FewRowsLayer layer = make.layer(32, 64, true);
  CHECK(kernels::suits_few_rows(in, {layer, layer}));
  const auto refuses = [&](const FewRows& rows, const FewRowsLayer& one) {
    CHECK_FALSE(kernels::suits_few_rows(rows, {layer, one}));
  };
  refuses(in, make.layer(36, 64, false));
  refuses(in, make.layer(32, 72, false));
  refuses(in, {layer.weight.to(DType::bf16), {}});
  refuses(in, {layer.weight, layer.bias.to(DType::f32)});
  refuses(in, {on_device(layer.weight, Device::cpu()), {}});
  refuses(in, {make.half({32, 128}).slice(1, 0, 64), {}});
  refuses(in, {make.half({32 * 64 + 1}).slice(0, 1).view({32, 64}), {}});
  refuses(make.rows(65, 64, false), layer);
  refuses(make.rows(4, 60, false), layer);
  refuses({make.half({0, 64}), {}, 0}, layer);
  refuses({in.x.to(DType::f32), {}, 0}, layer);
  refuses({in.x, in.norm.to(DType::f16), 1e-5}, layer);
  CHECK_FALSE(kernels::suits_few_rows({on_device(in.x, Device::cpu()), {}, 0}, {}));
}
