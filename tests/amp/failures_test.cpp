// The three ways in which FP16 training fails, and their cures (Micikevicius et al. 2018, §3).
#include <catch2/catch.hpp>
#include <cmath>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/ops.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"

using namespace binade;
using namespace binade::test;

namespace {

constexpr double kTiny = 0x1p-27;  // of the gradients: FP16 rounds 2^-25 and less to zero

// The weights after one step on loss = kTiny · Σ w·x, whose gradient is kTiny · x, under a preset;
// the learning rate makes the step about 1.
std::vector<double> after_one_step(const std::string& preset_name) {
  const amp::Preset preset = amp::Preset::parse(preset_name);
  Parameters model;
  const auto weight = model.put<float>("weight", {0, 0, 0, 0}, {4, 1});
  preset.apply(model);
  optim::Sgd sgd(model.group());
  sgd.set_learning_rate(1 / kTiny);
  amp::GradScaler scaler(Device::cpu(), amp::GradScalerOptions::of(preset));
  const amp::Autocast scope(preset);
  const Tensor x = Tensor::from<float>({0.5f, 1, 1.5f, 2}, {1, 4});
  scaler.scale(sum(matmul(x, weight->tensor())) * kTiny).backward();
  scaler.step(sgd);
  scaler.update();
  return weight->master().to_vector<double>();
}

// 1 after `steps` steps of +2^-12 under a preset.
double climb(const std::string& preset_name, int steps) {
  const amp::Preset preset = amp::Preset::parse(preset_name);
  Parameters model;
  const auto weight = model.put<float>("weight", {1}, {1});
  preset.apply(model);
  optim::Sgd sgd(model.group());
  sgd.set_learning_rate(0x1p-12);
  for (int i = 0; i < steps; ++i) {
    sgd.zero_grad();
    give_gradient<float>(weight, {-1});
    sgd.step();
  }
  return weight->tensor().item();
}

}  // namespace

TEST_CASE("without loss scaling small gradients vanish in FP16", "[amp][failures]") {
  CHECK(after_one_step("fp16-static:1") == std::vector<double>{0, 0, 0, 0});
  const std::vector<double> exact = after_one_step("fp32");
  CHECK(exact == std::vector<double>{-0.5, -1, -1.5, -2});
  CHECK(after_one_step("fp16") == exact);  // scaled by whole binades: nothing is lost
  CHECK(after_one_step("fp16-static:4096") == exact);
  CHECK(after_one_step("fp16-autocast") == exact);
  CHECK(after_one_step("bf16") == exact);
}

TEST_CASE("without masters weights stall", "[amp][failures]") {
  constexpr int kSteps = 512;
  CHECK(climb("fp32", kSteps) == 1 + kSteps * 0x1p-12);
  CHECK(climb("fp16", kSteps) == 1 + kSteps * 0x1p-12);
  for (const char* preset : {"fp16-no-masters", "fp16-pure"})
    CHECK(climb(preset, kSteps) == 1);  // a step is a quarter of an ulp
}

TEST_CASE("a long sum in FP16 is wrong, ours is right", "[amp][failures]") {
  constexpr int64_t kCount = 30000;
  Half naive;
  for (int64_t i = 0; i < kCount; ++i) naive = Half(static_cast<float>(naive) + 1.0f);
  CHECK(static_cast<float>(naive) == 2048);  // 2048 + 1 rounds to 2048

  const Tensor ones = Tensor::ones({kCount}, DType::f16);
  CHECK(sum(ones).item() == kCount);
  CHECK(mean(ones).item() == 1);
  const Tensor row = reshape(ones, {1, kCount}), column = reshape(ones, {kCount, 1});
  CHECK(matmul(row, column).dtype() == DType::f16);
  CHECK(matmul(row, column).item() == 30000);
  CHECK(linear(row, row).item() == 30000);
  // 65504 is as far as FP16 goes: under a policy sums are f32.
  const amp::Autocast scope(amp::Preset::parse("fp16"));
  CHECK(sum(ones * 4).item() == 4 * kCount);
}
