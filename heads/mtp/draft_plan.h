// How the levels of a draft tree are guessed: arrays that stay the same from pass to pass.
#pragma once

#include <vector>

#include <binade/heads/decoding/draft_tree.h>
#include <binade/heads/decoding/draft_vocabulary.h>
#include <binade/heads/mtp/mtp.h>
#include <binade/infer/kv_cache.h>

namespace binade::heads::mtp {

// Whose guesses the nodes of a level are.
enum class Guesses : uint8_t {
  of_parents,  // each of its parent's
  of_level,    // the same for all parents (parallel heads)
};

class DraftPlan {
 public:
  // Arrays are on the device.
  DraftPlan(const decoding::DraftTree& tree, Guesses guesses, Device device);

  // The nodes [begin, end) at one depth: they lie behind each other.
  struct Level {
    int64_t begin = 0, end = 0;
    int64_t width = 0;       // guesses that are taken of each parent
    Tensor picked;           // (end − begin) i32: where their tokens stand among all guesses
    bool takes_all = false;  // in their order
    // Of nodes 1 … end − 1, which modules have pending: the root is a part of the text for them.
    Tensor parents;  // i32
    infer::TokenTree pending;
  };
  const decoding::DraftTree& tree() const { return tree_; }
  int64_t depth() const { return tree_.depth(); }
  const Level& level(int64_t depth) const {
    return levels_[static_cast<size_t>(depth)];
  }  // 0: root

 private:
  decoding::DraftTree tree_;
  std::vector<Level> levels_;
};

// The tokens (S, nodes) i32 of a level, decoding::kNoToken where logits have a NaN: states (S, P,
// dim) are what the output layer reads for its parents, the nodes of the level before, or (S, 1,
// dim) for all of them.
Tensor guess_level(const decoding::DraftOutput& output, const DraftPlan::Level& level,
                   const Tensor& states);
decoding::DraftOutput draft_output(const nn::CausalLm& base,
                                   const decoding::DraftVocabulary& vocabulary);

// Throws Error unless the tree suits the heads, and the tokens that they guess among.
void check_tree(const MtpHeads& heads, const decoding::DraftTree& tree,
                const decoding::DraftVocabulary& vocabulary);

}  // namespace binade::heads::mtp
