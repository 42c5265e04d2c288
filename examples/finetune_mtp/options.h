// The options of finetune_mtp, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>

#include "../training/head_options.h"

namespace binade::examples {

struct FinetuneMtpOptions : HeadTrainingOptions {
  FinetuneMtpOptions() { run_dir = "runs/finetune_mtp"; }

  std::string kind = "recursive";
  int64_t depth = 3;
  std::string format = "auto", from;
  double weight = 1, beta = 0.6;
};

inline void add_options(CommandLine& command, FinetuneMtpOptions& o) {
  add_document_options(command, o);
  OptionGroup group{command, "Heads"};
  group
      .add("--kind", o.kind,
           "recursive (one module, applied again and again), sequential (a module a token) or "
           "parallel (a layer a token)")
      .one_of({"recursive", "sequential", "parallel"});
  group.add("--depth,--heads", o.depth, "Tokens predicted beyond the next")
      .range(int64_t{1}, int64_t{63});
  group
      .add("--format", o.format,
           "Names of the saved tensors, and how modules work with them: deepseek, qwen3-next, mimo "
           "or plain; auto: deepseek, and plain where it has no names")
      .one_of({"auto", "deepseek", "qwen3-next", "mimo", "plain"});
  group.add("--from", o.from, "Start from these saved heads, whose kind and depth count");
  group.add("--mtp-weight", o.weight, "What the heads count in the loss; 1 for heads alone").rate();
  group
      .add("--beta", o.beta,
           "A recursive module's step k counts with this to the power of k - 1, over their sum")
      .range(1e-3, 1.0);

  add_head_training_options(command, o);
  add_joint_options(command, o, "Training");
}

}  // namespace binade::examples
