#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/utf8.h>
#include <binade/data/conversations.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace binade::data {
namespace {

using Format = ConversationFormat;
using Json = nlohmann::json;

constexpr int64_t kLargestArray = int64_t{1} << 30;  // bytes

struct FormatName {
  Format format;
  std::string_view name;
  const char* key;  // a record of the format is known by it
};
constexpr std::array kFormats = {
    FormatName{Format::automatic, "automatic", nullptr},
    FormatName{Format::openai_messages, "openai_messages", "messages"},
    FormatName{Format::share_gpt, "share_gpt", "conversations"},
    FormatName{Format::alpaca, "alpaca", "instruction"},
    FormatName{Format::gsm8k, "gsm8k", "question"},
    FormatName{Format::mt_bench, "mt_bench", "turns"},
    FormatName{Format::plain_prompts, "plain_prompts", nullptr},
};

const FormatName& entry_of(Format format) {
  return *std::find_if(kFormats.begin(), kFormats.end(),
                       [&](const FormatName& entry) { return entry.format == format; });
}

Format detect(const JsonView& record) {
  record.expect_object();
  const FormatName* found = nullptr;
  for (const FormatName& entry : kFormats) {
    if (!entry.key || !record.has(entry.key)) continue;
    if (found) {
      record.refuse("has both \"", found->key, "\" and \"", entry.key, "\"; name the format");
    }
    found = &entry;
  }
  if (!found) {
    record.refuse(
        "no known format: there is none of the keys \"messages\", \"conversations\", "
        "\"instruction\", \"question\" and \"turns\"");
  }
  return found->format;
}

// JSON can spell what a text file must not hold.
const std::string& text_of(const JsonView& value) {
  const std::string& text = value.text();
  if (text.find('\0') != std::string::npos) value.refuse("the text has a NUL");
  return text;
}

void refuse_tools(const JsonView& message) {
  for (const char* key : {"tool_calls", "function_call"}) {
    if (message.has(key)) message.refuse("\"", key, "\" is not supported");
  }
}

std::string openai_content(const JsonView& content) {
  if (!content.raw().is_array()) return text_of(content);
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const JsonView part = content[i];
    const std::string& type = part["type"].text();
    if (type != "text") part.refuse("a part of type \"", type, "\" is not supported, only text");
    text += text_of(part["text"]);
  }
  return text;
}

bool is_role(std::string_view role) {
  return role == "system" || role == "developer" || role == "user" || role == "assistant";
}

void read_openai(const JsonView& record, std::vector<Message>& messages) {
  const JsonView list = record["messages"];
  list.expect_array();
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView message = list[i];
    refuse_tools(message);
    const JsonView role = message["role"];
    if (role.text() == "tool" || role.text() == "function") {
      role.refuse("messages of tools are not supported");
    }
    if (!is_role(role.text())) role.refuse("the role \"", role.text(), "\" is not known");
    messages.push_back({role.text(), openai_content(message["content"])});
  }
}

void read_share_gpt(const JsonView& record, std::vector<Message>& messages) {
  const JsonView list = record["conversations"];
  list.expect_array();
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView message = list[i];
    const JsonView from = message["from"];
    std::string role = from.text();
    if (role == "human") role = "user";
    if (role == "gpt") role = "assistant";
    if (role != "system" && role != "user" && role != "assistant") {
      from.refuse("the role \"", role, "\" is not known");
    }
    const bool begins = messages.empty() || messages.back().role == "system";
    const std::string_view wanted =
        begins || messages.back().role == "assistant" ? "user" : "assistant";
    const bool leading_system = role == "system" && messages.empty();
    if (role != wanted && !leading_system) {
      from.refuse("\"", from.text(), "\" is out of order; expected the ", wanted);
    }
    messages.push_back({std::move(role), text_of(message["value"])});
  }
}

void read_alpaca(const JsonView& record, std::vector<Message>& messages) {
  if (record.has("history") && !record["history"].raw().empty()) {
    record.refuse("\"history\" is not supported");
  }
  const auto optional_text = [&](const char* key) {
    return record.has(key) ? text_of(record[key]) : std::string();
  };
  const std::string system = optional_text("system"), input = optional_text("input");
  std::string prompt = text_of(record["instruction"]);
  if (!input.empty()) prompt += "\n" + input;
  if (!system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", std::move(prompt)});
  if (record.has("output")) messages.push_back({"assistant", text_of(record["output"])});
}

constexpr const char* kTokens = "binade_tokens";
constexpr const char* kVocabulary = "vocabulary_crc32c";

ConversationTokens read_tokens(const JsonView& json) {
  ConversationTokens tokens;
  tokens.vocabulary = static_cast<uint32_t>(json[kVocabulary].integer(0, UINT32_MAX));
  const JsonView ids = json["ids"], replies = json["replies"];
  ids.expect_array();
  replies.expect_array();
  for (size_t i = 0; i < ids.size(); ++i) {
    const Json& id = ids.raw()[i];
    const bool plain = id.is_number_unsigned() && id.get<uint64_t>() <= INT32_MAX;
    if (!plain) ids[i].integer(0, INT32_MAX);  // says where it is
    tokens.ids.push_back(id.get<int32_t>());
  }
  int64_t behind = 0;
  for (size_t i = 0; i < replies.size(); ++i) {
    const JsonView range = replies[i];
    range.expect_array();
    const auto length = static_cast<int64_t>(tokens.ids.size());
    const int64_t begin = range[size_t{0}].integer(behind, length);
    const int64_t end = range[size_t{1}].integer(begin + 1, length);
    tokens.replies.push_back({begin, behind = end});
  }
  return tokens;
}

std::string tokens_json(const ConversationTokens& tokens) {
  Json replies = Json::array();
  for (const ConversationTokens::Range& range : tokens.replies)
    replies.push_back({range.begin, range.end});
  return concat("{\"", kVocabulary, "\": ", tokens.vocabulary,
                ", \"ids\": ", Json(tokens.ids).dump(), ", \"replies\": ", replies.dump(), "}");
}

std::string read_id(const JsonView& record) {
  for (const char* key : {"id", "question_id", "conversation_id"}) {
    if (!record.has(key)) continue;
    const JsonView id = record[key];
    return id.raw().is_number_integer() ? id.raw().dump() : text_of(id);
  }
  return {};
}

Conversation read_record(const JsonView& record, Format format) {
  record.expect_object();
  const char* key = entry_of(format).key;
  if (!record.has(key)) {
    for (const FormatName& other : kFormats) {
      if (other.key && record.has(other.key)) {
        record.refuse("a record of the format ", other.name, " in a file of ", name_of(format));
      }
    }
  }
  Conversation conversation;
  conversation.id = read_id(record);
  std::vector<Message>& messages = conversation.messages;
  if (format == Format::openai_messages) {
    read_openai(record, messages);
    if (record.has(kTokens)) conversation.tokens = read_tokens(record[kTokens]);
  } else if (format == Format::share_gpt) {
    read_share_gpt(record, messages);
  } else if (format == Format::alpaca) {
    read_alpaca(record, messages);
  } else if (format == Format::gsm8k) {
    messages.push_back({"user", text_of(record["question"])});
    messages.push_back({"assistant", text_of(record["answer"])});
  } else {
    const JsonView turns = record["turns"];
    turns.expect_array();
    for (size_t i = 0; i < turns.size(); ++i) messages.push_back({"user", text_of(turns[i])});
  }
  if (messages.empty()) record.refuse("the conversation has no message");
  return conversation;
}

void check_text(std::string_view text, std::string_view where) {
  const size_t valid = utf8_valid_prefix(text);
  check(valid == text.size(), where, ": not valid UTF-8 at byte ", valid);
  check(text.find('\0') == std::string_view::npos, where, ": there is a NUL");
}

// One reading of one file.
class Reader {
 public:
  Reader(const std::filesystem::path& path, const ReadConversationsOptions& options,
         const std::function<void(Conversation)>& sink)
      : name_(path.string()), skip_bad_(options.skip_bad), sink_(sink) {
    report_.format = options.format;
    if (options.format == Format::automatic && path.extension() == ".txt") {
      report_.format = Format::plain_prompts;
    }
  }

  ConversationReport read(const std::filesystem::path& path) {
    const MappedFile file(path);
    std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (report_.format != Format::plain_prompts && first != std::string_view::npos &&
        text[first] == '[') {
      read_array(text);
    } else {
      read_lines(text);
    }
    check(report_.conversations > 0, name_, " holds no conversation",
          report_.skipped
              ? concat("; ", report_.skipped, " records are bad, the first: ", report_.first_error)
              : "");
    return std::move(report_);
  }

 private:
  void read_lines(std::string_view text) {
    for (int64_t line_number = 1; !text.empty(); ++line_number) {
      const size_t end = std::min(text.find('\n'), text.size());
      std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      const bool plain = report_.format == Format::plain_prompts;
      if (plain ? line.empty() : line.find_first_not_of(" \t\r") == std::string_view::npos) {
        continue;
      }
      const std::string where = concat(name_, ":", line_number);
      take(where, [&] {
        check_text(line, where);
        if (plain) return Conversation{.messages = {{"user", std::string(line)}}};
        const Json record = parse_json(line, where, RepeatedNames::refused);
        return conversation_of(JsonView(record, where + ": "));
      });
    }
  }

  void read_array(std::string_view text) {
    check(static_cast<int64_t>(text.size()) <= kLargestArray, name_, " is a JSON array of ",
          text.size(), " bytes, more than the ", kLargestArray, " accepted; use JSON lines");
    check_text(text, name_);
    const Json records = parse_json(text, name_, RepeatedNames::refused);
    const JsonView view(records, name_ + ": ");
    for (size_t i = 0; i < records.size(); ++i) {
      take(concat(name_, ": [", i, "]"), [&] { return conversation_of(view[i]); });
    }
  }

  Conversation conversation_of(const JsonView& record) {
    if (report_.format == Format::automatic) report_.format = detect(record);
    return read_record(record, report_.format);
  }

  // What the sink throws is not the record's fault.
  template <class Make>
  void take(std::string where, const Make& make) {
    std::optional<Conversation> conversation;
    try {
      conversation = make();
    } catch (const Error& error) {
      if (!skip_bad_) throw;
      if (report_.skipped++ == 0) report_.first_error = error.what();
      return;
    }
    ++report_.conversations;
    conversation->where = std::move(where);
    sink_(std::move(*conversation));
  }

  std::string name_;
  bool skip_bad_;
  const std::function<void(Conversation)>& sink_;
  ConversationReport report_;
};

std::string json_string(const std::string& text, std::string_view what) {
  check_text(text, what);
  return Json(text).dump();
}

// "\"name\": value" of a field that readers do not know.
std::string extra_field(const ExtraFields::value_type& field,
                        std::initializer_list<std::string_view> known) {
  const auto& [name, value] = field;
  check(std::find(known.begin(), known.end(), name) == known.end(),
        "an extra field cannot be named \"", name, "\"");
  const std::string what = concat("the extra field \"", name, "\"");
  check_text(value, what);
  return json_string(name, what) + ": " + parse_json(value, what).dump();
}

}  // namespace

std::string_view name_of(ConversationFormat format) {
  return entry_of(format).name;
}

ConversationFormat parse_conversation_format(std::string_view name) {
  std::string known;
  for (const FormatName& entry : kFormats) {
    if (entry.name == name) return entry.format;
    known += concat(known.empty() ? "" : ", ", entry.name);
  }
  fail("there is no format of conversations '", name, "'; there are ", known);
}

ConversationReport for_each_conversation(const std::filesystem::path& path,
                                         const ReadConversationsOptions& options,
                                         const std::function<void(Conversation)>& sink) {
  return Reader(path, options, sink).read(path);
}

std::vector<Conversation> read_conversations(const std::filesystem::path& path,
                                             const ReadConversationsOptions& options,
                                             ConversationReport* report) {
  std::vector<Conversation> conversations;
  ConversationReport counts = for_each_conversation(path, options, [&](Conversation conversation) {
    conversations.push_back(std::move(conversation));
  });
  if (report) *report = std::move(counts);
  return conversations;
}

std::string conversation_line(const Conversation& conversation, std::span<const ExtraFields> extra,
                              const ExtraFields& first) {
  const std::vector<Message>& messages = conversation.messages;
  check(!messages.empty(), "the conversation \"", conversation.id, "\" has no message");
  check(extra.empty() || extra.size() == messages.size(), "a conversation of ", messages.size(),
        " messages got the extra fields of ", extra.size());
  std::string line = "{";
  for (const auto& field : first)
    line +=
        extra_field(field, {"id", "question_id", "conversation_id", "messages", kTokens}) + ", ";
  if (!conversation.id.empty()) line += "\"id\": " + json_string(conversation.id, "the id") + ", ";
  line += "\"messages\": [";
  for (size_t i = 0; i < messages.size(); ++i) {
    check(is_role(messages[i].role), "message ", i, ": the role \"", messages[i].role,
          "\" is not known");
    line += concat(i ? ", " : "", "{\"role\": \"", messages[i].role, "\", \"content\": ",
                   json_string(messages[i].content, concat("the content of message ", i)));
    for (const auto& field : extra.empty() ? ExtraFields{} : extra[i])
      line += ", " + extra_field(field, {"role", "content", "tool_calls", "function_call"});
    line += "}";
  }
  line += "]";
  if (conversation.tokens)
    line += concat(", \"", kTokens, "\": ", tokens_json(*conversation.tokens));
  return line + "}";
}

void write_conversations(const std::filesystem::path& path,
                         std::span<const Conversation> conversations,
                         std::span<const std::vector<ExtraFields>> extra) {
  check(!conversations.empty(), "there is no conversation to write to ", path.string());
  check(extra.empty() || extra.size() == conversations.size(), conversations.size(),
        " conversations got the extra fields of ", extra.size());
  AtomicFile file(path);
  for (size_t i = 0; i < conversations.size(); ++i) {
    file.write(conversation_line(conversations[i],
                                 extra.empty() ? std::span<const ExtraFields>{} : extra[i]) +
               "\n");
  }
  file.commit();
}

namespace {

// Digits at the beginning of a text, with commas and a decimal point among them.
struct Digits {
  std::string number;  // without commas
  size_t length = 0;   // of what was read
};

Digits leading_digits(std::string_view text) {
  Digits result;
  bool point = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool before_digit = i + 1 < text.size() && is_digit(text[i + 1]);
    if (c == ',' && !result.number.empty() && !point && before_digit) continue;
    if (c == '.' && !point && before_digit)
      point = true;
    else if (!is_digit(c))
      break;
    result.number += c;
    result.length = i + 1;
  }
  return result;
}

}  // namespace

std::optional<std::string> gsm8k_answer(std::string_view text) {
  constexpr std::string_view kMark = "####";
  const size_t mark = text.rfind(kMark);
  if (mark == std::string_view::npos) return std::nullopt;
  text.remove_prefix(mark + kMark.size());
  std::string sign;
  const auto take_sign = [&] {
    if (!text.starts_with('-') || !sign.empty()) return;
    sign = "-";
    text.remove_prefix(1);
  };
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  take_sign();
  if (text.starts_with('$')) text.remove_prefix(1);
  take_sign();
  const std::string number = leading_digits(text).number;
  if (number.empty()) return std::nullopt;
  return sign + number;
}

std::optional<std::string> final_number(std::string_view text) {
  if (const auto answer = gsm8k_answer(text)) return answer;
  std::optional<std::string> last;
  for (size_t i = 0; i < text.size();) {
    const Digits digits = leading_digits(text.substr(i));
    if (digits.number.empty()) {
      ++i;
      continue;
    }
    // A minus sign that stands between two numbers subtracts.
    const std::string_view before = text.substr(0, i);
    const bool negative = before.ends_with('-') && (i == 1 || !is_digit(text[i - 2]));
    last = (negative ? "-" : "") + digits.number;
    i += digits.length;
  }
  return last;
}

}  // namespace binade::data
