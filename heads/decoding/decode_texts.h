// decode_texts(): writes the continuations of many prompts through the slots of a decoder, plainly
// or speculatively, and measures it. Both go through the same loop: a prompt joins as soon as a
// slot is free, and the host reads tokens while later steps are under way.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <binade/heads/decoding/acceptance_stats.h>
#include <binade/heads/decoding/rank_counts.h>
#include <binade/heads/decoding/speculative_decoder.h>
#include <binade/infer/decoder.h>

namespace binade::heads::decoding {

struct DecodeTextsOptions {
  int64_t max_new_tokens = 256;
  std::vector<int32_t> stop_ids;  // the decoder's: they count as emitted, but are no part of a text
  // On a GPU: steps that are queued before the tokens of the first of them are read. A slot whose
  // text has ended idles for as many.
  int64_t steps_ahead = 1;
};

struct DecodedTexts {
  std::vector<std::vector<int32_t>> texts;  // the new tokens of each prompt
  double seconds = 0;                       // prompts and everything else
  int64_t steps = 0;                        // of all slots together
  int64_t tokens = 0;                       // emitted, stop ids and first tokens too

  // Of speculation. A text's first token comes from the pass over its prompt and counts nowhere.
  AcceptanceStats stats;
  // Of the heads where they guess from the root alone; of the tree's ranks where a guess depends on
  // those before it. None where nothing was guessed.
  std::optional<RankCounts> ranks;

  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

// Called for each token (stop ids excepted) of each text in order, once the host has read it.
// `guessed`: a draft's guess that was accepted.
using TextCallback = std::function<void(size_t text, int32_t token, bool guessed)>;

// A text draws its random numbers at the place of its number, whatever slot it is in. Throws Error
// where a decoder has no room for a prompt and max_new_tokens, before anything is decoded.
DecodedTexts decode_texts(infer::Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts,
                          const DecodeTextsOptions& options, const TextCallback& on_token = {});
DecodedTexts decode_texts(SpeculativeDecoder& decoder,
                          const std::vector<std::vector<int32_t>>& prompts,
                          const DecodeTextsOptions& options, const TextCallback& on_token = {});

}  // namespace binade::heads::decoding
