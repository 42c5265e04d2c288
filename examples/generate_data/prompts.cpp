#include "prompts.h"

#include <binade/core/file.h>
#include <binade/core/text.h>

namespace binade::examples {

namespace {

constexpr size_t kPlacesShown = 5;
constexpr int64_t kMostPrompts = 1 << 24;  // numbers that draws can be told apart by

class PromptReader {
 public:
  PromptReader(const GenerateDataOptions& options, const heads::decoding::Spelling& spelling,
               int64_t capacity)
      : options_(options), spelling_(spelling), capacity_(capacity) {}

  void add(heads::decoding::Dialogue dialogue) {
    std::vector<int32_t> ids = dialogue.next_prompt().value();
    const auto length = static_cast<int64_t>(ids.size());
    check(length > 0, dialogue.where(), ": the prompt has no tokens");
    check(++count_ <= kMostPrompts, "there are more than ", kMostPrompts,
          " prompts; give --limit, or one part of them at a time");
    result_.checksum = crc32c(&length, sizeof(length), result_.checksum);
    result_.checksum = crc32c(ids.data(), ids.size() * sizeof(int32_t), result_.checksum);
    if (length + options_.max_new_tokens - 1 > capacity_) {
      if (result_.places.size() < kPlacesShown)
        result_.places.push_back(concat(dialogue.where(), " (", length, ")"));
      ++result_.too_long;
      ids.clear();
    }
    result_.longest = std::max(result_.longest, static_cast<int64_t>(ids.size()));
    result_.all.push_back({std::move(dialogue), std::move(ids)});
  }

  void read(const std::string& file) {
    const data::ReadConversationsOptions reading{
        .format = data::parse_conversation_format(options_.format), .skip_bad = options_.skip_bad};
    const data::ConversationReport report =
        data::for_each_conversation(file, reading, [&](data::Conversation conversation) {
          if (full()) return;
          try {
            add({std::move(conversation), options_.turns, spelling_});
          } catch (const Error&) {
            if (!options_.skip_bad) throw;
            ++result_.bad;
          }
        });
    result_.bad += report.skipped;
  }

  bool full() const { return options_.limit > 0 && count_ >= options_.limit; }
  Prompts take() { return std::move(result_); }

 private:
  const GenerateDataOptions& options_;
  const heads::decoding::Spelling& spelling_;
  int64_t capacity_, count_ = 0;
  Prompts result_;
};

}  // namespace

Prompts read_prompts(const GenerateDataOptions& options, const LoadedModel& loaded,
                     const heads::decoding::Spelling& spelling, int64_t capacity) {
  PromptReader reader(options, spelling, capacity);
  if (options.from_nothing > 0) {
    const std::vector<int32_t> opening = encode_text(loaded, "");
    for (int64_t i = 0; i < options.from_nothing; ++i) reader.add({opening, spelling});
  }
  for (const std::string& file : options.prompts)
    if (!reader.full()) reader.read(file);
  Prompts prompts = reader.take();
  check(!prompts.all.empty(), "there is no prompt left: all ", prompts.bad, " records are bad");
  check(static_cast<int64_t>(prompts.all.size()) > prompts.too_long, "every prompt and its ",
        options.max_new_tokens, " new tokens are longer than ", capacity,
        prompts.places.empty() ? "" : concat(" tokens, the first: ", prompts.places[0]),
        "; lower --max-new-tokens or raise --max-length");
  return prompts;
}

}  // namespace binade::examples
