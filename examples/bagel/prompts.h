// What models of the small world are asked for, as contexts of packed samples.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <binade/heads/flow/drawing.h>

#include "texts.h"
#include "world.h"

namespace binade::examples {

using SampleMaker = std::function<data::Sample(data::RandomStream&)>;

// Text → picture.
data::Sample draw_context(Ids text);
// Picture and order → picture: clean latents, what the ViT sees, the order.
data::Sample edit_context(const Array& picture, Ids order);
// Picture and question → text.
data::Sample question_context(const Array& picture, Ids question);

// A model where it computes, with the layout of its world and the marks of its texts. The model
// must outlive it.
heads::flow::Artist artist_of(const nn::MotModel& model, Device device, const amp::Preset& preset,
                              const Texts& texts = Texts::words());

// `count` packs of 4 rows without dropout, the same for every run: what models are validated on.
std::vector<data::PackedSlots> validation_packs(const SampleMaker& make_sample,
                                                const data::SlotLayout& layout, int64_t count);

// How many items a caption names: the width of its picture.
int64_t items_in(const std::string& text);

// n items of every class and colour in turn.
Items all_items(int64_t count);

// Drawings as pictures of the height and width, in pixels; contexts are drawn `batch` at a time,
// batch k from noise of seed + k · batch.
std::vector<Array> draw_pictures(const heads::flow::Artist& artist,
                                 const std::vector<data::Sample>& contexts, int64_t height,
                                 int64_t width, heads::flow::DrawOptions options,
                                 int64_t batch = 250);

}  // namespace binade::examples
