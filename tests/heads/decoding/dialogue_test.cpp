// Conversations whose replies a model writes, and what they teach.
#include <binade/heads/decoding/dialogue.h>

#include <catch2/catch.hpp>

#include <binade/data/byte_tokenizer.h>

#include "temporary_folder.h"

using namespace binade;
using namespace binade::heads::decoding;
using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;
using Messages = std::vector<data::Message>;

namespace {

// "|" ends a turn.
constexpr const char* kTemplate =
    "{%- for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

const data::ByteTokenizer kBytes;
const data::ChatTemplate kChat = data::ChatTemplate::parse(kTemplate);
const Spelling kSpelling(kBytes, &kChat);
const Spelling kPlain(kBytes, nullptr);

Ids ids_of(std::string_view text) {
  return kBytes.encode(text);
}
std::string text_of(const std::optional<Ids>& ids) {
  return ids ? kBytes.decode(*ids) : "nothing";
}
Dialogue dialogue_of(Messages messages, int64_t turns = 0, const Spelling& spelling = kSpelling) {
  return {data::Conversation{.id = "x", .messages = std::move(messages), .where = "chats.jsonl:7"},
          turns, spelling};
}
// The last prompt when every turn gets the reply "ok|".
std::string last_prompt(Messages messages, int64_t turns = 0) {
  Dialogue dialogue = dialogue_of(std::move(messages), turns);
  std::string last;
  while (const auto prompt = dialogue.next_prompt()) {
    last = text_of(prompt);
    dialogue.add_reply(ids_of("ok|"), true);
  }
  return last;
}

}  // namespace

TEST_CASE("a dialogue's tokens are those that the model read and wrote", "[heads][dialogue]") {
  Dialogue dialogue = dialogue_of({{"system", "S"}, {"user", "Hi"}, {"user", "More"}});
  CHECK(text_of(dialogue.next_prompt()) == "[system]S|[user]Hi|[assistant]");
  dialogue.add_reply(ids_of("Yo|"), true);
  CHECK(text_of(dialogue.next_prompt()) ==
        "[system]S|[user]Hi|[assistant]Yo|[user]More|[assistant]");
  dialogue.add_reply(ids_of("no end"), false);
  CHECK_FALSE(dialogue.next_prompt());
  CHECK(dialogue.reply_tokens() == 9);

  const data::Conversation said = dialogue.conversation();
  CHECK(said.id == "x");
  CHECK(said.messages == Messages{{"system", "S"},
                                  {"user", "Hi"},
                                  {"assistant", "Yo"},
                                  {"user", "More"},
                                  {"assistant", "no end"}});
  REQUIRE(said.tokens);
  CHECK(said.tokens->vocabulary == data::vocabulary_fingerprint(kBytes));
  CHECK(kBytes.decode(said.tokens->ids) ==
        "[system]S|[user]Hi|[assistant]Yo|[user]More|[assistant]no end");
  // What the packer makes of it is what it makes of the text, but for the end that never came.
  ConversationEncoder encoder(kBytes, "nowhere");
  const Document document = encoder.encode(said);
  Document from_text = encode_chat(kBytes, kChat, said.messages);
  from_text.ids.pop_back();
  from_text.reply.pop_back();
  CHECK(document.ids == from_text.ids);
  CHECK(document.reply == from_text.reply);
}

TEST_CASE("tokens that no encoder gives for their text stay as they are", "[heads][dialogue]") {
  // A character cut in half, a NUL, an end of text in the middle.
  const Ids odd = {0xC3, 0, 256, 'a', '|'};
  Dialogue dialogue = dialogue_of({{"user", "Hi"}, {"user", "More"}});
  dialogue.next_prompt();
  dialogue.add_reply(odd, true);
  const Ids prompt = dialogue.next_prompt().value();
  const Ids first = ids_of("[user]Hi|[assistant]");
  CHECK(Ids(prompt.begin() + static_cast<int64_t>(first.size()),
            prompt.begin() + static_cast<int64_t>(first.size() + odd.size())) == odd);
  const data::Conversation said = dialogue.conversation();
  CHECK(said.messages.size() == 2);  // the second question has no reply
  const std::string content = said.messages[1].content;
  CHECK(content.starts_with("\xEF\xBF\xBD\xEF\xBF\xBD"));
  CHECK(content.ends_with("a"));
  const test::TemporaryFolder folder;
  data::write_conversations(folder / "a.jsonl", std::vector<data::Conversation>{said});
  const data::Conversation read = data::read_conversations(folder / "a.jsonl")[0];
  CHECK(read == said);
  const Document document = ConversationEncoder(kBytes, "nowhere").encode(read);
  CHECK(Ids(document.ids.end() - 5, document.ids.end()) == odd);
}

TEST_CASE("a dialogue replaces the replies of its file", "[heads][dialogue]") {
  CHECK(last_prompt({{"user", "a"}, {"assistant", "theirs"}, {"user", "b"}}) ==
        "[user]a|[assistant]ok|[user]b|[assistant]");
  // Where there are replies, messages that stand together get one.
  CHECK(last_prompt({{"user", "a"}, {"user", "b"}, {"assistant", "theirs"}}) ==
        "[user]a|[user]b|[assistant]");
  CHECK(last_prompt({{"user", "a"}, {"user", "b"}}) == "[user]a|[assistant]ok|[user]b|[assistant]");
  CHECK(last_prompt({{"user", "a"}, {"user", "b"}}, 1) == "[user]a|[assistant]");
  CHECK(last_prompt({{"user", "a"}, {"assistant", "x"}, {"system", "S"}, {"user", "b"}}) ==
        "[user]a|[assistant]ok|[system]S|[user]b|[assistant]");
}

TEST_CASE("without a template a prompt is continued as it is", "[heads][dialogue]") {
  Dialogue dialogue = dialogue_of({{"user", " Once"}}, 0, kPlain);
  const Ids prompt = dialogue.next_prompt().value();
  CHECK(prompt == kBytes.encode(" Once", {.add_special_tokens = true}));
  dialogue.add_reply(ids_of(" upon"), false);
  CHECK(dialogue.conversation().messages == Messages{{"user", " Once"}, {"assistant", " upon"}});

  Dialogue from_nothing({256}, kPlain);
  CHECK(from_nothing.next_prompt() == Ids{256});
  from_nothing.add_reply(ids_of("So."), false);
  const data::Conversation said = from_nothing.conversation();
  CHECK(said.messages == Messages{{"assistant", "So."}});
  CHECK(ConversationEncoder(kBytes, "nowhere").encode(said).reply ==
        std::vector<bool>{false, true, true, true});
}

TEST_CASE("what asks for no reply, or for what nobody can spell, is named", "[heads][dialogue]") {
  CHECK_THROWS_WITH(dialogue_of({{"assistant", "x"}}),
                    Contains("chats.jsonl:7") && Contains("asks for a reply"));
  CHECK_THROWS_WITH(dialogue_of({{"system", "S"}, {"user", "a"}}, 0, kPlain),
                    Contains("chats.jsonl:7") && Contains("chat template"));
  const data::ChatTemplate strict = data::ChatTemplate::parse(
      "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x");
  const Spelling refusing(kBytes, &strict);
  Dialogue dialogue = dialogue_of({{"system", "S"}, {"user", "a"}}, 0, refusing);
  CHECK_THROWS_WITH(dialogue.next_prompt(), Contains("chats.jsonl:7") && Contains("no system"));
}

TEST_CASE("tokens of another vocabulary are not taken; their text is", "[heads][dialogue]") {
  const test::TemporaryFolder folder;
  folder.write("chat_template.jinja", kTemplate);
  data::Conversation said{.messages = {{"user", "a"}, {"assistant", "b"}}};
  said.tokens = {.ids = {1, 2, 3}, .replies = {{1, 3}}, .vocabulary = kSpelling.vocabulary + 1};
  ConversationEncoder encoder(kBytes, folder.path());
  CHECK(kBytes.decode(encoder.encode(said).ids) == "[user]a|[assistant]b|");
  CHECK(encoder.foreign() == 1);
  said.tokens->vocabulary = kSpelling.vocabulary;
  CHECK(encoder.encode(said).ids == Ids{1, 2, 3});
  CHECK(encoder.foreign() == 1);
  said.tokens.reset();
  CHECK_THROWS_WITH(ConversationEncoder(kBytes, folder / "none").encode(said),
                    Contains("template"));
}
