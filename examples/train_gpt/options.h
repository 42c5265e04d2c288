// The options of train_gpt, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../common.h"

namespace binade::examples {

struct TrainGptOptions {
  // data
  std::vector<std::string> text = {"/usr/include"};
  std::vector<std::string> extensions;
  int64_t text_limit = 16;
  std::string tokenizer = "bpe";
  int64_t vocabulary = 2048;
  std::string data_order = "shuffled";
  std::vector<std::string> validation_text;
  double validation_fraction = 0.05;
  int64_t validation_batches = 20;
  // model
  std::string init, from_scratch;
  std::string family = "gpt2";
  int64_t layers = 4, dim = 256, heads = 4, kv_heads = 0, hidden = 0;
  double dropout = 0;
  int64_t lora_rank = 0;
  double lora_alpha = 16, lora_dropout = 0;
  std::vector<std::string> lora_targets;
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
  std::string recompute = "auto";
  bool eager = false, deterministic = false, allow_tf32 = false;
  // run folder
  std::string run_dir = "runs/train_gpt", save_hf;
  bool resume = false, quiet = false;
  int64_t checkpoint_every = 100, keep_checkpoints = 3, validate_every = 50;
  std::string sample_prompt;
  int64_t sample_tokens = 200;
};

inline void add_options(CLI::App& app, TrainGptOptions& o) {
  prepare(app);
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 40);
  const auto count = CLI::Range(int64_t{0}, int64_t{1} << 40);
  const auto fraction = CLI::Range(0.0, 1.0);
  const auto rate = CLI::Range(0.0, 1e6);

  std::string group = "Data";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(group);
  };
  const auto flag = [&](const char* name, bool& value, const char* help) {
    app.add_flag(name, value, help)->group(group);
  };
  add("--text", o.text, "Files and folders of text, or token shards made by `tokenize`");
  add("--extensions", o.extensions,
      "Endings of the files to take from folders; default: all, of the default text .h and .hpp");
  add("--text-limit", o.text_limit, "MiB of text to read from folders; 0: all")->check(count);
  add("--tokenizer", o.tokenizer,
      "bpe (trained on the text; of token shards, the one beside them), bytes, or a folder with a "
      "tokenizer");
  add("--vocabulary", o.vocabulary, "Size of a trained vocabulary")
      ->check(CLI::Range(257, 1 << 20));
  add("--data-order", o.data_order,
      "shuffled, or sequential: step s, row b starts at token (s*B+b)*T")
      ->check(CLI::IsMember({"shuffled", "sequential"}));
  add("--validation-text", o.validation_text,
      "Files and folders to validate on, in place of a share of --text");
  add("--validation-fraction", o.validation_fraction, "Share of windows kept for validation")
      ->check(CLI::Range(0.0, 0.9));
  add("--validation-batches", o.validation_batches, "Batches a validation reads at most")
      ->check(positive);

  group = "Model";
  add("--init", o.init, "Start from this Hugging Face folder (its tokenizer is used)");
  add("--from-scratch", o.from_scratch, "A Hugging Face config.json; weights are drawn");
  add("--family", o.family, "gpt2 or llama, with the sizes below")
      ->check(CLI::IsMember({"gpt2", "llama"}));
  add("--layers", o.layers, "Transformer blocks")->check(positive);
  add("--dim", o.dim, "Width of the residual stream")->check(positive);
  add("--heads", o.heads, "Attention heads")->check(positive);
  add("--kv-heads", o.kv_heads, "Key-value heads (llama); 0: as --heads")->check(count);
  add("--hidden", o.hidden, "Width of the MLP; 0: 4 x dim, or 8/3 x dim for llama")->check(count);
  add("--dropout", o.dropout, "Dropout of embeddings, attention and residuals (gpt2)")
      ->check(fraction);
  add("--lora-rank", o.lora_rank, "Train LoRA adapters of this rank instead of the weights; 0: off")
      ->check(count);
  add("--lora-alpha", o.lora_alpha, "LoRA's alpha")->check(rate);
  add("--lora-dropout", o.lora_dropout, "Dropout before the adapters")->check(fraction);
  add("--lora-targets", o.lora_targets,
      "Names of the linear layers that get adapters; none: q_proj and v_proj, or c_attn");

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
      "saved "
      "by --save-hf; 0: off")
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
      "on a CPU, fp16 "
      "on a GPU");
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
  add("--recompute", o.recompute,
      "What backward recomputes instead of keeping it: nothing, norms, activations (GELU or "
      "SwiGLU), norms+activations, blocks (all but a block's input); auto: on a GPU what costs "
      "least, activations for GPT-2 and norms for others, else nothing")
      ->check(CLI::IsMember(
          {"auto", "nothing", "norms", "activations", "norms+activations", "blocks"}));
  flag("--eager", o.eager, "Do not replay the step from a CUDA graph");
  flag("--deterministic", o.deterministic, "Bitwise reproducible on a GPU");
  flag("--allow-tf32", o.allow_tf32, "Let f32 products round their inputs to TF32");

  group = "Run";
  add("--run-dir", o.run_dir, "Run folder: metrics, checkpoints, configuration, chart, sample");
  flag("--resume", o.resume, "Go on from the run folder's newest checkpoint, with its options");
  add("--save-hf", o.save_hf,
      "Write the model (and tokenizer) as a Hugging Face folder at the end");
  add("--checkpoint-every", o.checkpoint_every, "Steps between checkpoints; 0: at the end only")
      ->check(count);
  add("--keep-checkpoints", o.keep_checkpoints, "Newest checkpoints to keep")->check(positive);
  add("--validate-every", o.validate_every, "Steps between validations; 0: at the end only")
      ->check(count);
  add("--sample-prompt", o.sample_prompt, "Beginning of the sample text");
  add("--sample-tokens", o.sample_tokens, "Tokens of the sample text; 0: none")->check(count);
  flag("--quiet", o.quiet, "No progress line");
}

}  // namespace binade::examples
