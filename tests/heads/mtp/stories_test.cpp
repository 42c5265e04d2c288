// Multi-token prediction on a real model: trained on what the model writes, then drafting for it.
#include <catch2/catch.hpp>

#include <binade/heads/decoding/acceptance_stats.h>
#include <binade/heads/mtp/files.h>
#include <binade/heads/mtp/proposer.h>
#include <binade/heads/mtp/training.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>
#include <binade/optim/adamw.h>

#include "shared.h"

using namespace binade;
using namespace binade::test;
namespace decoding = heads::decoding;
namespace mtp = heads::mtp;

namespace {

using Text = std::vector<int32_t>;

// The model's own stories at temperature 0.3.
std::vector<decoding::Document> stories(const nn::CausalLm& model, int64_t count, int64_t length) {
  infer::GenerateOptions options{.max_new_tokens = length};
  options.sampling.temperature = 0.3;
  options.sampling.seed = 1;
  const auto bos = static_cast<int32_t>(model.config().bos_ids.at(0));
  std::vector<decoding::Document> documents;
  for (Text& text :
       infer::generate(model, std::vector<Text>(static_cast<size_t>(count), Text{bos}), options)) {
    text.insert(text.begin(), bos);
    documents.push_back(decoding::whole_document(std::move(text)));
  }
  return documents;
}

void train_heads(const mtp::MtpHeads& heads, std::vector<decoding::Document> documents,
                 int64_t steps) {
  const auto packed = std::make_shared<const decoding::PackedDocuments>(
      std::move(documents),
      decoding::PackingOptions{.batch_size = 8, .seq_len = 256, .pack = false, .seed = 1});
  optim::AdamW optimizer(optim::split_by_decay(heads, 0));
  amp::GradScaler scaler(Device::cpu(), {});
  train::TrainStep step(mtp::mtp_loss(heads, false, {}), optimizer, scaler,
                        amp::Preset::parse("fp32"), {});
  const auto data = decoding::heads_data(packed, mtp::head_set(heads.config(), {}), 1);
  for (int64_t i = 0; i < steps; ++i) {
    const train::StepData now = data(i);
    const double rate = 2e-3 * std::min(1.0, static_cast<double>(steps - i) / 100);
    step.run(i, now.micro_batches, now.normalisers, rate);
  }
}

// Greedy decoding behind `prompt` with drafts; `text` gets what it emits.
decoding::AcceptanceStats decode(const mtp::MtpHeads& heads, const Text& prompt, size_t length,
                                 Text& text) {
  const nn::CausalLm& base = heads.base();
  const auto proposer =
      mtp::make_proposer(heads, decoding::DraftTree::chain(heads.config().depth), {.slots = 1});
  const auto rule = decoding::greedy_acceptance();
  const int64_t vocabulary = base.config().vocab_size;
  const auto run = [&](const Text& ids) {
    return base.hidden_states(Tensor::from(ids, {1, static_cast<int64_t>(ids.size())}));
  };
  const auto observe = [&](const Text& fed, const Tensor& hidden, int32_t next, bool prompts) {
    decoding::Observation seen{.prompts = prompts};
    seen.tokens = Array::from(fed, {1, static_cast<int64_t>(fed.size())});
    seen.counts = Array::from(Text{static_cast<int32_t>(fed.size())}, {1});
    seen.next = Array::from(Text{next}, {1});
    seen.hidden = hidden.array();
    proposer->observe(seen);
  };
  decoding::AcceptanceStats stats;
  text = prompt;
  Tensor hidden = run(text);
  int32_t next = argmax(base.logits(slice(hidden, 1, -1)), -1).to_vector<int32_t>().back();
  observe(text, hidden, next, true);
  while (text.size() + 1 < length) {
    const decoding::HostProposal drafted(proposer->propose({}), 0);
    const decoding::Proposal proposal = drafted.view();
    Text fed = text;
    for (const int32_t token : proposal.tokens) fed.push_back(std::max(token, 0));
    const auto known = static_cast<int64_t>(text.size());
    hidden = slice(run(fed), 1, known);
    const auto logits = base.logits(hidden).to_vector<float>();
    const decoding::Accepted accepted =
        rule->accept(proposal, {.logits = logits, .vocabulary = vocabulary}, {});
    stats.record(proposal, accepted);
    const auto count = static_cast<int64_t>(accepted.nodes.size());
    const Text kept(fed.begin() + known, fed.begin() + known + count);  // a chain: nodes in order
    text.insert(text.end(), kept.begin(), kept.end());
    next = accepted.next;
    observe(kept, contiguous(slice(hidden, 1, 0, count)), next, false);
  }
  text.push_back(next);
  return stats;
}

}  // namespace

TEST_CASE("modules that learnt from stories260k draft its stories", "[heads][mtp][stories][long]") {
  const auto folder = shared_path("models/stories260k");
  if (!folder) return;
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(*folder);
  model->set_trainable(false);
  model->eval();
  const auto bos = static_cast<int32_t>(model->config().bos_ids.at(0));
  const std::vector<decoding::Document> documents = stories(*model, 128, 255);
  for (const auto& [kind, depth] : std::vector<std::pair<mtp::Kind, int64_t>>{
           {mtp::Kind::sequential, 1}, {mtp::Kind::recursive, 3}}) {
    RandomState::current().set_seed(1);
    mtp::MtpHeads heads(
        model,
        {.kind = kind, .depth = depth, .conventions = mtp::conventions_of(mtp::Format::deepseek)});
    train_heads(heads, documents, 300);
    heads.eval();
    const NoGrad off;
    Text text;
    const decoding::AcceptanceStats stats = decode(heads, {bos}, 240, text);
    // Greedy decoding, with drafts or without.
    const Text plain = infer::generate(*model, {{bos}}, {.max_new_tokens = 230})[0];
    for (size_t i = 0; i < plain.size(); ++i) REQUIRE(text[i + 1] == plain[i]);
    INFO(mtp::name_of(kind) << ": " << stats.tau() << " tokens a pass, acceptance at depth 1 "
                            << stats.acceptance(1));
    CHECK(stats.acceptance(1) >= 0.7);
    CHECK(stats.tau() >= (depth == 1 ? 1.7 : 2.2));
  }
}
