#include "chat.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include <binade/heads/decoding/decode_texts.h>

namespace binade::examples {
namespace {

namespace decoding = heads::decoding;

bool colored(const SpeculateOptions& o) {
  if (o.color == "auto") return isatty(STDOUT_FILENO) != 0;
  return o.color == "always";
}

// Tokens as text, guesses that were right in green.
class Screen {
 public:
  Screen(const data::Tokenizer& tokenizer, bool color) : decoder_(tokenizer), color_(color) {}
  void show(int32_t token, bool guessed) {
    const std::string text = decoder_.push(token);
    reply_ += text;
    if (color_ && guessed && !text.empty())
      say("\x1b[32m{}\x1b[0m", text);
    else
      say("{}", text);
  }
  std::string finish() {
    const std::string rest = decoder_.finish();
    say("{}\n", rest);
    return std::exchange(reply_, "") + rest;
  }

 private:
  data::StreamDecoder decoder_;
  bool color_;
  std::string reply_;
};

}  // namespace

void chat(const Session& session, const SpeculateOptions& o, const decoding::DraftTree& tree) {
  const nn::CausalLm& model = *session.base.model;
  const bool terminal = isatty(STDIN_FILENO) != 0;
  const auto rule = rule_of(o);
  std::unique_ptr<decoding::Proposer> proposer;
  std::unique_ptr<decoding::SpeculativeDecoder> speculative;
  std::unique_ptr<infer::Decoder> plain;
  if (session.kind == "none") {
    infer::DecoderOptions options;
    options.choice.sampling = rule->plain();
    options.choice.sampling.seed = o.seed;
    options.choice.stop_ids = session.stop_ids;
    plain = std::make_unique<infer::Decoder>(model, options);
  } else {
    proposer = proposer_of(session, o, tree, session.positions(), /*all_heads=*/false);
    speculative = std::make_unique<decoding::SpeculativeDecoder>(
        model, *proposer, *rule,
        decoding::SpeculativeOptions{.stop_ids = session.stop_ids, .seed = o.seed});
  }
  Screen screen(*session.base.tokenizer, colored(o));
  std::vector<data::Message> messages;
  std::string line;
  while ((terminal ? say("> ") : void()), std::getline(std::cin, line)) {
    if (line.empty()) continue;
    if (!session.chat) messages.clear();
    messages.push_back({"user", line});
    const std::vector<int32_t> prompt = encode_prompt(session, messages);
    const int64_t room = session.positions() - static_cast<int64_t>(prompt.size()) + 1;
    if (room < 1) {
      say("(the chat has {} tokens, the model's context {}; it begins anew)\n", prompt.size(),
          session.positions());
      messages.clear();
      continue;
    }
    const decoding::DecodeTextsOptions options{.max_new_tokens = std::min(o.max_new_tokens, room),
                                               .stop_ids = session.stop_ids};
    const auto show = [&](size_t, int32_t token, bool guessed) { screen.show(token, guessed); };
    const decoding::DecodedTexts reply =
        plain ? decoding::decode_texts(*plain, {prompt}, options, show)
              : decoding::decode_texts(*speculative, {prompt}, options, show);
    messages.push_back({"assistant", screen.finish()});
    if (terminal)
      say("({} tokens, {:.1f} tokens/s, tau {:.2f})\n", reply.tokens, reply.tokens_per_second(),
          plain ? 1.0 : reply.stats.tau());
  }
}

}  // namespace binade::examples
