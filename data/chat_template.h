// Chat templates: how a model wants a conversation spelled. They are programs in the template
// language Jinja2; the part of it that runs is in docs/chat.md.
#pragma once

#include <binade/data/conversations.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace binade::data {

// Names and texts: {"bos_token", "<s>"}, …
using SpecialTokens = std::vector<std::pair<std::string, std::string>>;

struct RenderOptions {
  bool add_generation_prompt = false;  // ends with what comes before a reply
  // Further variables and their values as JSON texts: {"enable_thinking", "false"}. `tools` and
  // `documents` are none unless they are given.
  std::vector<std::pair<std::string, std::string>> variables;
  // What strftime_now() shows; without it, the local time of now.
  std::optional<std::chrono::sys_seconds> now;
};

struct ByteSpan {
  size_t begin = 0, end = 0;  // bytes [begin, end)
  bool operator==(const ByteSpan&) const = default;
};

struct RenderedChat {
  std::string text;
  std::vector<ByteSpan> replies;  // what the model is to write, in order, disjoint
};

class ChatTemplate {
 public:
  // The template of a Hugging Face folder: chat_template.jinja if it is there, else `chat_template`
  // of tokenizer_config.json, which is a text or a list of {"name", "template"}, of which the one
  // with the name `name` is taken. Special tokens are those of tokenizer_config.json and, for
  // what is missing there, special_tokens_map.json. Error for a folder without a template, and as
  // of parse().
  static ChatTemplate load(const std::filesystem::path& folder,
                           const std::string& name = "default");
  // The same, but nothing for a folder without a template: that of a model that does not chat.
  static std::optional<ChatTemplate> find(const std::filesystem::path& folder,
                                          const std::string& name = "default");

  // Error, with `name` and the line ("llama: 12: …"), for what is not valid or is not executed.
  static ChatTemplate parse(std::string_view source, const SpecialTokens& tokens = {},
                            const std::string& name = "chat template");

  // The text of a conversation, with the special tokens spelled out. Encode it with
  // add_special_tokens = false, as templates write the BOS token themselves. Error for what the
  // template refuses (raise_exception), for what goes wrong while it runs, with the line, and for
  // text that is not UTF-8. Runaway templates end in an Error.
  std::string render(std::span<const Message> messages, const RenderOptions& options = {}) const;

  // The same, and which bytes are replies of the assistant, the token that ends a turn included.
  //
  // A template with {% generation %} blocks says so itself. For others, reply i begins where the
  // messages before it end when they are rendered with the generation prompt, and ends where the
  // messages up to it end, without white space behind the end-of-turn token. (A template that
  // ignores add_generation_prompt leaves the header of the reply inside the span.) Error when one
  // of these texts does not begin the whole text, as where a template shortens earlier turns.
  RenderedChat render_with_mask(std::span<const Message> messages,
                                const RenderOptions& options = {}) const;

  const std::string& source() const { return source_; }
  const SpecialTokens& special_tokens() const { return tokens_; }

 private:
  struct Tree;
  ChatTemplate() = default;
  RenderedChat run(std::span<const Message> messages, const RenderOptions& options) const;

  std::string source_, name_;
  SpecialTokens tokens_;
  std::shared_ptr<const Tree> tree_;
};

}  // namespace binade::data
