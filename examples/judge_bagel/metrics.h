// The table of judge_bagel: what a model of the small world can do.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "../bagel/prompts.h"
#include "judge.h"

namespace binade::examples {

using Metrics = std::vector<std::pair<std::string, double>>;

// What drawings are held against: `count` and further held-out items, and their verdict.
struct Exam {
  const World& world;  // held out
  const Judge& judge;
  Device device;
  int64_t count;
  Verdict real;
};
Exam make_exam(const World& world, const Judge& judge, Device device, int64_t count);

// How often the judge itself is right on real pictures, and the Fréchet distance between two halves
// of them: what no drawing can beat.
Metrics judge_itself(const Exam& exam);
// Class and colour of drawings of one item at guidance 1, 2 and 4, both of pairs that were never
// trained on, Fréchet to the real ones; pairs of items with all four right. `sheet`: the first of
// the last drawings.
Metrics judge_drawings(const Exam& exam, const heads::flow::Artist& artist,
                       std::vector<Array>& sheet);
// PSNR of mirrored and recoloured pictures, beside that of the source left as it is.
Metrics judge_edits(const Exam& exam, const heads::flow::Artist& artist);
// Captions of one item: the class in them, and all of them.
Metrics judge_captions(const Exam& exam, const heads::flow::Artist& artist);

}  // namespace binade::examples
