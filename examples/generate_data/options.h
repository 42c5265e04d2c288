// The options of generate_data, each with its default; --config FILE.json takes the same names.
#pragma once

#include <string>
#include <vector>

#include "../model_folder.h"

namespace binade::examples {

struct GenerateDataOptions {
  ModelOptions model;
  std::vector<std::string> prompts;
  std::string format = "automatic", chat_template;
  bool no_template = false, skip_bad = false;
  int64_t limit = 0, turns = 0, from_nothing = 0;
  double temperature = 0.3, top_p = 1;
  int64_t top_k = 0, max_new_tokens = 256, max_length = 0;
  uint64_t seed = 1;
  bool ignore_eos = false;
  std::string output;
  int64_t slots = 0, steps_ahead = 4;
  bool quiet = false;
};

inline void add_options(CommandLine& command, GenerateDataOptions& o) {
  add_model_options(command, o.model);
  OptionGroup group{command, "Prompts"};
  group.add("--prompts", o.prompts,
            "Files of prompts, JSON or JSONL: OpenAI messages, ShareGPT, Alpaca, GSM8K, MT-Bench; "
            "or a prompt a line (.txt)");
  group.add("--format", o.format, "The format of --prompts, where it is not to be guessed");
  group.add("--skip-bad", o.skip_bad, "Pass over bad records of --prompts");
  group.add("--limit", o.limit, "Conversations to take at most; 0: all").at_least(0);
  group.add("--turns", o.turns, "Replies a conversation at most; 0: one to everything asked")
      .at_least(0);
  group.add("--chat-template", o.chat_template,
            "Folder with the chat template; default: the model's");
  group.add("--no-template", o.no_template, "Continue the text of a prompt as it is");
  group
      .add("--from-nothing", o.from_nothing,
           "Write so many texts that begin with the BOS token alone, instead of --prompts")
      .range(int64_t{0}, int64_t{1} << 24);

  group.name = "Replies";
  group
      .add("--temperature", o.temperature,
           "Of the distribution to draw from; 0: always the most probable token")
      .range(0.0, 1e3);
  group.add("--top-p", o.top_p, "Draw from the fewest tokens whose probabilities reach this")
      .range(1e-6, 1.0);
  group.add("--top-k", o.top_k, "Draw from so many most probable tokens; 0: from all").at_least(0);
  group.add("--seed", o.seed, "Of the draws");
  group.add("--max-new-tokens", o.max_new_tokens, "Tokens of a reply at most")
      .range(int64_t{1}, int64_t{1} << 24);
  group
      .add("--max-length", o.max_length,
           "Tokens of a conversation at most; longer prompts are passed over; 0: the model's "
           "positions")
      .at_least(0);
  group.add("--ignore-eos", o.ignore_eos, "Do not stop at the end-of-text token");

  group.name = "Run";
  group
      .add("--output", o.output,
           "The file of conversations to write, JSON lines; one that is there goes on")
      .required();
  group.add("--slots", o.slots, "Replies written at the same time; 0: 512 on a GPU, 32 on a CPU")
      .range(int64_t{0}, int64_t{1} << 20);
  group.add("--steps-ahead", o.steps_ahead, "Steps that a GPU is given before it is waited for")
      .range(int64_t{0}, int64_t{64});
  group.add("--quiet", o.quiet, "No progress line");
}

}  // namespace binade::examples
