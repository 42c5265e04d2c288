// What speculate works with: the model, what drafts for it, prompts and rules.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <binade/data/chat_template.h>
#include <binade/heads/decoding/draft_vocabulary.h>
#include <binade/heads/decoding/speculative_decoder.h>
#include <binade/heads/eagle/eagle.h>
#include <binade/heads/medusa/medusa.h>
#include <binade/heads/mtp/mtp.h>

#include "options.h"

namespace binade::examples {

using Rows = std::vector<std::vector<int32_t>>;

struct Session {
  LoadedModel base;
  std::optional<data::ChatTemplate> chat;
  std::vector<int32_t> stop_ids;
  std::string kind;  // of proposer: "none", "lookup", …

  std::shared_ptr<heads::medusa::MedusaHeads> medusa;
  std::shared_ptr<heads::mtp::MtpHeads> mtp;
  std::shared_ptr<heads::eagle::EagleHead> eagle;
  heads::decoding::DraftVocabulary vocabulary;  // that Medusa and mtp guess among
  LoadedModel draft;

  int64_t positions() const { return base.model->config().max_positions; }
};

// Throws Error for options that do not go together, and for what cannot be loaded.
Session load_session(const SpeculateOptions& options);

struct Prompts {
  Rows ids;
  std::vector<std::string> answers;  // the numbers that GSM8K's problems come to; others have none
};
// Throws Error that names the prompt which, with --max-new-tokens, is longer than the model's
// context.
Prompts read_prompts(const Session& session, const SpeculateOptions& options,
                     const std::string& file);
// The options with no more slots than there are prompts: nothing would ever fill the others.
SpeculateOptions with_slots_for(const Rows& prompts, SpeculateOptions options);
// A prompt as --chat-template wants it: the messages so far and what comes before a reply.
std::vector<int32_t> encode_prompt(const Session& session,
                                   const std::vector<data::Message>& messages);

// What --tree says, before any search. The root alone where nothing drafts a tree.
heads::decoding::DraftTree tree_of(const Session& session, const SpeculateOptions& options);
std::unique_ptr<heads::decoding::AcceptanceRule> rule_of(const SpeculateOptions& options);
// `all_heads`: heads beyond the tree guess, too, so that they are counted.
std::unique_ptr<heads::decoding::Proposer> proposer_of(const Session& session,
                                                       const SpeculateOptions& options,
                                                       const heads::decoding::DraftTree& tree,
                                                       int64_t capacity, bool all_heads);

}  // namespace binade::examples
