#include <binade/infer/batch_generation.h>

#include <algorithm>
#include <bit>

namespace binade::infer {
namespace {

constexpr int64_t kPlaces = 1 << 24;
constexpr int64_t kShortestPass = 16;  // tokens a row

DecoderOptions decoder_options(const BatchGenerateOptions& options) {
  check(options.slots > 0 && options.max_new_tokens > 0 && options.steps_ahead >= 0 &&
            options.prefill_rows >= 0 && options.prefill_tokens > 0,
        "batched generation needs slots, new tokens and room for prompts, got ", options.slots,
        " slots, ", options.max_new_tokens, " new tokens, ", options.steps_ahead, " steps ahead, ",
        options.prefill_rows, " rows and ", options.prefill_tokens, " tokens a pass");
  DecoderOptions decoding;
  decoding.slots = options.slots;
  decoding.capacity = options.capacity;
  decoding.choice = {.sampling = options.sampling, .stop_ids = options.stop_ids};
  return decoding;
}

}  // namespace

BatchGenerator::BatchGenerator(const nn::CausalLm& model, const BatchGenerateOptions& options)
    : options_(options),
      decoder_(model, decoder_options(options)),
      few_shapes_(options.few_shapes.value_or(model.device().is_cuda())),
      slots_(static_cast<size_t>(options.slots)) {
  if (options_.prefill_rows == 0) options_.prefill_rows = std::max<int64_t>(options.slots / 16, 1);
  options_.prefill_rows = std::min(options_.prefill_rows, options.slots);
  for (auto slot = static_cast<int32_t>(options.slots); slot-- > 0;) free_.push_back(slot);
}

bool BatchGenerator::fits(int64_t prompt_tokens) const {
  return options_.max_new_tokens <= decoder_.room(prompt_tokens);
}

void BatchGenerator::add(Text text) {
  const auto length = static_cast<int64_t>(text.prompt.size());
  check(length > 0, "the prompt of text ", text.number, " is empty; begin with the BOS token");
  check(text.number >= 0 && text.number < kPlaces && text.drawn >= 0 &&
            text.drawn <= INT32_MAX - options_.max_new_tokens,
        "texts are numbered below 2^24 and draw fewer than 2^31 tokens, got number ", text.number,
        " with ", text.drawn, " drawn");
  decoder_.check_room(length, options_.max_new_tokens);
  waiting_[padded_length(length)].push_back(std::move(text));
  ++waiting_count_;
}

// At most four lengths from one power of two to the next.
int64_t BatchGenerator::padded_length(int64_t tokens) const {
  if (tokens <= kShortestPass) return std::min(kShortestPass, decoder_.capacity());
  const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(tokens - 1)));
  const int64_t step = std::max<int64_t>(power / 4, 1);
  return std::min((tokens + step - 1) / step * step, decoder_.capacity());
}

int64_t BatchGenerator::rows_of_pass(int64_t length) const {
  int64_t rows = options_.prefill_rows;
  while (rows > 1 && rows * length > options_.prefill_tokens) rows /= 2;
  return rows;
}

BatchGenerator::Text BatchGenerator::take_longest() {
  std::deque<Text>& longest = waiting_.begin()->second;
  Text text = std::move(longest.front());
  longest.pop_front();
  if (longest.empty()) waiting_.erase(waiting_.begin());
  --waiting_count_;
  return text;
}

// A pass over waiting prompts, if there are slots for it; their first tokens are chosen.
bool BatchGenerator::fill_slots(int64_t round) {
  if (waiting_count_ == 0) return false;
  const int64_t length = waiting_.begin()->first, rows = rows_of_pass(length);
  const int64_t texts = std::min(rows, waiting_count_);
  if (static_cast<int64_t>(free_.size()) < (few_shapes_ ? rows : texts)) return false;
  std::vector<int32_t> slots;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<SlotStates::Start> starts;
  for (int64_t row = 0; row < texts; ++row) {
    Text text = take_longest();
    slots.push_back(free_.back());
    free_.pop_back();
    const auto drawn = static_cast<int32_t>(text.drawn);
    starts.push_back({.limit = drawn + static_cast<int32_t>(options_.max_new_tokens),
                      .place = static_cast<int32_t>(text.number),
                      .drawn = drawn});
    Slot& slot = slots_[static_cast<size_t>(slots.back())];
    slot = {true, round, {.number = text.number, .prompt = text.prompt}};
    slot.reply.tokens.reserve(static_cast<size_t>(options_.max_new_tokens));
    counts_.prompt_tokens += static_cast<int64_t>(text.prompt.size());
    prompts.push_back(std::move(text.prompt));
  }
  // Rows that nobody waits for, in slots that stay free.
  for (int64_t row = texts; few_shapes_ && row < rows; ++row) {
    slots.push_back(free_[free_.size() - 1 - static_cast<size_t>(row - texts)]);
    prompts.push_back({0});
    starts.push_back({.limit = 1});
  }
  decoder_.begin(slots, prompts, std::move(starts), few_shapes_ ? length : 0);
  ++counts_.passes;
  int64_t longest = few_shapes_ ? length : 0;
  for (const auto& prompt : prompts)
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  counts_.padding += longest * static_cast<int64_t>(prompts.size());
  for (int64_t row = 0; row < texts; ++row)
    counts_.padding -= static_cast<int64_t>(prompts[static_cast<size_t>(row)].size());
  return true;
}

// The newest tokens of all slots, as they were in that round.
void BatchGenerator::read(const Array& packed, int64_t round,
                          const std::function<void(Reply)>& on_reply) {
  const std::vector<SlotStates::Seen> seen = SlotStates::read(packed);
  for (size_t s = 0; s < seen.size(); ++s) {
    Slot& slot = slots_[s];
    if (!slot.busy || slot.first_round > round) continue;
    slot.reply.tokens.push_back(seen[s].token);
    ++counts_.reply_tokens;
    if (seen[s].running) continue;
    slot.busy = false;
    free_.push_back(static_cast<int32_t>(s));
    const std::vector<int32_t>& stops = options_.stop_ids;
    slot.reply.stopped = std::find(stops.begin(), stops.end(), seen[s].token) != stops.end();
    ++counts_.replies;
    on_reply(std::move(slot.reply));
  }
}

bool BatchGenerator::run(const std::function<void(Reply)>& on_reply,
                         const std::function<bool()>& go_on) {
  const auto busy = [&] { return free_.size() < slots_.size(); };
  bool stopped = false;
  // In a round every running slot gets one token, be it by the step or as the first of its text.
  int64_t round = 0, rounds_read = 0;
  const auto read_but = [&](int64_t latest) {
    for (const Array& packed : downloads_.take_but(static_cast<size_t>(latest)))
      read(packed, rounds_read++, on_reply);
  };
  for (;; ++round) {
    while (fill_slots(round)) {
    }
    if (!busy()) break;
    downloads_.download(decoder_.choices().packed());
    read_but(options_.steps_ahead);
    stopped = go_on && !go_on();
    if (stopped) break;
    if (!busy()) continue;
    decoder_.step();
    ++counts_.steps;
  }
  read_but(0);  // page-locked memory must outlive the copies into it
  for (size_t s = 0; s < slots_.size(); ++s) {
    if (!slots_[s].busy) continue;
    slots_[s].busy = false;
    free_.push_back(static_cast<int32_t>(s));
  }
  return !stopped;
}

}  // namespace binade::infer
