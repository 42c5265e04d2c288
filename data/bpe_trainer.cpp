#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_trainer.h>
#include <binade/data/byte_alphabet.h>
#include <binade/data/pair_map.h>
#include <binade/data/parallel.h>
#include <binade/data/pre_tokenizer.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <queue>
#include <unordered_map>

namespace binade::data {
namespace {

using WordCounts = std::unordered_map<std::string, int64_t>;

// Malformed bytes are never merged, as when encoding.
void count_words(std::string_view text, const PreTokenizer& pre_tokenizer, WordCounts& counts) {
  for (size_t pos = 0; pos < text.size();) {
    const size_t valid = utf8_valid_prefix(text.substr(pos));
    if (valid == 0) {
      ++pos;
      continue;
    }
    pre_tokenizer.run({text.substr(pos, valid)},
                      [&](std::string_view word) { ++counts[std::string(word)]; });
    pos += valid;
  }
}

WordCounts count_words(std::span<const std::string> texts, int threads) {
  const PreTokenizer pre_tokenizer({PreTokenizerStep{}});
  std::vector<WordCounts> parts(thread_count(threads));
  parallel_for(static_cast<int64_t>(texts.size()), threads,
               [&](int64_t i, int thread) { count_words(texts[i], pre_tokenizer, parts[thread]); });
  WordCounts all = std::move(parts.front());
  for (size_t i = 1; i < parts.size(); ++i) {
    for (const auto& [word, count] : parts[i]) all[word] += count;
  }
  return all;
}

class Trainer {
 public:
  Trainer(const WordCounts& counts, const BpeTrainerOptions& options) {
    for (const std::string& token : options.special_tokens) add_token(token);
    std::array<int32_t, 256> byte_ids{};
    std::array<int, 256> bytes{};
    std::iota(bytes.begin(), bytes.end(), 0);
    std::sort(bytes.begin(), bytes.end(),
              [](int a, int b) { return byte_alphabet()[a] < byte_alphabet()[b]; });
    for (const int byte : bytes) {
      byte_ids[byte] = add_token(spell_bytes(std::string(1, static_cast<char>(byte))));
    }
    for (const auto& [text, count] : counts) {
      Word word{.count = count};
      for (const char c : text) word.symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
      words_.push_back(std::move(word));
    }
  }

  void run(const BpeTrainerOptions& options) {
    for (size_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
        change(word.symbols[i], word.symbols[i + 1], word.count, static_cast<int32_t>(w));
      }
    }
    queue_changed();
    while (static_cast<int64_t>(vocab_.size()) < options.vocab_size && !queue_.empty()) {
      Candidate best = std::move(const_cast<Candidate&>(queue_.top()));
      queue_.pop();
      const int64_t count = pairs_(best.left, best.right).count;
      if (count != best.count) {  // it lost occurrences since it was queued
        best.count = count;
        queue_.push(std::move(best));
        continue;
      }
      if (count < std::max<int64_t>(1, options.min_frequency)) break;
      apply(best);
    }
  }

  const std::vector<std::string>& vocab() const { return vocab_; }
  const std::vector<std::pair<std::string, std::string>>& merges() const { return merges_; }

 private:
  struct Word {
    std::vector<int32_t> symbols = {};
    int64_t count = 0;
  };
  struct Pair {
    int64_t count = 0;
    std::vector<int32_t> new_words;  // words with occurrences that are not queued yet
  };
  struct Candidate {
    int64_t count = 0;
    int32_t left = 0, right = 0;
    std::vector<int32_t> words;  // where the pair may occur
    bool operator<(const Candidate& other) const {
      if (count != other.count) return count < other.count;
      return std::pair(left, right) > std::pair(other.left, other.right);
    }
  };

  // The id of a token; a new one if it is not in the vocabulary.
  int32_t add_token(const std::string& token) {
    const auto [entry, is_new] = id_of_.emplace(token, static_cast<int32_t>(vocab_.size()));
    if (is_new) vocab_.push_back(token);
    return entry->second;
  }

  void change(int32_t left, int32_t right, int64_t difference, int32_t word) {
    Pair& pair = pairs_(left, right);
    pair.count += difference;
    if (difference < 0) return;
    if (pair.new_words.empty()) changed_.emplace_back(left, right);
    if (pair.new_words.empty() || pair.new_words.back() != word) pair.new_words.push_back(word);
  }

  void queue_changed() {
    for (const auto& [left, right] : changed_) {
      Pair& pair = pairs_(left, right);
      if (pair.count > 0) queue_.push({pair.count, left, right, std::move(pair.new_words)});
      pair.new_words = {};
    }
    changed_.clear();
  }

  void apply(const Candidate& best) {
    const std::string left = vocab_[best.left], right = vocab_[best.right];
    const int32_t merged = add_token(left + right);
    merges_.emplace_back(left, right);
    for (const int32_t w : best.words) {
      auto& [symbols, count] = words_[w];
      size_t kept = 0;  // symbols before are final
      for (size_t i = 0; i < symbols.size(); ++i) {
        if (i + 1 == symbols.size() || symbols[i] != best.left || symbols[i + 1] != best.right) {
          symbols[kept++] = symbols[i];
          continue;
        }
        if (kept > 0) {
          change(symbols[kept - 1], best.left, -count, w);
          change(symbols[kept - 1], merged, count, w);
        }
        if (i + 2 < symbols.size()) {
          change(best.right, symbols[i + 2], -count, w);
          change(merged, symbols[i + 2], count, w);
        }
        symbols[kept++] = merged;
        ++i;
      }
      symbols.resize(kept);
    }
    queue_changed();
  }

  std::vector<Word> words_;
  PairMap<Pair> pairs_;
  std::vector<std::pair<int32_t, int32_t>> changed_;  // pairs with new_words
  std::priority_queue<Candidate> queue_;
  std::vector<std::string> vocab_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::vector<std::pair<std::string, std::string>> merges_;
};

}  // namespace

std::unique_ptr<BpeTokenizer> train_bpe(std::span<const std::string> texts,
                                        const BpeTrainerOptions& options) {
  const auto least = static_cast<int64_t>(256 + options.special_tokens.size());
  check(options.vocab_size >= least, "a byte-level vocabulary with ", options.special_tokens.size(),
        " special tokens needs at least ", least, " tokens; vocab_size is ", options.vocab_size);
  const WordCounts counts = count_words(texts, options.threads);
  check(!counts.empty(), "cannot train a tokenizer: there is no text");
  Trainer trainer(counts, options);
  trainer.run(options);
  ByteLevelVocabulary vocabulary{.tokens = trainer.vocab(), .merges = trainer.merges()};
  for (const std::string& token : options.special_tokens) vocabulary.add_special(token);
  return BpeTokenizer::from_json(byte_level_tokenizer_json(vocabulary), "trained vocabulary");
}

}  // namespace binade::data
