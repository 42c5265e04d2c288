#include <binade/heads/decoding/dialogue.h>

#include <algorithm>

#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>

namespace binade::heads::decoding {

namespace {

// What a reply says. A model may have more ids than its tokenizer; they say nothing.
std::string text_of(std::span<const int32_t> tokens, bool at_start,
                    const data::Tokenizer& tokenizer) {
  std::string bytes;
  for (const int32_t id : tokens) {
    if (id >= tokenizer.vocab_size()) continue;
    bytes += tokenizer.token_bytes(id, at_start && bytes.empty());
  }
  return utf8_replace_invalid(bytes);
}

// Files of conversations have no NUL.
std::string without_nul(std::string text) {
  for (size_t at = 0; (at = text.find('\0', at)) != std::string::npos;)
    text.replace(at, 1, kReplacementCharacter);
  return text;
}

}  // namespace

Dialogue::Dialogue(data::Conversation conversation, int64_t turns, const Spelling& spelling)
    : spelling_(spelling), id_(std::move(conversation.id)), where_(std::move(conversation.where)) {
  std::vector<data::Message>& messages = conversation.messages;
  const auto is_user = [](const data::Message& message) { return message.role == "user"; };
  const bool has_replies = std::any_of(messages.begin(), messages.end(), [](const auto& message) {
    return message.role == "assistant";
  });
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "assistant") continue;
    const bool asks = is_user(messages[i]);
    const bool goes_on = has_replies && i + 1 < messages.size() && is_user(messages[i + 1]);
    script_.push_back(std::move(messages[i]));
    if (asks && !goes_on && (turns == 0 || static_cast<int64_t>(due_.size()) < turns))
      due_.push_back(script_.size());
  }
  check(!due_.empty(), where_, ": no message of a user's asks for a reply");
  check(spelling.chat_template || due_[0] == 1, where_,
        ": only a chat template can spell several messages before a reply");
}

Dialogue::Dialogue(std::vector<int32_t> prompt, const Spelling& spelling)
    : spelling_(spelling), due_{0} {
  tokens_.ids = std::move(prompt);
}

std::vector<int32_t> Dialogue::encode_next() const {
  const data::Tokenizer& tokenizer = spelling_.tokenizer;
  const data::RenderOptions options{.add_generation_prompt = true};
  if (script_.empty()) return {};
  if (!spelling_.chat_template)
    return tokenizer.encode(messages_.back().content, {.add_special_tokens = turn_ == 0});
  if (turn_ == 0) return tokenizer.encode(spelling_.chat_template->render(messages_, options));
  // What stands behind the last reply and its end-of-turn token.
  const data::RenderedChat chat = spelling_.chat_template->render_with_mask(messages_, options);
  check(chat.replies.size() == turn_, "the chat template shows ", chat.replies.size(), " of ",
        turn_, " replies");
  return tokenizer.encode(std::string_view(chat.text).substr(chat.replies.back().end));
}

std::optional<std::vector<int32_t>> Dialogue::next_prompt() {
  if (ended_ || turn_ == due_.size()) return std::nullopt;
  while (said_ < due_[turn_]) messages_.push_back(script_[said_++]);
  try {
    const std::vector<int32_t> more = encode_next();
    tokens_.ids.insert(tokens_.ids.end(), more.begin(), more.end());
  } catch (const Error& error) {
    fail(where_, ": ", error.what());
  }
  return tokens_.ids;
}

void Dialogue::add_reply(std::span<const int32_t> tokens, bool stopped) {
  check(!tokens.empty(), "a reply has at least one token");
  const auto special = [&](int32_t id) { return spelling_.tokenizer.is_special(id); };
  const bool at_start = std::all_of(tokens_.ids.begin(), tokens_.ids.end(), special);
  const std::span<const int32_t> said = stopped ? tokens.first(tokens.size() - 1) : tokens;
  messages_.push_back({"assistant", text_of(said, at_start, spelling_.tokenizer)});
  const auto begin = static_cast<int64_t>(tokens_.ids.size());
  tokens_.ids.insert(tokens_.ids.end(), tokens.begin(), tokens.end());
  tokens_.replies.push_back({begin, static_cast<int64_t>(tokens_.ids.size())});
  ++turn_;
  ended_ = !stopped;
}

data::Conversation Dialogue::conversation() const {
  check(!tokens_.replies.empty(), where_, ": nothing has been replied yet");
  data::Conversation conversation{.id = id_, .messages = messages_, .tokens = tokens_};
  conversation.tokens->vocabulary = spelling_.vocabulary;
  // A prompt that got no reply is no part of it.
  while (conversation.messages.back().role != "assistant") conversation.messages.pop_back();
  conversation.tokens->ids.resize(static_cast<size_t>(tokens_.replies.back().end));
  for (data::Message& message : conversation.messages)
    message.content = without_nul(std::move(message.content));
  return conversation;
}

int64_t Dialogue::reply_tokens() const {
  int64_t count = 0;
  for (const auto& range : tokens_.replies) count += range.end - range.begin;
  return count;
}

ConversationEncoder::ConversationEncoder(const data::Tokenizer& tokenizer,
                                         std::filesystem::path template_folder)
    : tokenizer_(tokenizer),
      template_folder_(std::move(template_folder)),
      vocabulary_(data::vocabulary_fingerprint(tokenizer)) {}

Document ConversationEncoder::encode(const data::Conversation& conversation) {
  if (conversation.tokens && conversation.tokens->vocabulary == vocabulary_) {
    Document document{conversation.tokens->ids, {}};
    document.reply.resize(document.ids.size(), false);
    for (const auto& [begin, end] : conversation.tokens->replies)
      std::fill(document.reply.begin() + begin, document.reply.begin() + end, true);
    return document;
  }
  foreign_ += conversation.tokens.has_value() ? 1 : 0;
  if (!chat_template_) chat_template_ = data::ChatTemplate::load(template_folder_);
  return encode_chat(tokenizer_, *chat_template_, conversation.messages);
}

}  // namespace binade::heads::decoding
