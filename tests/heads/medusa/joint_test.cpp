// Medusa-2: the loss of a model that is trained together with its heads.
#include <cmath>
#include <numbers>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/heads/medusa/training.h>
#include <binade/nn/lora.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace medusa = heads::medusa;

namespace {

struct Setup {
  std::shared_ptr<nn::CausalLm> base = small_model(small_config(nn::Family::llama));
  std::shared_ptr<medusa::MedusaHeads> heads =
      std::make_shared<medusa::MedusaHeads>(base, medusa::MedusaConfig{.heads = 2});
  std::shared_ptr<const decoding::PackedDocuments> documents;

  Setup() {
    std::vector<decoding::Document> all;
    for (const int64_t length : {14, 9, 11, 20})
      all.push_back(
          decoding::whole_document(random_ids(1, length, 61).array().to_vector<int32_t>()));
    documents = std::make_shared<const decoding::PackedDocuments>(
        all, decoding::PackingOptions{.batch_size = 2, .seq_len = 24, .seed = 5});
  }
  train::LossInputs inputs(const medusa::MedusaLossOptions& options, double step = 0) const {
    const train::StepData data = medusa::medusa_data(documents, 2, 1, options)(0);
    train::LossInputs in;
    for (const auto& [name, array] : data.micro_batches[0]) in.batch.add(name, Tensor(array));
    for (const auto& [name, count] : data.normalisers)
      in.normalisers.add(name, Tensor::scalar(count));
    in.step = Tensor::scalar(step);
    return in;
  }
  train::Loss loss(const medusa::MedusaLossOptions& options, double step = 0) const {
    return medusa::medusa_loss(*heads, documents->options(), options)(inputs(options, step));
  }
  double gradient_of(const nn::Module& module) const {
    double sum = 0;
    for (const nn::NamedParameter& named : module.named_parameters()) {
      const Array gradient = named.parameter->tensor().grad();
      if (!gradient.defined()) continue;
      for (const double g : gradient.to_vector<double>()) sum += g * g;
    }
    return std::sqrt(sum);
  }
};

medusa::MedusaLossOptions joint_options(const medusa::JointOptions& joint) {
  return {.decay = 0.5, .joint = joint};
}

}  // namespace

TEST_CASE("the loss of Medusa-2 is the model's own and a share of its heads'", "[heads][medusa]") {
  const Setup s;
  const train::Loss heads_alone = s.loss({.decay = 0.5, .joint = {}});
  const medusa::MedusaLossOptions options = joint_options({.weight = 0.3});
  const train::LossInputs in = s.inputs(options);
  const train::Loss both = medusa::medusa_loss(*s.heads, s.documents->options(), options)(in);
  // The model's own: the mean over all labels, rows of which are packed documents.
  const Tensor own =
      cross_entropy(reshape(s.base->logits(s.base->hidden_states(
                                in.batch.at("ids"), decoding::sequence_of(in.batch, true))),
                            {-1, 61}),
                    reshape(in.batch.at("labels"), {-1}));
  CHECK(both.scalars.at("main_loss").item() == Approx(own.item()).epsilon(1e-5));
  CHECK(both.value.item() == Approx(own.item() + 0.3 * heads_alone.value.item()).epsilon(1e-5));
  for (const std::string name : {"head1_loss", "head2_loss", "head1_top1"})
    CHECK(both.scalars.at(name).item() ==
          Approx(heads_alone.scalars.at(name).item()).epsilon(1e-5));

  both.value.backward();
  CHECK(s.gradient_of(*s.base) > 0);
  CHECK(s.gradient_of(*s.heads) > 0);
}

TEST_CASE("the share of Medusa's heads grows as a sine, and what is reported does not",
          "[heads][medusa]") {
  const Setup s;
  const double heads_alone = s.loss({.decay = 0.5, .joint = {}}).value.item();
  const medusa::MedusaLossOptions options = joint_options({.weight = 0.1, .ramp = 8});
  const std::vector<std::pair<double, double>> shares = {
      {0, std::sin(std::numbers::pi / 16)}, {3, std::sqrt(0.5)}, {7, 1}, {30, 1}};
  for (const auto& [step, share] : shares) {
    INFO("step " << step);
    const train::Loss loss = s.loss(options, step);
    CHECK(loss.value.item() - loss.scalars.at("main_loss").item() ==
          Approx(0.1 * share * heads_alone).epsilon(1e-3));
    CHECK(
        loss.scalars.at("head1_loss").item() ==
        Approx(s.loss({.decay = 0.5, .joint = {}}).scalars.at("head1_loss").item()).epsilon(1e-5));
  }
}

TEST_CASE("a model that is its own teacher has nothing to learn but its heads", "[heads][medusa]") {
  Setup s;
  // Adapters that change nothing yet: the teacher is the model without them.
  const nn::Lora lora(*s.base, {.rank = 2, .target_modules = {"q_proj", "down_proj"}});
  medusa::JointOptions joint{.weight = 0};
  joint.teacher_weight = s.base->head_weight();
  joint.teacher = [&](const Tensor& ids, const nn::Sequence& sequence) {
    const nn::Lora::Off off(lora);
    return s.base->hidden_states(ids, sequence);
  };
  const train::Loss same = s.loss(joint_options(joint));
  CHECK(std::abs(same.scalars.at("main_loss").item()) < 1e-6);
  same.value.backward();
  CHECK(s.gradient_of(*s.base) < 1e-5);

  // Once the adapters do something, KL(teacher ‖ model) by its definition.
  for (const nn::NamedParameter& named : s.base->named_parameters())
    if (named.name.ends_with("lora_B.weight"))
      named.parameter->assign(nn::init::normal(0.3)(named.parameter->shape(), Device::cpu()));
  const medusa::MedusaLossOptions options = joint_options(joint);
  const train::LossInputs in = s.inputs(options);
  const train::Loss changed = medusa::medusa_loss(*s.heads, s.documents->options(), options)(in);
  const NoGrad off;
  const nn::Sequence sequence = decoding::sequence_of(in.batch, true);
  const Tensor q = log_softmax(s.base->logits(s.base->hidden_states(in.batch.at("ids"), sequence)));
  const Tensor p = log_softmax(s.base->logits(joint.teacher(in.batch.at("ids"), sequence)));
  const auto kl = sum(exp(p) * (p - q), {-1}).to_vector<double>();
  const auto labels = in.batch.at("labels").to_vector<int32_t>();
  double total = 0, count = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == -100) continue;
    total += kl[i];
    count += 1;
  }
  CHECK(total / count > 1e-3);
  CHECK(changed.scalars.at("main_loss").item() == Approx(total / count).epsilon(1e-4));
}

TEST_CASE("adapters that are off leave the model as it was", "[lora]") {
  const auto model = small_model(small_config(nn::Family::llama));
  const NoGrad no_grad;
  const Tensor ids = random_ids(2, 9, 61);
  const auto before = model->forward(ids).to_vector<float>();
  const nn::Lora lora(*model, {.rank = 2, .target_modules = {"v_proj", "up_proj"}});
  for (const nn::NamedParameter& named : model->named_parameters())
    if (named.name.ends_with("lora_B.weight"))
      named.parameter->assign(nn::init::normal(0.3)(named.parameter->shape(), Device::cpu()));
  const auto with = model->forward(ids).to_vector<float>();
  CHECK(with != before);
  {
    const nn::Lora::Off off(lora);
    const auto without = model->forward(ids).to_vector<float>();
    for (size_t i = 0; i < before.size(); ++i) CHECK(without[i] == Approx(before[i]).margin(1e-5));
  }
  CHECK(model->forward(ids).to_vector<float>() == with);
}

TEST_CASE("bad options of Medusa-2 are refused", "[heads][medusa][bad-input]") {
  const Setup s;
  const auto refused = [&](const medusa::JointOptions& joint, const char* text) {
    CHECK_THROWS_WITH(s.loss(joint_options(joint)), Contains(text));
  };
  refused({.weight = -1}, "0 or more");
  refused({.ramp = -1}, "0 or more");
  medusa::JointOptions half;
  half.teacher = [](const Tensor& ids, const nn::Sequence&) { return ids; };
  refused(half, "output layer");
}
