#include "session.h"

#include <algorithm>
#include <limits>

#include <binade/core/file.h>
#include <binade/data/conversations.h>
#include <binade/heads/decoding/lookup_proposer.h>
#include <binade/heads/decoding/model_proposer.h>
#include <binade/heads/decoding/tree_search.h>
#include <binade/heads/eagle/files.h>
#include <binade/heads/eagle/proposer.h>
#include <binade/heads/medusa/files.h>
#include <binade/heads/medusa/proposer.h>
#include <binade/heads/mtp/files.h>
#include <binade/heads/mtp/proposer.h>
#include <binade/infer/generate.h>

namespace binade::examples {
namespace {

namespace decoding = heads::decoding;

constexpr int64_t kUsualNodes = 24;

// What an option names a proposer by.
struct Named {
  const char* kind;
  const char* option;
  bool given;
};

std::string kind_of(const SpeculateOptions& o) {
  const Named all[] = {{"medusa", "--medusa", !o.medusa.empty()},
                       {"mtp", "--mtp", !o.mtp.empty()},
                       {"eagle", "--eagle", !o.eagle.empty()},
                       {"draft", "--draft", !o.draft.empty()},
                       {"early-exit", "--early-exit", o.early_exit > 0}};
  std::string kind = o.proposer;
  for (const Named& named : all) {
    if (kind == named.kind) check(named.given, "--proposer ", kind, " needs ", named.option);
    if (!named.given) continue;
    check(kind == "auto" || kind == named.kind, named.option, " is for --proposer ", named.kind,
          ", not ", kind, "; give one of them");
    kind = named.kind;
  }
  return kind == "auto" ? "none" : kind;
}

// The tokens of replies, each at least as often as it is counted there; what ends a text always.
decoding::DraftVocabulary frequent_tokens(const Session& session, const SpeculateOptions& o) {
  const auto vocabulary = static_cast<size_t>(session.base.model->config().vocab_size);
  std::vector<int64_t> counts(vocabulary, 0);
  for (const data::Conversation& chat :
       data::read_conversations(o.count_tokens, {.skip_bad = o.skip_bad}))
    for (const data::Message& message : chat.messages)
      if (message.role == "assistant")
        for (const int32_t id : session.base.tokenizer->encode(message.content))
          ++counts[static_cast<size_t>(id)];
  check(std::any_of(counts.begin(), counts.end(), [](int64_t count) { return count > 0; }),
        o.count_tokens, " has no replies to count tokens of");
  for (const int32_t id : infer::generate_options(session.base.model->config()).stop_ids)
    counts[static_cast<size_t>(id)] = std::numeric_limits<int64_t>::max();
  return decoding::DraftVocabulary::most_frequent(counts, o.draft_vocabulary);
}

void convert(nn::Module& module, const std::string& precision) {
  if (precision == "fp32") return;
  module.set_compute_dtype(precision == "fp16" ? DType::f16 : DType::bf16, /*with_master=*/false);
}

}  // namespace

Session load_session(const SpeculateOptions& o) {
  Session session;
  session.kind = kind_of(o);
  const bool eagle = session.kind == "eagle";
  check(session.kind == "draft" || session.kind == "early-exit" || (eagle && o.tree_width == 1) ||
            o.draft_temperature == 0,
        "--draft-temperature is for --draft, --early-exit and chains of --eagle, whose guesses can "
        "be drawn");
  check(eagle || o.tree_width == 1, "--tree-width is for --eagle");
  check(o.draft_temperature == 0 || o.acceptance == "exact",
        "--draft-temperature is for --acceptance exact; ", o.acceptance,
        " acceptance does best with the likeliest guesses");
  check(!o.most_accepted || (!o.search_tree.empty() && o.nodes > 1),
        "--most-accepted needs --search-tree and --nodes");
  check(!o.interactive || o.batch == 1, "--interactive writes one text at a time; leave --batch 1");
  const bool trees = session.kind == "medusa" || session.kind == "mtp";
  check(trees || (o.search_tree.empty() && o.save_tree.empty()),
        "--search-tree and --save-tree are for trees of heads; give --medusa or --mtp");
  check(trees || o.tree == "auto", "--tree is for trees of heads; give --medusa or --mtp");
  check(trees || (eagle && o.tree_width > 1) || o.nodes == 0,
        "--nodes is for trees of heads; give --medusa or --mtp, or --eagle with --tree-width");
  check(o.tree == "auto" || o.nodes == 0, "--nodes is for --tree auto, not for ", o.tree);
  check(o.tree == "auto" || o.search_tree.empty(), "--search-tree finds the tree; leave --tree ",
        o.tree, " out");
  check(o.draft_vocabulary == 0 || trees,
        "--draft-vocabulary is for heads; give --medusa or --mtp");
  check((o.draft_vocabulary > 0) == !o.count_tokens.empty(),
        "--draft-vocabulary and --count-tokens need each other");
  // Heads are checked against the weights as the files have them.
  ModelOptions as_saved = o.model;
  as_saved.precision = "fp32";
  as_saved.device = "cpu";
  const Device device = choose_device(o.model.device);
  session.base = load_model(as_saved);
  if (session.kind == "medusa")
    session.medusa = heads::medusa::load_medusa(o.medusa, session.base.model);
  if (session.kind == "mtp") session.mtp = heads::mtp::load_mtp(o.mtp, session.base.model);
  if (eagle) session.eagle = heads::eagle::load_eagle(o.eagle, session.base.model);
  if (o.model.precision != "fp32")
    nn::warn_about_range(*session.base.model,
                         o.model.precision == "fp16" ? DType::f16 : DType::bf16);
  convert(*session.base.model, o.model.precision);
  session.base.model->to(device);
  const auto prepare = [&](nn::Module& heads) {
    convert(heads, o.model.precision);
    heads.to(device);
    heads.eval();
  };
  if (session.medusa) prepare(*session.medusa);
  if (session.mtp) prepare(*session.mtp);
  if (session.eagle) prepare(*session.eagle);
  if (session.kind == "draft") {
    ModelOptions draft = o.model;
    draft.model = o.draft;
    draft.tokenizer.clear();
    draft.adapter.clear();
    session.draft = load_model(draft);
    data::check_same_tokens(*session.base.tokenizer, *session.draft.tokenizer,
                            concat("--draft ", o.draft));
  }
  if (o.chat_template == "auto") {
    session.chat = data::ChatTemplate::find(o.model.model);
  } else if (o.chat_template != "none") {
    session.chat = data::ChatTemplate::load(o.chat_template);
  }
  session.stop_ids = infer::generate_options(session.base.model->config()).stop_ids;
  if (const auto eos = session.base.tokenizer->eos_id(); eos && session.stop_ids.empty())
    session.stop_ids = {*eos};
  if (o.ignore_eos) session.stop_ids.clear();
  if (o.draft_vocabulary > 0) session.vocabulary = frequent_tokens(session, o);
  return session;
}

std::vector<int32_t> encode_prompt(const Session& session,
                                   const std::vector<data::Message>& messages) {
  if (!session.chat) {
    std::string text;
    for (const data::Message& message : messages) text += message.content;
    return encode_text(session.base, text);
  }
  const std::string text = session.chat->render(messages, {.add_generation_prompt = true});
  return session.base.tokenizer->encode(text);
}

Prompts read_prompts(const Session& session, const SpeculateOptions& o, const std::string& file) {
  Prompts prompts;
  const auto add = [&](const std::vector<data::Message>& messages, const std::string& name) {
    prompts.ids.push_back(encode_prompt(session, messages));
    const auto length = static_cast<int64_t>(prompts.ids.back().size());
    check(length > 0, name, " has no tokens; begin with the BOS token");
    check(length + o.max_new_tokens - 1 <= session.positions(), name, " has ", length,
          " tokens and may get ", o.max_new_tokens, " new ones, but the model's context is ",
          session.positions(), "; shorten it or lower --max-new-tokens");
  };
  if (file.empty()) {
    add({{"user", o.prompt}}, "the prompt");
    return prompts;
  }
  data::ConversationReport report;
  std::vector<data::Conversation> conversations =
      data::read_conversations(file, {.skip_bad = o.skip_bad}, &report);
  if (o.limit > 0 && std::ssize(conversations) > o.limit)
    conversations.resize(static_cast<size_t>(o.limit));
  for (size_t i = 0; i < conversations.size(); ++i) {
    const std::vector<data::Message>& said = conversations[i].messages;
    const auto user = std::find_if(said.begin(), said.end(), [](const data::Message& message) {
      return message.role == "user" || message.role == "assistant";
    });
    check(user != said.end() && user->role == "user", file, ": conversation ", i + 1,
          " does not begin with a user's message");
    add({said.begin(), user + 1}, concat(file, ": prompt ", i + 1));
    if (report.format == data::ConversationFormat::gsm8k)
      prompts.answers.push_back(data::gsm8k_answer(said.back().content).value_or(""));
  }
  return prompts;
}

SpeculateOptions with_slots_for(const Rows& prompts, SpeculateOptions options) {
  options.batch = std::min<int64_t>(options.batch, std::ssize(prompts));
  return options;
}

decoding::DraftTree tree_of(const Session& session, const SpeculateOptions& o) {
  if (!session.medusa && !session.mtp) return {};
  const int64_t depth =
      session.medusa ? session.medusa->config().heads : session.mtp->config().depth;
  if (o.tree == "chain" || (o.tree == "auto" && session.mtp && o.nodes == 0))
    return decoding::DraftTree::chain(depth);
  if (o.tree != "auto")
    return decoding::DraftTree::from_json(read_text_file(o.tree), o.tree, {.heads = depth});
  const int64_t nodes = o.nodes > 0 ? o.nodes : kUsualNodes;
  return decoding::published_tree(depth, nodes);
}

std::unique_ptr<decoding::AcceptanceRule> rule_of(const SpeculateOptions& o) {
  if (o.acceptance == "greedy") return decoding::greedy_acceptance();
  if (o.acceptance == "typical")
    return decoding::typical_acceptance(
        {.temperature = o.temperature, .epsilon = o.epsilon, .delta = o.delta});
  return decoding::speculative_sampling({.temperature = o.temperature, .top_p = o.top_p});
}

std::unique_ptr<decoding::Proposer> proposer_of(const Session& session, const SpeculateOptions& o,
                                                const decoding::DraftTree& tree, int64_t capacity,
                                                bool all_heads) {
  if (session.medusa)
    return std::make_unique<heads::medusa::MedusaProposer>(
        *session.medusa, tree,
        heads::medusa::MedusaProposerOptions{
            .slots = o.batch,
            .heads = all_heads ? session.medusa->config().heads : 0,
            .vocabulary = session.vocabulary});
  if (session.mtp)
    return heads::mtp::make_proposer(
        *session.mtp, tree,
        {.slots = o.batch, .capacity = capacity, .vocabulary = session.vocabulary});
  if (session.eagle)
    return std::make_unique<heads::eagle::EagleProposer>(
        *session.eagle, heads::eagle::EagleProposerOptions{.slots = o.batch,
                                                           .capacity = capacity,
                                                           .depth = o.guesses,
                                                           .width = o.tree_width,
                                                           .nodes = o.nodes,
                                                           .temperature = o.draft_temperature});
  if (session.kind == "draft" || session.kind == "early-exit") {
    decoding::ModelProposerOptions options{
        .slots = o.batch, .capacity = capacity, .guesses = o.guesses, .layers = o.early_exit};
    options.sampling.temperature = o.draft_temperature;
    const nn::CausalLm& target = *session.base.model;
    return std::make_unique<decoding::ModelProposer>(
        session.kind == "draft" ? *session.draft.model : target, target, options);
  }
  const decoding::LookupOptions lookup{.longest = o.longest_ngram, .guesses = o.guesses};
  return std::make_unique<decoding::LookupProposer>(o.batch, lookup, session.base.model->device());
}

}  // namespace binade::examples
