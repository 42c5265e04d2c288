// Decoder: a model, a key-value cache of fixed capacity, and the texts that are being written in
// its slots. generate() is a loop around it; so are proposers and verifiers of speculative
// decoding.
//
// Plain decoding, nothing of which waits for the device:
//
//   Decoder decoder(model, {.slots = 8, .capacity = 512});
//   decoder.begin({0, 1}, {prompt, other});   // their first tokens are chosen
//   decoder.step();                           // one more token in every running slot
//   download(decoder.choices().packed());     // read whenever it has arrived
//
// Speculation: a draft is a tree of tokens whose node 0 is the slot's newest token.
//
//   hidden = decoder.run(draft, tree);        // (slots, T, dim): each node's hidden state
//   ... nodes (slots, M), counts (slots): the accepted path of each slot, node 0 first ...
//   decoder.accept(nodes, counts);            // compacts the cache
//
// A proposer with a cache of its own (a draft model, MTP or EAGLE layers) has its own KvCache or
// Decoder, grows a tree level by level with `first`, and takes back what was refused through
// cache().lengths().
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/infer/kv_cache.h>
#include <binade/infer/slot_states.h>
#include <binade/nn/models/causal_lm.h>

namespace binade::infer {

struct DecoderOptions {
  int64_t slots = 1;
  int64_t capacity = 0;  // tokens a slot; 0: the model's positions
  int64_t spare = 0;     // see KvCache: for drafts, their nodes but the root
  int64_t layers = 0;    // the model's first layers alone (early exit); 0: all
  // Layers whose residual streams, as they enter, passes of prefill(), begin() and run() keep.
  std::vector<int64_t> streams;
  bool capture = true;  // on a GPU: step() becomes a CUDA graph after two eager steps
  ChoiceRules choice;
};

class Decoder {
 public:
  // The model must outlive the decoder, in evaluation mode. Throws Error for a model in training
  // mode and for a capacity beyond its positions.
  Decoder(const nn::CausalLm& model, const DecoderOptions& options);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  struct Prompts {
    Array slots;    // (B) i32: the slot of each row
    Array ids;      // (B, T) i32
    Array lengths;  // (B) i32
    Tensor hidden;  // (B, T, dim); behind a prompt's end: padding
    Tensor last;    // (B, dim): of each prompt's last token
  };
  // Runs whole prompts into slots, whose earlier content is forgotten; other slots keep theirs, and
  // the running ones may go on before or behind it. Chooses nothing. Throws Error for prompts that
  // are empty, have ids beyond the vocabulary, or exceed the capacity. Rows are padded to the
  // longest prompt and to `least_length`: passes of few shapes need fewer algorithms on a GPU.
  Prompts prefill(const std::vector<int32_t>& slots,
                  const std::vector<std::vector<int32_t>>& prompts, int64_t least_length = 0);

  // prefill(), whose result it gives, and the first token of each slot. starts: one a slot, or none
  // for the defaults. Throws Error where a prompt and the tokens of its limit exceed the capacity;
  // without a limit the slot ends where its room does.
  Prompts begin(const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& prompts,
                std::vector<SlotStates::Start> starts = {}, int64_t least_length = 0);
  // A pass over the newest token of each running slot, and the choice of its next. The slots that
  // are done keep what they have.
  // A captured step has the precision policy of its capture and the model's present parameters:
  // values that change in place are seen, parameters moved elsewhere are not.
  void step();
  bool captured() const { return graph_ != nullptr; }

  // A pass over ids (slots, T) i32, T ≤ KvCache::kMostPending → hidden states (slots, T, dim). The
  // tokens are pending until accept(). tree and first: see KvCache::decode. Slots that are not
  // running are left out.
  Tensor run(const Tensor& ids, const TokenTree& tree = {}, int64_t first = 0);
  // nodes (slots, M) i32 and counts (slots) i32: see KvCache::compact; an accepted node is one
  // whose token is part of the text and was fed. nodes undefined: the first counts[s] pending
  // tokens. counts[s] is 0 or negative where slot s is not running.
  void accept(const Array& nodes, const Array& counts);
  // The next token of each running slot, from the hidden state (slots, dim) of its last one.
  void choose(const Tensor& last_hidden);

  // Of the newest pass, (B, T, dim) for each of DecoderOptions::streams.
  const TensorList& streams() const { return streams_; }

  const nn::CausalLm& model() const { return model_; }
  int64_t slots() const { return cache_.slots(); }
  int64_t capacity() const { return cache_.capacity(); }
  // New tokens that a text with a prompt of so many may get, none if not positive: the cache's
  // capacity bounds them, and what CausalLmConfig::longest_text() says.
  int64_t room(int64_t prompt) const;
  // Throws Error, with the reason, unless a text with such a prompt may get so many new tokens.
  void check_room(int64_t prompt, int64_t fresh, const std::string& name = "a prompt") const;
  KvCache& cache() { return cache_; }
  SlotStates& choices() { return choices_; }

 private:
  struct Graph;
  void queue_step();
  Tensor hidden_states(const Tensor& ids, nn::Sequence sequence);

  const nn::CausalLm& model_;
  KvCache cache_;
  SlotStates choices_;
  int64_t layers_;
  std::vector<int64_t> stream_layers_;
  TensorList streams_;
  bool capture_;
  int eager_steps_ = 0;
  std::unique_ptr<Graph> graph_;
};

}  // namespace binade::infer
