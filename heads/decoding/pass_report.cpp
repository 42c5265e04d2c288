#include <binade/heads/decoding/pass_report.h>

#include <binade/core/kernels/drafts.h>

#include <algorithm>

#include <binade/core/error.h>

namespace binade::heads::decoding {

PassLayout PassLayout::of(const Drafts& drafts) {
  const Array& tokens = drafts.tokens;
  check(tokens.defined() && tokens.dims() == 2 && tokens.dtype() == DType::i32 &&
            tokens.is_contiguous() && tokens.size(1) >= 1 && tokens.size(1) <= kMostNodes,
        "drafts need tokens (S, N) i32, N from 1 to ", kMostNodes, ", got ", tokens.shape());
  check(drafts.tree.has_value() != drafts.parents.defined(),
        "drafts have either a tree for all slots or parents for each");
  PassLayout layout;
  layout.slots = tokens.size(0);
  layout.nodes = tokens.size(1);
  layout.tree = drafts.tree;
  if (drafts.tree) {
    check(drafts.tree->size() == layout.nodes, "a tree of ", drafts.tree->size(),
          " nodes was drafted with ", layout.nodes, " tokens a slot");
  } else {
    check(drafts.parents.shape() == tokens.shape() && drafts.parents.dtype() == DType::i32 &&
              drafts.parents.is_contiguous(),
          "parents ", drafts.parents.shape(), " do not fit the tokens ", tokens.shape(),
          " of the drafts");
  }
  layout.longest = drafts.tree ? drafts.tree->depth() + 1 : layout.nodes;
  if (drafts.guesses.defined()) {
    check(drafts.guesses.dims() == 3 && drafts.guesses.size(0) == layout.slots &&
              drafts.guesses.dtype() == DType::i32 && drafts.guesses.is_contiguous(),
          "the heads' guesses come as (S, K, W) i32, got ", drafts.guesses.shape());
    layout.heads = drafts.guesses.size(1);
    layout.width = drafts.guesses.size(2);
  }
  return layout;
}

int64_t PassLayout::numbers() const {
  return slots * (4 + longest + nodes + (tree ? 0 : nodes) + heads * width);
}

bool PassLayout::operator==(const PassLayout& other) const {
  const bool same_tree =
      tree.has_value() == other.tree.has_value() &&
      (!tree || (tree->parents() == other.tree->parents() && tree->ranks() == other.tree->ranks()));
  return same_tree && slots == other.slots && nodes == other.nodes && longest == other.longest &&
         heads == other.heads && width == other.width;
}

PassParts::PassParts(const PassLayout& layout, const Array& values) {
  int64_t at = 0;
  const auto part = [&](int64_t width) {
    const Array all = values.slice(0, at, at + layout.slots * width);
    at += layout.slots * width;
    return width == 1 ? all : all.view({layout.slots, width});
  };
  status = part(1);
  kept = part(1);
  counts = part(1);
  next = part(1);
  const auto table = [&](int64_t width) { return part(width).view({layout.slots, width}); };
  nodes = table(layout.longest);
  tokens = table(layout.nodes);
  if (!layout.tree) parents = table(layout.nodes);
  if (layout.heads > 0) guesses = table(layout.heads * layout.width);
}

PassReport::PassReport(const PassLayout& layout, const Array& values) : layout_(layout) {
  const PassParts parts(layout, values);
  const auto row = [](const Array& table, int64_t slot) {
    return table.slice(0, slot, slot + 1).to_vector<int32_t>();
  };
  for (int64_t s = 0; s < layout.slots; ++s) {
    Slot slot;
    slot.status = parts.status.data<int32_t>()[s];
    slot.kept = parts.kept.data<int32_t>()[s];
    slot.tokens = row(parts.tokens, s);
    if (parts.guesses.defined()) slot.guesses = row(parts.guesses, s);
    if (slot.kept > 0) {
      if (parts.parents.defined()) slot.tree = DraftTree::from_parents(row(parts.parents, s));
      slot.accepted.nodes = row(parts.nodes, s);
      slot.accepted.nodes.resize(static_cast<size_t>(parts.counts.data<int32_t>()[s]));
      slot.accepted.next = parts.next.data<int32_t>()[s];
      for (size_t i = 1; i <= static_cast<size_t>(slot.kept); ++i) {
        const bool guess = i < slot.accepted.nodes.size();
        slot.emitted.push_back(guess ? slot.tokens.at(static_cast<size_t>(slot.accepted.nodes[i]))
                                     : slot.accepted.next);
      }
    }
    slots_.push_back(std::move(slot));
  }
}

const std::vector<int32_t>& PassReport::emitted(int64_t slot) const {
  check(this->slot(slot).status != kernels::kInvalidLogits, "the logits of slot ", slot,
        " have a NaN, or are -inf for every token");
  return this->slot(slot).emitted;
}

int64_t PassReport::guessed(int64_t slot) const {
  const Slot& s = this->slot(slot);
  return std::min<int64_t>(s.kept,
                           std::max<int64_t>(0, static_cast<int64_t>(s.accepted.nodes.size()) - 1));
}

bool PassReport::running(int64_t slot) const {
  return this->slot(slot).status == kernels::kRunning;
}

const DraftTree& PassReport::tree(int64_t slot) const {
  return layout_.tree ? *layout_.tree : this->slot(slot).tree.value();
}

Proposal PassReport::proposal(int64_t slot) const {
  return {.tree = tree(slot), .tokens = this->slot(slot).tokens};
}

const Accepted& PassReport::accepted(int64_t slot) const {
  return this->slot(slot).accepted;
}

int64_t PassReport::rank_heads() const {
  if (layout_.heads > 0) return layout_.heads;
  return layout_.nodes > 1 ? kMostNodes - 1 : 0;  // trees may differ from pass to pass
}

std::vector<int32_t> PassReport::ranks(int64_t slot, std::span<const int32_t> text) const {
  const Slot& s = this->slot(slot);
  std::vector<int32_t> ranks;
  if (layout_.heads > 0) {
    const auto heads = std::min(static_cast<size_t>(layout_.heads), text.size());
    const auto width = static_cast<int64_t>(layout_.width);
    for (size_t head = 0; head < heads; ++head) {
      const auto begin = s.guesses.begin() + static_cast<int64_t>(head) * width;
      const auto found = std::find(begin, begin + width, text[head]);
      ranks.push_back(found == begin + width ? -1 : static_cast<int32_t>(found - begin));
    }
    return ranks;
  }
  const DraftTree& tree = this->tree(slot);
  for (int32_t node = 0; ranks.size() < text.size();) {
    const std::vector<int32_t>& children = tree.children(node);
    if (std::none_of(children.begin(), children.end(), [&](int32_t child) {
          return s.tokens[static_cast<size_t>(child)] != kNoToken;
        }))
      break;
    const auto right = std::find_if(children.begin(), children.end(), [&](int32_t child) {
      return s.tokens[static_cast<size_t>(child)] == text[ranks.size()];
    });
    if (right == children.end()) {
      ranks.push_back(-1);
      break;
    }
    node = *right;
    ranks.push_back(tree.ranks()[static_cast<size_t>(node)]);
  }
  return ranks;
}

}  // namespace binade::heads::decoding
