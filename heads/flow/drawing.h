// What a trained model does: draws pictures from what it was told and shown, and answers in text.
// Both read their context once, into a cache; each step of a drawing attends to it and to itself,
// and is not kept (BAGEL, arXiv 2505.14683).
#pragma once

#include <cstdint>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/data/slot_packer.h>
#include <binade/heads/flow/flow.h>
#include <binade/nn/mot/model.h>

namespace binade::heads::flow {

// A model where it computes, and how its passes are packed. The model must outlive it, in
// evaluation mode.
struct Artist {
  const nn::MotModel& model;
  data::SlotLayout layout;  // its grids and ids; capacities are those that a pass needs
  Device device;
  amp::Preset preset;
};

struct DrawOptions {
  Guidance guidance;
  int64_t points = 50;  // in time; one Euler step less
  double shift = 3;
  uint64_t seed = 0;  // of the noise that drawings begin with
};

// Draws one image behind each context, (channels, height, width) latents; all contexts have images,
// or none has. Latents come back as (channels, height, width) f32 on the CPU. Throws Error for a
// size that cannot be drawn, for tokens and positions that the model does not have, and latents
// that are not finite.
std::vector<Array> draw(const Artist& artist, const std::vector<data::Sample>& contexts,
                        int64_t height, int64_t width, const DrawOptions& options);

// The likeliest text behind each context, without its begin and end: at most `most` ids, and no
// more than the model has positions for.
std::vector<std::vector<int32_t>> answer(const Artist& artist,
                                         const std::vector<data::Sample>& contexts, int64_t most);

}  // namespace binade::heads::flow
