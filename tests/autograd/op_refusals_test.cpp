// What further ops say about arguments they cannot work with: the op, what is wrong, what to do.
#include <cmath>
#include <functional>
#include <limits>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

using namespace binade;
using Catch::Matchers::Contains;

namespace {

Tensor zeros(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::zeros(shape, dtype);
}

Tensor ids(std::vector<int64_t> values) {
  const auto count = static_cast<int64_t>(values.size());
  return Tensor::from(values, {count});
}

}  // namespace

#define CHECK_ERROR(expression, ...) CHECK_THROWS_WITH(expression, __VA_ARGS__)

TEST_CASE("functions refuse integers, operands that do not meet and bad numbers", "[ops][errors]") {
  CHECK_ERROR(floor(zeros({2}, DType::i64)), Contains("floor") && Contains("i64"));
  CHECK_ERROR(sign(zeros({2}, DType::boolean)), Contains("sign") && Contains("bool"));
  CHECK_ERROR(tan(zeros({2}, DType::i32)), Contains("tan") && Contains("i32"));
  CHECK_ERROR(mish(zeros({2}, DType::i32)), Contains("mish") && Contains("i32"));
  CHECK_ERROR(leaky_relu(zeros({2}, DType::i32)), Contains("leaky_relu") && Contains("i32"));
  CHECK_ERROR(softplus(zeros({2}), 0), Contains("softplus") && Contains("beta"));
  CHECK_ERROR(atan2(zeros({2}, DType::i64), zeros({2})), Contains("atan2") && Contains("i64"));
  CHECK_ERROR(lerp(zeros({2}), zeros({3}), 0.5), Contains("lerp") && Contains("(3)"));
  CHECK_ERROR(lerp(zeros({2}), zeros({2}), zeros({2}, DType::i64)), Contains("weight"));
  CHECK_ERROR(addcmul(zeros({2}), zeros({2}), zeros({3})), Contains("addcmul"));
  CHECK_ERROR(clamp(zeros({2}), Tensor(), Tensor()), Contains("clamp") && Contains("low"));
  CHECK_ERROR(clamp(zeros({2}), zeros({3}), Tensor()), Contains("clamp"));
  CHECK_ERROR(less(zeros({2}, DType::i64), 0.5),
              Contains("less") && Contains("0.5") && Contains("i64"));
  CHECK_ERROR(equal(zeros({2}, DType::boolean), 1), Contains("equal") && Contains("bool"));
}

TEST_CASE("reductions refuse axes that are not there, and nothing where they need something",
          "[ops][errors]") {
  const Tensor none = zeros({}), x = zeros({2, 3});
  // The one rule for tensors without dimensions.
  CHECK_ERROR(sum(none, {0}), Contains("out of range"));
  CHECK_ERROR(prod(none, {-1}), Contains("out of range"));
  CHECK_ERROR(any(none, {0}), Contains("out of range"));
  CHECK_ERROR(norm(none, 2, {0}), Contains("out of range"));
  CHECK_ERROR(stddev(none, {0}), Contains("out of range"));
  CHECK_ERROR(normalize(none, 2, 0), Contains("out of range"));
  CHECK_ERROR(cosine_similarity(none, none, 0), Contains("out of range"));
  CHECK_ERROR(max_with_indices(none, 0), Contains("at least one dimension"));
  CHECK_ERROR(cumprod(none, 0), Contains("at least one dimension"));
  CHECK_ERROR(max_with_indices(zeros({2, 0}), 1),
              Contains("max_with_indices") && Contains("no elements"));
  CHECK_ERROR(norm(zeros({0}), INFINITY), Contains("norm") && Contains("no elements"));
  CHECK_ERROR(norm(x, -1), Contains("norm") && Contains("p must be") && Contains("-1"));
  CHECK_ERROR(norm(x, NAN), Contains("norm") && Contains("p must be") && Contains("nan"));
  CHECK_ERROR(cdist(x, x, -1), Contains("cdist") && Contains("p must be"));
  CHECK_ERROR(cdist(x, zeros({2, 4})),
              Contains("cdist") && Contains("(2, 3)") && Contains("(2, 4)"));
  CHECK_ERROR(cdist(zeros({3}), x), Contains("cdist") && Contains("(3)"));
  CHECK_ERROR(cdist(zeros({2, 2, 3}), zeros({3, 2, 3})), Contains("cdist"));
  CHECK_ERROR(cdist(x, zeros({2, 3}, DType::i64)), Contains("cdist") && Contains("i64"));
  CHECK_ERROR(norm(zeros({2}, DType::i64)), Contains("norm") && Contains("i64"));
  CHECK_ERROR(normalize(x, 2, 1, -1), Contains("normalize") && Contains("eps"));
  CHECK_ERROR(prod(x, {0, 0}), Contains("prod") && Contains("twice"));
  CHECK_ERROR(cumprod(zeros({2}, DType::i64), 0), Contains("cumprod") && Contains("i64"));
  CHECK_ERROR(topk(x, 4, 1, false), Contains("topk") && Contains("4"));
}

TEST_CASE("rearrangements refuse dimensions and sizes that do not fit", "[ops][errors]") {
  const Tensor x = zeros({2, 3});
  CHECK_ERROR(flip(x, {0, -2}), Contains("flip") && Contains("twice"));
  CHECK_ERROR(flip(x, {2}), Contains("out of range"));
  CHECK_ERROR(roll(x, {1, 2}, {0}), Contains("roll") && Contains("2 shifts"));
  CHECK_ERROR(roll(x, {1, 2}), Contains("roll") && Contains("one shift"));
  CHECK_ERROR(repeat(x, {2}), Contains("repeat") && Contains("(2, 3)"));
  CHECK_ERROR(repeat(x, {2, -1}), Contains("repeat"));
  CHECK_ERROR(repeat_interleave(x, -1, 0), Contains("repeat_interleave"));
  CHECK_ERROR(repeat_interleave(x, ids({1, 2, 3}), 0), Contains("(2)") && Contains("(3)"));
  CHECK_ERROR(repeat_interleave(x, ids({1, -2}), 0), Contains("below 0"));
  CHECK_ERROR(pad(x, {1}), Contains("pad") && Contains("pair"));
  CHECK_ERROR(pad(x, {0, 0, 0, 0, 1, 1}), Contains("pad") && Contains("pair"));
  CHECK_ERROR(pad(x, {-2, -2}), Contains("pad") && Contains("cut"));
  CHECK_ERROR(pad(x, {3, 0}, PadMode::reflect), Contains("pad") && Contains("too few"));
  CHECK_ERROR(pad(x, {4, 0}, PadMode::circular), Contains("pad") && Contains("too few"));
  CHECK_ERROR(pad(zeros({2, 0}), {1, 0}, PadMode::replicate), Contains("too few"));
  CHECK_ERROR(pad(x, {-1, 0}, PadMode::circular), Contains("only constant padding"));
  CHECK_ERROR(tril(zeros({3})), Contains("tril") && Contains("(…, R, C)"));
  CHECK_ERROR(expand(zeros({3}), {-1, 3}), Contains("expand") && Contains("-1"));
}

TEST_CASE("choices by index refuse what is out of range", "[ops][errors]") {
  const Tensor x = zeros({3, 4});
  CHECK_ERROR(index(x, {}), Contains("index") && Contains("there must be"));
  CHECK_ERROR(index(x, {ids({0}), ids({0}), ids({0})}), Contains("3 indices"));
  CHECK_ERROR(index(x, {ids({3})}), Contains("3") && Contains("out of range"));
  CHECK_ERROR(index(x, {ids({0}), ids({-5})}), Contains("-5") && Contains("out of range"));
  CHECK_ERROR(index(x, {zeros({3}, DType::boolean)}), Contains("masked_select"));
  CHECK_ERROR(index(x, {zeros({3})}), Contains("index") && Contains("i64"));
  CHECK_ERROR(index_put(x, {ids({0, 1})}, zeros({3, 4})), Contains("(2, 4)"));
  CHECK_ERROR(index_put(x, {ids({0, 1})}, zeros({4}, DType::f16)), Contains("dtypes"));
  CHECK_ERROR(masked_select(x, zeros({3, 4})), Contains("masked_select") && Contains("bool"));
  CHECK_ERROR(masked_select(x, zeros({3}, DType::boolean)), Contains("masked_select"));
  CHECK_ERROR(one_hot(ids({0, 4}), 4), Contains("one_hot") && Contains("4"));
  CHECK_ERROR(one_hot(ids({0}), 0), Contains("one_hot") && Contains("classes"));
  CHECK_ERROR(one_hot(zeros({2}), 3), Contains("one_hot") && Contains("i64"));
  CHECK_ERROR(scatter_reduce(x, 0, zeros({1, 4}, DType::i64), zeros({2, 4}), ScatterReduce::sum),
              Contains("scatter_reduce") && Contains("(1, 4)"));
  CHECK_ERROR(scatter_reduce(zeros({2}, DType::i64), 0, ids({0}), ids({0}), ScatterReduce::mean),
              Contains("scatter_reduce") && Contains("i64"));
  CHECK_ERROR(searchsorted(zeros({2, 3}), zeros({3, 3})), Contains("searchsorted"));
  CHECK_ERROR(searchsorted(zeros({3}), zeros({3}, DType::f64)), Contains("dtypes"));
  CHECK_ERROR(embedding(x, ids({0}), 3), Contains("embedding") && Contains("padding_idx"));
}

TEST_CASE("multinomial refuses weights that nothing can be drawn by", "[ops][errors]") {
  const auto weights = [](std::vector<float> values) {
    const auto count = static_cast<int64_t>(values.size());
    return Tensor::from(values, {count});
  };
  CHECK_ERROR(multinomial(weights({1, -1}), 1), Contains("multinomial") && Contains("-1"));
  CHECK_ERROR(multinomial(weights({1, NAN}), 1), Contains("multinomial") && Contains("nan"));
  CHECK_ERROR(multinomial(weights({INFINITY, 1}), 1), Contains("multinomial") && Contains("inf"));
  CHECK_ERROR(multinomial(weights({0, 0}), 1, true), Contains("0 weights above 0"));
  CHECK_ERROR(multinomial(weights({0, 1, 2}), 3), Contains("2 weights above 0"));
  CHECK_ERROR(multinomial(weights({1, 1}), 3), Contains("cannot draw 3 of 2"));
  CHECK_ERROR(multinomial(weights({1, 1}), 0), Contains("cannot draw 0"));
  CHECK_ERROR(multinomial(zeros({2, 2, 2}), 1), Contains("(N, K)"));
  CHECK_ERROR(multinomial(zeros({3}, DType::i64), 1), Contains("i64"));
}

TEST_CASE("einsum refuses equations that do not fit their operands", "[ops][errors]") {
  const Tensor a = zeros({2, 3}), b = zeros({3, 4});
  CHECK_ERROR(einsum("ij,jk->ik", {a}), Contains("2 terms") && Contains("1 operands"));
  CHECK_ERROR(einsum("ij,jk->ik", {a, a}), Contains("'j'") && Contains("3") && Contains("2"));
  CHECK_ERROR(einsum("ijk,jk->ik", {a, b}), Contains("ijk") && Contains("(2, 3)"));
  CHECK_ERROR(einsum("ij,jk->iz", {a, b}), Contains("'z'") && Contains("in no operand"));
  CHECK_ERROR(einsum("ij,jk->ii", {a, b}), Contains("'i'") && Contains("twice"));
  CHECK_ERROR(einsum("i2,jk->ij", {a, b}), Contains("'2'") && Contains("letters"));
  CHECK_ERROR(einsum("ii->i", {a}), Contains("'i'") && Contains("different sizes"));
  CHECK_ERROR(einsum("i", {ids({1})}), Contains("einsum") && Contains("i64"));
  CHECK_ERROR(einsum("", {}), Contains("operand"));
}

TEST_CASE("losses refuse weights and normalisers of other kinds", "[ops][errors]") {
  const Tensor logits = zeros({2, 3}), targets = ids({0, 2});
  CrossEntropyOptions options;
  options.weight = zeros({4});
  CHECK_ERROR(cross_entropy(logits, targets, options), Contains("weight must be (3)"));
  options.weight = zeros({3}).set_requires_grad(true);
  CHECK_ERROR(cross_entropy(logits, targets, options), Contains("weight") && Contains("detach"));
  LinearCrossEntropyOptions linear_options;
  linear_options.weight = zeros({3});
  CHECK_ERROR(linear_cross_entropy(logits, zeros({5, 3}), targets, linear_options),
              Contains("no class weights"));
  NllOptions nll;
  nll.weight = zeros({2});
  CHECK_ERROR(nll_loss(logits, targets, nll), Contains("nll_loss") && Contains("(3)"));
  CHECK_ERROR(nll_loss(logits, ids({0, 3})), Contains("out of range"));
  CHECK_ERROR(nll_loss(logits, zeros({2})), Contains("targets") && Contains("i64"));
  SoftTargetOptions soft;
  soft.label_smoothing = 1;
  CHECK_ERROR(cross_entropy_soft(logits, logits, soft), Contains("label_smoothing"));
  BceOptions bce;
  bce.pos_weight = zeros({2});
  CHECK_ERROR(bce_with_logits_loss(logits, logits, bce), Contains("pos_weight"));
  CHECK_ERROR(l1_loss(logits, zeros({3, 2})), Contains("l1_loss") && Contains("one shape"));
  CHECK_ERROR(mse_loss(logits, logits, {Reduction::mean, zeros({2})}),
              Contains("normaliser must be one"));
  CHECK_ERROR(l1_loss(logits, logits, {Reduction::mean, zeros({}, DType::i64)}),
              Contains("normaliser must be one"));
}

TEST_CASE("norms, pooling and interpolation refuse sizes that do not fit", "[ops][errors]") {
  const Tensor x = zeros({2, 4, 5, 6});
  CHECK_ERROR(group_norm(x, 3), Contains("group_norm") && Contains("3 groups"));
  CHECK_ERROR(group_norm(x, 2, zeros({3})), Contains("group_norm") && Contains("(4)"));
  CHECK_ERROR(group_norm(zeros({4}), 2), Contains("(N, C, …)"));
  CHECK_ERROR(instance_norm(zeros({2, 3, 1})),
              Contains("instance_norm") && Contains("two elements"));
  CHECK_ERROR(layer_norm(zeros({}), {}, {}), Contains("layer_norm"));
  CHECK_ERROR(avg_pool2d(x, {.dilation = {2, 1}}), Contains("avg_pool2d") && Contains("dilation"));
  CHECK_ERROR(max_pool2d(x, {.dilation = {0, 1}}), Contains("max_pool2d") && Contains("dilation"));
  CHECK_ERROR(max_pool2d(x, {.dilation = {9, 1}}), Contains("max_pool2d") && Contains("fit"));
  CHECK_ERROR(adaptive_avg_pool2d(x, {0, 1}), Contains("adaptive_avg_pool2d") && Contains("size"));
  CHECK_ERROR(adaptive_max_pool2d(zeros({2, 3}), {1, 1}), Contains("(N, C, H, W)"));
  CHECK_ERROR(interpolate(x, {0, 1}), Contains("interpolate") && Contains("size"));
  CHECK_ERROR(interpolate(zeros({1, 1, 0, 2}), {1, 1}), Contains("no elements"));
  CHECK_ERROR(interpolate(x, {2, 2}, Interpolation::nearest, true), Contains("align_corners"));
}

TEST_CASE("further convolutions refuse what does not fit", "[ops][errors]") {
  const Tensor x = zeros({2, 4, 5, 6}), sequence = zeros({2, 4, 5});
  CHECK_ERROR(conv1d(x, zeros({2, 4, 3})), Contains("conv1d") && Contains("(N, C, L)"));
  CHECK_ERROR(conv1d(sequence, zeros({2, 3, 3})),
              Contains("conv1d, as conv2d:") && Contains("groups"));
  CHECK_ERROR(conv3d(zeros({1, 1, 2, 2, 2}), zeros({1, 1, 2, 3, 3})),
              Contains("conv3d, as conv2d:") && Contains("does not fit"));
  CHECK_ERROR(conv_transpose2d(x, zeros({3, 4, 2, 2})), Contains("(C, K/groups, R, S)"));
  CHECK_ERROR(conv_transpose2d(x, zeros({4, 2, 2, 2}), zeros({3})), Contains("bias must be (2)"));
  CHECK_ERROR(conv_transpose2d(x, zeros({4, 2, 2, 2}), {}, {.output_padding = {1, 0}}),
              Contains("output_padding") && Contains("dilation of 1"));
  CHECK_ERROR(conv_transpose2d(x, zeros({4, 2, 2, 2}), {}, {.padding = {9, 0}}),
              Contains("leaves nothing"));
  CHECK_ERROR(conv_transpose2d(zeros({0, 4, 5, 6}), zeros({4, 2, 2, 2})), Contains("elements"));
  CHECK_ERROR(conv_transpose1d(x, zeros({4, 2, 2})), Contains("conv_transpose1d"));
  CHECK_ERROR(max_pool1d(x), Contains("max_pool1d") && Contains("(N, C, L)"));
  CHECK_ERROR(avg_pool1d(sequence, {.dilation = 2}), Contains("dilation"));
  CHECK_ERROR(max_pool1d(sequence, {.kernel = 9}), Contains("fit"));
  CHECK_ERROR(avg_pool1d(sequence, {.kernel = 2, .padding = 2}), Contains("half the kernel"));
  CHECK_ERROR(adaptive_avg_pool1d(sequence, 0), Contains("size"));
  CHECK_ERROR(adaptive_max_pool1d(zeros({2, 4, 0}), 1), Contains("no elements"));
}

TEST_CASE("convolutions and pooling refuse windows that cannot be", "[ops][errors]") {
  constexpr auto kMost = std::numeric_limits<int64_t>::max(), kLeast = -kMost - 1;
  const Tensor sequence = zeros({1, 1, 5}), image = zeros({1, 1, 5, 5}),
               volume = zeros({1, 1, 5, 5, 5});
  struct Window {
    int64_t kernel = 1, stride = 1, padding = 0, dilation = 1;
  };
  struct Case {
    std::string op;
    std::function<void(const Window&)> run;
    bool has_kernel = false, has_dilation = true;
  };
  std::vector<Case> cases = {
      {"conv1d",
       [&](const Window& w) {
         conv1d(sequence, zeros({1, 1, 1}), {},
                {.stride = w.stride, .padding = w.padding, .dilation = w.dilation});
       }},
      {"conv_transpose1d",
       [&](const Window& w) {
         conv_transpose1d(sequence, zeros({1, 1, 1}), {},
                          {.stride = w.stride, .padding = w.padding, .dilation = w.dilation});
       }},
      {"max_pool1d",
       [&](const Window& w) {
         max_pool1d(sequence, {w.kernel, w.stride, w.padding, w.dilation});
       },
       true},
      {"avg_pool1d",
       [&](const Window& w) {
         avg_pool1d(sequence, {w.kernel, w.stride, w.padding, w.dilation});
       },
       true, false}};
  for (const size_t axis : {size_t{0}, size_t{1}, size_t{2}}) {
    const auto along = [axis]<size_t n>(std::array<int64_t, n> values, int64_t value) {
      values[axis] = value;
      return values;
    };
    cases.push_back({"conv3d", [&, along](const Window& w) {
                       conv3d(volume, zeros({1, 1, 1, 1, 1}), {},
                              {.stride = along(std::array<int64_t, 3>{1, 1, 1}, w.stride),
                               .padding = along(std::array<int64_t, 3>{}, w.padding),
                               .dilation = along(std::array<int64_t, 3>{1, 1, 1}, w.dilation)});
                     }});
    if (axis == 2) break;
    const auto ones = [along](int64_t value) { return along(std::array<int64_t, 2>{1, 1}, value); };
    const auto padding = [along](int64_t value) { return along(std::array<int64_t, 2>{}, value); };
    const auto pooled = [=](const Window& w) {
      return Pool2dOptions{ones(w.kernel), ones(w.stride), padding(w.padding), ones(w.dilation)};
    };
    cases.push_back({"conv2d", [&, ones, padding](const Window& w) {
                       conv2d(image, zeros({1, 1, 1, 1}), {},
                              {ones(w.stride), padding(w.padding), ones(w.dilation)});
                     }});
    cases.push_back({"conv_transpose2d", [&, ones, padding](const Window& w) {
                       conv_transpose2d(image, zeros({1, 1, 1, 1}), {},
                                        {.stride = ones(w.stride),
                                         .padding = padding(w.padding),
                                         .dilation = ones(w.dilation)});
                     }});
    cases.push_back(
        {"max_pool2d", [&, pooled](const Window& w) { max_pool2d(image, pooled(w)); }, true});
    cases.push_back({"avg_pool2d", [&, pooled](const Window& w) { avg_pool2d(image, pooled(w)); },
                     true, false});
  }
  for (const Case& one : cases) {
    INFO(one.op);
    CHECK_NOTHROW(one.run({}));
    for (const int64_t wrong : {int64_t{0}, int64_t{-1}, kMost, kLeast}) {
      INFO(wrong);
      if (one.has_kernel) CHECK_ERROR(one.run({.kernel = wrong}), Contains(one.op));
      if (one.has_kernel && wrong == 0) {
        CHECK_NOTHROW(one.run({.stride = wrong}));  // the kernel's size
      } else {
        CHECK_ERROR(one.run({.stride = wrong}), Contains(one.op));
      }
      if (one.has_dilation) CHECK_ERROR(one.run({.dilation = wrong}), Contains(one.op));
      if (wrong != 0) CHECK_ERROR(one.run({.padding = wrong}), Contains(one.op));
    }
  }
}

TEST_CASE("parts and counts refuse what does not add up", "[ops][errors]") {
  const Tensor x = zeros({2, 5});
  CHECK_ERROR(split(x, std::vector<int64_t>{2, 2}, 1),
              Contains("split") && Contains("add up to 4") && Contains("has 5"));
  CHECK_ERROR(split(x, std::vector<int64_t>{4, 2}, 1),
              Contains("split") && Contains("a part of 2 after 4"));
  CHECK_ERROR(split(x, std::vector<int64_t>{6, -1}, 1), Contains("split"));
  CHECK_ERROR(split(x, std::vector<int64_t>{}, 1), Contains("split") && Contains("add up to 0"));
  CHECK_ERROR(chunk(x, 0, 1), Contains("chunk") && Contains("at least one"));
  CHECK_ERROR(chunk(x, 2, 2), Contains("out of range"));
  CHECK_ERROR(bincount(ids({0, 2, -3})), Contains("bincount") && Contains("-3"));
  CHECK_ERROR(bincount(zeros({2})), Contains("bincount") && Contains("i64"));
  CHECK_ERROR(bincount(zeros({2, 2}, DType::i64)), Contains("bincount") && Contains("vector"));
  CHECK_ERROR(bincount(ids({0, 1}), zeros({3})), Contains("bincount") && Contains("(3)"));
  CHECK_ERROR(bincount(ids({0, 1}), zeros({2}, DType::i64)),
              Contains("bincount") && Contains("weights"));
  CHECK_ERROR(bincount(ids({0}), {}, -1), Contains("bincount") && Contains("-1"));
}
