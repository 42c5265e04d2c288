#include <binade/infer/kv_cache.h>

#include <cmath>

#include <catch2/catch.hpp>

#include <binade/amp/preset.h>
#include <binade/autograd/ops.h>
#include <binade/core/device_errors.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;
using infer::KvCache;
using infer::TokenTree;

namespace {

Array i32(const std::vector<int32_t>& values, Device device = {}) {
  return Array::from(values, {static_cast<int64_t>(values.size())}, device);
}
Array all(int64_t slots, int32_t value, Device device = {}) {
  return Array::full({slots}, value, DType::i32, device);
}

// Logits of all tokens: a prompt of the first size, then passes of decoding of the others.
Array through_cache(const CausalLm& model, const Tensor& ids, const std::vector<int64_t>& pieces) {
  const int64_t batch = ids.size(0);
  KvCache cache(model.config().layers, batch, ids.size(1), ids.device());
  std::vector<int32_t> slots;
  for (int64_t b = 0; b < batch; ++b) slots.push_back(static_cast<int32_t>(b));
  const std::vector<int32_t> lengths(slots.size(), static_cast<int32_t>(pieces[0]));
  Tensor logits = model.forward(slice(ids, 1, 0, pieces[0]), cache.prefill(slots, lengths));
  int64_t begin = pieces[0];
  for (size_t i = 1; i < pieces.size(); ++i) {
    const int64_t piece = pieces[i];
    const Tensor part = model.forward(slice(ids, 1, begin, begin + piece), cache.decode(piece));
    logits = cat({logits, part}, 1);
    cache.advance(all(batch, static_cast<int32_t>(piece), ids.device()));
    begin += piece;
  }
  return logits.array();
}

void check_cache(Device device) {
  const NoGrad no_grad;
  for (const Family family : test::kFamilies) {
    INFO(name_of(family));
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    model->to(device);
    const Tensor ids = test::random_ids(3, 12, config.vocab_size, device);
    const Array whole = model->forward(ids).array();
    for (const std::vector<int64_t>& pieces :
         {std::vector<int64_t>{12}, {6, 1, 1, 1, 1, 1, 1}, {1, 4, 7}})
      CHECK(test::relative_difference(through_cache(*model, ids, pieces), whole) < 1e-5);
  }
}

// The logits behind a text, without a cache.
Array behind(const CausalLm& model, const std::vector<int32_t>& text) {
  const Tensor ids = Tensor::from(text, {1, static_cast<int64_t>(text.size())}, model.device());
  return model.forward(ids).array().select(0, 0).select(0, ids.size(1) - 1);
}

// Texts of lengths 7, 3 and 5 in one batch, then two more tokens each; slot 1 is taken by another
// text meanwhile, and slot 2 is left out of one pass.
void check_ragged(Device device) {
  const NoGrad no_grad;
  for (const Family family : test::kFamilies) {
    INFO(name_of(family));
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    model->to(device);
    std::vector<std::vector<int32_t>> texts = {
        {1, 2, 3, 4, 5, 6, 7}, {8, 9, 10}, {11, 12, 13, 14, 15}};
    KvCache cache(config.layers, 3, 16, device);
    // Slots in another order than rows; padding is id 0.
    model->forward(Tensor::from(std::vector<int32_t>{11, 12, 13, 14, 15, 0, 0, 1, 2, 3, 4, 5, 6, 7},
                                {2, 7}, device),
                   cache.prefill({2, 0}, {5, 7}));
    model->forward(Tensor::from(texts[1], {1, 3}, device), cache.prefill({1}, {3}));
    CHECK(cache.lengths().to_vector<int32_t>() == std::vector<int32_t>{7, 3, 5});

    const auto pass = [&](const std::vector<int32_t>& ids, int64_t tokens,
                          const std::vector<int32_t>& running) {
      const Array flags = i32(running, device);
      const Array logits =
          model->forward(Tensor::from(ids, {3, tokens}, device), cache.decode(tokens, flags))
              .array();
      std::vector<int32_t> counts;
      for (const int32_t is : running) counts.push_back(is * static_cast<int32_t>(tokens));
      cache.advance(i32(counts, device));
      for (size_t s = 0; s < 3; ++s) {
        for (int64_t t = 0; running[s] && t < tokens; ++t) {
          texts[s].push_back(ids[s * static_cast<size_t>(tokens) + static_cast<size_t>(t)]);
          CHECK(test::relative_difference(logits.select(0, static_cast<int64_t>(s)).select(0, t),
                                          behind(*model, texts[s])) < 1e-5);
        }
      }
    };
    pass({20, 21, 22}, 1, {1, 1, 1});
    pass({23, 24, 25, 26, 0, 0}, 2, {1, 1, 0});
    texts[1] = {30, 31, 32, 33};
    model->forward(Tensor::from(texts[1], {1, 4}, device), cache.prefill({1}, {4}));
    pass({40, 41, 42}, 1, {1, 1, 1});
    CHECK(cache.lengths().to_vector<int32_t>() == std::vector<int32_t>{11, 5, 7});
  }
}

// A tree of 5 nodes behind texts of different lengths: every node's logits are those of its path as
// plain text. Node 0 is the root, 1 and 2 its children, 3 a child of 1, 4 of 2.
void check_tree(Device device) {
  const NoGrad no_grad;
  std::vector<CausalLmConfig> configs;
  for (const Family family : test::kFamilies) configs.push_back(test::small_config(family));
  configs.push_back(test::small_config(Family::mistral));
  configs.back().window = 2;  // ends within the tree
  for (const CausalLmConfig& config : configs) {
    INFO(name_of(config.family) << ", window " << config.window);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    model->to(device);
    const std::vector<std::vector<int32_t>> texts = {{1, 2, 3, 4}, {5, 6}};
    const std::vector<std::vector<int64_t>> paths = {{0}, {0, 1}, {0, 2}, {0, 1, 3}, {0, 2, 4}};
    const std::vector<int32_t> tokens = {20, 21, 22, 23, 24, 30, 31, 32, 33, 34};
    TokenTree tree;
    tree.depths = i32({0, 1, 1, 2, 2}, device);
    tree.visible =
        Array::from(std::vector<int64_t>{0b00001, 0b00011, 0b00101, 0b01011, 0b10101}, {5}, device);
    for (const int64_t first : {0, 3}) {  // all at once, or the last level in a pass of its own
      INFO("first " << first);
      KvCache cache(config.layers, 2, 9, device);
      for (int32_t s : {0, 1}) {
        const auto length = static_cast<int32_t>(texts[static_cast<size_t>(s)].size());
        model->forward(Tensor::from(texts[static_cast<size_t>(s)], {1, length}, device),
                       cache.prefill({s}, {length}));
      }
      const Tensor ids = Tensor::from(tokens, {2, 5}, device);
      Tensor logits;
      if (first == 0) {
        logits = model->forward(ids, cache.decode(5, {}, tree));
      } else {
        const TokenTree upper{tree.depths.slice(0, 0, first), tree.visible.slice(0, 0, first)};
        const TokenTree lower{tree.depths.slice(0, first), tree.visible.slice(0, first)};
        logits = model->forward(slice(ids, 1, 0, first), cache.decode(first, {}, upper));
        logits = cat({logits, model->forward(slice(ids, 1, first),
                                             cache.decode(5 - first, {}, lower, first))},
                     1);
      }
      const auto text_of = [&](size_t s, const std::vector<int64_t>& path) {
        std::vector<int32_t> text = texts[s];
        for (const int64_t node : path) text.push_back(tokens[5 * s + static_cast<size_t>(node)]);
        return text;
      };
      for (size_t s = 0; s < 2; ++s)
        for (size_t node = 0; node < 5; ++node)
          CHECK(test::relative_difference(logits.array()
                                              .select(0, static_cast<int64_t>(s))
                                              .select(0, static_cast<int64_t>(node)),
                                          behind(*model, text_of(s, paths[node]))) < 1e-5);

      // Slot 0 accepts the path to node 4, slot 1 the root alone; then both go on.
      cache.compact(Array::from(std::vector<int32_t>{0, 2, 4, 0, 0, 0}, {2, 3}, device),
                    i32({3, 1}, device));
      CHECK(cache.lengths().to_vector<int32_t>() == std::vector<int32_t>{7, 3});
      const Array next =
          model
              ->forward(Tensor::from(std::vector<int32_t>{50, 51}, {2, 1}, device), cache.decode(1))
              .array();
      for (size_t s = 0; s < 2; ++s) {
        std::vector<int32_t> text = text_of(s, s == 0 ? paths[4] : paths[0]);
        text.push_back(s == 0 ? 50 : 51);
        CHECK(test::relative_difference(next.select(0, static_cast<int64_t>(s)).select(0, 0),
                                        behind(*model, text)) < 1e-5);
      }
    }
  }
}

}  // namespace

TEST_CASE("decoding through a cache equals the whole forward pass", "[kv-cache]") {
  check_cache(Device::cpu());
}
TEST_CASE("decoding through a cache equals the whole forward pass on the GPU", "[kv-cache][cuda]") {
  check_cache(test::cuda_or_skip());
}
// A window as large as the cache hides nothing, so that the kernels for few rows take its layers.
TEST_CASE("a window that reaches over the cache is none", "[kv-cache]") {
  const NoGrad no_grad;
  CausalLmConfig config = test::small_config(Family::mistral);
  const Tensor ids = test::random_ids(2, 12, config.vocab_size);
  const auto decoded = [&](int64_t window) {
    config.window = window;
    return through_cache(*test::small_model(config), ids, {3, 1, 4, 4});
  };
  const Array all = decoded(0);
  CHECK(decoded(12).to_vector<float>() == all.to_vector<float>());
  CHECK(decoded(1000).to_vector<float>() == all.to_vector<float>());
  CHECK(test::relative_difference(decoded(11), all) > 1e-3);
}

TEST_CASE("rows of different lengths go on as if they were alone", "[kv-cache]") {
  check_ragged(Device::cpu());
}
TEST_CASE("rows of different lengths go on as if they were alone on the GPU", "[kv-cache][cuda]") {
  check_ragged(test::cuda_or_skip());
}

TEST_CASE("the nodes of a tree see their paths, accepted ones stay", "[kv-cache]") {
  check_tree(Device::cpu());
}
TEST_CASE("the nodes of a tree see their paths, accepted ones stay on the GPU",
          "[kv-cache][cuda]") {
  check_tree(test::cuda_or_skip());
}

// In half precision the GPU decodes few rows with kernels of their own; the same model in f32 on
// the CPU says what is right. Dimensions and biases as those kernels want them, and heads of 24,
// which they refuse.
TEST_CASE("half models decode on the GPU as they do in f32 on the CPU", "[kv-cache][cuda]") {
  const Device device = test::cuda_or_skip();
  const NoGrad no_grad;
  for (const Family family : test::kFamilies)
    for (const int64_t head : {16, 64, 128, 24})
      for (const std::string preset_name : {"fp16", "bf16"}) {
        INFO(name_of(family) << ", heads of " << head << ", " << preset_name);
        CausalLmConfig config = test::small_config(family);
        config.dim = config.heads * head;
        config.head_dim = head;
        config.hidden = 200;
        config.initializer_range = 2 / std::sqrt(static_cast<double>(config.dim));
        const std::shared_ptr<CausalLm> exact = test::small_model(config),
                                        model = test::small_model(config);
        const amp::Preset preset = amp::Preset::parse(preset_name);
        model->to(device);
        preset.apply(*model);
        const auto rounded = model->named_parameters(), same = exact->named_parameters();
        REQUIRE(rounded.size() == same.size());
        for (size_t i = 0; i < same.size(); ++i)
          same[i].parameter->tensor().array().copy_from(
              rounded[i].parameter->tensor().array().to(Device::cpu()).to(DType::f32));
        const Tensor ids = test::random_ids(3, 30, config.vocab_size);
        const Array whole = exact->forward(ids).array();
        const amp::Autocast scope(preset);
        const Tensor on_gpu(ids.array().to(device));
        for (const std::vector<int64_t>& pieces :
             std::vector<std::vector<int64_t>>{{24, 1, 1, 1, 1, 1, 1}, {1, 4, 5, 20}, {8, 22}})
          CHECK(test::relative_difference(
                    through_cache(*model, on_gpu, pieces).to(Device::cpu()).to(DType::f32), whole) <
                (preset_name == "fp16" ? 1e-2 : 8e-2));
      }
}

TEST_CASE("a cache refuses keys and values that are recorded on the tape", "[kv-cache]") {
  const Tensor constant = Tensor::ones({1, 1, 2, 4});
  const Tensor weight(Array::full({1, 1, 2, 4}, 1, DType::f32), true);
  KvCache cache(1, 1, 4);
  cache.prefill({0}, {2});
  CHECK_THROWS_WITH(cache.attend(0, constant, weight, constant, 0, 0), Catch::Contains("NoGrad"));
  CHECK_THROWS_WITH(cache.attend(0, constant, constant, weight * 2, 0, 0),
                    Catch::Contains("no gradients"));
  const NoGrad off;
  CHECK(cache.attend(0, constant, weight, constant, 0, 0).shape() == weight.shape());
}

TEST_CASE("a cache refuses what it did not announce or has no room for", "[kv-cache][bad-input]") {
  KvCache cache(1, 2, 4);
  const Tensor three = Tensor::zeros({3, 1, 1, 4}), two = Tensor::zeros({2, 1, 1, 4});
  cache.decode(1);
  CHECK_THROWS_WITH(cache.attend(0, three, three, three, 0, 0), Catch::Contains("2 rows"));
  CHECK_THROWS_WITH(cache.attend(1, two, two, two, 0, 0), Catch::Contains("no layer 1"));
  CHECK_THROWS_WITH(cache.prefill({0}, {5}), Catch::Contains("capacity of 4"));
  CHECK_THROWS_WITH(cache.prefill({2}, {1}), Catch::Contains("no slot 2"));
  CHECK_THROWS_WITH(cache.prefill({1, 1}, {1, 1}), Catch::Contains("twice"));
  CHECK_THROWS_WITH(cache.decode(65), Catch::Contains("1 to 64"));
  CHECK_THROWS_WITH(cache.decode(8, {}, {}, 60), Catch::Contains("behind 60"));
  CHECK_THROWS_WITH(cache.decode(5), Catch::Contains("full"));
  cache.advance(i32({4, 0}));
  CHECK_THROWS_WITH(cache.decode(1), Catch::Contains("row 0 holds 4 tokens"));
  cache.decode(1, i32({0, 1}));  // a slot that is left out needs no room
  CHECK_THROWS_WITH(cache.advance(i32({1})), Catch::Contains("counts"));
  CHECK_THROWS_WITH(cache.decode(2, {}, {i32({0, 1, 2}), {}}), Catch::Contains("depths"));
  CHECK_THROWS_AS(KvCache(0, 1, 1), Error);
  CHECK_THROWS_AS(KvCache(1, 1, 0), Error);
}

TEST_CASE("accepted nodes that do not ascend are refused", "[kv-cache][bad-input]") {
  const NoGrad no_grad;
  KvCache cache(1, 1, 8);
  const Tensor x = Tensor::ones({1, 1, 4, 4});
  cache.decode(4);
  cache.attend(0, x, x, x, 0, 0);
  const auto accept = [&](const std::vector<int32_t>& nodes) {
    cache.compact(Array::from(nodes, {1, 2}, {}), i32({2}));
  };
  CHECK_THROWS_WITH(accept({2, 1}), Catch::Contains("ascend"));
  CHECK_THROWS_WITH(accept({1, 1}), Catch::Contains("ascend"));
  CHECK_THROWS_WITH(accept({0, 64}), Catch::Contains("ascend"));
  CHECK_THROWS_WITH(accept({-1, 0}), Catch::Contains("ascend"));
  accept({0, 3});
  CHECK(cache.lengths().to_vector<int32_t>() == std::vector<int32_t>{2});
}

TEST_CASE("a cache on the GPU notes what does not fit", "[kv-cache][cuda][bad-input]") {
  const Device device = test::cuda_or_skip();
  const NoGrad no_grad;
  KvCache cache(1, 1, 4, device);
  cache.decode(5);
  CHECK_THROWS_WITH(check_device_faults(device), Catch::Contains("full"));
  const Tensor x = Tensor::ones({1, 1, 4, 8}, DType::f32, device);
  cache.decode(4);
  cache.attend(0, x, x, x, 0, 0);
  cache.compact(Array::from(std::vector<int32_t>{2, 1}, {1, 2}, device), i32({2}, device));
  CHECK_THROWS_WITH(check_device_faults(device), Catch::Contains("ascend"));
}
