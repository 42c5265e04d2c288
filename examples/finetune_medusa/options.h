// The options of finetune_medusa, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>

#include "../training/head_options.h"

namespace binade::examples {

struct FinetuneMedusaOptions : HeadTrainingOptions {
  FinetuneMedusaOptions() { run_dir = "runs/finetune_medusa"; }

  int64_t heads = 4, head_layers = 1;
  bool shared_output = false;
  double decay_of_heads = 0.8;
  std::string init_heads, layout = "original";
};

inline void add_options(CLI::App& app, FinetuneMedusaOptions& o) {
  prepare(app);
  add_document_options(app, o);
  OptionGroup group{app, "Heads"};
  group.add("--heads", o.heads, "Medusa heads: tokens predicted beyond the next")
      ->check(CLI::Range(int64_t{1}, int64_t{64}));
  group.add("--head-layers", o.head_layers, "Residual blocks a head")
      ->check(CLI::Range(int64_t{0}, int64_t{64}));
  group.flag("--shared-output", o.shared_output,
             "Use the language model's output layer instead of one a head");
  group
      .add("--head-decay", o.decay_of_heads,
           "Head k counts in the loss with this to the power of k")
      ->check(CLI::Range(1e-3, 1.0));
  group.add("--init-heads", o.init_heads, "Start from these heads, of any layout");

  add_head_training_options(app, o);
  group.name = "Run";
  group.add("--layout", o.layout, "original (TGI, TensorRT-LLM, FasterDecoding) or vllm")
      ->check(CLI::IsMember({"original", "vllm"}));
}

}  // namespace binade::examples
