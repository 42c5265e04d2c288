// Multi-token prediction: what it computes, and how it is trained.
#include <binade/heads/decoding/trunk_with_heads.h>
#include <binade/heads/mtp/mtp.h>

#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/heads/mtp/training.h>
#include <binade/optim/adamw.h>

#include "heads/mtp/heads.h"
#include "heads/mtp/module_oracle.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace mtp = heads::mtp;

namespace {

std::shared_ptr<const decoding::PackedDocuments> some_documents(bool pack = true) {
  std::vector<decoding::Document> documents;
  std::vector<int32_t> ids = random_ids(1, 80, 61).array().to_vector<int32_t>();
  size_t at = 0;
  for (const size_t length : {14, 9, 11, 20, 3, 17}) {
    documents.push_back(decoding::whole_document(
        {ids.begin() + static_cast<int64_t>(at), ids.begin() + static_cast<int64_t>(at + length)}));
    at += length;
  }
  // The model wrote only the last part of this one.
  std::fill_n(documents[3].reply.begin(), 8, false);
  return std::make_shared<const decoding::PackedDocuments>(
      documents, decoding::PackingOptions{.batch_size = 3, .seq_len = 24, .pack = pack, .seed = 5});
}

train::LossInputs inputs_of(const train::StepData& data) {
  train::LossInputs in;
  for (const auto& [name, array] : data.micro_batches[0]) in.batch.add(name, Tensor(array));
  for (const auto& [name, count] : data.normalisers)
    in.normalisers.add(name, Tensor::scalar(std::max(count, 1.0)));
  return in;
}

// Sums over the labels of a head.
struct Sums {
  double loss = 0, right = 0, labels = 0;
  void add(const Row& logits, int32_t label) {
    double total = 0;
    for (const double x : logits) total += std::exp(x);
    loss += std::log(total) - logits[static_cast<size_t>(label)];
    right += std::max_element(logits.begin(), logits.end()) - logits.begin() == label;
    labels += 1;
  }
};

// Document by document: of the next token, then of depth 1, 2, …
std::vector<Sums> by_definition(const mtp::MtpHeads& heads, const train::Batch& batch) {
  const NoGrad off;
  const MtpOracle oracle(heads);
  const nn::CausalLm& base = heads.base();
  std::vector<Sums> sums(static_cast<size_t>(heads.config().depth) + 1);
  const auto ids = batch.at("ids").to_vector<int32_t>(),
             labels = batch.at("labels").to_vector<int32_t>(),
             numbers = batch.at("documents").to_vector<int32_t>();
  const auto length = static_cast<size_t>(batch.at("ids").size(1));
  for (size_t begin = 0, end = 0; begin < ids.size(); begin = end) {
    end = begin + 1;
    while (end < ids.size() && end % length != 0 && numbers[end] == numbers[begin]) ++end;
    if (numbers[begin] < 0) continue;
    const std::vector<int32_t> text(ids.begin() + static_cast<int64_t>(begin),
                                    ids.begin() + static_cast<int64_t>(end));
    const auto states =
        base.states(Tensor::from(text, {1, static_cast<int64_t>(text.size())}), {}, {1});
    std::vector<Rows> logits = {rows_of(base.logits(states.hidden))};
    for (Rows& rows : oracle.logits(text, rows_of(states.hidden), rows_of(states.streams[0])))
      logits.push_back(std::move(rows));
    for (size_t k = 0; k < logits.size(); ++k)
      for (size_t i = 0; i + k + 1 < text.size(); ++i)
        if (labels[begin + i + k] >= 0) sums[k].add(logits[k][i], text[i + k + 1]);
  }
  return sums;
}

}  // namespace

TEST_CASE("the loss of multi-token prediction is each depth's mean over its own labels",
          "[heads][mtp]") {
  for (const nn::Family family : {nn::Family::llama, nn::Family::qwen2, nn::Family::mistral})
    for (const mtp::MtpConfig& config : kMtpConfigs)
      for (const bool joint : {false, true})
        for (const bool pack : {true, false}) {
          const auto base = mtp_base(family, 64);
          const auto heads = mtp_heads(base, config);
          const auto documents = some_documents(pack);
          const mtp::MtpLossOptions options{.weight = 0.3, .beta = 0.5, .joint = joint};
          const train::StepData data =
              decoding::heads_data(documents, mtp::head_set(config, options), 1)(2);
          const train::Loss loss = mtp::mtp_loss(*heads, pack, options)(inputs_of(data));

          const std::vector<Sums> expected = by_definition(*heads, data.micro_batches[0]);
          double total = joint ? expected[0].loss / expected[0].labels : 0;
          if (joint) {
            CHECK(data.normalisers.at("main") == expected[0].labels);
            CHECK(loss.scalars.at("main_loss").item() == Approx(total).epsilon(1e-4));
          }
          CHECK(loss.scalars.contains("main_loss") == joint);
          const auto depth = static_cast<double>(config.depth);
          for (int64_t k = 1; k <= config.depth; ++k) {
            const Sums& sums = expected[static_cast<size_t>(k)];
            const std::string name = concat("head", k);
            INFO(mtp::name_of(config.kind) << ", depth " << k);
            CHECK(data.normalisers.at(name) == sums.labels);
            CHECK(loss.scalars.at(name + "_loss").item() ==
                  Approx(sums.loss / sums.labels).epsilon(1e-4));
            CHECK(loss.scalars.at(name + "_top1").item() ==
                  Approx(sums.right / sums.labels).epsilon(1e-6));
            const double coefficient =
                config.kind == mtp::Kind::parallel ? 0.3
                : config.kind == mtp::Kind::sequential
                    ? 0.3 / depth
                    : 0.3 * std::pow(0.5, k - 1) / ((1 - std::pow(0.5, depth)) / 0.5);
            total += coefficient * sums.loss / sums.labels;
          }
          CHECK(loss.value.item() == Approx(total).epsilon(1e-4));
        }
}

TEST_CASE("the accuracy of multi-token prediction is counted over all rows, its chain followed",
          "[heads][mtp]") {
  const auto base = mtp_base();
  for (const mtp::MtpConfig& config : kMtpConfigs) {
    const auto heads = mtp_heads(base, config);
    const auto documents = some_documents();
    const auto accuracy =
        mtp::head_accuracy(*heads, *documents, amp::Preset::parse("fp32"), 100, {.joint = true});
    std::vector<Sums> expected(static_cast<size_t>(config.depth) + 1);
    for (int64_t row = 0; row < documents->row_count(); row += 3) {
      const auto sums = by_definition(*heads, documents->rows_from(row));
      for (size_t k = 0; k < sums.size(); ++k) {
        expected[k].loss += sums[k].loss;
        expected[k].right += sums[k].right;
        expected[k].labels += sums[k].labels;
      }
    }
    CHECK(*accuracy.main_loss == Approx(expected[0].loss / expected[0].labels).epsilon(1e-4));
    for (size_t k = 1; k < expected.size(); ++k) {
      CHECK(accuracy.loss[k - 1] == Approx(expected[k].loss / expected[k].labels).epsilon(1e-4));
      CHECK(accuracy.top[k - 1][0] == Approx(expected[k].right / expected[k].labels));
    }
    CHECK(accuracy.tokens_per_pass >= 1);
    CHECK(decoding::validation_of(accuracy, mtp::coefficients(config, {})).loss >
          *accuracy.main_loss);
  }
}

TEST_CASE("what multi-token prediction recomputes changes no gradient", "[heads][mtp][recompute]") {
  for (const mtp::MtpConfig& config : kMtpConfigs) {
    std::map<std::string, Array> expected;
    for (const Recompute choice :
         {Recompute::nothing, Recompute::norms_activations, Recompute::blocks}) {
      auto base = small_model(small_config(nn::Family::llama));
      const auto heads = mtp_heads(base, config);
      heads->set_recompute(choice);
      const mtp::MtpLossOptions options{.joint = true};
      const auto data =
          decoding::heads_data(some_documents(), mtp::head_set(config, options), 1)(0);
      mtp::mtp_loss(*heads, true, options)(inputs_of(data)).value.backward();
      for (const nn::NamedParameter& named :
           decoding::TrunkWithHeads(base, "mtp", heads).named_parameters()) {
        const Array gradient = named.parameter->tensor().grad();
        INFO(named.name << ", choice " << static_cast<int>(choice));
        REQUIRE(gradient.defined());
        // A sum of several uses may be added up in another order.
        if (choice == Recompute::nothing) expected[named.name] = gradient;
        CHECK(relative_difference(gradient, expected.at(named.name)) < 1e-5);
      }
    }
  }
}

TEST_CASE("parallel heads begin as the model's own prediction", "[heads][mtp]") {
  for (const nn::Family family : kFamilies) {
    INFO(nn::name_of(family));
    const auto base = mtp_base(family);
    const mtp::MtpHeads heads(base, {.kind = mtp::Kind::parallel, .depth = 2});
    const NoGrad off;
    const Tensor ids = random_ids(2, 9, 61);
    const mtp::MtpHeads::Trunk trunk = heads.trunk(ids, {});
    for (const Tensor& output : heads.outputs(trunk, ids, {}, {}))
      CHECK(relative_difference(output.array(), trunk.hidden.array()) < 1e-6);
  }
}

TEST_CASE("training multi-token prediction lowers the loss and leaves a frozen model alone",
          "[heads][mtp]") {
  for (const nn::Family family : {nn::Family::llama, nn::Family::gpt2, nn::Family::gemma3_text})
    for (const mtp::Kind kind : {mtp::Kind::parallel, mtp::Kind::sequential, mtp::Kind::recursive})
      for (const bool joint : {false, true}) {
        auto base = small_model(small_config(family));
        base->set_trainable(joint);
        const uint32_t before = decoding::weights_fingerprint(*base);
        const auto heads =
            std::make_shared<mtp::MtpHeads>(base, mtp::MtpConfig{.kind = kind, .depth = 2});
        decoding::TrunkWithHeads both(base, "mtp", heads);
        CHECK(both.named_parameters()[0].name == base->named_parameters()[0].name);
        CHECK(both.named_parameters().back().name ==
              "mtp." + heads->named_parameters().back().name);
        const auto documents = some_documents();
        optim::AdamW optimizer(optim::split_by_decay(both, 0));
        amp::GradScaler scaler(Device::cpu(), {});
        const mtp::MtpLossOptions options{.joint = joint};
        train::TrainStep step(mtp::mtp_loss(*heads, true, options), optimizer, scaler,
                              amp::Preset::parse("fp32"), {});
        const auto data =
            decoding::heads_data(documents, mtp::head_set(heads->config(), options), 3);
        for (int64_t i = 0; i < 30; ++i) {
          const train::StepData now = data(i);
          step.run(i, now.micro_batches, now.normalisers, 5e-3);
        }
        const auto reports = step.take_reports(true);
        CHECK(reports.back().loss < 0.8 * reports.front().loss);
        CHECK((decoding::weights_fingerprint(*base) == before) == !joint);
        if (joint) continue;
        for (const nn::NamedParameter& named : base->named_parameters())
          CHECK(!named.parameter->tensor().grad().defined());
      }
}

TEST_CASE("multi-token prediction trains on the GPU as on the CPU, from a replayed graph",
          "[heads][mtp][cuda]") {
  const Device gpu = cuda_or_skip();
  for (const mtp::MtpConfig& config : kMtpConfigs)
    for (const bool joint : {false, true}) {
      std::vector<std::vector<double>> losses;
      for (const Device device : {Device::cpu(), gpu}) {
        const auto base = small_model(small_config(nn::Family::llama));
        const auto heads = mtp_heads(base, config);
        heads->train();
        base->set_trainable(joint);
        decoding::TrunkWithHeads both(base, "mtp", heads);
        both.to(device);
        optim::AdamW optimizer(optim::split_by_decay(both, 0));
        amp::GradScaler scaler(device, {});
        const mtp::MtpLossOptions options{.joint = joint};
        train::TrainStep step(mtp::mtp_loss(*heads, true, options), optimizer, scaler,
                              amp::Preset::parse("fp32"), {});
        const auto data = decoding::heads_data(some_documents(), mtp::head_set(config, options), 1);
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

TEST_CASE("what multi-token prediction cannot be is refused", "[heads][mtp][errors]") {
  const auto base = mtp_base();
  CHECK_THROWS_WITH(mtp::MtpHeads(base, {.depth = 0}), Contains("1 to 63"));
  CHECK_THROWS_WITH(mtp::MtpHeads(nullptr, {}), Contains("language model"));
  CHECK_THROWS_WITH(mtp::parse_kind("serial"), Contains("parallel, sequential and recursive"));
  CHECK_THROWS_WITH(mtp::coefficients({}, {.weight = -1}), Contains("0 or more"));
  CHECK_THROWS_WITH(mtp::coefficients({}, {.beta = 0}), Contains("(0, 1]"));
  const auto heads = mtp_heads(base, {.depth = 1});
  CHECK_THROWS_WITH(heads->module(1), Contains("no module of depth 2"));
  CHECK_THROWS_WITH(heads->parallel_output(0, Tensor(), {}), Contains("no parallel head"));
  CHECK_THROWS_WITH(base->states(random_ids(1, 4, 61), {}, {2}), Contains("no layer 2"));
}

TEST_CASE("the streams that enter a model's layers come beside its hidden states", "[nn][models]") {
  const NoGrad off;
  for (const nn::Family family : kFamilies) {
    const auto base = mtp_base(family);
    const Tensor ids = random_ids(2, 5, 61);
    const auto states = base->states(ids, {}, {1, 0});
    CHECK(states.hidden.to_vector<float>() == base->hidden_states(ids).to_vector<float>());
    // What enters the first layer is the embedding, with positions where the family adds them.
    Tensor embedded = base->embed(ids);
    if (family == nn::Family::gpt2)
      embedded = embedded + slice(Tensor(base->state().at("transformer.wpe.weight")), 0, 0, 5);
    CHECK(states.streams[1].to_vector<float>() == embedded.to_vector<float>());
    CHECK(states.streams[0].shape() == embedded.shape());
    CHECK(states.streams[0].to_vector<float>() != embedded.to_vector<float>());
  }
}
