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
  std::string hidden_cache;
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
  OptionGroup group{app, "Data"};
  group.add("--model", o.model, "The Hugging Face folder of the language model");
  group.add("--tokenizer", o.tokenizer, "Folder or file of the tokenizer; default: the model's");
  group.add("--chats", o.chats,
            "Files of conversations with replies, JSON or JSONL: OpenAI messages, ShareGPT, GSM8K");
  group.add("--chat-template", o.chat_template,
            "Folder with the chat template; default: the model's");
  group.add("--text", o.text, "Files and folders of plain text, all of which is learned");
  group.flag("--skip-bad", o.skip_bad, "Pass over bad records of --chats");
  group.flag("--pack,!--no-pack", o.pack, "Several documents a row; --no-pack: one a row");
  group.add("--hidden-cache", o.hidden_cache,
            "File of the model's hidden states, written if it is not there: steps then need no "
            "pass of the model");
  group
      .add("--validation-fraction", o.validation_fraction, "Share of documents kept for validation")
      ->check(CLI::Range(0.0, 0.9));
  group.add("--validation-batches", o.validation_batches, "Batches a validation reads at most")
      ->check(at_least(1));

  group.name = "Heads";
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

  add_training_options(app, o);
  group.name = "Training";
  group.add("--epochs", o.epochs, "Passes over the data, in place of --steps; 0: --steps")
      ->check(rate());

  group.name = "Run";
  group.add("--save", o.save, "Write the heads to this folder at the end");
  group.add("--layout", o.layout, "original (TGI, TensorRT-LLM, FasterDecoding) or vllm")
      ->check(CLI::IsMember({"original", "vllm"}));
  group.add("--save-dtype", o.save_dtype, "fp16, bf16 or fp32")
      ->check(CLI::IsMember({"fp16", "bf16", "fp32"}));
}

}  // namespace binade::examples
