// The options that the programs that train decoding heads have in common.
#pragma once

#include <string>
#include <vector>

#include "options.h"

namespace binade::examples {

struct HeadTrainingOptions : TrainingOptions {
  // What papers and public recipes use (Cai et al. 2024): no decay of weights, a cosine after 40
  // steps.
  HeadTrainingOptions() {
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
  std::string hidden_cache;
  double validation_fraction = 0.02;
  int64_t validation_batches = 20;
  double epochs = 0, acceptance = 0;
  std::string save, save_dtype = "fp16";
  // The model, too.
  bool joint = false;
  double model_lr = 0.25;
  std::string save_model;
};

inline void add_document_options(CommandLine& command, HeadTrainingOptions& o) {
  OptionGroup group{command, "Data"};
  group.add("--model", o.model, "The Hugging Face folder of the language model");
  group.add("--tokenizer", o.tokenizer, "Folder or file of the tokenizer; default: the model's");
  group.add("--chats", o.chats,
            "Files of conversations with replies, JSON or JSONL: OpenAI messages, ShareGPT, GSM8K");
  group.add("--chat-template", o.chat_template,
            "Folder with the chat template; default: the model's");
  group.add("--text", o.text, "Files and folders of plain text, all of which is learned");
  group.add("--skip-bad", o.skip_bad, "Pass over bad records of --chats");
  group.add("--pack,!--no-pack", o.pack, "Several documents a row; --no-pack: one a row");
  group
      .add("--validation-fraction", o.validation_fraction, "Share of documents kept for validation")
      .range(0.0, 0.9);
  group.add("--validation-batches", o.validation_batches, "Batches a validation reads at most")
      .at_least(1);
}

// For heads that read nothing of the model but its states.
inline void add_cache_option(CommandLine& command, HeadTrainingOptions& o) {
  OptionGroup group{command, "Data"};
  group.add("--hidden-cache", o.hidden_cache,
            "File of what the heads read of the model, written if it is not there: steps then need "
            "no pass of the model");
}

inline void add_head_training_options(CommandLine& command, HeadTrainingOptions& o) {
  add_training_options(command, o);
  OptionGroup group{command, "Training"};
  group.add("--epochs", o.epochs, "Passes over the data, in place of --steps; 0: --steps").rate();
  group
      .add("--acceptance-weight", o.acceptance,
           "Share of the heads' loss that is the chance that a sampled draft is accepted (LK), in "
           "place of the likelihood of tokens")
      .range(0.0, 1.0);
  group.name = "Run";
  group.add("--save", o.save, "Write the heads to this folder at the end");
  group.add("--save-dtype", o.save_dtype, "fp16, bf16 or fp32").one_of({"fp16", "bf16", "fp32"});
}

// Of training the model together with its heads.
inline void add_joint_options(CommandLine& command, HeadTrainingOptions& o,
                              const char* group_name) {
  OptionGroup group{command, group_name};
  group.add("--joint", o.joint, "Train the model, too, by its own loss of the next token");
  group.add("--model-lr", o.model_lr, "With --joint: the model's share of the learning rate")
      .rate();
  group.name = "Run";
  group.add("--save-model", o.save_model,
            "With --joint: write the trained model to this Hugging Face folder, in FP32");
}

}  // namespace binade::examples
