// What passes cost on this machine, for best_tree_for() (tree_search.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <binade/heads/decoding/proposer.h>
#include <binade/heads/decoding/speculative_decoder.h>
#include <binade/heads/decoding/tree_search.h>

namespace binade::heads::decoding {

struct MeasureOptions {
  int64_t batch = 1;           // slots, all of them running
  int64_t prompt_length = 64;  // tokens a slot holds at first
  int64_t steps = 32;          // that are timed, behind some that are not
  // Nodes to time passes of, those that no tree has are left out.
  std::vector<int64_t> nodes = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};
};

// A proposer for a tree: drafts of as many levels as the tree is deep.
using ProposerOfTree = std::function<std::unique_ptr<Proposer>(const DraftTree& tree)>;

// Times whole steps of `rule`: plain ones; speculative ones by number of nodes, with trees that
// search_tree() finds for the counts; and by depth, which tells what a level costs to draft. Each
// is the fastest of three runs, as whatever else the machine does only adds to it. No pass is taken
// to be cheaper than a plain step or a smaller pass.
MachineCosts measure_costs(const nn::CausalLm& model, const ProposerOfTree& proposer_of,
                           const AcceptanceRule& rule, const RankCounts& counts,
                           const MeasureOptions& options);

}  // namespace binade::heads::decoding
