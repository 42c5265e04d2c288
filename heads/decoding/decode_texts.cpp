#include <binade/heads/decoding/decode_texts.h>

#include <algorithm>
#include <chrono>
#include <deque>

#include <binade/core/error.h>
#include <binade/core/transfer.h>

namespace binade::heads::decoding {
namespace {

using Rows = std::vector<std::vector<int32_t>>;
using infer::SlotStates;

constexpr int kNoText = -1;

// A step whose tokens are on their way to the host.
struct Reading {
  Array host;
  Fence arrived;
  std::vector<int> text_of;          // slot by slot
  std::optional<PassLayout> layout;  // none: the newest token of each slot alone
};

// The texts as far as the host has read them.
class Texts {
 public:
  Texts(const Rows& prompts, const DecodeTextsOptions& options, const TextCallback& on_token)
      : options_(options), on_token_(on_token), emitted_(prompts.size()), passes_(prompts.size()) {
    result_.texts.resize(prompts.size());
    done_.assign(prompts.size(), false);
  }

  // The slots whose texts have ended.
  std::vector<size_t> read(const Reading& reading) {
    std::vector<size_t> ended;
    const auto one = [&](size_t slot, bool running) {
      const auto text = static_cast<size_t>(reading.text_of[slot]);
      if (running) return;
      end(text);
      ended.push_back(slot);
    };
    const auto is_open = [&](size_t slot) {
      const int text = reading.text_of[slot];
      return text != kNoText && !done_[static_cast<size_t>(text)];
    };
    if (!reading.layout) {
      const std::vector<SlotStates::Seen> seen = SlotStates::read(reading.host);
      for (size_t slot = 0; slot < seen.size(); ++slot) {
        if (!is_open(slot)) continue;
        add(static_cast<size_t>(reading.text_of[slot]), seen[slot].token, false);
        one(slot, seen[slot].running);
      }
      return ended;
    }
    const auto report = std::make_shared<const PassReport>(*reading.layout, reading.host);
    for (size_t slot = 0; slot < reading.text_of.size(); ++slot) {
      if (!is_open(slot)) continue;
      pass(*report, report, static_cast<int64_t>(slot), static_cast<size_t>(reading.text_of[slot]));
      one(slot, report->running(static_cast<int64_t>(slot)));
    }
    return ended;
  }

  bool all_done() const { return ended_ == done_.size(); }
  DecodedTexts take() { return std::move(result_); }
  void count_step() { ++result_.steps; }

 private:
  // Where in a text a pass stood.
  struct Pass {
    size_t root;
    std::shared_ptr<const PassReport> report;
    int64_t slot;
  };

  void pass(const PassReport& report, const std::shared_ptr<const PassReport>& kept, int64_t slot,
            size_t text) {
    const std::vector<int32_t>& fresh = report.emitted(slot);
    if (fresh.empty()) return;
    const TextEnd end{options_.stop_ids, static_cast<int64_t>(fresh.size())};
    const int64_t emitted = result_.stats.record(report.proposal(slot), report.accepted(slot), end);
    check(emitted == static_cast<int64_t>(fresh.size()), "a pass emitted ", fresh.size(),
          " tokens, of which ", emitted, " belong to the text");
    passes_[text].push_back({emitted_[text].size() - 1, kept, slot});
    for (size_t i = 0; i < fresh.size(); ++i)
      add(text, fresh[i], static_cast<int64_t>(i) < report.guessed(slot));
  }

  void add(size_t text, int32_t token, bool guessed) {
    emitted_[text].push_back(token);
    ++result_.tokens;
    if (std::count(options_.stop_ids.begin(), options_.stop_ids.end(), token) > 0) return;
    result_.texts[text].push_back(token);
    if (on_token_) on_token_(text, token, guessed);
  }

  void end(size_t text) {
    done_[text] = true;
    ++ended_;
    // Only now is it known what followed each root.
    for (const Pass& pass : passes_[text]) {
      const std::vector<int32_t> ranks =
          pass.report->ranks(pass.slot, std::span(emitted_[text]).subspan(pass.root + 1));
      if (!result_.ranks && pass.report->rank_heads() > 0)
        result_.ranks.emplace(pass.report->rank_heads(), TreeLimits{}.width);
      if (result_.ranks) result_.ranks->record(ranks);
    }
    passes_[text].clear();
  }

  const DecodeTextsOptions& options_;
  const TextCallback& on_token_;
  DecodedTexts result_;
  Rows emitted_;  // with stop ids
  std::vector<bool> done_;
  size_t ended_ = 0;
  std::vector<std::vector<Pass>> passes_;  // of texts that have not ended
};

// What a decoder's last step left on the device.
struct Outcome {
  Array values;
  std::optional<PassLayout> layout;
};
Outcome outcome_of(infer::Decoder& decoder) {
  return {decoder.choices().packed(), std::nullopt};
}
Outcome outcome_of(SpeculativeDecoder& decoder) {
  return {decoder.report(), decoder.layout()};
}

// Queues copies to the host and gives them out in order.
class Readings {
 public:
  void queue(const Outcome& outcome, const std::vector<int>& text_of) {
    Reading reading;
    for (Array& spare : spare_)
      if (spare.defined() && spare.shape() == outcome.values.shape())
        std::swap(reading.host, spare);
    std::erase_if(spare_, [](const Array& spare) { return !spare.defined(); });
    if (!reading.host.defined())
      reading.host = outcome.values.device().is_cpu()
                         ? Array::empty(outcome.values.shape(), DType::i32)
                         : pinned_array(outcome.values.shape(), DType::i32);
    copy_queued(outcome.values, reading.host);
    reading.arrived = Fence::after_queued_work(outcome.values.device());
    reading.text_of = text_of;
    reading.layout = outcome.layout;
    queue_.push_back(std::move(reading));
  }
  size_t size() const { return queue_.size(); }
  // The oldest, waited for; until the next call.
  const Reading& next() {
    if (current_.host.defined()) spare_.push_back(current_.host);
    current_ = std::move(queue_.front());
    queue_.pop_front();
    current_.arrived.wait();
    return current_;
  }

 private:
  std::deque<Reading> queue_;
  Reading current_;
  std::vector<Array> spare_;
};

template <class Decoder>
DecodedTexts decode(Decoder& decoder, const Rows& prompts, const DecodeTextsOptions& options,
                    const TextCallback& on_token) {
  check(!prompts.empty(), "there are no prompts to continue");
  check(options.max_new_tokens > 0 && options.max_new_tokens < INT32_MAX,
        "max_new_tokens must be positive, got ", options.max_new_tokens);
  check(options.steps_ahead >= 0, "steps_ahead must be 0 or more, got ", options.steps_ahead);
  for (size_t i = 0; i < prompts.size(); ++i)
    decoder.check_room(static_cast<int64_t>(prompts[i].size()), options.max_new_tokens,
                       concat("prompt ", i + 1));
  const auto started = std::chrono::steady_clock::now();
  Texts texts(prompts, options, on_token);
  std::vector<int> text_of(static_cast<size_t>(decoder.slots()), kNoText);
  size_t next = 0;
  Readings readings;
  // A CPU has done the step before step() returns.
  const bool waits = decoder.model().device().is_cpu();
  const auto ahead = static_cast<size_t>(waits ? 0 : options.steps_ahead);
  const auto read_one = [&] {
    for (const size_t slot : texts.read(readings.next())) text_of[slot] = kNoText;
  };
  while (!texts.all_done()) {
    std::vector<int32_t> slots;
    Rows fresh;
    std::vector<SlotStates::Start> starts;
    std::vector<int> only(text_of.size(), kNoText);
    for (size_t slot = 0; slot < text_of.size() && next < prompts.size(); ++slot) {
      if (text_of[slot] != kNoText) continue;
      text_of[slot] = only[slot] = static_cast<int>(next);
      slots.push_back(static_cast<int32_t>(slot));
      fresh.push_back(prompts[next]);
      starts.push_back({.limit = static_cast<int32_t>(options.max_new_tokens),
                        .place = static_cast<int32_t>(next++)});
    }
    if (!slots.empty()) {
      decoder.begin(slots, fresh, starts);
      readings.queue({decoder.choices().packed(), std::nullopt}, only);
    }
    while (readings.size() > ahead && !texts.all_done()) read_one();
    if (texts.all_done()) break;
    decoder.step();
    texts.count_step();
    readings.queue(outcome_of(decoder), text_of);
    while (readings.size() > ahead && !texts.all_done()) read_one();
  }
  while (readings.size() > 0) readings.next();  // page-locked memory must outlive copies into it
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  DecodedTexts result = texts.take();
  result.seconds = seconds.count();
  return result;
}

}  // namespace

DecodedTexts decode_texts(infer::Decoder& decoder, const Rows& prompts,
                          const DecodeTextsOptions& options, const TextCallback& on_token) {
  return decode(decoder, prompts, options, on_token);
}

DecodedTexts decode_texts(SpeculativeDecoder& decoder, const Rows& prompts,
                          const DecodeTextsOptions& options, const TextCallback& on_token) {
  return decode(decoder, prompts, options, on_token);
}

}  // namespace binade::heads::decoding
