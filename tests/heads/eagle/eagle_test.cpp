// EAGLE heads: what a training-time test computes of whole rows is what drafting would, token by
// token; losses, and what is trained.
#include <binade/heads/eagle/training.h>

#include <array>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/core/random.h>
#include <binade/heads/decoding/base_weights.h>
#include <binade/heads/decoding/trunk_with_heads.h>
#include <binade/optim/adamw.h>

#include "heads/eagle/eagle_oracle.h"
#include "heads/eagle/heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace eagle = heads::eagle;

namespace {

constexpr int64_t kSteps = 4;

decoding::Document document(std::vector<int32_t> ids) {
  return decoding::whole_document(std::move(ids));
}

// Documents of several lengths, three to a row of 16 in part.
std::vector<decoding::Document> some_documents() {
  std::vector<decoding::Document> all;
  int32_t next = 5;
  for (const size_t length : {9, 6, 16, 3, 12, 4}) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < length; ++i) ids.push_back((next = (next * 7 + 3) % 61));
    all.push_back(document(std::move(ids)));
  }
  return all;
}

decoding::PackedDocuments packed_documents(bool pack, int64_t batch = 2) {
  return {some_documents(), {.batch_size = batch, .seq_len = 16, .pack = pack, .seed = 3}};
}

train::Named<Tensor> tensors_of(const train::Batch& batch, Device device = {}) {
  train::Named<Tensor> tensors;
  for (const auto& [name, array] : batch) tensors.add(name, Tensor(array.to(device)));
  return tensors;
}

// Over the largest |b|: nothing normalises EAGLE-1's features, whose logits come to hundreds.
double largest_difference(const EagleOracle::Row& a, const EagleOracle::Row& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0, of_all = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
    of_all = std::max(of_all, std::abs(b[i]));
  }
  return largest / of_all;
}

TensorList outputs_of(const eagle::EagleHead& head, const train::Named<Tensor>& batch, bool packed,
                      int64_t steps = kSteps) {
  const nn::Sequence sequence = decoding::sequence_of(batch, packed);
  return head.unroll(head.trunk(batch.at("ids"), sequence), batch.at("ids"),
                     packed ? batch.at("documents") : Tensor(), sequence, steps);
}

}  // namespace

TEST_CASE("a training-time test computes what drafting from every token would", "[heads][eagle]") {
  const auto base = eagle_base();
  const NoGrad off;
  for (const eagle::EagleConfig& config : eagle_configs(base->config())) {
    const auto head = eagle_head(base, config);
    const EagleOracle oracle(*head);
    INFO(eagle::name_of(config.version) << ", " << head->draft_size() << " tokens");
    for (const bool packed : {false, true}) {
      const decoding::PackedDocuments documents = packed_documents(packed, 6);
      const train::Named<Tensor> batch = tensors_of(documents.batch(0));
      std::vector<EagleOracle::Row> logits[kSteps];
      const TensorList outputs = outputs_of(*head, batch, packed);
      for (size_t s = 0; s < outputs.size(); ++s)
        logits[s] = rows_in_double(head->logits(outputs[s]));
      const auto ids = batch.at("ids").to_vector<int32_t>(),
                 numbers = batch.at("documents").to_vector<int32_t>();
      int64_t compared = 0;
      for (size_t begin = 0; begin < ids.size();) {
        // A document by itself.
        size_t end = begin + 1;
        while (end % 16 != 0 && numbers[end] == numbers[begin]) ++end;
        if (numbers[begin] >= 0) {
          const std::vector<int32_t> text(ids.begin() + static_cast<int64_t>(begin),
                                          ids.begin() + static_cast<int64_t>(end));
          const auto features =
              rows_in_double(head->trunk(Tensor::from(text, {1, std::ssize(text)}), {}).features);
          for (size_t i = 0; i + 1 < text.size(); ++i) {
            EagleOracle::Known known =
                oracle.read({text.begin(), text.begin() + static_cast<int64_t>(i) + 2}, features);
            for (size_t s = 0; s < kSteps && i + s + 1 < text.size(); ++s, ++compared) {
              if (s > 0) known = oracle.guess(known, text[i + s + 1]);
              // Rounding of a step grows in the next ones, as nothing normalises what
              // recurs: 2.2e-5 was seen in f32.
              CHECK(largest_difference(logits[s][begin + i], known.newest.logits) < 3e-5);
            }
          }
        }
        begin = end;
      }
      CHECK(compared > 100);
    }
  }
}

TEST_CASE("steps of a training-time test that are recomputed change no gradient",
          "[heads][eagle][recompute]") {
  const auto base = eagle_base();
  for (const eagle::EagleConfig& config : eagle_configs(base->config())) {
    const auto head = eagle_head(base, config);
    const train::Named<Tensor> batch = tensors_of(packed_documents(true).batch(0));
    const auto gradients = [&](Recompute choice) {
      head->set_recompute(choice);
      for (const nn::NamedParameter& named : head->named_parameters())
        named.parameter->tensor().zero_grad();
      TensorList sums;
      for (const Tensor& output : outputs_of(*head, batch, true))
        sums.push_back(sum(sin(head->logits(output))));
      sum(stack(sums, 0)).backward();
      std::map<std::string, Array> all;
      for (const nn::NamedParameter& named : head->named_parameters())
        all[named.name] = named.parameter->tensor().grad().clone();
      return all;
    };
    const auto kept = gradients(Recompute::nothing);
    CHECK(kept.count("fc.weight") == 1);
    for (const Recompute choice : {Recompute::norms_activations, Recompute::blocks})
      for (const auto& [name, gradient] : gradients(choice)) {
        INFO(name << ", choice " << static_cast<int>(choice));
        // A sum of several uses may be added up in another order.
        CHECK(relative_difference(gradient, kept.at(name)) < 1e-5);
      }
  }
}

TEST_CASE("the loss of EAGLE-3 is the model's distribution over the draft vocabulary, by step",
          "[heads][eagle]") {
  const auto base = eagle_base(64);
  // Over all tokens, too, of which the model's output layer has padded rows.
  for (const bool whole : {false, true}) {
    const eagle::EagleConfig config = eagle::EagleConfig::eagle3(
        base->config(), whole ? decoding::DraftVocabulary() : some_tokens(base->config()));
    const auto head = eagle_head(base, config);
    const decoding::PackedDocuments documents = packed_documents(true);
    std::vector<int32_t> draft = config.vocabulary.ids();
    for (int32_t id = 0; whole && id < 61; ++id) draft.push_back(id);
    for (const auto& [hard, soft, acceptance] :
         std::vector<std::array<double, 3>>{{0, 1, 0}, {0, 0, 1}, {0.25, 0.5, 0.25}, {1, 0, 0}}) {
      INFO("hard " << hard << ", soft " << soft << ", acceptance " << acceptance);
      eagle::EagleLossOptions options;
      options.steps = kSteps;
      options.hard = hard;
      options.soft = soft;
      options.acceptance = acceptance;
      const train::StepData data =
          decoding::heads_data(std::make_shared<decoding::PackedDocuments>(documents),
                               eagle::head_set(config.version, options), 1)(0);
      train::LossInputs in;
      in.batch = tensors_of(data.micro_batches[0]);
      for (const auto& [name, count] : data.normalisers)
        in.normalisers.add(name, Tensor::scalar(count, DType::f32));
      const train::Loss loss = eagle::eagle_loss(*head, true, options)(in);

      const NoGrad off;
      const TensorList outputs = outputs_of(*head, in.batch, true);
      const auto teacher =
          rows_in_double(base->forward(in.batch.at("ids"), decoding::sequence_of(in.batch, true)));
      const auto numbers = in.batch.at("documents").to_vector<int32_t>(),
                 labels = in.batch.at("labels").to_vector<int32_t>();
      const auto softmax = [](EagleOracle::Row x) {
        double total = 0;
        for (double& value : x) total += value = std::exp(value);
        for (double& value : x) value /= total;
        return x;
      };
      double expected = 0;
      for (size_t s = 0; s < kSteps; ++s) {
        const auto logits = rows_in_double(head->logits(outputs[s]));
        double of_step = 0, count = 0;
        for (size_t row = 0; row < labels.size(); ++row) {
          const size_t at = row + s + 1;  // where the model says what the step guesses
          if (at / 16 != row / 16 || numbers[at] != numbers[row] || labels[at] < 0) continue;
          ++count;
          const EagleOracle::Row& all = teacher[at];
          const auto best = std::max_element(all.begin(), all.begin() + 61) - all.begin();
          if (!std::binary_search(draft.begin(), draft.end(), best)) continue;
          EagleOracle::Row restricted;
          for (const int32_t id : draft) restricted.push_back(all[static_cast<size_t>(id)]);
          const EagleOracle::Row p = softmax(restricted), q = softmax(logits[row]);
          for (size_t v = 0; v < p.size(); ++v)
            of_step += soft * p[v] * std::log(p[v] / q[v]) - acceptance * std::min(p[v], q[v]);
          const auto place = std::lower_bound(draft.begin(), draft.end(), best) - draft.begin();
          of_step -= hard * std::log(q[static_cast<size_t>(place)]);
        }
        CHECK(count == data.normalisers.at("head" + std::to_string(s + 1)));
        expected += std::pow(0.8, static_cast<double>(s)) * of_step / count;
      }
      CHECK(std::abs(expected) > 0.05);
      CHECK(loss.value.item() == Approx(expected).epsilon(2e-4));
    }
  }
}

TEST_CASE("the loss of EAGLE-1 regresses the next feature and follows the model's tokens",
          "[heads][eagle]") {
  const auto base = eagle_base();
  const auto head = eagle_head(base, eagle::EagleConfig::eagle1());
  eagle::EagleLossOptions options = eagle::EagleLossOptions::of(eagle::Version::eagle1);
  options.noise = 0;
  const train::StepData data =
      decoding::heads_data(std::make_shared<decoding::PackedDocuments>(packed_documents(true)),
                           eagle::head_set(eagle::Version::eagle1, options), 1)(0);
  train::LossInputs in;
  in.batch = tensors_of(data.micro_batches[0]);
  in.normalisers.add("head1", Tensor::scalar(data.normalisers.at("head1"), DType::f32));
  const train::Loss loss = eagle::eagle_loss(*head, true, options)(in);

  const NoGrad off;
  const nn::Sequence sequence = decoding::sequence_of(in.batch, true);
  const Tensor output = outputs_of(*head, in.batch, true, 1)[0];
  const Tensor hidden = base->hidden_states(in.batch.at("ids"), sequence);
  const auto made = rows_in_double(output), features = rows_in_double(hidden),
             q_logits = rows_in_double(base->logits(output)),
             p_logits = rows_in_double(base->logits(hidden));
  const auto numbers = in.batch.at("documents").to_vector<int32_t>(),
             labels = in.batch.at("labels").to_vector<int32_t>();
  double regression = 0, tokens = 0;
  for (size_t row = 0; row + 1 < labels.size(); ++row) {
    if ((row + 1) % 16 == 0 || numbers[row + 1] != numbers[row] || labels[row + 1] < 0) continue;
    double smooth = 0, p_total = 0, q_total = 0;
    for (size_t d = 0; d < 32; ++d) {
      const double difference = std::abs(made[row][d] - features[row + 1][d]);
      smooth += difference < 1 ? 0.5 * difference * difference : difference - 0.5;
    }
    regression += smooth / 32;
    for (size_t v = 0; v < 61; ++v) {
      p_total += std::exp(p_logits[row + 1][v]);
      q_total += std::exp(q_logits[row][v]);
    }
    for (size_t v = 0; v < 61; ++v) {
      const double p = std::exp(p_logits[row + 1][v]) / p_total;
      tokens += p * std::log(p / (std::exp(q_logits[row][v]) / q_total));
    }
  }
  const double count = data.normalisers.at("head1");
  CHECK(loss.scalars.at("feature_loss").item() == Approx(regression / count).epsilon(1e-4));
  CHECK(loss.value.item() == Approx(regression / count + 0.1 * tokens / count).epsilon(2e-4));
}

TEST_CASE("training an EAGLE head lowers its loss and leaves the model alone", "[heads][eagle]") {
  const auto base = eagle_base();
  const uint32_t before = decoding::weights_fingerprint(*base);
  for (const eagle::EagleConfig& config : eagle_configs(base->config())) {
    INFO(eagle::name_of(config.version));
    RandomState::current().set_seed(4);
    eagle::EagleHead head(base, config);
    eagle::EagleLossOptions options = eagle::EagleLossOptions::of(config.version);
    options.steps = kSteps;
    const auto documents =
        std::make_shared<const decoding::PackedDocuments>(packed_documents(true, 6));
    optim::AdamW optimizer(optim::split_by_decay(head, 0));
    amp::GradScaler scaler(Device::cpu(), {});
    train::TrainStep step(eagle::eagle_loss(head, true, options), optimizer, scaler,
                          amp::Preset::parse("fp32"), {});
    const auto data = decoding::heads_data(documents, eagle::head_set(config.version, options), 1);
    const amp::Preset preset = amp::Preset::parse("fp32");
    const decoding::HeadAccuracy untrained =
        eagle::head_accuracy(head, *documents, preset, 4, options);
    for (int64_t i = 0; i < 80; ++i) {
      const train::StepData now = data(i);
      step.run(i, now.micro_batches, now.normalisers, 5e-3);
    }
    const auto reports = step.take_reports(true);
    CHECK(reports.back().loss < 0.8 * reports.front().loss);
    const decoding::HeadAccuracy trained =
        eagle::head_accuracy(head, *documents, preset, 4, options);
    CHECK(trained.loss.size() == static_cast<size_t>(kSteps));
    CHECK(untrained.tokens_per_pass >= 1);
    CHECK(decoding::weights_fingerprint(*base) == before);
  }
}

TEST_CASE("EAGLE heads train on the GPU as on the CPU, from a replayed graph",
          "[heads][eagle][cuda]") {
  const Device gpu = cuda_or_skip();
  for (const eagle::EagleConfig& config : eagle_configs(eagle_base()->config()))
    for (const Recompute choice : {Recompute::nothing, Recompute::blocks}) {
      std::vector<std::vector<double>> losses;
      for (const Device device : {Device::cpu(), gpu}) {
        const auto base = eagle_base();
        const auto head = eagle_head(base, config);
        head->set_recompute(choice);
        head->train();
        decoding::TrunkWithHeads both(base, "eagle", head);
        both.to(device);
        eagle::EagleLossOptions options = eagle::EagleLossOptions::of(config.version);
        options.steps = kSteps;
        optim::AdamW optimizer(optim::split_by_decay(*head, 0));
        amp::GradScaler scaler(device, {});
        train::TrainStep step(eagle::eagle_loss(*head, true, options), optimizer, scaler,
                              amp::Preset::parse("fp32"), {});
        const auto data = decoding::heads_data(
            std::make_shared<const decoding::PackedDocuments>(packed_documents(true)),
            eagle::head_set(config.version, options), 1);
        for (int64_t i = 0; i < 5; ++i) {
          const train::StepData now = data(i);
          step.run(i, now.micro_batches, now.normalisers, 1e-3);
        }
        CHECK(step.captured() == device.is_cuda());
        std::vector<double>& found = losses.emplace_back();
        for (const train::StepReport& report : step.take_reports(true))
          found.push_back(report.loss);
      }
      REQUIRE(losses[0].size() == 5);
      for (size_t i = 0; i < 5; ++i) CHECK(losses[1][i] == Approx(losses[0][i]).epsilon(1e-4));
    }
}

TEST_CASE("an EAGLE-3 layer begins as the model's last one", "[heads][eagle]") {
  for (const nn::Family family : {nn::Family::llama, nn::Family::qwen3, nn::Family::olmo2}) {
    INFO(nn::name_of(family));
    nn::CausalLmConfig config = small_config(family);
    config.layers = 3;
    const auto base = small_model(config);
    const nn::StateDict model = base->state();
    const auto head = std::make_shared<eagle::EagleHead>(base, eagle::EagleConfig::eagle3(config));
    const nn::StateDict state = head->state();
    const auto same = [&](const std::string& own, const std::string& of_model, bool half) {
      Array values = state.at("midlayer." + own + ".weight");
      if (half) values = values.slice(1, 32, 64);
      return values.to_vector<float>() ==
             model.at("model.layers.2." + of_model + ".weight").to_vector<float>();
    };
    // OLMo 2 has its norms behind the halves of a layer, Qwen 3 norms of queries and keys.
    const bool fits = family != nn::Family::olmo2, keys = family == nn::Family::llama;
    CHECK(same("self_attn.q_proj", "self_attn.q_proj", true) == keys);
    CHECK(same("self_attn.k_proj", "self_attn.k_proj", true) == keys);
    CHECK(same("self_attn.v_proj", "self_attn.v_proj", true) == fits);
    for (const char* name : {"self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      CHECK(same(name, name, false) == fits);
    if (!fits) continue;
    CHECK(same("post_attention_layernorm", "post_attention_layernorm", false));
    CHECK(same("hidden_norm", "input_layernorm", false));
  }
}

TEST_CASE("what an EAGLE head cannot be is refused", "[heads][eagle][errors]") {
  const auto base = eagle_base();
  const nn::CausalLmConfig& config = base->config();
  CHECK(eagle::default_layers(30) == std::vector<int64_t>{2, 15, 27});
  CHECK(eagle::default_layers(7) == std::vector<int64_t>{2, 3, 4});
  CHECK(eagle::default_layers(5) == std::vector<int64_t>{0, 2, 4});
  CHECK_THROWS_WITH(eagle::default_layers(2), Contains("has only 2"));
  const auto make = [&](eagle::EagleConfig wanted) {
    eagle::EagleHead head(base, std::move(wanted));
  };
  CHECK_THROWS_WITH(make({.layers = {0, 1}}), Contains("reads the streams of 3 layers"));
  CHECK_THROWS_WITH(make({.layers = {0, 1, 3}}), Contains("of the model's 3"));
  CHECK_THROWS_WITH(make({.layers = {1, 1, 2}}), Contains("ascending"));
  CHECK_THROWS_WITH(make({.version = eagle::Version::eagle1, .layers = {0, 1, 2}}),
                    Contains("neither layers nor a draft vocabulary"));
  nn::CausalLmConfig ends = config;
  ends.eos_ids = {4};
  const auto ending = small_model(ends);
  CHECK_THROWS_WITH(
      eagle::EagleHead(ending, eagle::EagleConfig::eagle3(ends, {{1, 2, 3}, ends.vocab_size})),
      Contains("lacks the token 4, which ends a text"));
  const auto gpt2 = small_model([] {
    nn::CausalLmConfig three = small_config(nn::Family::gpt2);
    three.layers = 3;
    return three;
  }());
  CHECK_THROWS_WITH(eagle::EagleHead(gpt2, eagle::EagleConfig::eagle3(gpt2->config())),
                    Contains("an EAGLE head is a layer of Llama"));
  const auto gemma = small_model([] {
    nn::CausalLmConfig three = small_config(nn::Family::gemma3_text);
    three.layers = 3;
    three.windowed.assign(3, false);
    return three;
  }());
  CHECK_THROWS_WITH(eagle::EagleHead(gemma, eagle::EagleConfig::eagle3(gemma->config())),
                    Contains("scales its embedding"));
  const eagle::EagleHead head(base, eagle::EagleConfig::eagle3(config));
  CHECK_THROWS_WITH(eagle::eagle_loss(head, false, {.decay = 0}),
                    Contains("decay of EAGLE's steps"));
  CHECK_THROWS_WITH(eagle::eagle_loss(head, false, {.soft = 0}),
                    Contains("'soft' or 'acceptance' must be above 0"));
  CHECK_THROWS_WITH(eagle::parse_version("eagle2"), Contains("eagle1 and eagle3"));
}
