// Guesses among a part of the vocabulary, against what a sort of the whole layer's logits gives.
#include <binade/heads/decoding/draft_vocabulary.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "core/kernel_arrays.h"
#include "gpu.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using heads::decoding::DraftOutput;
using heads::decoding::DraftVocabulary;

namespace {

using Ids = std::vector<int32_t>;

Array small_integers(const Shape& shape, DType dtype, Random& random) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (float& value : values) value = static_cast<float>(random() % 5) - 2;
  return Array::from(values, shape).to(dtype);
}

// The k likeliest of `part` for each row.
Ids likeliest(const Array& weight, const Array& hidden, const Ids& part, int64_t k) {
  Ids all;
  const int64_t dim = weight.size(1);
  for (int64_t r = 0; r < hidden.size(0); ++r) {
    std::vector<double> logits;
    for (const int32_t id : part) {
      double sum = 0;
      for (int64_t d = 0; d < dim; ++d)
        sum += read(weight, id * dim + d) * read(hidden, r * dim + d);
      logits.push_back(sum);
    }
    std::vector<size_t> order(part.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    for (int64_t i = 0; i < k; ++i) all.push_back(part[order[static_cast<size_t>(i)]]);
  }
  return all;
}

}  // namespace

TEST_CASE("a draft vocabulary holds the most frequent tokens", "[decoding]") {
  const std::vector<int64_t> counts = {3, 0, 7, 3, 9, 3};
  CHECK(DraftVocabulary::most_frequent(counts, 1).ids() == Ids{4});
  CHECK(DraftVocabulary::most_frequent(counts, 3).ids() == Ids{0, 2, 4});  // of equals the smaller
  CHECK(DraftVocabulary::most_frequent(counts, 5).ids() == Ids{0, 2, 3, 4, 5});
  CHECK(DraftVocabulary::most_frequent(counts, 5).size(6) == 5);
  for (const int64_t size : {6, 100}) {
    CHECK(DraftVocabulary::most_frequent(counts, size).whole());
    CHECK(DraftVocabulary::most_frequent(counts, size).size(6) == 6);
  }
  CHECK(DraftVocabulary({5, 0, 2}, 6).ids() == Ids{0, 2, 5});
  CHECK_THROWS_WITH(DraftVocabulary::most_frequent(counts, 0), Contains("1 or more tokens, got 0"));
  CHECK_THROWS_WITH(DraftVocabulary(Ids{}, 6), Contains("needs a token"));
  CHECK_THROWS_WITH(DraftVocabulary({1, 6}, 6), Contains("the token 6, but the model has 6"));
  CHECK_THROWS_WITH(DraftVocabulary({1, -1}, 6), Contains("the token -1"));
  CHECK_THROWS_WITH(DraftVocabulary({3, 1, 3}, 6), Contains("twice: 3"));
}

TEST_CASE("guesses among a part of the vocabulary are its likeliest tokens", "[decoding]") {
  Random random(3);
  std::vector<Device> devices = {Device::cpu()};
  if (cuda_device_count() > 0) devices.push_back(test_gpu());
  for (const Device device : devices) {
    for (const DType dtype : {DType::f32, DType::f16}) {
      // Small integers: sums are exact in half, and many are equal.
      const Array weight = small_integers({300, 64}, dtype, random),
                  hidden = small_integers({3, 64}, dtype, random);
      Ids part;
      for (int32_t id = 0; id < 290; ++id)
        if (random() % 3 == 0) part.push_back(id);
      const DraftOutput output(Tensor(weight.to(device)), DraftVocabulary(part, 290));
      for (const int64_t k : {1, 4, 16, 20}) {
        INFO(device << ' ' << dtype << ", k " << k);
        const Array wide = Array::full({3, k + 1}, -9, DType::i32, device);
        const NoGrad no_grad;
        output.guess(Tensor(hidden.to(device)), wide.slice(1, 0, k));
        const Ids guessed = wide.to(Device::cpu()).to_vector<int32_t>();
        const Ids expected = likeliest(weight, hidden, part, k);
        for (int64_t r = 0; r < 3; ++r) {
          for (int64_t i = 0; i < k; ++i) {
            INFO("row " << r << ", guess " << i);
            CHECK(guessed[static_cast<size_t>(r * (k + 1) + i)] ==
                  expected[static_cast<size_t>(r * k + i)]);
          }
          CHECK(guessed[static_cast<size_t>(r * (k + 1) + k)] == -9);
        }
      }
      const Array lost = hidden.clone();
      write(lost, 64, NAN);
      const Array tokens = Array::zeros({3, 2}, DType::i32, device);
      const NoGrad no_grad;
      output.guess(Tensor(lost.to(device)), tokens);
      const Ids guessed = tokens.to(Device::cpu()).to_vector<int32_t>();
      CHECK(guessed[0] >= 0);
      CHECK((guessed[2] == -1 && guessed[3] == -1));
    }
  }
  CHECK_THROWS_WITH(DraftOutput(Tensor::zeros({4, 8}), DraftVocabulary({1, 5}, 6)),
                    Contains("(4, 8)"));
}
