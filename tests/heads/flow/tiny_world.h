// A world of a few made-up items, and a model small enough to be run in tests.
#pragma once

#include <random>
#include <vector>

#include <binade/heads/flow/training.h>
#include <examples/bagel/world.h>

namespace binade::test {

// 40 images of random blobs: no data set is needed.
inline examples::World tiny_world() {
  constexpr int64_t kImages = 40, kSize = 28;
  const Array images = Array::zeros({kImages, kSize, kSize}, DType::u8);
  const Array labels = Array::zeros({kImages}, DType::u8);
  std::mt19937 random(1);
  for (int64_t i = 0; i < kImages; ++i) {
    labels.data<uint8_t>()[i] = static_cast<uint8_t>(i % examples::kClasses);
    for (int64_t y = 4; y < 24; ++y)
      for (int64_t x = i % 10; x < 18 + i % 10; ++x)
        images.data<uint8_t>()[(i * kSize + y) * kSize + x] = static_cast<uint8_t>(random());
  }
  return {images, labels};
}

inline nn::MotConfig tiny_config(nn::ExpertChoice experts = nn::ExpertChoice::mot) {
  nn::MotConfig config;
  config.block = {.dim = 32, .heads = 4, .kv_heads = 2, .hidden = 48, .experts = experts};
  config.layers = 2;
  config.vit = {.dim = 16, .layers = 1, .heads = 2, .hidden = 32};
  return config;
}

inline std::vector<data::Sample> world_samples(int count, uint64_t seed = 3) {
  const examples::World world = tiny_world();
  data::RandomStream random(seed, 0);
  std::vector<data::Sample> samples;
  for (int i = 0; i < count; ++i) samples.push_back(world.sample(random));
  return samples;
}

inline train::Named<Tensor> normalisers_of(const data::PackedSlots& packed) {
  const auto count = [](int64_t n) { return Tensor::scalar(n == 0 ? 1 : static_cast<double>(n)); };
  return {{"noised_tokens", count(packed.noised_tokens)}, {"labels", count(packed.labels)}};
}

}  // namespace binade::test
