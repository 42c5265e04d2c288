#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/utf8.h>
#include <binade/data/chat_template.h>
#include <binade/data/jinja/evaluator.h>
#include <binade/data/jinja/text.h>

#include <algorithm>
#include <ctime>

namespace binade::data {

struct ChatTemplate::Tree {
  jinja::Template root;
};

namespace {

namespace fs = std::filesystem;

constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

void add_special_tokens(const JsonView& config, SpecialTokens& tokens) {
  for (const char* key : kSpecialTokens) {
    const auto known = [&](const auto& token) { return token.first == key; };
    if (!config.has(key) || std::any_of(tokens.begin(), tokens.end(), known)) continue;
    const JsonView token = config[key];
    tokens.emplace_back(key, token.raw().is_object() ? token["content"].text() : token.text());
  }
}

std::string template_of(const JsonView& config, const std::string& name) {
  const JsonView value = config["chat_template"];
  if (value.raw().is_string()) return value.text();
  value.expect_array();
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i]["name"].text() == name) return value[i]["template"].text();
  }
  value.refuse("there is no template of the name \"", name, "\"");
}

std::tm moment(const std::optional<std::chrono::sys_seconds>& now) {
  std::tm out{};
  const std::time_t seconds =
      now ? static_cast<std::time_t>(now->time_since_epoch().count()) : std::time(nullptr);
  const bool done = now ? ::gmtime_r(&seconds, &out) : ::localtime_r(&seconds, &out);
  check(done, "strftime_now: the time is out of range");
  return out;
}

jinja::Value value_of(const Message& message, size_t index) {
  jinja::Dict dict;
  const auto add = [&](const char* key, const std::string& text) {
    check(utf8_valid_prefix(text) == text.size(), "the ", key, " of message ", index,
          " is not valid UTF-8 at byte ", utf8_valid_prefix(text));
    dict.set(jinja::Value::text(key), jinja::Value::text(text));
  };
  add("role", message.role);
  add("content", message.content);
  return jinja::Value::dict(std::move(dict));
}

// The end of a reply without white space behind the token that ends the turn; where there is no
// such token, the white space ends it.
size_t end_of_reply(std::string_view text, size_t begin, size_t end, std::string_view content) {
  const std::string_view reply = text.substr(begin, end - begin);
  const std::string_view kept = jinja::strip(reply, false, true);
  return kept.ends_with(jinja::strip(content, false, true)) ? end : begin + kept.size();
}

}  // namespace

ChatTemplate ChatTemplate::load(const fs::path& folder, const std::string& name) {
  std::optional<ChatTemplate> found = find(folder, name);
  check(found.has_value(), folder.string(),
        " has no chat template: neither chat_template.jinja nor \"chat_template\" in "
        "tokenizer_config.json; is it a base model?");
  return *std::move(found);
}

std::optional<ChatTemplate> ChatTemplate::find(const fs::path& folder, const std::string& name) {
  SpecialTokens tokens;
  std::optional<std::string> source;
  fs::path from = folder / "tokenizer_config.json";
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const fs::path path = folder / file;
    if (!fs::exists(path)) continue;
    const nlohmann::json document = parse_json(read_text_file(path), path.string());
    const JsonView config(document, path.string() + ": ");
    add_special_tokens(config, tokens);
    if (!source && config.has("chat_template")) source = template_of(config, name);
  }
  if (const fs::path path = folder / "chat_template.jinja"; fs::exists(path)) {
    source = read_text_file(path);
    from = path;
  }
  if (!source) return std::nullopt;
  return parse(*source, tokens, from.string());
}

ChatTemplate ChatTemplate::parse(std::string_view source, const SpecialTokens& tokens,
                                 const std::string& name) {
  constexpr size_t kMaxBytes = size_t{1} << 20;
  check(source.size() <= kMaxBytes, name, ": a template of ", source.size(),
        " bytes, more than the ", kMaxBytes, " accepted");
  for (const auto& [key, text] : tokens) {
    check(utf8_valid_prefix(text) == text.size(), name, ": ", key, " is not valid UTF-8");
  }
  ChatTemplate out;
  out.source_ = source;
  out.name_ = name;
  out.tokens_ = tokens;
  out.tree_ = std::make_shared<const Tree>(Tree{jinja::parse(source, name)});
  return out;
}

RenderedChat ChatTemplate::run(std::span<const Message> messages,
                               const RenderOptions& options) const {
  using jinja::Value;
  std::vector<Value> list;
  for (size_t i = 0; i < messages.size(); ++i) list.push_back(value_of(messages[i], i));
  std::vector<std::pair<std::string, Value>> variables = {{"tools", Value::none()},
                                                          {"documents", Value::none()}};
  for (const auto& [key, text] : tokens_) variables.emplace_back(key, Value::text(text));
  variables.emplace_back("messages", Value::list(std::move(list)));
  variables.emplace_back("add_generation_prompt", Value(options.add_generation_prompt));
  for (const auto& [key, json] : options.variables) {
    variables.emplace_back(key, jinja::from_json(json, concat("the variable \"", key, "\"")));
  }
  jinja::Output output = jinja::evaluate(tree_->root, name_, std::move(variables),
                                         [&] { return moment(options.now); });
  RenderedChat chat{std::move(output.text), {}};
  for (const auto& [begin, end] : output.generated) {
    // Blocks inside one another are one reply.
    while (!chat.replies.empty() && chat.replies.back().begin >= begin) chat.replies.pop_back();
    if (end > begin) chat.replies.push_back({begin, end});
  }
  return chat;
}

std::string ChatTemplate::render(std::span<const Message> messages,
                                 const RenderOptions& options) const {
  return run(messages, options).text;
}

RenderedChat ChatTemplate::render_with_mask(std::span<const Message> messages,
                                            const RenderOptions& options) const {
  RenderedChat chat = run(messages, options);
  if (tree_->root.has_generation) return chat;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const auto prefix = [&](size_t count, bool prompt) {
      RenderOptions of_prefix = options;
      of_prefix.add_generation_prompt = prompt;
      std::string text;
      try {
        text = render(messages.first(count), of_prefix);
      } catch (const Error& error) {
        fail("the reply of message ", i, " cannot be marked, as the template does not render the ",
             count, " messages up to it: ", error.what());
      }
      check(chat.text.starts_with(text), "the reply of message ", i,
            " cannot be marked: the first ", count, " messages",
            prompt ? " with the generation prompt" : "",
            " are not rendered as the beginning of the whole conversation; use a template with "
            "{% generation %} blocks");
      return text.size();
    };
    const size_t begin = prefix(i, true);
    const size_t end = std::max(begin, prefix(i + 1, false));
    chat.replies.push_back({begin, end_of_reply(chat.text, begin, end, messages[i].content)});
  }
  return chat;
}

}  // namespace binade::data
