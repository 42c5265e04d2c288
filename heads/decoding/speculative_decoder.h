// SpeculativeDecoder: a target model whose texts are drafted by a proposer, verified in one pass a
// draft, and accepted by a rule.
//
//   MedusaProposer proposer(*heads, tree, {.slots = 4});
//   SpeculativeDecoder decoder(*model, proposer, *greedy_acceptance(), {.slots = 4});
//   decoder.begin({0, 1}, {prompt, other});   // their first tokens are chosen
//   decoder.step();                           // one or more tokens in every running slot
//   PassReport(decoder.layout(), copy of decoder.report());
//
// A step is: propose → pass of the target over the drafts → accepted paths → notes in the slots'
// states, where stop ids and limits cut paths → compaction of the cache → observe. It does not
// wait for the device unless the proposer wants text on the host (ProposerNeeds::text) or the rule
// judges there (AcceptanceRule::judges_on_device). On a GPU a step that does not wait, of a
// proposer that repeats itself, is captured as a graph after two eager ones.
//
// decode_texts() (decode_texts.h) is the loop around it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/heads/decoding/acceptance.h>
#include <binade/heads/decoding/pass_report.h>
#include <binade/heads/decoding/proposer.h>
#include <binade/infer/decoder.h>

namespace binade::kernels {
struct NotedPaths;
}

namespace binade::heads::decoding {

struct SpeculativeOptions {
  int64_t slots = 1;
  int64_t capacity = 0;           // tokens a slot; 0: the model's positions
  std::vector<int32_t> stop_ids;  // end a slot
  uint64_t seed = 0;              // of all draws
  bool capture = true;
};

class SpeculativeDecoder {
 public:
  // Model, proposer and rule must outlive the decoder. Throws Error as Decoder does, and for a
  // proposer that needs what no pass gives.
  SpeculativeDecoder(const nn::CausalLm& model, Proposer& proposer, const AcceptanceRule& rule,
                     const SpeculativeOptions& options);
  ~SpeculativeDecoder();
  SpeculativeDecoder(const SpeculativeDecoder&) = delete;
  SpeculativeDecoder& operator=(const SpeculativeDecoder&) = delete;

  // As Decoder::begin(): the first token of each slot is chosen from its prompt, by the rule's
  // plain(). Read it from choices().packed().
  void begin(const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& prompts,
             std::vector<infer::SlotStates::Start> starts = {});
  // One pass. Throws Error for drafts that do not fit together.
  void step();
  bool captured() const { return graph_ != nullptr; }

  // What the last step did: an array on the device that the next step overwrites, and how it lies.
  const Array& report() const { return report_; }
  const PassLayout& layout() const { return layout_; }

  int64_t slots() const { return decoder_.slots(); }
  int64_t capacity() const { return decoder_.capacity(); }
  int64_t room(int64_t prompt) const { return decoder_.room(prompt); }
  void check_room(int64_t prompt, int64_t fresh, const std::string& name = "a prompt") const {
    decoder_.check_room(prompt, fresh, name);
  }
  infer::SlotStates& choices() { return decoder_.choices(); }
  const nn::CausalLm& model() const { return decoder_.model(); }

 private:
  struct Graph;
  struct TreeArrays;
  void queue_pass();
  void prepare(const Drafts& drafts);
  Observation observation(const Tensor& hidden, const kernels::NotedPaths& noted);

  Proposer& proposer_;
  const AcceptanceRule& rule_;
  ProposerNeeds needs_;
  uint64_t seed_;
  bool capture_;
  infer::Decoder decoder_;
  PassLayout layout_;
  Drawn drawn_ = Drawn::best;  // of the last drafts
  Array report_;
  std::unique_ptr<PassParts> parts_;  // of report_
  std::unique_ptr<TreeArrays> tree_;  // the last tree that all slots had
  int eager_steps_ = 0;
  std::unique_ptr<Graph> graph_;
};

}  // namespace binade::heads::decoding
