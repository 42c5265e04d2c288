// What ops say about arguments they cannot work with: the op, the shapes and dtypes, what to do.
#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "gpu.h"

using namespace binade;
using Catch::Matchers::Contains;

namespace {

Tensor zeros(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::zeros(shape, dtype);
}

}  // namespace

#define CHECK_ERROR(expression, ...) CHECK_THROWS_WITH(expression, __VA_ARGS__)

TEST_CASE("arithmetic refuses what does not broadcast or has no arithmetic", "[ops][errors]") {
  CHECK_ERROR(add(zeros({2, 3}), zeros({4})),
              Contains("add") && Contains("(2, 3)") && Contains("(4)"));
  CHECK_ERROR(mul(zeros({2}, DType::boolean), zeros({2}, DType::boolean)),
              Contains("mul") && Contains("bool") && Contains("to(x, dtype)"));
  CHECK_ERROR(zeros({2}, DType::i64) * 0.5, Contains("mul") && Contains("0.5") && Contains("i64"));
  CHECK_ERROR(exp(zeros({2}, DType::i64)), Contains("exp") && Contains("i64") && Contains("f32"));
  CHECK_ERROR(add(Tensor(), zeros({2})), Contains("add") && Contains("undefined"));
  CHECK_ERROR(clamp(zeros({2}), 1, 0), Contains("clamp") && Contains("low"));
  CHECK_ERROR(where(zeros({2}), zeros({2}), zeros({2})), Contains("where") && Contains("bool"));
  CHECK_ERROR(where(zeros({2}, DType::boolean), zeros({2}, DType::i64), 0.5),
              Contains("where") && Contains("0.5") && Contains("i64"));
  CHECK_ERROR(where(zeros({2}, DType::boolean), 1, zeros({2}, DType::boolean)), Contains("bool"));
  CHECK_ERROR(remainder(zeros({2}, DType::i64), zeros({2})),
              Contains("remainder takes integers, got b (2) f32") && Contains("floor"));
  CHECK_ERROR(remainder(zeros({2}, DType::boolean), 2), Contains("remainder") && Contains("bool"));
  CHECK_ERROR(remainder(zeros({2}, DType::i64), 0), Contains("division by zero"));
  CHECK_ERROR(remainder(Tensor(), 2), Contains("remainder") && Contains("undefined"));
  CHECK_ERROR(masked_fill(zeros({2}), zeros({3, 2}, DType::boolean), 0),
              Contains("masked_fill") && Contains("(3, 2)"));
  CHECK_ERROR(sum_to(zeros({2, 3}), {2}), Contains("sum_to") && Contains("(2, 3)"));
}

TEST_CASE("products refuse shapes and dtypes that do not meet", "[ops][errors]") {
  CHECK_ERROR(matmul(zeros({2, 3}), zeros({4, 5})),
              Contains("matmul") && Contains("(2, 3) f32") && Contains("(4, 5) f32"));
  CHECK_ERROR(matmul(zeros({}), zeros({2})), Contains("matmul"));
  CHECK_ERROR(matmul(zeros({2, 3}), zeros({3, 2}, DType::f16)),
              Contains("matmul") && Contains("f32") && Contains("f16") && Contains("Autocast"));
  CHECK_ERROR(matmul(zeros({2, 3, 4}), zeros({5, 4, 2})), Contains("matmul"));
  CHECK_ERROR(linear(zeros({2, 3}), zeros({3, 4})),
              Contains("linear") && Contains("(O, I)") && Contains("(3, 4)"));
  CHECK_ERROR(linear(zeros({2, 3}), zeros({4, 3}), zeros({3})),
              Contains("linear") && Contains("bias") && Contains("(4)"));
  CHECK_ERROR(linear_relu(zeros({2, 3}), zeros({3, 4})),
              Contains("linear_relu") && Contains("(O, I)") && Contains("(3, 4)"));
  CHECK_ERROR(linear_relu(zeros({2, 3}), zeros({4, 3}), zeros({3})),
              Contains("linear_relu") && Contains("bias") && Contains("(4)"));
  CHECK_ERROR(linear_relu(zeros({2, 3}), zeros({4, 3}, DType::f16)),
              Contains("linear_relu") && Contains("one dtype"));
  CHECK_ERROR(linear_relu(zeros({2, 3}, DType::i64), zeros({4, 3})),
              Contains("linear_relu") && Contains("i64"));
  CHECK_ERROR(linear_joint(zeros({2, 3}), {zeros({4, 3}), zeros({4, 2})}),
              Contains("linear_joint") && Contains("(O, I)") && Contains("(4, 2)"));
  CHECK_ERROR(linear_joint(zeros({2, 3}), {zeros({4, 3}), zeros({4, 3})}, {zeros({4})}),
              Contains("linear_joint") && Contains("2 weights and 1 biases"));
  CHECK_ERROR(gelu_mlp(zeros({2, 3}, DType::f16), zeros({4, 3}), {}, zeros({3, 4}), {}),
              Contains("gelu_mlp") && Contains("one dtype"));
  CHECK_ERROR(gelu_mlp(zeros({2, 3}), zeros({4, 3}), {}, zeros({3, 5}), {}),
              Contains("gelu_mlp") && Contains("(O, H)") && Contains("(3, 5)"));
  CHECK_ERROR(swiglu_mlp(zeros({2, 6}), zeros({4, 6}), zeros({5, 6}), zeros({3, 4})),
              Contains("swiglu_mlp") && Contains("(H, I)") && Contains("(5, 6)"));
  CHECK_ERROR(swiglu_mlp(zeros({2, 6}), zeros({4, 6}), zeros({4, 6}), zeros({3, 5})),
              Contains("swiglu_mlp") && Contains("(O, H)") && Contains("(3, 5)"));
  CHECK_ERROR(swiglu_mlp(zeros({2, 6}), zeros({4, 6}), zeros({4, 6}), zeros({3, 4}), {zeros({4})}),
              Contains("swiglu_mlp") && Contains("1 biases"));
  CHECK_ERROR(swiglu_mlp(zeros({2, 6}), zeros({4, 6}), zeros({4, 6}), zeros({3, 4}, DType::f16)),
              Contains("swiglu_mlp") && Contains("one dtype"));
  CHECK_ERROR(swiglu_mlp(zeros({2, 6}), zeros({4, 6}), zeros({4, 6}), zeros({3, 4}),
                         {zeros({4}), zeros({4}), zeros({4})}),
              Contains("swiglu_mlp") && Contains("bias of down must be (3)"));
}

TEST_CASE("norms refuse weights of another size", "[ops][errors]") {
  CHECK_ERROR(layer_norm(zeros({2, 3}), zeros({4}), {}),
              Contains("layer_norm") && Contains("(2, 3)") && Contains("(4)"));
  CHECK_ERROR(layer_norm(zeros({2, 3}), zeros({3}), zeros({2})), Contains("bias"));
  CHECK_ERROR(add_rms_norm(zeros({2, 3}), zeros({3}), zeros({3})),
              Contains("add_rms_norm") && Contains("one shape"));
}

TEST_CASE("attention refuses heads, masks and sizes that do not fit", "[ops][errors]") {
  const Tensor q = zeros({1, 3, 4, 8}), kv = zeros({1, 2, 4, 8});
  CHECK_ERROR(scaled_dot_product_attention(q, kv, kv), Contains("multiple of Hkv"));
  CHECK_ERROR(scaled_dot_product_attention(kv, kv, zeros({1, 2, 5, 8})), Contains("(1, 2, 5, 8)"));
  AttentionOptions options;
  options.mask = zeros({4, 5}, DType::boolean);
  CHECK_ERROR(scaled_dot_product_attention(kv, kv, kv, options),
              Contains("scaled_dot_product_attention") && Contains("(4, 5)"));
  options.mask = Tensor(Array::zeros({4, 4}, DType::f32), true);
  CHECK_ERROR(packed_attention(zeros({1, 4, 32}), 2, 1, options),
              Contains("mask requires a gradient") && Contains("detach"));
  options.mask = Tensor(Array::zeros({4, 5}, DType::f32), true);
  CHECK_ERROR(scaled_dot_product_attention(kv, kv, kv, options),
              Contains("scaled_dot_product_attention") && Contains("(4, 5)"));
  options.mask = {};
  options.window = 2;
  CHECK_ERROR(scaled_dot_product_attention(kv, kv, kv, options), Contains("needs causal"));
  options.causal = true;
  options.window = -1;
  CHECK_ERROR(packed_attention(zeros({1, 4, 32}), 2, 1, options), Contains("-1 tokens"));
  options.window = 0;
  options.dropout = 1.5;
  CHECK_ERROR(scaled_dot_product_attention(kv, kv, kv, options), Contains("dropout"));
  CHECK_ERROR(packed_attention(zeros({1, 4, 10}), 2, 1), Contains("packed_attention"));
  CHECK_ERROR(packed_attention(zeros({1, 4, 28}), 3, 2), Contains("multiple of key_heads"));
  CHECK_ERROR(rope(kv, zeros({3, 4}), zeros({3, 4})), Contains("rope") && Contains("(3, 4)"));
  CHECK_ERROR(rope(kv, zeros({4, 4}, DType::f64), zeros({4, 4}, DType::f64)), Contains("f32"));
}

TEST_CASE("attention refuses slots that do not fit", "[ops][errors]") {
  const Tensor x = zeros({2, 1, 3, 8}), slots = zeros({2, 4, 3}, DType::i32);
  const auto with = [](const Tensor& queries, const Tensor& keys) {
    AttentionOptions options;
    options.query_slots = queries;
    options.key_slots = keys;
    return options;
  };
  const auto attend = [&](const AttentionOptions& options) {
    return scaled_dot_product_attention(x, x, x, options);
  };
  CHECK(attend(with(slots, slots)).shape() == x.shape());
  CHECK_ERROR(attend(with(slots, {})), Contains("key_slots"));
  CHECK_ERROR(attend(with({}, slots)), Contains("query_slots"));
  for (const Tensor& wrong :
       {zeros({2, 4, 2}, DType::i32), zeros({1, 4, 3}, DType::i32), zeros({2, 3, 3}, DType::i32),
        zeros({4, 3}, DType::i32), zeros({2, 4, 3}), zeros({2, 4, 3}, DType::i64)}) {
    CHECK_ERROR(attend(with(wrong, slots)), Contains("query_slots and key_slots must be"));
    CHECK_ERROR(attend(with(slots, wrong)), Contains("query_slots and key_slots must be"));
  }
  AttentionOptions options = with(slots, slots);
  options.documents = zeros({2, 3}, DType::i32);
  CHECK_ERROR(attend(options), Contains("without a mask or documents"));
  options.documents = {};
  options.mask = zeros({3, 3}, DType::boolean);
  CHECK_ERROR(attend(options), Contains("without a mask or documents"));
  CHECK_ERROR(attention_with_columns(x, x, x, {x}, {x}, with(slots, slots)), Contains("slot"));
}

TEST_CASE("attention refuses rotations where it does not rotate", "[ops][errors]") {
  const Tensor x = zeros({1, 2, 4, 8}), table = zeros({4, 4});
  for (const bool cos : {false, true}) {
    AttentionOptions options;
    (cos ? options.rope_cos : options.rope_sin) = table;
    CHECK_ERROR(scaled_dot_product_attention(x, x, x, options), Contains("rope()"));
    CHECK_ERROR(attention_with_columns(x, x, x, {x}, {x}, options), Contains("rotation"));
    CHECK_ERROR(packed_attention(zeros({1, 4, 32}), 2, 1, options),
                Contains(cos ? "rope_sin" : "rope_cos"));
  }
}

TEST_CASE("conv3d refuses what is no volume or no filter of it", "[ops][errors]") {
  const Tensor x = zeros({1, 4, 3, 5, 5}), weight = zeros({6, 2, 2, 3, 3});
  const Conv3dOptions two{.groups = 2};
  CHECK(conv3d(x, weight, {}, two).shape() == Shape{1, 6, 2, 3, 3});
  CHECK_ERROR(conv3d(zeros({1, 4, 5, 5}), weight, {}, two), Contains("conv3d: x must be"));
  CHECK_ERROR(conv3d(x, weight), Contains("conv3d: x must be") && Contains("1 groups"));
  CHECK_ERROR(conv3d(x, zeros({5, 2, 2, 3, 3}), {}, two), Contains("conv3d: x must be"));
  CHECK_ERROR(conv3d(x, zeros({6, 2, 4, 3, 3}), {}, two), Contains("window of 4"));
  CHECK_ERROR(conv3d(x, zeros({6, 2, 2, 6, 3}), {}, two), Contains("does not fit"));
  CHECK_ERROR(conv3d(x, weight, zeros({5}), two), Contains("bias"));
  CHECK_ERROR(conv3d(x, zeros({6, 2, 2, 3, 3}, DType::i32), {}, two), Contains("i32"));
  CHECK_ERROR(conv3d(zeros({0, 4, 3, 5, 5}), weight, {}, two), Contains("must have elements"));
  CHECK_ERROR(conv3d(x, weight, {}, {.stride = {0, 1, 1}, .groups = 2}), Contains("above 0"));
  CHECK_ERROR(conv3d(x, weight, {}, {.padding = {-1, 0, 0}, .groups = 2}), Contains("not below"));
}

TEST_CASE("recurrent ops refuse parts that do not fit", "[ops][errors]") {
  const Tensor x = zeros({2, 3, 12}), weight = zeros({12, 4}), state = zeros({2, 4});
  CHECK_ERROR(gru(zeros({2, 12}), weight, {}, state), Contains("gru: x must be"));
  CHECK_ERROR(gru(zeros({2, 0, 12}), weight, {}, state), Contains("a step at least"));
  CHECK_ERROR(gru(x, zeros({16, 4}), {}, state), Contains("gru: weight must be"));
  CHECK_ERROR(gru(x, weight, zeros({4}), state), Contains("bias must be (12)"));
  CHECK_ERROR(gru(x, weight, {}, zeros({3, 4})), Contains("state must be (2, 4)"));
  CHECK_ERROR(gru(x, zeros({12, 4}, DType::f64), {}, state), Contains("one dtype"));
  CHECK_ERROR(gru(zeros({2, 3, 12}, DType::i32), weight, {}, state), Contains("i32"));
  CHECK_ERROR(lstm(x, weight, {}, state, state), Contains("lstm: weight must be"));
  CHECK_ERROR(lstm(zeros({2, 3, 16}), zeros({16, 4}), {}, state, zeros({2, 3})),
              Contains("cell must be"));
}

TEST_CASE("indexing refuses indices of another kind or out of range", "[ops][errors]") {
  CHECK_ERROR(embedding(zeros({4, 2}), zeros({3})), Contains("embedding") && Contains("i64"));
  CHECK_ERROR(embedding(zeros({4, 2}), Tensor::from(std::vector<int64_t>{1, 4}, {2})),
              Contains("embedding") && Contains("4"));
  CHECK_ERROR(embedding(zeros({4, 2}), Tensor::from(std::vector<int64_t>{-1}, {1})),
              Contains("embedding") && Contains("-1"));
  CHECK_ERROR(gather(zeros({2, 2}), 0, zeros({2}, DType::i64)), Contains("gather"));
  CHECK_ERROR(scatter(zeros({2, 2}), 1, zeros({2, 2}, DType::i64), zeros({2, 1})),
              Contains("scatter") && Contains("(2, 2)"));
  CHECK_ERROR(index_select(zeros({2, 2}), 2, zeros({1}, DType::i64)), Contains("out of range"));
  CHECK_ERROR(index_add(zeros({2, 2}), 0, zeros({1}, DType::i64), zeros({2, 2})),
              Contains("index_add") && Contains("(1, 2)"));
}

TEST_CASE("losses refuse targets that do not fit", "[ops][errors]") {
  const Tensor logits = zeros({3, 5});
  CHECK_ERROR(cross_entropy(logits, zeros({2}, DType::i64)),
              Contains("cross_entropy") && Contains("(3, 5)") && Contains("(2)"));
  CHECK_ERROR(cross_entropy(logits, zeros({3})), Contains("targets") && Contains("i64"));
  CHECK_ERROR(cross_entropy(logits, Tensor::full({3}, 5, DType::i64)), Contains("5"));
  CrossEntropyOptions options;
  options.label_smoothing = 1;
  CHECK_ERROR(cross_entropy(logits, zeros({3}, DType::i64), options), Contains("label_smoothing"));
  CHECK_ERROR(mse_loss(zeros({3}), zeros({3, 1})), Contains("mse_loss") && Contains("one shape"));
  CHECK_ERROR(smooth_l1_loss(zeros({3}), zeros({3}), 0), Contains("beta"));
}

TEST_CASE("shapes refuse sizes that do not fit", "[ops][errors]") {
  CHECK_ERROR(reshape(zeros({2, 3}), {4, 2}), Contains("(2, 3)") && Contains("(4, 2)"));
  CHECK_ERROR(reshape(zeros({2, 3}), {-1, -1}), Contains("-1"));
  CHECK_ERROR(permute(zeros({2, 3}), {0, 0}), Contains("permute"));
  CHECK_ERROR(transpose(zeros({2, 3}), 0, 2), Contains("out of range"));
  CHECK_ERROR(squeeze(zeros({2, 3}), 0), Contains("squeeze"));
  CHECK_ERROR(expand(zeros({2, 3}), {2, 4}), Contains("(2, 4)"));
  CHECK_ERROR(cat({}, 0), Contains("cat"));
  CHECK_ERROR(cat({zeros({2, 3}), zeros({3, 2})}, 0), Contains("cat") && Contains("(3, 2)"));
  CHECK_ERROR(stack({zeros({2}), zeros({3})}, 0), Contains("stack") && Contains("(3)"));
  CHECK_ERROR(split(zeros({2}), 0, 0), Contains("split"));
  CHECK_ERROR(select(zeros({2}), 0, 2), Contains("select"));
}

TEST_CASE("reductions refuse axes that are not there", "[ops][errors]") {
  CHECK_ERROR(sum(zeros({2, 3}), {2}), Contains("out of range"));
  CHECK_ERROR(sum(zeros({2, 3}), {0, -2}), Contains("named twice"));
  CHECK_ERROR(mean(zeros({2}, DType::i64)), Contains("mean") && Contains("i64"));
  CHECK_ERROR(max(zeros({0, 3}), {0}), Contains("max") && Contains("no elements"));
  CHECK_ERROR(argmax(zeros({}), 0), Contains("argmax"));
  CHECK_ERROR(topk(zeros({3}), 4, 0), Contains("topk") && Contains("4"));
  CHECK_ERROR(softmax(zeros({})), Contains("softmax"));
}

TEST_CASE("image ops refuse shapes that do not fit", "[ops][errors]") {
  const Tensor x = zeros({1, 3, 4, 4});
  CHECK_ERROR(conv2d(x, zeros({2, 4, 3, 3})), Contains("conv2d") && Contains("C/groups"));
  CHECK_ERROR(conv2d(x, zeros({2, 3, 5, 5})), Contains("does not fit"));
  CHECK_ERROR(conv2d(x, zeros({2, 3, 3, 3}), zeros({3})), Contains("bias"));
  CHECK_ERROR(max_pool2d(zeros({3, 4, 4})), Contains("(N, C, H, W)"));
  CHECK_ERROR(avg_pool2d(x, {{2, 2}, {2, 2}, {2, 2}}), Contains("half the kernel"));
  CHECK_ERROR(batch_norm(x, zeros({3}), zeros({3}), zeros({3}), zeros({4})),
              Contains("batch_norm") && Contains("(4)"));
}

TEST_CASE("ops refuse arguments on different devices", "[ops][errors][cuda]") {
  binade::test::require_gpu();
  const Tensor far = Tensor::zeros({2, 2}, DType::f32, binade::test::test_gpu());
  CHECK_ERROR(add(zeros({2, 2}), far),
              Contains("add") && Contains("cuda") && Contains("to(x, device)"));
  CHECK_ERROR(linear(zeros({2, 2}), far), Contains("linear") && Contains("cuda"));
  CHECK_ERROR(where(zeros({2, 2}, DType::boolean), far, far), Contains("where"));
}
