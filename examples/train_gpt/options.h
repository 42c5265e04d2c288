// The options of train_gpt, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../common.h"
#include "../training/options.h"

namespace binade::examples {

struct TrainGptOptions : TrainingOptions {
  TrainGptOptions() { run_dir = "runs/train_gpt"; }

  // data
  std::vector<std::string> text = {"/usr/include"};
  std::vector<std::string> extensions;
  int64_t text_limit = 16;
  std::string tokenizer = "bpe";
  int64_t vocabulary = 2048;
  std::string data_order = "shuffled";
  std::vector<std::string> validation_text;
  std::vector<std::string> chats;
  std::string chat_template, teacher;
  bool skip_bad = false;
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
  std::string recompute = "auto";
  std::string mtp, mtp_format = "auto", save_mtp;
  double mtp_weight = 0.3;
  // what is left in the end
  std::string save_hf;
  std::string sample_prompt;
  int64_t sample_tokens = 200;
};

inline void add_options(CommandLine& command, TrainGptOptions& o) {
  OptionGroup group{command, "Data"};
  group.add("--text", o.text, "Files and folders of text, or token shards made by `tokenize`");
  group.add(
      "--extensions", o.extensions,
      "Endings of the files to take from folders; default: all, of the default text .h and .hpp");
  group
      .add("--text-limit", o.text_limit,
           "MiB of text to read from folders: the files, in order, that still fit; 0: all")
      .at_least(0);
  group.add(
      "--tokenizer", o.tokenizer,
      "bpe (trained on the text; of token shards, the one beside them), bytes, or a folder with a "
      "tokenizer");
  group.add("--vocabulary", o.vocabulary, "Size of a trained vocabulary").range(257, 1 << 20);
  group
      .add("--data-order", o.data_order,
           "shuffled, or sequential: step s, row b starts at token (s*B+b)*T")
      .one_of({"shuffled", "sequential"});
  group.add("--validation-text", o.validation_text,
            "Files and folders to validate on, in place of a share of --text");
  group.add("--chats", o.chats,
            "Files of conversations, in place of --text; what the assistant wrote is learned");
  group.add("--chat-template", o.chat_template,
            "Folder with the chat template of --chats; default: that of --init or --tokenizer");
  group.add("--teacher", o.teacher,
            "With --chats: learn the distribution of this Hugging Face model, by KL, not the text");
  group.add("--skip-bad", o.skip_bad, "Pass over bad records of --chats");
  group
      .add("--validation-fraction", o.validation_fraction,
           "Share of windows or conversations kept for validation")
      .range(0.0, 0.9);
  group.add("--validation-batches", o.validation_batches, "Batches a validation reads at most")
      .at_least(1);

  group.name = "Model";
  group.add("--init", o.init, "Start from this Hugging Face folder (its tokenizer is used)");
  group.add("--from-scratch", o.from_scratch, "A Hugging Face config.json; weights are drawn");
  group.add("--family", o.family, "gpt2 or llama, with the sizes below").one_of({"gpt2", "llama"});
  group.add("--layers", o.layers, "Transformer blocks").at_least(1);
  group.add("--dim", o.dim, "Width of the residual stream").at_least(1);
  group.add("--heads", o.heads, "Attention heads").at_least(1);
  group.add("--kv-heads", o.kv_heads, "Key-value heads (llama); 0: as --heads").at_least(0);
  group.add("--hidden", o.hidden, "Width of the MLP; 0: 4 x dim, or 8/3 x dim for llama")
      .at_least(0);
  group.add("--dropout", o.dropout, "Dropout of embeddings, attention and residuals (gpt2)")
      .fraction();
  group
      .add("--lora-rank", o.lora_rank,
           "Train LoRA adapters of this rank instead of the weights; 0: off")
      .at_least(0);
  group.add("--lora-alpha", o.lora_alpha, "LoRA's alpha").rate();
  group.add("--lora-dropout", o.lora_dropout, "Dropout before the adapters").fraction();
  group.add("--lora-targets", o.lora_targets,
            "Names of the linear layers that get adapters; none: q_proj and v_proj, or "
            "what the model has in their place (qkv_proj, c_attn)");
  group.add("--mtp", o.mtp,
            "Train multi-token prediction beside the next token: parallel, sequential or "
            "recursive, a colon, and how many more tokens; parallel:2 takes two of --layers");
  group
      .add("--mtp-weight", o.mtp_weight,
           "What it counts in the loss: sequential modules share it, each parallel head has it")
      .rate();
  group.add("--mtp-format", o.mtp_format, "As --format of finetune_mtp")
      .one_of({"auto", "deepseek", "qwen3-next", "mimo", "plain"});

  group.name = "Precision and device";
  group
      .add(
          "--recompute", o.recompute,
          "What backward recomputes instead of keeping it: nothing, norms, activations (GELU or "
          "SwiGLU), norms+activations, blocks (all but a block's input); auto: on a GPU what costs "
          "least, activations for GPT-2 and norms for others, else nothing")
      .one_of({"auto", "nothing", "norms", "activations", "norms+activations", "blocks"});

  add_training_options(command, o);

  group.name = "Run";
  group.add("--save-hf", o.save_hf,
            "Write the model (and tokenizer) as a Hugging Face folder at the end");
  group.add("--save-mtp", o.save_mtp, "Write what --mtp trained to this folder at the end");
  group.add("--sample-prompt", o.sample_prompt, "Beginning of the sample text");
  group.add("--sample-tokens", o.sample_tokens, "Tokens of the sample text; 0: none").at_least(0);
}

}  // namespace binade::examples
