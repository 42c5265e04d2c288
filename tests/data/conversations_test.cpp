#include "shared.h"
#include "temporary_folder.h"

#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/data/conversations.h>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using Format = ConversationFormat;
using Messages = std::vector<Message>;

namespace {

std::vector<Conversation> read(std::string_view content, Format format = Format::automatic,
                               const std::string& name = "chats.jsonl") {
  const TemporaryFolder folder;
  return read_conversations(folder.write(name, content), {.format = format});
}

Messages messages_of(std::string_view record) {
  const auto conversations = read(record);
  REQUIRE(conversations.size() == 1);
  return conversations[0].messages;
}

// The error without the path of the folder.
std::string error_of(std::string_view content, Format format = Format::automatic,
                     const std::string& name = "chats.jsonl") {
  const TemporaryFolder folder;
  try {
    read_conversations(folder.write(name, content), {.format = format});
  } catch (const Error& error) {
    std::string text = error.what();
    const std::string path = folder.path().string() + "/";
    for (size_t at; (at = text.find(path)) != std::string::npos;) text.erase(at, path.size());
    return text;
  }
  return "no error";
}

constexpr std::string_view kGood = R"({"messages": [{"role": "user", "content": "Hi"}]})";

}  // namespace

TEST_CASE("every format of conversations is detected and read", "[data][conversations]") {
  CHECK(messages_of(R"({"messages": [{"role": "system", "content": "S"},)"
                    R"( {"role": "user", "content": [{"type": "text", "text": " a"},)"
                    R"( {"type": "text", "text": "b "}]},)"
                    R"( {"role": "assistant", "content": "c", "loss": true}]})") ==
        Messages{{"system", "S"}, {"user", " ab "}, {"assistant", "c"}});
  CHECK(messages_of(R"({"conversations": [{"from": "system", "value": "S"},)"
                    R"( {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},)"
                    R"( {"from": "user", "value": "c"}, {"from": "assistant", "value": "d"}]})") ==
        Messages{
            {"system", "S"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  CHECK(messages_of(R"({"instruction": "Add.", "input": "1 2", "output": "3", "system": "S"})") ==
        Messages{{"system", "S"}, {"user", "Add.\n1 2"}, {"assistant", "3"}});
  CHECK(messages_of(R"({"instruction": " Go ", "input": ""})") == Messages{{"user", " Go "}});
  CHECK(messages_of(R"({"question": "Q", "answer": "A #### 1"})") ==
        Messages{{"user", "Q"}, {"assistant", "A #### 1"}});
  CHECK(messages_of(R"({"turns": ["a", "b"]})") == Messages{{"user", "a"}, {"user", "b"}});
  CHECK(read("one\r\n\n two \n", Format::automatic, "prompts.txt") ==
        std::vector<Conversation>{{{}, {{"user", "one"}}}, {{}, {{"user", " two "}}}});
  CHECK(read("{}", Format::plain_prompts)[0].messages == Messages{{"user", "{}"}});
}

TEST_CASE("ids are kept as text", "[data][conversations]") {
  CHECK(read(R"({"id": "x7", "turns": ["a"]})")[0].id == "x7");
  CHECK(read(R"({"question_id": 81, "turns": ["a"]})")[0].id == "81");
  CHECK(read(R"({"turns": ["a"]})")[0].id.empty());
}

TEST_CASE("an array, JSON lines, and a byte order mark are understood", "[data][conversations]") {
  const std::string record(kGood);
  CHECK(read("[" + record + ",\n " + record + "]").size() == 2);
  CHECK(read("\n" + record + "\r\n  \n" + record).size() == 2);
  CHECK(read("\xEF\xBB\xBF" + record).size() == 1);
  CHECK(read("\xEF\xBB\xBFprompt", Format::plain_prompts)[0].messages[0].content == "prompt");
}

TEST_CASE("the text of conversations is not altered", "[data][conversations]") {
  // Decomposed and composed letters, capitals, spaces at both ends, a separator, a line end.
  const std::string text = " \tE\xCC\x81 \xC3\x89 \xEF\xBC\xA1 I\xE2\x80\xA8\r\n ";
  const TemporaryFolder folder;
  const std::vector<Conversation> conversations = {
      {"first", {{"system", ""}, {"user", text}, {"assistant", "\"\\\x01\x7F\xF0\x9F\x98\x80"}}},
      {"", {{"developer", "x"}, {"user", "y"}, {"user", "z"}}}};
  const auto path = folder / "written.jsonl";
  write_conversations(path, conversations);
  CHECK(read_conversations(path) == conversations);
  const std::vector<std::vector<ExtraFields>> extra = {
      {{}, {{"loss", "false"}}, {{"loss", "true"}, {"ids", "[1, 2]"}}}, {{}, {}, {}}};
  write_conversations(path, conversations, extra);
  CHECK(read_conversations(path) == conversations);
  CHECK(conversation_line({"i", {{"user", "a"}}}, std::vector<ExtraFields>{{{"ids", "[1, 2]"}}}) ==
        R"({"id": "i", "messages": [{"role": "user", "content": "a", "ids": [1,2]}]})");
}

TEST_CASE("what could not be read back is not written", "[data][conversations][bad_input]") {
  using Extra = std::vector<ExtraFields>;
  const Conversation good{"", {{"user", "a"}}};
  CHECK_THROWS_WITH(conversation_line({"x", {}}), Contains("no message"));
  CHECK_THROWS_WITH(conversation_line({"", {{"bot", "a"}}}), Contains("role \"bot\""));
  CHECK_THROWS_WITH(conversation_line({"", {{"user", "\xFF"}}}), Contains("not valid UTF-8"));
  CHECK_THROWS_WITH(conversation_line({"", {{"user", std::string(1, '\0')}}}), Contains("NUL"));
  CHECK_THROWS_WITH(conversation_line(good, Extra{{{"content", "1"}}}), Contains("\"content\""));
  CHECK_THROWS_WITH(conversation_line(good, Extra{{{"x", "{"}}}), Contains("not valid JSON"));
  CHECK_THROWS_WITH(conversation_line(good, Extra(2)), Contains("extra fields of 2"));
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(write_conversations(folder / "x", {}), Contains("no conversation to write"));
}

TEST_CASE("a bad record is named by file and line or index", "[data][conversations][bad_input]") {
  const std::string good(kGood);
  const auto line_2 = [&](std::string_view record) {
    return error_of(good + "\n" + std::string(record));
  };
  CHECK_THAT(line_2("{"), StartsWith("chats.jsonl:2: not valid JSON"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "user", "content": "a", "content": "b"}]})"),
             StartsWith("chats.jsonl:2 names \"content\" twice"));
  CHECK_THAT(line_2("{\"messages\": \"\xFF\"}"),
             StartsWith("chats.jsonl:2: not valid UTF-8 at byte 14"));
  CHECK_THAT(line_2(std::string("{}\0", 3)), StartsWith("chats.jsonl:2: there is a NUL"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "user", "content": "\u0000"}]})"),
             StartsWith("chats.jsonl:2: messages[0].content: the text has a NUL"));
  CHECK_THAT(line_2("7"), StartsWith("chats.jsonl:2: expected an object, found number"));
  CHECK_THAT(line_2("{}"), Contains("\"messages\" is missing"));
  CHECK_THAT(line_2(R"({"messages": []})"), Contains("no message"));
  CHECK_THAT(line_2(R"({"messages": {}})"), Contains("messages: expected an array"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "user"}]})"),
             StartsWith("chats.jsonl:2: messages[0]: \"content\" is missing"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "user", "content": 1}]})"),
             Contains("messages[0].content: expected a string, found number"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "robot", "content": ""}]})"),
             Contains("messages[0].role: the role \"robot\" is not known"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "tool", "content": ""}]})"), Contains("tools"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "assistant", "content": "", "tool_calls": []}]})"),
             Contains("\"tool_calls\" is not supported"));
  CHECK_THAT(line_2(R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})"),
             Contains("a part of type \"image_url\""));
  CHECK_THAT(line_2(R"({"turns": ["a"]})"),
             Contains("a record of the format mt_bench in a file of openai_messages"));
  const std::string array =
      error_of("[" + good + ", {\"messages\": [3]}]", Format::automatic, "c.json");
  CHECK_THAT(array, StartsWith("c.json: [1].messages[0]: expected an object"));
}

TEST_CASE("ShareGPT's turns alternate", "[data][conversations][bad_input]") {
  const auto chat = [](std::vector<std::string> from) {
    std::string record;
    for (const std::string& name : from) {
      record += (record.empty() ? "" : ", ") + ("{\"from\": \"" + name + "\", \"value\": \"\"}");
    }
    return error_of("{\"conversations\": [" + record + "]}");
  };
  CHECK(chat({"system", "human", "gpt", "human"}) == "no error");
  CHECK_THAT(chat({"gpt"}), Contains("\"gpt\" is out of order; expected the user"));
  CHECK_THAT(chat({"human", "human"}), Contains("conversations[1].from") && Contains("assistant"));
  CHECK_THAT(chat({"human", "gpt", "system"}), Contains("out of order"));
  CHECK_THAT(chat({"system", "system"}), Contains("out of order"));
  CHECK_THAT(chat({"tool"}), Contains("role \"tool\" is not known"));
}

TEST_CASE("a format that cannot be told is refused", "[data][conversations][bad_input]") {
  CHECK_THAT(error_of(R"({"prompt": "x"})"), Contains("no known format"));
  CHECK_THAT(error_of(R"({"messages": [], "turns": []})"), Contains("name the format"));
  CHECK_THAT(error_of(R"({"instruction": "x", "history": [["a", "b"]]})"), Contains("history"));
  CHECK_THAT(error_of(""), Contains("holds no conversation"));
  CHECK_THAT(error_of("[]"), Contains("holds no conversation"));
  CHECK_THAT(error_of("[{"), Contains("not valid JSON"));
  CHECK_THROWS_WITH(read_conversations("absent.jsonl"), Contains("absent.jsonl"));
}

TEST_CASE("bad records are skipped and counted on request", "[data][conversations]") {
  const TemporaryFolder folder;
  const std::string good(kGood);
  const auto path =
      folder.write("x.jsonl", "{\n" + good + "\n{\"messages\": []}\n" + good + "\n\xFF\n");
  ConversationReport report;
  CHECK(read_conversations(path, {.skip_bad = true}, &report).size() == 2);
  CHECK(report.conversations == 2);
  CHECK(report.skipped == 3);
  CHECK(report.format == Format::openai_messages);
  CHECK_THAT(report.first_error, Contains("x.jsonl:1: not valid JSON"));
  const auto none = folder.write("none.jsonl", "{\n{\n");
  CHECK_THROWS_WITH(read_conversations(none, {.skip_bad = true}), Contains("2 records are bad"));
  // An error of the one who takes them is not the file's.
  CHECK_THROWS_WITH(
      for_each_conversation(path, {.skip_bad = true}, [](const Conversation&) { fail("mine"); }),
      Contains("mine"));
}

TEST_CASE("a conversation keeps its tokens through a file", "[data][conversations]") {
  const TemporaryFolder folder;
  Conversation conversation{.messages = {{"user", "Hi"}, {"assistant", "Yo"}}};
  conversation.tokens = {
      .ids = {7, 0, 2147483647, 7}, .replies = {{1, 2}, {2, 4}}, .vocabulary = 4294967295u};
  const std::vector<Conversation> conversations = {conversation,
                                                   {.messages = {{"user", "no tokens"}}}};
  write_conversations(folder / "chats.jsonl", conversations);
  CHECK(read_conversations(folder / "chats.jsonl") == conversations);
  CHECK(
      conversation_line(conversation, {}, {{"prompt", "12"}}) ==
      R"({"prompt": 12, "messages": [{"role": "user", "content": "Hi"}, )"
      R"({"role": "assistant", "content": "Yo"}], "binade_tokens": {)"
      R"("vocabulary_crc32c": 4294967295, "ids": [7,0,2147483647,7], "replies": [[1,2],[2,4]]}})");
  CHECK_THROWS_WITH(conversation_line(conversation, {}, {{"binade_tokens", "{}"}}),
                    Contains("\"binade_tokens\""));
}

TEST_CASE("tokens of a conversation that cannot be are refused",
          "[data][conversations][bad_input]") {
  const auto with = [](std::string_view tokens) {
    return error_of(concat(R"({"messages": [{"role": "user", "content": "a"}], "binade_tokens": )",
                           tokens, "}"));
  };
  const auto replies = [&](std::string_view ranges) {
    return with(concat(R"({"vocabulary_crc32c": 1, "ids": [1, 2, 3], "replies": )", ranges, "}"));
  };
  CHECK(replies("[[1, 3]]") == "no error");
  CHECK(replies("[]") == "no error");
  CHECK_THAT(replies("[[1, 4]]"), Contains("replies[0][1]") && Contains("between 2 and 3"));
  CHECK_THAT(replies("[[1, 1]]"), Contains("between 2 and 3"));
  CHECK_THAT(replies("[[0, 2], [1, 3]]"), Contains("replies[1][0]"));
  CHECK_THAT(replies("[[-1, 2]]"), Contains("replies[0][0]"));
  CHECK_THAT(replies("[[1]]"), Contains("element 1 is missing"));
  CHECK_THAT(replies("[1]"), Contains("expected an array"));
  CHECK_THAT(with(R"({"ids": [1], "replies": []})"), Contains("\"vocabulary_crc32c\" is missing"));
  CHECK_THAT(with(R"({"vocabulary_crc32c": 4294967296, "ids": [1], "replies": []})"),
             Contains("vocabulary_crc32c"));
  for (const char* id : {"-1", "2147483648", "1.5", "\"a\"", "null"})
    CHECK_THAT(with(concat(R"({"vocabulary_crc32c": 1, "ids": [1, )", id, R"(], "replies": []})")),
               Contains("chats.jsonl:1") && Contains("ids[1]"));
}

TEST_CASE("a conversation knows its place", "[data][conversations]") {
  const TemporaryFolder folder;
  const std::string record(kGood);
  const auto place = [](const std::filesystem::path& path, size_t i) {
    return read_conversations(path)[i].where;
  };
  const auto lines = folder.write("lines.jsonl", record + "\n\n" + record);
  CHECK(place(lines, 1) == lines.string() + ":3");
  const auto array = folder.write("array.json", "[" + record + ", " + record + "]");
  CHECK(place(array, 1) == array.string() + ": [1]");
  const auto text = folder.write("prompts.txt", "a\n\nb\n");
  CHECK(place(text, 1) == text.string() + ":3");
}

TEST_CASE("formats of conversations are known by their names", "[data][conversations]") {
  for (const Format format :
       {Format::automatic, Format::openai_messages, Format::share_gpt, Format::alpaca,
        Format::gsm8k, Format::mt_bench, Format::plain_prompts})
    CHECK(parse_conversation_format(name_of(format)) == format);
  CHECK_THROWS_WITH(parse_conversation_format("jsonl"), Contains("openai_messages"));
}

TEST_CASE("the number of a GSM8K answer is found", "[data][conversations]") {
  const auto answer = [](std::string_view text) { return gsm8k_answer(text).value_or("none"); };
  CHECK(answer("x\n#### 42") == "42");
  CHECK(answer("#### 1,234,567") == "1234567");
  CHECK(answer("#### -3.50 eggs") == "-3.50");
  CHECK(answer("#### $18.") == "18");
  CHECK(answer("#### -$5") == "-5");
  CHECK(answer("#### $-5") == "-5");
  CHECK(answer("#### 1 then #### 2") == "2");
  CHECK(answer("#### ") == "none");
  CHECK(answer("#### --5") == "none");
  CHECK(answer("#### many 5") == "none");
  CHECK(answer("42") == "none");
}

TEST_CASE("the number that a reply comes to is found", "[data][conversations]") {
  const auto number = [](std::string_view text) { return final_number(text).value_or("none"); };
  CHECK(number("She makes 9 * 2 = $18 every day.") == "18");
  CHECK(number("It is 7. In short:\n#### 1,234") == "1234");
  CHECK(number("5 apples, 3,000 pears") == "3000");
  CHECK(number("5, 3") == "3");
  CHECK(number("costs $2.50.") == "2.50");
  CHECK(number("16-3") == "3");
  CHECK(number("a loss of -3") == "-3");
  CHECK(number("-3") == "-3");
  CHECK(number("#### none, but 4") == "4");
  CHECK(number("3.") == "3");
  CHECK(number("") == "none");
  CHECK(number("many") == "none");
}

TEST_CASE("published prompt files are read", "[data][conversations]") {
  const auto gsm8k = test::shared_path("data/prompts/gsm8k/test.jsonl");
  const auto mt_bench = test::shared_path("data/prompts/mt_bench/question.jsonl");
  const auto alpaca = test::shared_path("data/prompts/alpaca_en_999.json");
  if (!gsm8k || !mt_bench || !alpaca) return;
  const auto problems = read_conversations(*gsm8k);
  CHECK(problems.size() == 1319);
  for (const Conversation& problem : problems) CHECK(gsm8k_answer(problem.messages[1].content));
  CHECK(gsm8k_answer(problems[0].messages[1].content) == "18");
  const auto questions = read_conversations(*mt_bench);
  CHECK(questions.size() == 80);
  CHECK(questions[0].id == "81");
  CHECK(questions[0].messages.size() == 2);
  ConversationReport report;
  CHECK(read_conversations(*alpaca, {}, &report).size() == 999);
  CHECK(report.format == Format::alpaca);
}
