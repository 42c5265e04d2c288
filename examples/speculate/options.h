// The options of speculate, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../model_folder.h"

namespace binade::examples {

struct SpeculateOptions {
  ModelOptions model;
  // Prompts.
  std::string prompts, prompt, chat_template = "auto";
  int64_t limit = 0;
  bool skip_bad = false;
  // Drafts.
  std::string proposer = "auto", medusa, mtp, eagle, draft, tree = "auto";
  bool most_accepted = false;
  int64_t early_exit = 0, nodes = 0, guesses = 4, longest_ngram = 3, tree_width = 1;
  int64_t draft_vocabulary = 0;
  std::string count_tokens;
  std::string search_tree, save_tree, charts;
  // Decoding.
  std::string acceptance = "greedy";
  double temperature = 0.7, top_p = 1, epsilon = 0.09, delta = 0.3, draft_temperature = 0;
  uint64_t seed = 0;
  int64_t max_new_tokens = 256, batch = 1;
  bool interactive = false, show = false, plain = true, ignore_eos = false;
  std::string color = "auto";
};

inline void add_options(CommandLine& command, SpeculateOptions& o) {
  add_model_options(command, o.model);
  OptionGroup group{command, "Prompts"};
  group.add(
      "--prompts", o.prompts,
      "A file of prompts: a prompt a line (.txt), or conversations as JSON or JSONL, of which "
      "everything up to the first user's message is the prompt");
  group.add("--prompt", o.prompt, "One prompt, in place of a file");
  group.add("--chat-template", o.chat_template,
            "auto: the model's, where it has one; none: prompts as they are; or a folder");
  group.add("--limit", o.limit, "Prompts to read at most; 0: all").at_least(0);
  group.add("--skip-bad", o.skip_bad, "Pass over bad records of the file");

  group.name = "Drafts";
  group
      .add("--proposer", o.proposer,
           "What drafts: medusa, mtp (modules or heads of multi-token prediction), eagle, draft "
           "(another model), early-exit (the model's first layers), lookup (the text so far), "
           "none; auto: "
           "what the options below name")
      .one_of({"auto", "medusa", "mtp", "eagle", "draft", "early-exit", "lookup", "none"});
  group.add("--medusa", o.medusa, "Folder of Medusa heads for the model, in any layout");
  group.add("--mtp", o.mtp, "Folder of multi-token prediction for the model, in any format");
  group.add("--eagle", o.eagle, "Folder of an EAGLE head for the model, in any layout");
  group.add("--draft", o.draft, "Folder of a smaller model with the same tokenizer");
  group.add("--early-exit", o.early_exit, "Draft with so many of the model's first layers")
      .at_least(0);
  group
      .add("--guesses", o.guesses,
           "Length of the chains of draft, early-exit and lookup, and of EAGLE's chains and trees")
      .range(int64_t{1}, int64_t{63});
  group
      .add("--tree-width", o.tree_width,
           "Of EAGLE: tokens of a level that the next is guessed behind, and guesses behind each "
           "(10 in EAGLE-2); 1: a chain")
      .range(int64_t{1}, int64_t{16});
  group.add("--longest-ngram", o.longest_ngram, "Tokens that lookup matches at most")
      .range(int64_t{1}, int64_t{64});
  group
      .add("--draft-vocabulary", o.draft_vocabulary,
           "Tokens that Medusa heads and --mtp guess among, the most frequent ones of "
           "--count-tokens: guesses cost less, and a few are missed; 0: all")
      .at_least(0);
  group.add("--count-tokens", o.count_tokens,
            "Chats whose replies are counted for --draft-vocabulary, as heads are trained on");
  group
      .add("--draft-temperature", o.draft_temperature,
           "Draw the guesses of draft, early-exit and EAGLE's chains at this temperature; 0: the "
           "likeliest")
      .range(0.0, 1e3);
  group.add(
      "--tree", o.tree,
      "Of Medusa heads and --mtp: chain, a JSON file of choices ([[0], [0, 0], [1]]), or auto: "
      "the one that --search-tree finds, else one by published accuracies (a chain for --mtp)");
  group
      .add(
          "--nodes", o.nodes,
          "Nodes of --tree auto and of EAGLE's trees, the root included; 0: 24, or what pays best, "
          "and 60 for EAGLE")
      .range(int64_t{0}, int64_t{64});
  group.add("--search-tree", o.search_tree,
            "A file of prompts, not those that are tested: finds the best tree for this model, "
            "machine and --batch by decoding them");
  group.add("--most-accepted", o.most_accepted,
            "With --search-tree and --nodes: the tree of so many nodes that is accepted furthest, "
            "whatever passes cost");
  group.add("--save-tree", o.save_tree, "Write the tree to this JSON file");
  group.add("--charts", o.charts,
            "Draw the acceptance by depth and, with --search-tree, tokens a pass and speed-up by "
            "the tree's nodes, as SVG files in this folder");

  group.name = "Decoding";
  group
      .add("--acceptance", o.acceptance,
           "greedy: the text of greedy decoding; typical: likely guesses; exact: samples as plain "
           "sampling does")
      .one_of({"greedy", "typical", "exact"});
  group.add("--temperature", o.temperature, "Of typical and exact acceptance").range(0.0, 1e3);
  group.add("--top-p", o.top_p, "Of exact acceptance: the fewest tokens that reach this")
      .range(1e-6, 1.0);
  group.add("--epsilon", o.epsilon, "Of typical acceptance").fraction();
  group.add("--delta", o.delta, "Of typical acceptance").fraction();
  group.add("--seed", o.seed, "Of the draws");
  group.add("--max-new-tokens", o.max_new_tokens, "Tokens a text gets at most").count(1);
  group.add("--batch", o.batch, "Texts that are written at a time")
      .range(int64_t{1}, int64_t{1} << 16);
  group.add("--ignore-eos", o.ignore_eos, "Do not stop at the end-of-text token");
  group.add("--plain,!--no-plain", o.plain, "Decode plainly, too, and compare");
  group.add("--show", o.show, "Print the texts");
  group.add("--interactive", o.interactive,
            "Chat in the terminal; guesses that were right in color");
  group.add("--color", o.color, "Of accepted guesses: auto (on a terminal), always, never")
      .one_of({"auto", "always", "never"});
}

}  // namespace binade::examples
