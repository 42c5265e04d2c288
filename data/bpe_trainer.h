// Training of byte-level BPE vocabularies.
#pragma once

#include <binade/data/bpe_tokenizer.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace binade::data {

struct BpeTrainerOptions {
  int64_t vocab_size = 8192;  // special tokens and the 256 bytes included
  int64_t min_frequency = 2;  // a pair that is rarer is not merged
  std::vector<std::string> special_tokens = {std::string(kEndOfTextToken)};
  int threads = 0;  // 0: as many as the machine runs at once
};

// Merges the most frequent pair of neighbouring tokens, over and over (Sennrich et al. 2016),
// within the pieces of GPT-2's pre-tokenizer; of equally frequent pairs the one with the smaller
// ids first, so the result depends on the texts alone. Special tokens get the first ids, then come
// the bytes in the order of their alphabet, then the merges: the vocabulary that the ByteLevel BPE
// trainer of Hugging Face's `tokenizers` makes of the same texts. Malformed UTF-8 takes no part.
// The vocabulary is smaller than asked for when the texts have no more pairs. Error when
// `vocab_size` leaves no room for the bytes, or there is no text.
std::unique_ptr<BpeTokenizer> train_bpe(std::span<const std::string> texts,
                                        const BpeTrainerOptions& options = {});

}  // namespace binade::data
