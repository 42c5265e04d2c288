// Conversations and prompts in the files that people have them in. Text is never altered: no
// trimming, no change of case, no Unicode normalisation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace binade::data {

struct Message {
  std::string role;  // "system", "developer", "user" or "assistant"
  std::string content;
  bool operator==(const Message&) const = default;
};

// A conversation as the tokens that a model read and wrote. Text that is encoded anew may give
// others.
struct ConversationTokens {
  struct Range {
    int64_t begin = 0, end = 0;  // tokens [begin, end)
    bool operator==(const Range&) const = default;
  };
  std::vector<int32_t> ids;
  std::vector<Range> replies;  // what the model wrote, in order, disjoint, not empty
  uint32_t vocabulary = 0;     // vocabulary_fingerprint() of its tokenizer
  bool operator==(const ConversationTokens&) const = default;
};

struct Conversation {
  std::string id;  // empty where the file has none; a number stands as its decimal text
  std::vector<Message> messages;
  std::optional<ConversationTokens> tokens;  // only in openai_messages, as "binade_tokens"
  std::string where;                         // "chats.jsonl:12"; not part of what it says

  bool operator==(const Conversation& other) const {
    return id == other.id && messages == other.messages && tokens == other.tokens;
  }
};

enum class ConversationFormat {
  automatic,  // by the keys of the first record; a file whose name ends in .txt is plain_prompts
  // {"messages": [{"role", "content"}]}; the content may be a list of {"type": "text", "text"}
  // parts, which are joined without anything between them. Roles in any order. "binade_tokens":
  // {"vocabulary_crc32c": 123, "ids": [5, 6, 7], "replies": [[1, 3]]} are its tokens.
  openai_messages,
  // {"conversations": [{"from", "value"}]}; "human" is the user, "gpt" the assistant. At most one
  // system message, at the beginning; then user and assistant in turn, the user first.
  share_gpt,
  // {"instruction", "input", "output", "system"}: the prompt is the instruction or, where the input
  // is not empty, the instruction, one "\n" and the input. Only the instruction is required.
  alpaca,
  gsm8k,     // {"question", "answer"}: a user's and an assistant's message
  mt_bench,  // {"turns": ["…", …]}: the user's messages of one conversation, without replies
  // A prompt a line, which "\n" or "\r\n" ends. Empty lines are passed over.
  plain_prompts,
};

// "openai_messages", …
std::string_view name_of(ConversationFormat format);
ConversationFormat parse_conversation_format(std::string_view name);  // Error for another name

struct ReadConversationsOptions {
  ConversationFormat format = ConversationFormat::automatic;
  bool skip_bad = false;  // passes over and counts bad records instead of throwing
};

struct ConversationReport {
  ConversationFormat format = ConversationFormat::automatic;  // never automatic after reading
  int64_t conversations = 0;
  int64_t skipped = 0;      // bad records that were passed over
  std::string first_error;  // what the first of them lacked, with its place
};

// Reads a file of JSON lines, a JSON array of records, or plain prompts, and hands each
// conversation to `sink` in the order of the file. JSON lines and plain prompts are read line by
// line, whatever the size of the file; an array is parsed as a whole (1 GiB at most). A byte order
// mark at the beginning of the file is passed over, as are empty lines.
//
// Error for a file that cannot be read or holds no conversation, and, with `skip_bad` only counted,
// for a bad record, named by file and line ("chats.jsonl:12: …") or by its index in the array
// ("chats.json: [12]…", from 0): what is not JSON or not UTF-8, has a NUL, lacks a key, has a value
// of the wrong type, no message, an unknown role, a part that is not text, a tool call, tokens
// whose replies do not lie in them, or is a record of another format than the first. An array that
// is not JSON cannot be skipped over.
ConversationReport for_each_conversation(const std::filesystem::path& path,
                                         const ReadConversationsOptions& options,
                                         const std::function<void(Conversation)>& sink);

// The same, all in one piece; `report` gets the counts if it is not null.
std::vector<Conversation> read_conversations(const std::filesystem::path& path,
                                             const ReadConversationsOptions& options = {},
                                             ConversationReport* report = nullptr);

// Further fields of a message or a record in a written file: names and values, these as JSON texts.
using ExtraFields = std::vector<std::pair<std::string, std::string>>;

// One line of JSON, without its end, in the format openai_messages. `extra` is empty or has an
// entry a message, `first` are fields of the record that stand before its own; readers pass over
// fields that they do not know. Error for text that is not UTF-8 or has a NUL, for a conversation
// that could not be read back, for an extra value that is not JSON, or one that has the name of a
// field that readers know.
std::string conversation_line(const Conversation& conversation,
                              std::span<const ExtraFields> extra = {},
                              const ExtraFields& first = {});

// Writes a file of such lines, atomically; read_conversations() gives equal conversations back.
// `extra` is empty or has an entry a conversation. Error as above, or for no conversation.
void write_conversations(const std::filesystem::path& path,
                         std::span<const Conversation> conversations,
                         std::span<const std::vector<ExtraFields>> extra = {});

// The number that a GSM8K answer ends with ("… #### 1,234" is "1234"): behind the last "####",
// without commas, a leading "$" or a full stop at its end. Nothing where there is none.
std::optional<std::string> gsm8k_answer(std::string_view text);
// The number that a model's reply to such a problem comes to: that of gsm8k_answer() or, where the
// reply has no "####", the last number in it.
std::optional<std::string> final_number(std::string_view text);

}  // namespace binade::data
