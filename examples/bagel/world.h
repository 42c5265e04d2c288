// The small world that the unified model is shown: items of Fashion-MNIST in eight colours, one or
// two in a picture, described, asked about and edited by short texts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <binade/data/slot_packer.h>

namespace binade::examples {

inline constexpr int64_t kClasses = 10, kColors = 8, kItemSize = 32;
extern const std::string_view kClassNames[kClasses];
extern const std::string_view kColorNames[kColors];

// Words of the templated texts ↔ ids; ids 0 to 4 are those of SlotLayout.
inline constexpr int32_t kVocabulary = 64;
// Throws Error that names the words there are for another one.
std::vector<int32_t> ids_of(std::string_view text);
std::string words_of(const std::vector<int32_t>& ids);  // "<7>" for an id without a word

// 8 of the 80 pairs are never trained on.
bool held_out(int64_t item_class, int64_t color);

struct Item {
  int64_t image = 0, item_class = 0, color = 0;
};
using Items = std::vector<Item>;

// "a red coat and a blue bag"
std::string caption(const Items& items);

struct Edit {
  std::string order;  // "swap", "mirror it", "make left red"
  Array target;       // the picture as it should be
};

// Latents of a picture, and back: what stands for a VAE. They are the pixels, which each patch of
// 4 × 4 carries into one token of 48 numbers, at a mean near 0 and a deviation near 1.
Array latents_of(const Array& picture);
Array picture_of(const Array& latents);

class World {
 public:
  // images (N, 28, 28) u8 and labels (N) u8 below 10. Throws Error for anything else.
  World(const Array& images, const Array& labels);
  // The IDX files "train-…" or "t10k-…" of a folder.
  static World read(const std::filesystem::path& folder, const std::string& split);

  int64_t size() const { return labels_.numel(); }
  int64_t label(int64_t image) const { return labels_.data<uint8_t>()[image]; }

  // (3, 32, 32 · items) in [−1, 1].
  Array picture(const Items& items, bool mirrored = false) const;
  Item item(data::RandomStream& random) const;  // of a pair that is not held out
  Edit edit(const Items& items, data::RandomStream& random) const;
  // A training sample: draw (.5), caption (.2), edit (.15), or all of it in a row (.15).
  data::Sample sample(data::RandomStream& random) const;

 private:
  struct Answered {
    std::string question, answer;
  };
  Answered question(const Items& items, data::RandomStream& random) const;
  int64_t color_for(int64_t item_class, data::RandomStream& random) const;
  void tint(const Item& item, bool mirrored, int64_t left, const Array& picture) const;

  Array images_, labels_;
};

// How its pictures and texts are packed: rows of 384 + 640 slots, 320 for the ViT.
data::SlotLayout world_layout();

}  // namespace binade::examples
