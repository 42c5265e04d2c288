// The options that every training program has: the step, precision and device, the run folder.
#pragma once

#include <string>

#include "../common.h"

namespace binade::examples {

struct TrainingOptions {
  // training
  int64_t steps = 200, batch_size = 8, seq_len = 128, accumulation = 1, zero = 1;
  std::string optimizer = "adamw";
  double learning_rate = 1e-3, weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double momentum = 0.9, ema = 0, clip = 1;
  std::string schedule = "cosine";
  int64_t warmup = 20, decay = 0;
  double final_lr = 0.1;
  uint64_t seed = 1;
  // precision and device
  std::string device = "auto", precision;
  double init_scale = 65536, min_scale = 1;
  int64_t growth_interval = 2000, hysteresis = 1;
  bool diagnose_overflow = false;
  int64_t underflow_report = 0;
  bool eager = false, deterministic = false, allow_tf32 = false;
  std::string transport = "auto";
  std::string send_values = "forward";
  bool timeline = false;
  int64_t compare_ranks = 1000;
  // run folder
  std::string run_dir = "runs/run";
  bool resume = false, quiet = false;
  int64_t checkpoint_every = 100, keep_checkpoints = 3, validate_every = 50;
};

inline void add_training_options(CommandLine& command, TrainingOptions& o) {
  OptionGroup group{command, "Training"};
  group.add("--steps", o.steps, "Optimizer steps in all").at_least(0);
  group.add("--batch-size", o.batch_size, "Rows a step, over all micro-batches").at_least(1);
  group.add("--seq-len", o.seq_len, "Tokens a row").at_least(1);
  group.add("--accumulation", o.accumulation, "Micro-batches a step; divides --batch-size")
      .at_least(1);
  group
      .add(
          "--zero", o.zero,
          "On several ranks: stage of ZeRO; 0: every rank has all optimizer states; 2: no rank has "
          "all gradients")
      .range(0, 2);
  group.add("--optimizer", o.optimizer, "adamw, sgd, lion or muon")
      .one_of({"adamw", "sgd", "lion", "muon"});
  group.add("--learning-rate", o.learning_rate, "Highest learning rate").rate();
  group.add("--weight-decay", o.weight_decay, "Decay of parameters of more than one dimension")
      .rate();
  group.add("--beta1", o.beta1, "AdamW's and Lion's first beta").fraction();
  group.add("--beta2", o.beta2, "AdamW's and Lion's second beta").fraction();
  group.add("--eps", o.eps, "AdamW's epsilon").fraction();
  group.add("--momentum", o.momentum, "SGD's and Muon's momentum").fraction();
  group
      .add("--ema", o.ema,
           "Decay of a moving average of the weights, which is validated, writes the sample and is "
           "saved by --save-hf; 0: off")
      .fraction();
  group.add("--clip", o.clip, "Largest global gradient norm; 0: no clipping").rate();
  group.add("--schedule", o.schedule, "constant, linear, cosine or wsd after the warm-up")
      .one_of({"constant", "linear", "cosine", "wsd"});
  group.add("--warmup", o.warmup, "Steps of linear warm-up").at_least(0);
  group.add("--decay", o.decay, "Steps of wsd's last phase").at_least(0);
  group.add("--final-lr", o.final_lr, "Share of the learning rate that is left at the end")
      .fraction();
  group.add("--seed", o.seed, "Seed of weights, data order and dropout");

  group.name = "Precision and device";
  group.add("--device", o.device, "auto (a GPU where one is usable), cpu, cuda or cuda:N");
  group.add(
      "--precision", o.precision,
      "fp32, fp16, fp16-autocast, bf16, fp16-static:S, fp16-no-masters or fp16-pure; default: fp32 "
      "on a CPU, fp16 on a GPU");
  group.add("--init-scale", o.init_scale, "First loss scale of dynamic scaling; a power of two");
  group.add("--min-scale", o.min_scale, "Floor of the loss scale; a power of two");
  group.add("--growth-interval", o.growth_interval, "Good steps before the scale doubles")
      .at_least(1);
  group.add("--hysteresis", o.hysteresis, "Consecutive bad steps before the scale is halved")
      .at_least(1);
  group.add("--diagnose-overflow", o.diagnose_overflow,
            "Run a skipped step again and name the op that overflowed; waits for every step");
  group
      .add("--underflow-report", o.underflow_report,
           "Steps between reports of the gradients that FP16 flushes to zero; 0: none")
      .at_least(0);
  group.add("--eager", o.eager, "Do not replay the step from a CUDA graph");
  group.add("--deterministic", o.deterministic, "Bitwise reproducible on a GPU");
  group.add("--allow-tf32", o.allow_tf32, "Let f32 matmuls round their inputs to TF32");
  group
      .add("--transport", o.transport,
           "What ranks on the CPU speak over: tcp, mpi, or auto: mpi under mpirun, else tcp")
      .one_of({"auto", "tcp", "mpi"});
  group
      .add("--send-values", o.send_values,
           "On several ranks: when others get new values: update, behind it, or forward, under the "
           "next forward pass")
      .one_of({"update", "forward"});
  group.add("--timeline", o.timeline,
            "On several ranks: measure in every step how long the others are waited for");
  group
      .add("--compare-ranks", o.compare_ranks,
           "Steps between comparisons of what all ranks should have alike; 0: at the start only")
      .at_least(0);

  group.name = "Run";
  group.add("--run-dir", o.run_dir,
            "Run folder: metrics, checkpoints, configuration, chart, sample");
  group.add(
      "--resume", o.resume,
      "Go on with the run in the run folder, from its newest checkpoint and with its options");
  group
      .add("--checkpoint-every", o.checkpoint_every,
           "Steps between checkpoints; 0: at the end only")
      .at_least(0);
  group.add("--keep-checkpoints", o.keep_checkpoints, "Newest checkpoints to keep").at_least(1);
  group.add("--validate-every", o.validate_every, "Steps between validations; 0: at the end only")
      .at_least(0);
  group.add("--quiet", o.quiet, "No progress line");
}

}  // namespace binade::examples
