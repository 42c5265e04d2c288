#include <binade/nn/module.h>

#include <catch2/catch.hpp>

#include <binade/nn/batch_norm.h>
#include <binade/nn/linear.h>
#include <binade/nn/norm.h>

using namespace binade;
using namespace binade::nn;

namespace {

// Two linear layers that share a weight, a norm and a table.
class Sample : public Module {
 public:
  Sample() {
    first = add<Linear>("first", 3, 3);
    norm = add<RmsNorm>("norm", 3);
    own = add_parameter("own", Array::full({2}, 5, DType::f32));
    share_parameter("tied", first->weight());
    table = add_buffer("table", Array::arange(4, DType::f32), /*persistent=*/false);
    add_buffer("count", Array::zeros({1}, DType::i64));
  }
  std::shared_ptr<Linear> first;
  std::shared_ptr<RmsNorm> norm;
  ParameterPtr own;
  BufferPtr table;
};

std::vector<std::string> names_of(const Module& module) {
  std::vector<std::string> names;
  for (const NamedParameter& named : module.named_parameters()) names.push_back(named.name);
  return names;
}

}  // namespace

TEST_CASE("parameters come in order, a tied one once", "[module]") {
  const Sample sample;
  CHECK(names_of(sample) == std::vector<std::string>{"own", "tied", "first.bias", "norm.weight"});
  CHECK(sample.parameter_count() == 2 + 9 + 3 + 3);
  const std::vector<NamedParameter> parameters = sample.named_parameters();
  for (size_t i = 0; i < parameters.size(); ++i) CHECK(parameters[i].order == static_cast<int>(i));
}

TEST_CASE("the names of a child without a name stand beside the module's own", "[module]") {
  struct Around : Module {
    explicit Around(const std::shared_ptr<Module>& inner) { add_child("", inner); }
  };
  struct Outer : Module {
    explicit Outer(const std::shared_ptr<Module>& inner) { add_child("outer", inner); }
  };
  const auto sample = std::make_shared<Sample>();
  const auto around = std::make_shared<Around>(sample);
  CHECK(names_of(*around) == names_of(*sample));
  CHECK(names_of(Outer(around)) == std::vector<std::string>{"outer.own", "outer.tied",
                                                            "outer.first.bias",
                                                            "outer.norm.weight"});
  for (const auto& [name, module] : Outer(around).named_modules()) CHECK(name.back() != '.');
}

TEST_CASE("train and eval reach every module below", "[module]") {
  Sample sample;
  sample.eval();
  CHECK_FALSE(sample.norm->training());
  sample.train();
  CHECK(sample.norm->training());
}

TEST_CASE("a table is part of the module but not of its state", "[module]") {
  const Sample sample;
  const StateDict state = sample.state();
  CHECK(state.count("count") == 1);
  CHECK(state.count("table") == 0);
}

TEST_CASE("a state goes over to another module", "[module]") {
  const Sample a;
  Sample b;
  a.own->assign(Array::full({2}, -1, DType::f32));
  b.load_state(a.state());
  CHECK(b.own->tensor().to_vector<float>() == std::vector<float>{-1, -1});
  CHECK(b.first->weight()->tensor().to_vector<float>() ==
        a.first->weight()->tensor().to_vector<float>());
}

TEST_CASE("a state that does not fit is refused by name and nothing is written", "[module]") {
  Sample sample;
  StateDict state = sample.state();
  state["own"] = Array::zeros({2}, DType::f32);
  state.erase("norm.weight");
  state["stranger"] = Array::zeros({1}, DType::f32);
  state["first.bias"] = Array::zeros({4}, DType::f32);
  try {
    sample.load_state(state);
    FAIL("was accepted");
  } catch (const Error& error) {
    const std::string text = error.what();
    CHECK_THAT(text, Catch::Contains("missing (1): norm.weight"));
    CHECK_THAT(text, Catch::Contains("unexpected (1): stranger"));
    CHECK_THAT(text, Catch::Contains("first.bias: (4) instead of (3)"));
  }
  CHECK(sample.own->tensor().to_vector<float>() == std::vector<float>{5, 5});

  state.erase("first.bias");
  sample.load_state(state, /*strict=*/false);
  CHECK(sample.own->tensor().to_vector<float>() == std::vector<float>{0, 0});
}

TEST_CASE("half copies have f32 masters, norms stay f32", "[module]") {
  Sample sample;
  sample.own->set_trainable(false);
  const float third = 1.0f / 3;
  sample.first->weight()->assign(Array::full({3, 3}, third, DType::f32));
  sample.set_compute_dtype(DType::f16, /*with_master=*/true);

  CHECK(sample.first->weight()->tensor().dtype() == DType::f16);
  CHECK(sample.first->weight()->tensor().requires_grad());
  CHECK(sample.first->weight()->master().dtype() == DType::f32);
  CHECK(sample.first->weight()->master().to_vector<float>()[0] == third);
  CHECK(sample.norm->named_parameters()[0].parameter->tensor().dtype() == DType::f32);
  CHECK_FALSE(sample.own->has_master());  // frozen
  CHECK_FALSE(sample.own->trainable());

  sample.first->weight()->assign(Array::full({3, 3}, 2 * third, DType::f32));
  CHECK(sample.first->weight()->master().to_vector<float>()[0] == 2 * third);
  CHECK(sample.first->weight()->tensor().to_vector<float>()[0] ==
        static_cast<float>(Half(2 * third)));

  sample.set_compute_dtype(DType::f32, true);  // back: nothing was lost
  CHECK_FALSE(sample.first->weight()->has_master());
  CHECK(sample.first->weight()->tensor().to_vector<float>()[0] == 2 * third);
}

TEST_CASE("a bound parameter lives in the buffers it was given", "[module]") {
  Parameter parameter(Array::full({2}, 3, DType::f32));
  parameter.set_compute_dtype(DType::f16, true);
  const Array values = Array::zeros({4}, DType::f16), grads = Array::zeros({4}, DType::f16);
  const Array masters = Array::zeros({4}, DType::f32);
  auto binding =
      parameter.bind(values.slice(0, 2), grads.slice(0, 2), masters.slice(0, 2), "weight");
  CHECK(values.to_vector<float>() == std::vector<float>{0, 0, 3, 3});
  CHECK(masters.to_vector<float>() == std::vector<float>{0, 0, 3, 3});
  parameter.assign(Array::full({2}, 4, DType::f32));
  CHECK(values.to_vector<float>() == std::vector<float>{0, 0, 4, 4});
  CHECK(masters.to_vector<float>() == std::vector<float>{0, 0, 4, 4});
  // Whoever holds the binding is the only one.
  const auto bind = [&](const Array& value, const Array& master) {
    binding = parameter.bind(value, {}, master, "weight");
  };
  using Catch::Contains;
  CHECK_THROWS_WITH(bind(values.slice(0, 2), masters.slice(0, 2)),
                    Contains("parameter weight belongs to an optimizer"));
  CHECK_THROWS_WITH(parameter.set_compute_dtype(DType::bf16, true), Contains("weight"));
  CHECK_THROWS_WITH(parameter.set_compute_dtype(DType::f16, false), Contains("weight"));
  parameter.set_compute_dtype(DType::f16, true);  // as it is
  parameter.to(Device::cpu());
  CHECK(parameter.tensor().array().shares_storage(values));
  binding.reset();
  CHECK_THROWS_AS(bind(values.slice(0, 1), masters.slice(0, 2)), Error);
  // Without a place for it the master stays where it is.
  binding = parameter.bind(values.slice(0, 2), {}, {}, "weight");
  CHECK(parameter.master().to_vector<float>() == std::vector<float>{4, 4});
  CHECK_FALSE(parameter.master().shares_storage(values));
  binding.reset();
  parameter.set_compute_dtype(DType::bf16, true);
  CHECK(parameter.tensor().to_vector<float>() == std::vector<float>{4, 4});
}

TEST_CASE("a master may lie elsewhere, in pieces", "[module]") {
  using Catch::Contains;
  Parameter parameter(Array::full({2}, 3, DType::f32));
  CHECK_THROWS_WITH(parameter.move_master({}), Contains("has none to move"));
  parameter.set_compute_dtype(DType::f16, true);
  const Array values = Array::zeros({2}, DType::f16), masters = Array::zeros({2}, DType::f32);
  const auto binding = parameter.bind(values, {}, masters, "weight");
  CHECK_THROWS_WITH(parameter.move_master(Array::zeros({3}, DType::f32)), Contains("shape (3)"));
  parameter.move_master({});
  CHECK(parameter.has_master());
  CHECK(parameter.master_in_pieces());
  CHECK_THROWS_WITH(parameter.master(), Contains("master of parameter weight in pieces"));
  CHECK_THROWS_WITH(parameter.assign(Array::zeros({2}, DType::f32)), Contains("in pieces"));
  CHECK(parameter.tensor().to_vector<float>() == std::vector<float>{3, 3});
  parameter.move_master(Array::full({2}, 5, DType::f32));
  CHECK_FALSE(parameter.master_in_pieces());
  CHECK(parameter.master().to_vector<float>() == std::vector<float>{5, 5});
}

TEST_CASE("batch norm's running statistics are part of the state", "[module]") {
  BatchNorm2d norm(2);
  const Tensor x = Tensor::full({2, 2, 2, 2}, 3);
  norm.forward(x);
  const StateDict state = norm.state();
  CHECK(state.at("running_mean").to_vector<float>()[0] == Approx(0.3));
  CHECK(state.at("running_var").to_vector<float>()[0] == Approx(0.9));
  norm.eval();
  norm.forward(x);
  CHECK(norm.state().at("running_mean").to_vector<float>()[0] == Approx(0.3));
}
