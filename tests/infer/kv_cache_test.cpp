#include <binade/infer/kv_cache.h>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;
using infer::KvCache;

namespace {

// Logits of the last `tail` tokens, fed through a cache in pieces of the given sizes.
Array through_cache(const CausalLm& model, const Tensor& ids, const std::vector<int64_t>& pieces,
                    int64_t tail) {
  KvCache cache(model.config().layers, ids.size(0));
  Tensor logits;
  int64_t begin = 0;
  for (const int64_t piece : pieces) {
    const Tensor part = model.forward(slice(ids, 1, begin, begin + piece), cache.next(piece));
    logits = logits.defined() ? cat({logits, part}, 1) : part;
    cache.advance(piece);
    begin += piece;
  }
  return logits.array().slice(1, begin - tail);
}

void check_cache(Device device) {
  const NoGrad no_grad;
  for (const Family family : {Family::gpt2, Family::llama, Family::qwen2, Family::qwen3}) {
    INFO(name_of(family));
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    model->to(device);
    const Tensor ids = test::random_ids(3, 12, config.vocab_size, device);
    const Array whole = model->forward(ids).array();
    for (const std::vector<int64_t>& pieces :
         {std::vector<int64_t>{12}, {6, 1, 1, 1, 1, 1, 1}, {1, 4, 7}})
      CHECK(test::relative_difference(through_cache(*model, ids, pieces, 12), whole) < 1e-5);
  }
}

// Rows of lengths 7, 3 and 5 in one batch, then two more tokens each.
void check_ragged(Device device) {
  const NoGrad no_grad;
  for (const Family family : {Family::gpt2, Family::llama, Family::qwen3}) {
    INFO(name_of(family));
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    model->to(device);
    const Tensor prompts = test::random_ids(3, 7, config.vocab_size, device);
    const Tensor more = test::random_ids(3, 2, config.vocab_size, device);
    const std::vector<int64_t> lengths = {7, 3, 5};

    KvCache cache(config.layers, 3);
    const Tensor first = model->forward(prompts, cache.next(7));
    cache.advance(lengths);
    CHECK(cache.lengths() == lengths);
    const Tensor second = model->forward(slice(more, 1, 0, 1), cache.next(1));
    cache.advance(1);
    const Tensor third = model->forward(slice(more, 1, 1, 2), cache.next(1));
    KvCache at_once(config.layers, 3);  // both tokens in one pass
    model->forward(prompts, at_once.next(7));
    at_once.advance(lengths);
    const Tensor both = model->forward(more, at_once.next(2));

    for (int row = 0; row < 3; ++row) {
      const int64_t length = lengths[static_cast<size_t>(row)];
      const Tensor alone = cat(
          {slice(slice(prompts, 0, row, row + 1), 1, 0, length), slice(more, 0, row, row + 1)}, 1);
      const Array whole = model->forward(alone).array().select(0, 0);
      const auto of = [&](const Tensor& logits, int64_t t) {
        return logits.array().select(0, row).select(0, t);
      };
      CHECK(test::relative_difference(of(first, length - 1), whole.select(0, length - 1)) < 1e-5);
      CHECK(test::relative_difference(of(second, 0), whole.select(0, length)) < 1e-5);
      CHECK(test::relative_difference(of(third, 0), whole.select(0, length + 1)) < 1e-5);
      CHECK(test::relative_difference(of(both, 0), whole.select(0, length)) < 1e-5);
      CHECK(test::relative_difference(of(both, 1), whole.select(0, length + 1)) < 1e-5);
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
TEST_CASE("rows of different lengths go on as if they were alone", "[kv-cache]") {
  check_ragged(Device::cpu());
}
TEST_CASE("rows of different lengths go on as if they were alone on the GPU", "[kv-cache][cuda]") {
  check_ragged(test::cuda_or_skip());
}

TEST_CASE("a cache grows past its first room and keeps what it had", "[kv-cache]") {
  KvCache cache(1, 1, /*capacity=*/2);
  std::vector<float> expected;
  for (int i = 0; i < 600; i += 200) {
    const Tensor fresh(Array::full({1, 1, 200, 1}, i, DType::f32));
    cache.next(200);
    const auto [keys, values] = cache.extend(0, fresh, fresh);
    cache.advance(200);
    expected.insert(expected.end(), 200, static_cast<float>(i));
    CHECK(keys.to_vector<float>() == expected);
    CHECK(values.to_vector<float>() == expected);
  }
}

TEST_CASE("a cache refuses keys and values that are recorded on the tape", "[kv-cache]") {
  const Tensor constant = Tensor::ones({1, 1, 2, 4});
  const Tensor weight(Array::full({1, 1, 2, 4}, 1, DType::f32), true);
  KvCache cache(1, 1);
  cache.next(2);
  CHECK_THROWS_WITH(cache.extend(0, weight, constant), Catch::Contains("NoGrad"));
  CHECK_THROWS_WITH(cache.extend(0, constant, weight * 2), Catch::Contains("no gradients"));
  const NoGrad off;
  CHECK(cache.extend(0, weight, constant).first.shape() == weight.shape());
}

TEST_CASE("a cache refuses other batches", "[kv-cache]") {
  KvCache cache(1, 2);
  const Tensor keys = Tensor::zeros({3, 1, 1, 4});
  cache.next(1);
  CHECK_THROWS_WITH(cache.extend(0, keys, keys), Catch::Contains("2 rows"));
  CHECK_THROWS_AS(cache.advance(std::vector<int64_t>{1}), Error);
  CHECK_THROWS_AS(KvCache(0, 1), Error);
}
