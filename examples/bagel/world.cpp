#include "world.h"

#include <algorithm>
#include <array>

#include <binade/data/idx.h>

namespace binade::examples {

using data::PartKind;
using data::RandomStream;
using data::Sample;

const std::string_view kClassNames[kClasses] = {"tshirt", "trouser", "pullover", "dress", "coat",
                                                "sandal", "shirt",   "sneaker",  "bag",   "boot"};
const std::string_view kColorNames[kColors] = {"red",  "green",   "blue",  "yellow",
                                               "cyan", "magenta", "white", "orange"};

namespace {

constexpr float kPalette[kColors][3] = {{1, .15f, .15f}, {.2f, .9f, .2f}, {.25f, .35f, 1},
                                        {1, .9f, .1f},   {.1f, .9f, .9f}, {.95f, .2f, .9f},
                                        {1, 1, 1},       {1, .55f, .1f}};
constexpr int64_t kImageSize = 28, kBorder = (kItemSize - kImageSize) / 2;
constexpr float kLatentScale = 1.96f, kLatentShift = -.73f;
constexpr int32_t kFirstWord = 5;

// Probabilities of dropping what a part is learned from, for guidance.
constexpr double kDropText = .1, kDropLatents = .1, kDropVit = .5;

const std::vector<std::string>& words() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> list = {"a",    "and",   "describe", "what", "item",   "color",
                                     "left", "right", "make",     "it",   "mirror", "swap"};
    list.insert(list.end(), std::begin(kColorNames), std::end(kColorNames));
    list.insert(list.end(), std::begin(kClassNames), std::end(kClassNames));
    return list;
  }();
  return all;
}

}  // namespace

std::vector<int32_t> ids_of(std::string_view text) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = end + 1;
    if (word.empty()) continue;
    const auto found = std::find(words().begin(), words().end(), word);
    if (found == words().end()) {
      std::string known;
      for (const std::string& one : words()) known += (known.empty() ? "" : " ") + one;
      fail("the model knows no word '", word, "'; it knows: ", known);
    }
    ids.push_back(kFirstWord + static_cast<int32_t>(found - words().begin()));
  }
  return ids;
}

std::string words_of(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    const int64_t word = int64_t{id} - kFirstWord;
    if (!text.empty()) text += ' ';
    text += word >= 0 && word < std::ssize(words()) ? words()[static_cast<size_t>(word)]
                                                    : concat('<', id, '>');
  }
  return text;
}

bool held_out(int64_t item_class, int64_t color) {
  return (3 * item_class + color) % 10 == 7;
}

std::string caption(const Items& items) {
  std::string text;
  for (const Item& item : items)
    text += concat(text.empty() ? "a " : " and a ", kColorNames[item.color], ' ',
                   kClassNames[item.item_class]);
  return text;
}

namespace {

Array mapped(const Array& from, float scale, float shift) {
  const Array in = from.contiguous(), out = Array::empty(from.shape(), DType::f32);
  std::transform(in.data<float>(), in.data<float>() + in.numel(), out.data<float>(),
                 [=](float value) { return value * scale + shift; });
  return out;
}

}  // namespace

Array latents_of(const Array& picture) {
  return mapped(picture, kLatentScale, -kLatentScale * kLatentShift);
}
Array picture_of(const Array& latents) {
  return mapped(latents, 1 / kLatentScale, kLatentShift);
}

World::World(const Array& images, const Array& labels) : images_(images), labels_(labels) {
  check(images.dims() == 3 && images.dtype() == DType::u8 && labels.dtype() == DType::u8 &&
            images.shape() == Shape{labels.numel(), kImageSize, kImageSize} && labels.numel() > 0,
        "the world is made of images (N, 28, 28) and labels (N) of bytes, got ", images.shape(),
        " and ", labels.shape());
  const auto* label = labels.data<uint8_t>();
  check(std::all_of(label, label + labels.numel(), [](uint8_t l) { return l < kClasses; }),
        "a label is ", kClasses, " or more");
}

World World::read(const std::filesystem::path& folder, const std::string& split) {
  return {data::read_idx(folder / (split + "-images-idx3-ubyte.gz")),
          data::read_idx(folder / (split + "-labels-idx1-ubyte.gz"))};
}

void World::tint(const Item& item, bool mirrored, int64_t left, const Array& picture) const {
  const auto* image = images_.data<uint8_t>() + item.image * kImageSize * kImageSize;
  auto* const pixels = picture.data<float>() + kBorder * picture.size(2) + left + kBorder;
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t y = 0; y < kImageSize; ++y) {
      float* const line = pixels + (c * kItemSize + y) * picture.size(2);
      for (int64_t x = 0; x < kImageSize; ++x) {
        const auto grey = static_cast<float>(image[y * kImageSize + x]) / 255;
        line[mirrored ? kImageSize - 1 - x : x] = grey * kPalette[item.color][c] * 2 - 1;
      }
    }
}

Array World::picture(const Items& items, bool mirrored) const {
  const Array picture = Array::full({3, kItemSize, kItemSize * std::ssize(items)}, -1, DType::f32);
  for (size_t i = 0; i < items.size(); ++i)
    tint(items[i], mirrored, static_cast<int64_t>(i) * kItemSize, picture);
  return picture;
}

int64_t World::color_for(int64_t item_class, RandomStream& random) const {
  int64_t color = random.below(kColors);
  while (held_out(item_class, color)) color = random.below(kColors);
  return color;
}

Item World::item(RandomStream& random) const {
  const int64_t image = random.below(size());
  return {image, label(image), color_for(label(image), random)};
}

Edit World::edit(const Items& items, RandomStream& random) const {
  if (random.chance(.5)) {
    if (items.size() == 1) return {"mirror it", picture(items, true)};
    return {"swap", picture({items[1], items[0]})};
  }
  const int64_t which = random.below(std::ssize(items));
  Items changed = items;
  Item& item = changed[static_cast<size_t>(which)];
  item.color = color_for(item.item_class, random);
  const char* name = items.size() == 1 ? "it" : which == 0 ? "left" : "right";
  return {concat("make ", name, ' ', kColorNames[item.color]), picture(changed)};
}

World::Answered World::question(const Items& items, RandomStream& random) const {
  if (random.chance(.5)) return {"describe", caption(items)};
  const int64_t which = random.below(std::ssize(items));
  const Item& item = items[static_cast<size_t>(which)];
  const char* where = items.size() == 1 ? "" : which == 0 ? " left" : " right";
  if (random.chance(.5))
    return {concat("what item", where), std::string(kClassNames[item.item_class])};
  return {concat("what color", where), std::string(kColorNames[item.color])};
}

Sample World::sample(RandomStream& random) const {
  const double task = random.uniform();
  const bool draws = task < .5, captions = !draws && task < .7, edits = !captions && task < .85;
  const bool all = !draws && !captions && !edits;
  Items items = {item(random)};
  if (!all && random.chance(.5)) items.push_back(item(random));
  const Array shown = picture(items);
  Sample parts;
  const auto add = [&](const Sample& more) { parts.insert(parts.end(), more.begin(), more.end()); };
  if (draws || all)
    add({data::text_part(ids_of(caption(items)), false, kDropText),
         data::image_part(PartKind::noise, latents_of(shown))});
  if (draws) return parts;
  if (!captions) add({data::image_part(PartKind::vae, latents_of(shown), kDropLatents)});
  // A question that follows needs the picture.
  add({data::image_part(PartKind::vit, shown, captions || all ? 0 : kDropVit)});
  if (captions || all) {
    const Answered asked = question(items, random);
    add({data::text_part(ids_of(asked.question)), data::text_part(ids_of(asked.answer), true)});
  }
  if (captions) return parts;
  const Edit change = edit(items, random);
  add({data::text_part(ids_of(change.order), false, kDropText),
       data::image_part(PartKind::noise, latents_of(change.target))});
  return parts;
}

data::SlotLayout world_layout() {
  return {.understanding = 384,
          .generation = 640,
          .vit = 320,
          .latents = {.channels = 3, .patch = 4, .side = 16},
          .pixels = {.channels = 3, .patch = 4, .side = 16}};
}

}  // namespace binade::examples
