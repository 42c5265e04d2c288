// Conversations whose replies a model writes, token by token, and what they teach afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <binade/data/chat_template.h>
#include <binade/data/conversations.h>
#include <binade/data/tokenizer.h>
#include <binade/heads/decoding/documents.h>

namespace binade::heads::decoding {

// How conversations are spelled for a model. Both must outlive what uses it.
struct Spelling {
  const data::Tokenizer& tokenizer;
  const data::ChatTemplate* chat_template;  // null: a message's text stands as it is
  uint32_t vocabulary;                      // vocabulary_fingerprint() of the tokenizer

  Spelling(const data::Tokenizer& tokenizer, const data::ChatTemplate* chat_template)
      : tokenizer(tokenizer),
        chat_template(chat_template),
        vocabulary(data::vocabulary_fingerprint(tokenizer)) {}
};

// One conversation. Its tokens only ever grow: what the model read and wrote in earlier turns is
// what stands before the next, not text that was encoded anew.
class Dialogue {
 public:
  // Keeps what others than the assistant say. A reply is due to the last of the user's messages
  // that stand together or, in a conversation without any reply, to each; to `turns` at most, if
  // that is not 0. Throws Error, beginning with the conversation's place, if nobody asks for a
  // reply, and for several messages before the first one where there is no chat template.
  Dialogue(data::Conversation conversation, int64_t turns, const Spelling& spelling);
  // A text that goes on these tokens, the BOS token for example.
  Dialogue(std::vector<int32_t> prompt, const Spelling& spelling);

  // The tokens up to where the next reply begins; none when there are replies to everything, or
  // when the last one did not come to its end. Throws Error, beginning with the place, for what the
  // template refuses.
  std::optional<std::vector<int32_t>> next_prompt();
  // What the model wrote there, and whether it ended by a stop id, which is the last token.
  void add_reply(std::span<const int32_t> tokens, bool stopped);

  // What has been said so far, with its tokens; text that is not UTF-8 has U+FFFD.
  data::Conversation conversation() const;
  const std::string& where() const { return where_; }
  int64_t reply_tokens() const;

 private:
  std::vector<int32_t> encode_next() const;

  const Spelling& spelling_;
  std::string id_, where_;
  std::vector<data::Message> script_;  // of others than the assistant
  std::vector<size_t> due_;            // messages of the script before each reply
  size_t turn_ = 0;
  bool ended_ = false;
  size_t said_ = 0;                      // messages of the script in messages_
  std::vector<data::Message> messages_;  // up to the newest reply
  data::ConversationTokens tokens_;
};

// Documents of conversations: from their tokens where those are of the spelling's vocabulary,
// otherwise encoded from their text.
class ConversationEncoder {
 public:
  // The tokenizer must outlive it. The template of this folder is read when a text needs it.
  ConversationEncoder(const data::Tokenizer& tokenizer, std::filesystem::path template_folder);
  // Throws Error as encode_chat() and ChatTemplate::load() do.
  Document encode(const data::Conversation& conversation);
  // Those with tokens of another vocabulary, whose text was encoded.
  int64_t foreign() const { return foreign_; }

 private:
  const data::Tokenizer& tokenizer_;
  std::filesystem::path template_folder_;
  uint32_t vocabulary_;
  std::optional<data::ChatTemplate> chat_template_;
  int64_t foreign_ = 0;
};

}  // namespace binade::heads::decoding
