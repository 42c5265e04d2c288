// Presets: their names, what they do to parameters, what ops do under them.
#include <binade/amp/preset.h>

#include <catch2/catch.hpp>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/ops.h>
#include <binade/nn/embedding.h>
#include <binade/nn/linear.h>
#include <binade/nn/norm.h>

#include "optim/parameters.h"

using namespace binade;
using namespace binade::test;
using amp::Autocast;
using amp::Preset;
using Catch::Matchers::Contains;

namespace {

class Net : public nn::Module {
 public:
  Net()
      : embedding(add<nn::Embedding>("embedding", 10, 8)),
        norm(add<nn::LayerNorm>("norm", 8)),
        rms(add<nn::RmsNorm>("rms", 8)),
        linear(add<nn::Linear>("linear", 8, 8)),
        frozen(add<nn::Linear>("frozen", 8, 8)) {
    frozen->set_trainable(false);
  }
  std::shared_ptr<nn::Embedding> embedding;
  std::shared_ptr<nn::LayerNorm> norm;
  std::shared_ptr<nn::RmsNorm> rms;
  std::shared_ptr<nn::Linear> linear, frozen;
};

}  // namespace

TEST_CASE("presets by name", "[amp][preset]") {
  using enum DType;
  using Scaling = Preset::Scaling;
  struct Row {
    const char* name;
    DType parameters;
    bool masters, autocast;
    DType compute;
    Scaling scaling;
  };
  const Row table[] = {{"fp32", f32, false, false, f32, Scaling::off},
                       {"fp16", f16, true, true, f16, Scaling::dynamic},
                       {"fp16-autocast", f32, false, true, f16, Scaling::dynamic},
                       {"bf16", bf16, true, true, bf16, Scaling::off},
                       {"fp16-static:1024", f16, true, true, f16, Scaling::constant},
                       {"fp16-no-masters", f16, false, true, f16, Scaling::dynamic},
                       {"fp16-pure", f16, false, true, f16, Scaling::off}};
  for (const Row& row : table) {
    INFO(row.name);
    const Preset preset = Preset::parse(row.name);
    CHECK(preset.name == row.name);
    CHECK(preset.parameter_dtype == row.parameters);
    CHECK(preset.masters == row.masters);
    CHECK(preset.autocast == row.autocast);
    CHECK(preset.compute_dtype == row.compute);
    CHECK(preset.scaling == row.scaling);
  }
  CHECK(Preset::parse("fp16-static:1024").constant_scale == 1024);
  CHECK(Preset::parse("fp16-static:0.25").constant_scale == 0.25f);
  CHECK(Preset::default_for(Device::cpu()).name == "fp32");
  CHECK(Preset::default_for(Device::cuda()).name == "fp16");

  for (const char* name : {"", "fp15", "FP16", "fp16-static", "fp16-static:", "fp16-static:1000",
                           "fp16-static:0", "fp16-static:-2", "fp16-static:inf", "fp16-static:4x"})
    CHECK_THROWS_AS(Preset::parse(name), Error);
  CHECK_THROWS_WITH(Preset::parse("half"), Contains("half") && Contains("fp16-autocast"));
  CHECK_THROWS_WITH(Preset::parse("fp16-static:1000"), Contains("power of two"));
}

TEST_CASE("a preset gives parameters their dtypes and masters", "[amp][preset]") {
  for (const char* name : {"fp16", "bf16", "fp16-static:8", "fp16-pure"}) {
    INFO(name);
    const Preset preset = Preset::parse(name);
    Net net;
    const std::vector<float> before = net.linear->weight()->tensor().to_vector<float>();
    preset.apply(net);
    const nn::ParameterPtr& weight = net.linear->weight();
    CHECK(weight->tensor().dtype() == preset.parameter_dtype);
    CHECK(weight->has_master() == preset.masters);
    CHECK(net.embedding->weight()->tensor().dtype() == preset.parameter_dtype);
    CHECK(net.linear->bias()->tensor().dtype() == preset.parameter_dtype);
    for (const nn::NamedParameter& named : net.named_parameters()) {
      if (named.name.rfind("norm.", 0) == 0 || named.name.rfind("rms.", 0) == 0)
        CHECK(named.parameter->tensor().dtype() == DType::f32);
    }
    // Frozen weights are half, but nobody updates them.
    CHECK(net.frozen->weight()->tensor().dtype() == preset.parameter_dtype);
    CHECK(!net.frozen->weight()->has_master());
    if (preset.masters) {
      CHECK(weight->master().dtype() == DType::f32);
      CHECK(weight->master().to_vector<float>() == before);
      CHECK(weight->tensor().to_vector<float>() ==
            weight->master().to(preset.parameter_dtype).to_vector<float>());
    }
  }
  for (const char* name : {"fp32", "fp16-autocast"}) {
    Net net;
    Preset::parse(name).apply(net);
    for (const nn::NamedParameter& named : net.named_parameters()) {
      CHECK(named.parameter->tensor().dtype() == DType::f32);
      CHECK(!named.parameter->has_master());
    }
  }
}

TEST_CASE("Autocast scopes nest", "[amp][preset]") {
  const Tensor a = Tensor::ones({4, 4}), b = Tensor::ones({4, 4});
  const Preset fp16 = Preset::parse("fp16"), bf16 = Preset::parse("bf16");
  const auto product = [&] { return matmul(a, b).dtype(); };
  CHECK(product() == DType::f32);
  {
    const Autocast outer(fp16);
    CHECK(product() == DType::f16);
    {
      const Autocast inner(bf16);
      CHECK(product() == DType::bf16);
      {
        const Autocast off(Preset::parse("fp32"));
        CHECK(product() == DType::f32);
      }
      CHECK(product() == DType::bf16);
    }
    CHECK(product() == DType::f16);
    try {
      const Autocast inner(bf16);
      fail("leaves the scope");
    } catch (const Error&) {
    }
    CHECK(product() == DType::f16);
  }
  CHECK(product() == DType::f32);
}

TEST_CASE("Autocast scopes tell ops the loss scale", "[amp][preset]") {
  const amp::GradScaler scaler(Device::cpu());
  const Preset fp16 = Preset::parse("fp16");
  CHECK(current_loss_scale() == nullptr);
  {
    const Autocast outer(fp16, scaler);
    REQUIRE(current_loss_scale() != nullptr);
    CHECK(current_loss_scale()->shares_storage(scaler.scale_scalar()));  // moves with the scaler
    {
      const Autocast inner(fp16);
      CHECK(current_loss_scale()->item() == 65536);
      const Autocast innermost(fp16, Array::full({}, 8, DType::f32));
      CHECK(current_loss_scale()->item() == 8);
    }
    CHECK(current_loss_scale()->item() == 65536);
  }
  CHECK(current_loss_scale() == nullptr);
}

TEST_CASE("a head's gradients under a scaler are those of the scaled loss", "[amp][preset]") {
  // Of 2^14 rows: without the scale all of them would be subnormal in f16, or zero.
  const int64_t rows = 1 << 14;
  const amp::GradScaler scaler(Device::cpu());
  const Tensor x(Array::full({rows, 1}, 1, DType::f16), true);
  const Tensor weight(Array::from(std::vector<double>{0.5, -0.5}, {2, 1}).to(DType::f16), true);
  const Tensor targets = Tensor::zeros({rows}, DType::i64);
  const Autocast scope(Preset::parse("fp16"), scaler);
  scaler.scale(linear_cross_entropy(x, weight, targets)).backward();
  const double off = 1 / (1 + std::exp(1.0));  // the probability that should be 0
  CHECK(x.grad().select(0, 77).item() == Approx(-off / rows * 65536).epsilon(2e-3));
  CHECK(weight.grad().select(0, 1).item() == Approx(off * 65536).epsilon(2e-3));
}

TEST_CASE("ops follow their precision class under a policy", "[amp][preset]") {
  const Autocast scope(Preset::parse("fp16"));
  const Tensor half = Tensor::ones({4, 4}, DType::f16), full = Tensor::ones({4, 4});
  CHECK(linear(full, full).dtype() == DType::f16);
  CHECK(softmax(half).dtype() == DType::f32);
  CHECK(exp(half).dtype() == DType::f32);
  CHECK(sum(half).dtype() == DType::f32);
  CHECK((half + full).dtype() == DType::f32);
  CHECK((half + half).dtype() == DType::f16);
  CHECK(cross_entropy(half, Tensor::from<int64_t>({0, 1, 2, 3}, {4})).dtype() == DType::f32);
  const Tensor exact = Tensor::ones({4, 4}, DType::f64);
  CHECK(matmul(exact, exact).dtype() == DType::f64);
}

TEST_CASE("a weight that is cast at use collects its gradient in f32", "[amp][preset]") {
  // Each use gives a gradient of 1 + 2^-11: in f16 that is 1, and two of them make 2.
  const float step = 0x1p-11f;
  const Tensor weight(Array::full({1, 1}, 1, DType::f32), /*requires_grad=*/true);
  const Tensor x = Tensor::ones({1, 1});
  {
    const Autocast scope(Preset::parse("fp16-autocast"));
    const Tensor y = matmul(x, weight) + matmul(x, weight) * static_cast<double>(step);
    sum(y).backward();
  }
  CHECK(weight.grad().dtype() == DType::f32);
  CHECK(weight.grad().item() == 1 + step);
}
