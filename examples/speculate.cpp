// Decodes prompts plainly and speculatively with the same engine, and compares.
//
//   speculate --model DIR --medusa heads/ --prompts test.jsonl --tree chain
//   speculate --model DIR --medusa heads/ --prompts test.jsonl --search-tree train.jsonl
//   speculate --model DIR --proposer lookup --prompt "..." --show
//   speculate --model DIR --draft SMALLER --interactive
#include <binade/core/file.h>

#include "speculate/chat.h"
#include "speculate/report.h"
#include "speculate/search.h"
#include "speculate/session.h"

using namespace binade;
using namespace binade::examples;

namespace {

namespace decoding = heads::decoding;

void show_texts(const Session& session, const std::vector<std::vector<int32_t>>& texts) {
  for (size_t i = 0; i < texts.size(); ++i)
    say("--- {}\n{}\n", i + 1, session.base.tokenizer->decode(texts[i]));
}

int64_t longest(const Rows& prompts) {
  size_t length = 0;
  for (const std::vector<int32_t>& prompt : prompts) length = std::max(length, prompt.size());
  return static_cast<int64_t>(length);
}

// On a GPU: every size of prompt is met, matmuls are timed and a graph captured before anything is
// measured.
template <class Decoder>
void warm_up(Decoder& decoder, const Rows& prompts) {
  if (decoder.model().device().is_cpu()) return;
  decoding::decode_texts(decoder, prompts, {.max_new_tokens = 4});
}

void speculate(const SpeculateOptions& options) {
  SpeculateOptions o = options;
  Session session = load_session(o);
  decoding::DraftTree tree = tree_of(session, o);
  if (!o.search_tree.empty()) {
    const decoding::TreeChoice choice = search_for_tree(session, o);
    if (choice.speculate())
      tree = choice.tree;
    else
      session.kind = "none";
  }
  if (!o.save_tree.empty() && session.kind != "none") {
    write_text_file(o.save_tree, tree.json() + "\n");
    say("saved {}: {} nodes\n", o.save_tree, tree.size());
  }
  if (o.interactive) return chat(session, o, tree);
  if (o.prompts.empty() && o.prompt.empty()) {
    check(!o.search_tree.empty(), "give the prompts to decode as --prompts or --prompt");
    return;
  }
  const nn::CausalLm& model = *session.base.model;
  const auto [prompts, answers] = read_prompts(session, o, o.prompts);
  o = with_slots_for(prompts, o);
  const int64_t capacity = longest(prompts) + o.max_new_tokens - 1;
  const auto rule = rule_of(o);
  const decoding::DecodeTextsOptions texts{.max_new_tokens = o.max_new_tokens,
                                           .stop_ids = session.stop_ids};

  std::optional<decoding::DecodedTexts> plain;
  if (o.plain || session.kind == "none") {
    infer::DecoderOptions options{.slots = o.batch, .capacity = capacity};
    options.choice.sampling = rule->plain();
    options.choice.sampling.seed = o.seed;
    options.choice.stop_ids = session.stop_ids;
    infer::Decoder decoder(model, options);
    warm_up(decoder, prompts);
    plain = decoding::decode_texts(decoder, prompts, texts);
  }
  if (session.kind == "none") {
    say("plain decoding: {} tokens in {:.2f} s, {:.1f} tokens/s\n", plain->tokens, plain->seconds,
        plain->tokens_per_second());
    print_answers(session, answers, nullptr, &*plain);
    if (o.show) show_texts(session, plain->texts);
    return;
  }
  const auto proposer = proposer_of(session, o, tree, capacity, /*all_heads=*/false);
  decoding::SpeculativeDecoder decoder(
      model, *proposer, *rule,
      {.slots = o.batch, .capacity = capacity, .stop_ids = session.stop_ids, .seed = o.seed});
  warm_up(decoder, prompts);
  const decoding::DecodedTexts speculative = decoding::decode_texts(decoder, prompts, texts);
  if (o.show) show_texts(session, speculative.texts);
  print_figures(speculative, plain ? &*plain : nullptr);
  print_answers(session, answers, &speculative, plain ? &*plain : nullptr);
  if (!o.charts.empty()) draw_acceptance(o.charts, speculative.stats);
  if (plain && o.acceptance == "greedy")
    print_comparison(session, decoding::compare_texts(model, prompts, plain->texts,
                                                      speculative.texts, session.stop_ids));
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine command("Decodes prompts plainly and speculatively, and compares");
  SpeculateOptions options;
  add_options(command, options);
  return run_program(command, argc, argv, [&] { speculate(options); });
}
