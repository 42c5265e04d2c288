// What train_bagel learns: the small world of Fashion-MNIST, or samples of a JSONL file.
#pragma once

#include <string>
#include <vector>

#include "../bagel/prompts.h"
#include "../training/setup.h"
#include "options.h"

namespace binade::examples {

struct TrainBagelData {
  SampleMaker sample, held_out;       // for training, and to validate on
  std::vector<data::Sample> prompts;  // what is drawn at every validation
  std::string fingerprint;
};

// The texts of the options' data, as a model learns them. Throws Error for a tokenizer that does
// not serve, and for one beside the small world.
Texts texts_of(const TrainBagelOptions& options);

// Options that a resumed run may have otherwise: those of every program, and what changes no step.
std::vector<std::string> may_change();

// Throws Error for files that are missing or malformed. Of a JSONL file every 20th sample, at least
// one, is held out; with a single sample it is also what is learned.
TrainBagelData read_data(const TrainBagelOptions& options, const data::SlotLayout& layout,
                         const Texts& texts);

}  // namespace binade::examples
