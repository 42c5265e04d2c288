// Writes a model's own replies to prompts, which decoding heads learn from.
//
//   generate_data --model DIR --prompts gsm8k.jsonl alpaca.json --output replies.jsonl
//   generate_data --model DIR --from-nothing 1000 --output stories.jsonl    texts from BOS alone
//
// A run that was stopped goes on when the same command is given again.
#include <binade/binade.h>
#include <binade/core/json_view.h>
#include <binade/heads/decoding/dialogue.h>
#include <binade/heads/medusa/medusa.h>
#include <binade/infer/batch_generation.h>
#include <binade/infer/generate.h>
#include <binade/train/signals.h>

#include "generate_data/options.h"
#include "generate_data/progress.h"
#include "generate_data/prompts.h"
#include "generate_data/reply_file.h"

using namespace binade;

namespace {

// What a run may have otherwise when it goes on: what no reply depends on, and the names of what
// is compared by its content.
const std::vector<std::string> kMayChange = {"slots",   "steps-ahead", "device",       "quiet",
                                             "config",  "output",      "prompts",      "model",
                                             "adapter", "tokenizer",   "chat-template"};

infer::BatchGenerateOptions batch_options(const examples::GenerateDataOptions& o,
                                          const examples::LoadedModel& loaded, int64_t capacity,
                                          int64_t replies) {
  infer::BatchGenerateOptions options;
  options.slots = o.slots > 0 ? o.slots : loaded.model->device().is_cuda() ? 512 : 32;
  options.slots = std::min(options.slots, replies);
  options.capacity = capacity;
  options.max_new_tokens = o.max_new_tokens;
  if (!o.ignore_eos) options.stop_ids = infer::generate_options(loaded.model->config()).stop_ids;
  if (const auto eos = loaded.tokenizer->eos_id(); eos && options.stop_ids.empty() && !o.ignore_eos)
    options.stop_ids = {*eos};
  options.sampling = {
      .temperature = o.temperature, .top_k = o.top_k, .top_p = o.top_p, .seed = o.seed};
  options.steps_ahead = o.steps_ahead;
  return options;
}

// Options and what else replies depend on.
std::string run_record(const std::string& config, const examples::LoadedModel& loaded,
                       const heads::decoding::Spelling& spelling,
                       const examples::Prompts& prompts) {
  const std::string source =
      spelling.chat_template ? spelling.chat_template->source() : std::string();
  nlohmann::ordered_json run = parse_json<nlohmann::ordered_json>(config, "the options");
  run["prompts_crc32c"] = concat(prompts.checksum, " of ", prompts.all.size());
  run["model_crc32c"] = heads::medusa::weights_fingerprint(*loaded.model);
  run["vocabulary_crc32c"] = spelling.vocabulary;
  run["chat_template_crc32c"] = crc32c(source.data(), source.size());
  return run.dump(2);
}

// Where the passed-over prompts and records are.
void say_what_is_left_out(const examples::Prompts& prompts, int64_t capacity) {
  if (prompts.bad > 0) examples::say("{} bad records were passed over\n", prompts.bad);
  for (const std::string& place : prompts.places)
    examples::say("too long for {} tokens with its reply: {}\n", capacity, place);
  if (prompts.too_long > 0)
    examples::say("{} prompts are too long and were passed over\n", prompts.too_long);
}

// The replies of one run, as they end.
class Replies {
 public:
  Replies(examples::Prompts& prompts, examples::ReplyFile& file, infer::BatchGenerator& generator)
      : prompts_(prompts), file_(file), generator_(generator) {}

  void take(const infer::BatchGenerator::Reply& reply) {
    heads::decoding::Dialogue& dialogue = prompts_.all[static_cast<size_t>(reply.number)].dialogue;
    dialogue.add_reply(reply.tokens, reply.stopped);
    if (ask_again(reply.number, dialogue)) return;
    file_.add(reply.number, std::move(dialogue));
    ++ended_;
  }
  int64_t ended() const { return ended_; }
  void say_what_is_cut() const {
    if (cut_ > 0)
      examples::say("{} conversations end before a turn that does not fit, the first: {}\n", cut_,
                    first_cut_);
  }

 private:
  // Whether the conversation goes on.
  bool ask_again(int64_t number, heads::decoding::Dialogue& dialogue) {
    std::string problem;
    try {
      auto next = dialogue.next_prompt();
      if (!next) return false;
      if (generator_.fits(static_cast<int64_t>(next->size()))) {
        generator_.add({number, std::move(*next), dialogue.reply_tokens()});
        return true;
      }
      problem = concat(dialogue.where(), ": ", next->size(), " tokens");
    } catch (const Error& error) {
      problem = error.what();  // the template refuses a later turn
    }
    if (cut_++ == 0) first_cut_ = problem;
    return false;
  }

  examples::Prompts& prompts_;
  examples::ReplyFile& file_;
  infer::BatchGenerator& generator_;
  int64_t ended_ = 0, cut_ = 0;
  std::string first_cut_;
};

void generate_data(const examples::GenerateDataOptions& o, const std::string& config) {
  check(o.prompts.empty() == (o.from_nothing > 0), "give either --prompts or --from-nothing");
  const train::StopSignals signals;
  const examples::LoadedModel loaded = examples::load_model(o.model);
  std::optional<data::ChatTemplate> chat_template;
  if (!o.no_template && o.from_nothing == 0)
    chat_template =
        data::ChatTemplate::load(o.chat_template.empty() ? o.model.model : o.chat_template);
  const heads::decoding::Spelling spelling(*loaded.tokenizer,
                                           chat_template ? &*chat_template : nullptr);
  const int64_t positions = loaded.model->config().max_positions;
  int64_t capacity = o.max_length > 0 ? o.max_length : positions;
  check(capacity <= positions, "--max-length ", capacity, " is beyond the model's ", positions,
        " positions");
  examples::Prompts prompts = examples::read_prompts(o, loaded, spelling, capacity);
  say_what_is_left_out(prompts, capacity);

  const auto total = static_cast<int64_t>(prompts.all.size());
  examples::ReplyFile file(o.output, run_record(config, loaded, spelling, prompts), kMayChange,
                           total);
  const int64_t before = file.count(), missing = total - prompts.too_long - before;
  if (before > 0) examples::say("{} of {} conversations are there already\n", before, total);
  // Later turns have the earlier ones before them.
  const bool one_turn = o.turns == 1 || o.from_nothing > 0;
  if (one_turn) capacity = std::min(capacity, prompts.longest + o.max_new_tokens - 1);
  infer::BatchGenerator generator(
      *loaded.model, batch_options(o, loaded, capacity, std::max<int64_t>(missing, 1)));
  for (int64_t i = 0; i < total; ++i) {
    examples::Prompt& prompt = prompts.all[static_cast<size_t>(i)];
    if (!prompt.ids.empty() && !file.has(i))
      generator.add({.number = i, .prompt = std::move(prompt.ids)});
  }

  Replies replies(prompts, file, generator);
  examples::GenerationProgress progress(o.quiet, before, before + missing);
  const bool finished =
      generator.run([&](const infer::BatchGenerator::Reply& reply) { replies.take(reply); },
                    [&] {
                      progress.show(replies.ended(), generator.counts().reply_tokens);
                      return !train::StopSignals::requested();
                    });
  const double seconds = progress.end(replies.ended(), generator.counts().reply_tokens);
  replies.say_what_is_cut();
  const infer::BatchGenerator::Counts& counts = generator.counts();
  examples::say(
      "{} replies of {} tokens in {:.1f} s ({:.0f} tokens/s), {} steps, {} passes over {} prompt "
      "tokens\n",
      counts.replies, counts.reply_tokens, seconds,
      static_cast<double>(counts.reply_tokens) / seconds, counts.steps, counts.passes,
      counts.prompt_tokens);
  if (!finished) {
    file.flush();
    examples::say(
        "stopped by a signal: {} of {} conversations are in {}; the same command goes on\n",
        before + replies.ended(), before + missing, o.output);
    return;
  }
  file.finish();
  examples::say("done: {} conversations are in {}\n", before + missing, o.output);
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command(
      "Writes a model's own replies to prompts, which decoding heads learn from");
  examples::GenerateDataOptions options;
  examples::add_options(command, options);
  return examples::run_program(
      command, argc, argv, [&] { generate_data(options, command.configuration()); },
      examples::Output::narration);
}
