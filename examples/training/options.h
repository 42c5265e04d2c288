// The options that every training program has: the step, precision and device, the run folder.
#pragma once

#include <string>

#include "../common.h"

namespace binade::examples {

struct TrainingOptions {
  // training
  int64_t steps = 200, batch_size = 8, seq_len = 128, accumulation = 1;
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
  // run folder
  std::string run_dir = "runs/run";
  bool resume = false, quiet = false;
  int64_t checkpoint_every = 100, keep_checkpoints = 3, validate_every = 50;
};

inline void add_training_options(CLI::App& app, TrainingOptions& o) {
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 40);
  const auto count = CLI::Range(int64_t{0}, int64_t{1} << 40);
  const auto fraction = CLI::Range(0.0, 1.0);
  const auto rate = CLI::Range(0.0, 1e6);
  std::string group;
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(group);
  };
  const auto flag = [&](const char* name, bool& value, const char* help) {
    app.add_flag(name, value, help)->group(group);
  };

  group = "Training";
  add("--steps", o.steps, "Optimizer steps in all")->check(count);
  add("--batch-size", o.batch_size, "Rows a step, over all micro-batches")->check(positive);
  add("--seq-len", o.seq_len, "Tokens a row")->check(positive);
  add("--accumulation", o.accumulation, "Micro-batches a step; divides --batch-size")
      ->check(positive);
  add("--optimizer", o.optimizer, "adamw, sgd, lion or muon")
      ->check(CLI::IsMember({"adamw", "sgd", "lion", "muon"}));
  add("--learning-rate", o.learning_rate, "Highest learning rate")->check(rate);
  add("--weight-decay", o.weight_decay, "Decay of parameters of more than one dimension")
      ->check(rate);
  add("--beta1", o.beta1, "AdamW's and Lion's first beta")->check(fraction);
  add("--beta2", o.beta2, "AdamW's and Lion's second beta")->check(fraction);
  add("--eps", o.eps, "AdamW's epsilon")->check(fraction);
  add("--momentum", o.momentum, "SGD's and Muon's momentum")->check(fraction);
  add("--ema", o.ema,
      "Decay of a moving average of the weights, which is validated, writes the sample and is "
      "saved by --save-hf; 0: off")
      ->check(fraction);
  add("--clip", o.clip, "Largest global gradient norm; 0: no clipping")->check(rate);
  add("--schedule", o.schedule, "constant, linear, cosine or wsd after the warm-up")
      ->check(CLI::IsMember({"constant", "linear", "cosine", "wsd"}));
  add("--warmup", o.warmup, "Steps of linear warm-up")->check(count);
  add("--decay", o.decay, "Steps of wsd's last phase")->check(count);
  add("--final-lr", o.final_lr, "Share of the learning rate that is left at the end")
      ->check(fraction);
  add("--seed", o.seed, "Seed of weights, data order and dropout");

  group = "Precision and device";
  add("--device", o.device, "auto (a GPU where one is usable), cpu, cuda or cuda:N");
  add("--precision", o.precision,
      "fp32, fp16, fp16-autocast, bf16, fp16-static:S, fp16-no-masters or fp16-pure; default: fp32 "
      "on a CPU, fp16 on a GPU");
  add("--init-scale", o.init_scale, "First loss scale of dynamic scaling; a power of two");
  add("--min-scale", o.min_scale, "Floor of the loss scale; a power of two");
  add("--growth-interval", o.growth_interval, "Good steps before the scale doubles")
      ->check(positive);
  add("--hysteresis", o.hysteresis, "Consecutive bad steps before the scale is halved")
      ->check(positive);
  flag("--diagnose-overflow", o.diagnose_overflow,
       "Run a skipped step again and name the op that overflowed; waits for every step");
  add("--underflow-report", o.underflow_report,
      "Steps between reports of the gradients that FP16 flushes to zero; 0: none")
      ->check(count);
  flag("--eager", o.eager, "Do not replay the step from a CUDA graph");
  flag("--deterministic", o.deterministic, "Bitwise reproducible on a GPU");
  flag("--allow-tf32", o.allow_tf32, "Let f32 products round their inputs to TF32");

  group = "Run";
  add("--run-dir", o.run_dir, "Run folder: metrics, checkpoints, configuration, chart, sample");
  flag("--resume", o.resume,
       "Go on with the run in the run folder, from its newest checkpoint and with its options");
  add("--checkpoint-every", o.checkpoint_every, "Steps between checkpoints; 0: at the end only")
      ->check(count);
  add("--keep-checkpoints", o.keep_checkpoints, "Newest checkpoints to keep")->check(positive);
  add("--validate-every", o.validate_every, "Steps between validations; 0: at the end only")
      ->check(count);
  flag("--quiet", o.quiet, "No progress line");
}

}  // namespace binade::examples
