// Llama models converted from GGUF files by scripts/gguf_to_hf.py, beside what transformers makes
// of the same files. scripts/long/smollm2.sh prepares a folder a case: model/ and
// reference.safetensors.
#include <cstdlib>

#include <catch2/catch.hpp>

#include <binade/core/safetensors.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>

#include "nn/tiny_models.h"
#include "skip.h"

using namespace binade;
namespace fs = std::filesystem;

namespace {

// Calls `check` with every case's name, its model in FP32 and the reference.
template <class Check>
void for_each_case(Check check) {
  const char* given = std::getenv("BINADE_SMOLLM2_CASES");
  if (given == nullptr) test::skip("run scripts/long/smollm2.sh");
  for (const fs::directory_entry& entry : fs::directory_iterator(given)) {
    INFO(entry.path().filename().string());
    const std::shared_ptr<nn::CausalLm> model = nn::load_hf(entry.path() / "model");
    model->eval();
    check(entry.path().filename().string(), *model,
          SafetensorsFile(entry.path() / "reference.safetensors"));
  }
}

std::string numbered(const char* what, int number) {
  return std::string(what) + std::to_string(number);
}

}  // namespace

TEST_CASE("The logits of converted GGUF files are those of transformers on the same file",
          "[.smollm2]") {
  int texts = 0;
  for_each_case(
      [&](const std::string& name, const nn::CausalLm& model, const SafetensorsFile& reference) {
        double largest = 0;
        for (int i = 0; reference.contains(numbered("ids", i)); ++i, ++texts) {
          const Tensor ids(reference.get(numbered("ids", i)));
          const double difference = test::relative_difference(model.forward(ids).array(),
                                                              reference.get(numbered("logits", i)));
          CHECK(difference < 1e-4);
          largest = std::max(largest, difference);
        }
        WARN(name << ": the largest relative difference is " << largest);
      });
  CHECK(texts >= 10);
}

// Where the two part, they must have been about to: the reference's best two logits are closer than
// FP32 sums in another order may differ. What follows is then another text.
TEST_CASE("The greedy tokens of converted GGUF files are those of transformers", "[.smollm2]") {
  int rows = 0;
  for_each_case([&](const std::string& name, const nn::CausalLm& model,
                    const SafetensorsFile& reference) {
    int equal = 0, near_ties = 0;
    for (int i = 0; reference.contains(numbered("prompt", i)); ++i, ++rows) {
      const auto prompt = reference.get(numbered("prompt", i)).to_vector<int32_t>();
      const auto greedy = reference.get(numbered("greedy", i)).to_vector<int32_t>();
      const auto second = reference.get(numbered("second", i)).to_vector<int32_t>();
      const auto margin = reference.get(numbered("margin", i)).to_vector<float>();
      const std::vector<int32_t> ours = infer::generate(
          model, {prompt}, {.max_new_tokens = static_cast<int64_t>(greedy.size())})[0];
      REQUIRE(ours.size() == greedy.size());
      size_t same = 0;
      while (same < greedy.size() && ours[same] == greedy[same]) ++same;
      if (same == greedy.size()) {
        ++equal;
        continue;
      }
      INFO("prompt " << i << ", token " << same << ": " << ours[same] << " for " << greedy[same]
                     << ", whose logit is larger by " << margin[same]);
      CHECK(ours[same] == second[same]);
      CHECK(margin[same] < 1e-3);
      WARN("a near-tie");
      ++near_ties;
    }
    if (equal + near_ties > 0)
      WARN(name << ": " << equal << " prompts with equal tokens, " << near_ties << " near-ties");
  });
  CHECK(rows >= 5);
}
