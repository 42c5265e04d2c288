// BatchGenerator: many texts through the slots of one decoder. A slot whose text has ended takes
// the next prompt while the others go on.
//
//   BatchGenerator generator(model, {.slots = 512, .capacity = 512, .max_new_tokens = 256});
//   for (int64_t i = 0; i < count; ++i) generator.add({.number = i, .prompt = prompts[i]});
//   generator.run([&](BatchGenerator::Reply reply) { … });  // in the order in which they end
//
// What a reply says does not depend on the slots, on the order or on what else is in the batch, but
// for rounding: its draws are Philox's at (seed, number of the token, number of the text).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include <binade/core/transfer.h>
#include <binade/infer/decoder.h>

namespace binade::infer {

struct BatchGenerateOptions {
  int64_t slots = 64;
  int64_t capacity = 0;  // tokens of a prompt and its reply; 0: the model's positions
  int64_t max_new_tokens = 256;
  std::vector<int32_t> stop_ids;  // end a reply, and are part of it
  SamplingOptions sampling;
  // On a GPU: steps that are queued before the tokens of the first of them are read. A slot idles
  // so long when its text has ended.
  int64_t steps_ahead = 4;
  // A pass over prompts waits until so many slots are free, and fills them. 0: a sixteenth of the
  // slots.
  int64_t prefill_rows = 0;
  int64_t prefill_tokens = int64_t{1} << 15;  // of a pass at most, beyond its first row
  // Whether passes over prompts have few different shapes, by more padding: a GPU times its
  // algorithms once for every shape. Default: on a GPU.
  std::optional<bool> few_shapes;
};

class BatchGenerator {
 public:
  struct Text {
    int64_t number = 0;  // the place of its draws in Philox, below 2^24
    std::vector<int32_t> prompt;
    int64_t drawn = 0;  // the number of its first draw, where it goes on an earlier reply
  };
  struct Reply {
    int64_t number = 0;
    std::vector<int32_t> prompt;
    std::vector<int32_t> tokens;  // with the stop id
    bool stopped = false;         // by a stop id; otherwise it has max_new_tokens
  };
  struct Counts {
    int64_t replies = 0, reply_tokens = 0, steps = 0;
    int64_t passes = 0, prompt_tokens = 0, padding = 0;  // of prompts; padding in tokens
  };

  // Throws Error for options out of range and a model in training mode. The model must outlive it.
  BatchGenerator(const nn::CausalLm& model, const BatchGenerateOptions& options);

  // Whether a prompt of so many tokens and a reply of max_new_tokens fit the capacity.
  bool fits(int64_t prompt_tokens) const;
  // Puts a text into the queue, of which the longest prompt is next; on_reply may do so, too.
  // Throws Error for a text that does not fit, an empty prompt, or a number out of range.
  void add(Text text);

  // Works the queue off. `go_on` is asked once a step; when it says no, what is under way is
  // dropped. Whether the queue was worked off. A Decoder's rules hold for logits and captures.
  bool run(const std::function<void(Reply)>& on_reply, const std::function<bool()>& go_on = {});

  const Counts& counts() const { return counts_; }
  int64_t waiting() const { return waiting_count_; }

 private:
  struct Slot {
    bool busy = false;
    int64_t first_round = 0;  // the first copy of the tokens that has one of this text
    Reply reply;
  };
  int64_t padded_length(int64_t tokens) const;
  int64_t rows_of_pass(int64_t length) const;
  Text take_longest();
  bool fill_slots(int64_t round);
  void read(const Array& packed, int64_t round, const std::function<void(Reply)>& on_reply);

  BatchGenerateOptions options_;
  Decoder decoder_;
  bool few_shapes_;
  std::map<int64_t, std::deque<Text>, std::greater<>> waiting_;  // by padded length
  int64_t waiting_count_ = 0;
  std::vector<Slot> slots_;
  std::vector<int32_t> free_;  // numbers of slots
  Downloader downloads_;       // tokens that are under way
  Counts counts_;
};

}  // namespace binade::infer
