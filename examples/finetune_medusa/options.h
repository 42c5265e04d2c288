// The options of finetune_medusa, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../training/options.h"

namespace binade::examples {

struct FinetuneMedusaOptions : TrainingOptions {
  // What the paper and its public recipes use (Cai et al. 2024): no decay of weights, a cosine
  // from 1e-3 after 40 steps.
  FinetuneMedusaOptions() {
    run_dir = "runs/finetune_medusa";
    seq_len = 512;
    batch_size = 16;
    weight_decay = 0;
    warmup = 40;
    beta2 = 0.999;
    final_lr = 0;
  }

  std::string model, tokenizer, chat_template;
  std::vector<std::string> chats, text;
  bool skip_bad = false, pack = true;
  double validation_fraction = 0.02;
  int64_t validation_batches = 20;
  double epochs = 0;
  int64_t heads = 4, head_layers = 1;
  bool shared_output = false;
  double decay_of_heads = 0.8;
  std::string init_heads;
  std::string save, layout = "original", save_dtype = "fp16";
};

inline void add_options(CLI::App& app, FinetuneMedusaOptions& o) {
  prepare(app);
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 40);
  std::string group = "Data";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(group);
  };
  add("--model", o.model, "The Hugging Face folder of the language model");
  add("--tokenizer", o.tokenizer, "Folder or file of the tokenizer; default: the model's");
  add("--chats", o.chats,
      "Files of conversations with replies, JSON or JSONL: OpenAI messages, ShareGPT, GSM8K");
  add("--chat-template", o.chat_template, "Folder with the chat template; default: the model's");
  add("--text", o.text, "Files and folders of plain text, all of which is learned");
  app.add_flag("--skip-bad", o.skip_bad, "Pass over bad records of --chats")->group(group);
  app.add_flag("--pack,!--no-pack", o.pack, "Several documents a row; --no-pack: one a row")
      ->group(group);
  add("--validation-fraction", o.validation_fraction, "Share of documents kept for validation")
      ->check(CLI::Range(0.0, 0.9));
  add("--validation-batches", o.validation_batches, "Batches a validation reads at most")
      ->check(positive);

  group = "Heads";
  add("--heads", o.heads, "Medusa heads: tokens predicted beyond the next")
      ->check(CLI::Range(int64_t{1}, int64_t{64}));
  add("--head-layers", o.head_layers, "Residual blocks a head")
      ->check(CLI::Range(int64_t{0}, int64_t{64}));
  app.add_flag("--shared-output", o.shared_output,
               "Use the language model's output layer instead of one a head")
      ->group(group);
  add("--head-decay", o.decay_of_heads, "Head k counts in the loss with this to the power of k")
      ->check(CLI::Range(1e-3, 1.0));
  add("--init-heads", o.init_heads, "Start from these heads, of any layout");

  add_training_options(app, o);
  app.add_option("--epochs", o.epochs, "Passes over the data, in place of --steps; 0: --steps")
      ->group("Training")
      ->check(CLI::Range(0.0, 1e6));

  group = "Run";
  add("--save", o.save, "Write the heads to this folder at the end");
  add("--layout", o.layout, "original (TGI, TensorRT-LLM, FasterDecoding) or vllm")
      ->check(CLI::IsMember({"original", "vllm"}));
  add("--save-dtype", o.save_dtype, "fp16, bf16 or fp32")
      ->check(CLI::IsMember({"fp16", "bf16", "fp32"}));
}

}  // namespace binade::examples
