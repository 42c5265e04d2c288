#include "prompts.h"

#include <algorithm>
#include <utility>

namespace binade::examples {

using data::PartKind;

data::Sample draw_context(Ids text) {
  return {data::text_part(std::move(text))};
}

data::Sample edit_context(const Array& picture, Ids order) {
  return {data::image_part(PartKind::vae, latents_of(picture)),
          data::image_part(PartKind::vit, picture), data::text_part(std::move(order))};
}

data::Sample question_context(const Array& picture, Ids question) {
  return {data::image_part(PartKind::vit, picture), data::text_part(std::move(question))};
}

heads::flow::Artist artist_of(const nn::MotModel& model, Device device, const amp::Preset& preset,
                              const Texts& texts) {
  data::SlotLayout layout = world_layout();
  texts.mark(layout);
  layout.pixels = model.config().pixels;
  layout.latents = model.config().latents;
  return {model, layout, device, preset};
}

std::vector<data::PackedSlots> validation_packs(const SampleMaker& make_sample,
                                                const data::SlotLayout& layout, int64_t count) {
  constexpr uint64_t kSeed = 77;
  constexpr int64_t kRows = 4;
  std::vector<data::PackedSlots> packs;
  for (int64_t i = 0; i < count; ++i)
    packs.push_back(
        data::pack_step(layout, {.rows = kRows, .seed = kSeed, .thin = false}, i, make_sample));
  return packs;
}

int64_t items_in(const std::string& text) {
  const std::vector<int32_t> ids = ids_of(text), also = ids_of("and");
  return 1 + std::count(ids.begin(), ids.end(), also[0]);
}

Items all_items(int64_t count) {
  Items items;
  for (int64_t i = 0; i < count; ++i) items.push_back({0, i % kClasses, i / kClasses % kColors});
  return items;
}

std::vector<Array> draw_pictures(const heads::flow::Artist& artist,
                                 const std::vector<data::Sample>& contexts, int64_t height,
                                 int64_t width, heads::flow::DrawOptions options, int64_t batch) {
  std::vector<Array> pictures;
  const uint64_t seed = options.seed;
  for (size_t begin = 0; begin < contexts.size(); begin += static_cast<size_t>(batch)) {
    const size_t end = std::min(begin + static_cast<size_t>(batch), contexts.size());
    options.seed = seed + begin;
    for (const Array& latents :
         heads::flow::draw(artist,
                           {contexts.begin() + static_cast<std::ptrdiff_t>(begin),
                            contexts.begin() + static_cast<std::ptrdiff_t>(end)},
                           height, width, options))
      pictures.push_back(picture_of(latents));
  }
  return pictures;
}

}  // namespace binade::examples
