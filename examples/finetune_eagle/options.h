// The options of finetune_eagle, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../training/head_options.h"

namespace binade::examples {

struct FinetuneEagleOptions : HeadTrainingOptions {
  // What public recipes use: steps, decay and clipping are EAGLE-3's, the rate SpecForge's.
  FinetuneEagleOptions() {
    run_dir = "runs/finetune_eagle";
    learning_rate = 1e-4;
    beta2 = 0.95;
    clip = 0.5;
  }

  std::string kind = "eagle3", layout = "vllm", from;
  std::vector<int64_t> feature_layers;
  int64_t draft_vocabulary = 32000, draft_steps = 7;
  double step_decay = 0.8, feature_weight = 1, noise = 0.1, greedy = 0;
  bool recompute = false;
};

inline void add_options(CommandLine& command, FinetuneEagleOptions& o) {
  add_document_options(command, o);
  add_cache_option(command, o);
  OptionGroup group{command, "Head"};
  group
      .add("--kind", o.kind,
           "eagle3 (reads three layers, has an output layer of its own, is trained on its own "
           "output) or eagle1 (predicts the model's last hidden states)")
      .one_of({"eagle3", "eagle1"});
  group
      .add("--draft-vocabulary", o.draft_vocabulary,
           "eagle3: tokens that it drafts among, the most frequent labels of the data; 0: all")
      .at_least(0);
  group.add("--feature-layers", o.feature_layers,
            "eagle3: three layers whose entering streams it reads; default: 2, N/2 and N - 3 of N");
  group
      .add("--draft-steps", o.draft_steps,
           "Drafting steps that eagle3 is trained on, and that validation looks at")
      .range(int64_t{1}, int64_t{17});
  group.add("--step-decay", o.step_decay, "Step s counts with this to the power of s, from 0 on")
      .range(1e-3, 1.0);
  group
      .add("--greedy-weight", o.greedy,
           "Share of the tokens' loss that is the cross-entropy of one token (eagle3: the model's "
           "likeliest, eagle1: the text's) in place of the model's distribution; for drafts of "
           "greedy decoding")
      .range(0.0, 1.0);
  group
      .add("--feature-weight", o.feature_weight,
           "eagle1: what the regression of features counts; its tokens count 0.1")
      .rate();
  group.add("--feature-noise", o.noise, "eagle1: uniform noise on features, at 512 tokens a row")
      .rate();
  group.add("--recompute-steps", o.recompute,
            "Keep only what enters a drafting step, and compute the rest again: less memory");
  group.add("--from", o.from, "Start from this saved head, whose kind and tokens count");
  group.add("--layout", o.layout, "Whose config.json is written: vllm (SafeAILab's, too) or sglang")
      .one_of({"vllm", "sglang"});

  add_head_training_options(command, o);
}

}  // namespace binade::examples
