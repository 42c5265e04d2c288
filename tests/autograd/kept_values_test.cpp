// What ops keep of their inputs until backward: that their gradients have gradients, too, costs a
// pass without create_graph nothing.
#include <memory>

#include <catch2/catch.hpp>

#include "op_harness.h"

using namespace binade;
using namespace binade::test;

namespace {

struct Case {
  const char* name;
  std::vector<Input> inputs;
  Call call;
  std::string kept;  // of each input: k, if its value lives on behind the call, or -
};

Tensor labels_of(const TensorList& in) {
  return Tensor(Array::zeros({in[0].size(0)}, DType::i64));
}

const std::vector<Case>& cases() {
  const Input rows = real({3, 4}), square = real({4, 4}), vector = real({4});
  const Input constant = real({4, 4}).fixed();
  const Input heads = real({1, 2, 3, 4}), images = real({2, 4, 5, 5});
  using In = const TensorList&;
  static const std::vector<Case> list = {
      {"linear",
       {rows, square, vector},
       [](In in) -> TensorList { return {linear(in[0], in[1], in[2])}; },
       "kk-"},
      {"linear, constant weight",
       {rows, constant},
       [](In in) -> TensorList { return {linear(in[0], in[1])}; },
       "-k"},
      {"linear, constant x",
       {constant, square, vector},
       [](In in) -> TensorList { return {linear(in[0], in[1], in[2])}; },
       "k--"},
      {"linear_relu",
       {rows, square, vector},
       [](In in) -> TensorList { return {linear_relu(in[0], in[1], in[2])}; },
       "kk-"},
      {"gelu_mlp",
       {rows, square, vector, square, vector},
       [](In in) -> TensorList { return {gelu_mlp(in[0], in[1], in[2], in[3], in[4])}; },
       "kk-k-"},
      {"swiglu_mlp",
       {rows, square, square, square, vector, vector, vector},
       [](In in) -> TensorList {
         return {swiglu_mlp(in[0], in[1], in[2], in[3], {in[4], in[5], in[6]})};
       },
       "kkkk---"},
      {"layer_norm",
       {rows, vector, vector},
       [](In in) -> TensorList { return {layer_norm(in[0], in[1], in[2])}; },
       "kk-"},
      {"rms_norm",
       {rows, vector},
       [](In in) -> TensorList { return {rms_norm(in[0], in[1])}; },
       "kk"},
      {"add_layer_norm",
       {rows, rows, vector, vector},
       [](In in) -> TensorList {
         const auto [sum, y] = add_layer_norm(in[0], in[1], in[2], in[3]);
         return {sum, y};
       },
       "--k-"},
      {"softmax", {rows}, [](In in) -> TensorList { return {softmax(in[0])}; }, "-"},
      {"log_softmax", {rows}, [](In in) -> TensorList { return {log_softmax(in[0])}; }, "-"},
      {"cross_entropy",
       {rows},
       [](In in) -> TensorList { return {cross_entropy(in[0], labels_of(in))}; },
       "k"},
      {"linear_cross_entropy",
       {rows, square},
       [](In in) -> TensorList { return {linear_cross_entropy(in[0], in[1], labels_of(in))}; },
       "--"},
      {"scaled_dot_product_attention",
       {heads, heads, heads},
       [](In in) -> TensorList { return {scaled_dot_product_attention(in[0], in[1], in[2])}; },
       "kkk"},
      {"packed_attention",
       {real({1, 3, 12})},
       [](In in) -> TensorList { return {packed_attention(in[0], 1, 1)}; },
       "k"},
      {"conv2d",
       {images, real({4, 4, 3, 3}), vector},
       [](In in) -> TensorList { return {conv2d(in[0], in[1], in[2])}; },
       "kk-"},
      {"conv_transpose2d",
       {images, real({4, 4, 3, 3}), vector},
       [](In in) -> TensorList { return {conv_transpose2d(in[0], in[1], in[2])}; },
       "kk-"},
      {"max_pool2d", {images}, [](In in) -> TensorList { return {max_pool2d(in[0])}; }, "-"},
      {"avg_pool2d", {images}, [](In in) -> TensorList { return {avg_pool2d(in[0])}; }, "-"},
      {"batch_norm",
       {images, vector, vector},
       [](In in) -> TensorList {
         const Tensor mean = Tensor::zeros({4}), var = Tensor::ones({4});
         return {batch_norm(in[0], in[1], in[2], mean, var)};
       },
       "kk-"},
      {"embedding",
       {square},
       [](In in) -> TensorList { return {embedding(in[0], labels_of(in))}; },
       "-"},
      {"cumprod", {rows}, [](In in) -> TensorList { return {cumprod(in[0], 1)}; }, "k"},
      {"swiglu_packed", {rows}, [](In in) -> TensorList { return {swiglu_packed(in[0])}; }, "k"},
      {"recompute",
       {rows},
       [](In in) -> TensorList {
         return recompute([](In in) -> TensorList { return {exp(exp(in[0]))}; }, {in[0]});
       },
       "k"},
  };
  return list;
}

// Inputs that nobody else holds, on the tape where they want a gradient.
TensorList inner_tensors(const Case& one) {
  TensorList inputs;
  uint32_t seed = 1;
  for (const Input& input : one.inputs) {
    const Tensor leaf(Array::from(draw(input, seed++), input.shape).to(DType::f32),
                      input.differentiable);
    inputs.push_back(leaf * 1.0);
  }
  return inputs;
}

}  // namespace

TEST_CASE("ops keep of their inputs what their gradients read", "[tape]") {
  for (const Case& one : cases()) {
    INFO(one.name);
    TensorList inputs = inner_tensors(one);
    std::vector<std::weak_ptr<Storage>> storages;
    for (const Tensor& input : inputs) storages.emplace_back(input.array().storage());
    const TensorList outputs = one.call(inputs);
    inputs.clear();
    std::string kept;
    for (const auto& storage : storages) kept += storage.expired() ? '-' : 'k';
    CHECK(kept == one.kept);
    // And that is enough.
    TensorList seeds;
    for (const Tensor& output : outputs)
      seeds.push_back(Tensor::ones(output.shape(), output.dtype()));
    const Tensor anchor = outputs[0];
    CHECK_NOTHROW(grad(outputs, {anchor}, seeds));
  }
}
