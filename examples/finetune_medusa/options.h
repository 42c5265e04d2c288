// The options of finetune_medusa, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../training/head_options.h"

namespace binade::examples {

struct FinetuneMedusaOptions : HeadTrainingOptions {
  FinetuneMedusaOptions() { run_dir = "runs/finetune_medusa"; }

  int64_t heads = 4, head_layers = 1;
  bool shared_output = false;
  double decay_of_heads = 0.8;
  std::string init_heads, layout = "original";
  // Medusa-2
  bool ramp = false, self_distill = false;
  double joint_weight = 0.2;
  int64_t lora_rank = 0;
  double lora_alpha = 16, lora_dropout = 0.05;
  std::vector<std::string> lora_targets;
};

inline void add_options(CommandLine& command, FinetuneMedusaOptions& o) {
  add_document_options(command, o);
  add_cache_option(command, o);
  OptionGroup group{command, "Heads"};
  group.add("--heads", o.heads, "Medusa heads: tokens predicted beyond the next")
      .range(int64_t{1}, int64_t{64});
  group.add("--head-layers", o.head_layers, "Residual blocks a head")
      .range(int64_t{0}, int64_t{64});
  group.add("--shared-output", o.shared_output,
            "Use the language model's output layer instead of one a head");
  group
      .add("--head-decay", o.decay_of_heads,
           "Head k counts in the loss with this to the power of k")
      .range(1e-3, 1.0);
  group.add("--init-heads", o.init_heads, "Start from these heads, of any layout");

  add_head_training_options(command, o);
  add_joint_options(command, o, "Medusa-2");
  group.name = "Medusa-2";
  group
      .add("--joint-weight", o.joint_weight,
           "With --joint: what the heads count in the loss beside the model's own")
      .rate();
  group.add("--ramp", o.ramp,
            "With --joint: let --joint-weight grow over the run, as a sine (training in one "
            "stage; 0.01 suits it)");
  group.add("--self-distill", o.self_distill,
            "With --joint: keep the model to its own distribution before training, by KL, instead "
            "of the labels");
  group
      .add("--lora-rank", o.lora_rank,
           "With --joint: train adapters of this rank, merged at the end; 0: the model's weights")
      .at_least(0);
  group.add("--lora-alpha", o.lora_alpha, "LoRA's alpha").rate();
  group.add("--lora-dropout", o.lora_dropout, "Dropout before the adapters").fraction();
  group.add("--lora-targets", o.lora_targets,
            "Names of the linear layers that get adapters; none: all but the output layer");
  group.name = "Run";
  group.add("--layout", o.layout, "original (TGI, TensorRT-LLM, FasterDecoding) or vllm")
      .one_of({"original", "vllm"});
}

}  // namespace binade::examples
