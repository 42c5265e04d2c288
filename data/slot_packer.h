// Rows that pack samples of texts, images and noised images, for models that read and draw in one
// sequence (BAGEL, arXiv 2505.14683, section 3).
//
//   data::SlotPacker packer(layout, /*rows=*/2);
//   packer.add(0, {data::text_part({7, 9}), data::image_part(data::PartKind::noise, latents)},
//   draws); const data::PackedSlots packed = packer.packed();
//
// A row has two halves of fixed size, [U understanding | G generation]: texts, what the ViT sees
// and the markers of every image stand in the first, latents in the second. Which expert a token
// meets is a slice, no shape ever changes, and attention reads from each slot's four numbers what
// it may see, wherever the slot lies (AttentionOptions::query_slots).
//
//   part   slots                                       positions it takes      seen by later parts
//   text   U: begin, ids, end                          one a token             yes
//   vit    U: start, one a patch, end                  one                     yes
//   vae    U: start, end; G: one a patch               one                     yes
//   noise  U: start, end; G: one a patch               none: its clean copy    no
//                                                      has the same
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <binade/core/array.h>
#include <binade/data/random_stream.h>

namespace binade::data {

enum class PartKind : uint8_t {
  text,
  vit,      // an image as the ViT sees it
  vae,      // an image as clean latents
  noise,    // latents that are noised, and learned
  no_text,  // a text that was dropped: nothing is left of it
  no_image  // an image that was dropped: it still takes a position
};

struct Part {
  PartKind kind = PartKind::text;
  std::vector<int32_t> ids = {};  // of a text, without its begin and end
  // Of an image: (C, H, W) f32 on the CPU; pixels in [−1, 1] for the ViT, otherwise latents.
  Array grid = {};
  bool loss = false;  // of a text: its tokens and its end are learned; of noise: always
  double drop = 0;    // probability of being dropped, for classifier-free guidance
};
using Sample = std::vector<Part>;

Part text_part(std::vector<int32_t> ids, bool loss = false, double drop = 0);
Part image_part(PartKind kind, Array grid, double drop = 0);

// The sample with parts dropped at random (Ho & Salimans 2022). Throws Error where a part that has
// a loss, noise included, may be dropped.
Sample thinned(const Sample& sample, RandomStream& random);

// How images are cut into tokens: square patches of `patch` × `patch`, each (row, column, channel).
struct PatchGrid {
  int64_t channels = 3, patch = 4;
  int64_t side = 16;  // of the position table: at most so many patches a row, and a column

  int64_t values() const { return channels * patch * patch; }  // of a token
  // The number of tokens of an image. Throws Error for one that is no (C, H, W) f32 of these
  // channels, cannot be cut into patches, exceeds the table, or holds a value that is not finite.
  int64_t tokens(const Array& grid) const;
};
// (C, H, W) → (H/P · W/P, P · P · C), row by row; and back, to `width` pixels a row.
Array to_patches(const Array& grid, int64_t patch);
Array from_patches(const Array& patches, int64_t patch, int64_t channels, int64_t width);

struct SlotLayout {
  int64_t understanding = 384, generation = 640, vit = 320;  // slots of a row
  PatchGrid latents, pixels;
  int32_t text_begin = 1, text_end = 2, image_begin = 3, image_end = 4;

  int64_t tokens() const { return understanding + generation; }
};

// What parts take of a row.
struct SlotCounts {
  int64_t understanding = 0, generation = 0, vit = 0;
};
// Throws Error as PatchGrid::tokens() does.
SlotCounts slots_of(const Sample& sample, const SlotLayout& layout);

// Throws Error where an empty row has no room for the sample, and as PatchGrid::tokens() does.
void check_fits(const Sample& sample, const SlotLayout& layout);

// (R rows, U, G and V slots, T = U + G.) All on the CPU.
struct PackedSlots {
  Array ids;            // (R, U) i32; 0 in slots of patches
  Array targets;        // (R, U) i32: the id that follows; −100: no label
  Array slots;          // (R, 4, T) i32: sample, order, split, mode (core/kernels/split_rules.h)
  Array positions;      // (R, T) i32, for rotary embedding
  Array latents;        // (R, G, values) f32, clean
  Array logit_times;    // (R, G) f32: u, one a noised image; −∞ where nothing is noised
  Array noised;         // (R, G) f32: 1 where a token is noised, and learned, otherwise 0
  Array latent_places;  // (R, G) i32: row · side + column
  Array patches;        // (R, V, values) f32, what the ViT reads
  Array patch_places;   // (R, V) i32
  Array patch_images;   // (R, V) i32: equal where patches are of one image; −1 in spare slots
  Array patch_slots;    // (R, V) i32: the U slot that each patch goes to; U in spare slots

  int64_t noised_tokens = 0, labels = 0;  // what MSE and CE are divided by
  int64_t used = 0, samples = 0;          // slots that are not spare
};

// Where a sample ends, and goes on in another pass.
struct SampleEnd {
  int32_t sample = 0, order = 0, split = 0, position = 0;
};

class SlotPacker {
 public:
  // Throws Error for sizes that are not positive.
  SlotPacker(const SlotLayout& layout, int64_t rows);

  bool fits(int64_t row, const SlotCounts& counts) const;
  // Appends a sample to a row; u of each noised image is drawn from N(0, 1). With `from` it goes on
  // where that says. Throws Error where the row has no room, and as PatchGrid::tokens() does.
  SampleEnd add(int64_t row, const Sample& sample, RandomStream& random, const SampleEnd& from);
  SampleEnd add(int64_t row, const Sample& sample, RandomStream& random);
  const PackedSlots& packed() const { return packed_; }

 private:
  class Writer;
  SlotLayout layout_;
  std::vector<SlotCounts> used_;
  std::vector<int32_t> samples_;
  int32_t images_ = 0;
  PackedSlots packed_;
};

// The rows of step `step`, a pure function of (seed, step): samples as make_sample draws them,
// thinned, as many as fit. Samples that do not fit wait for a later row, at most kWaiting of them.
// Throws Error for a sample that fits no row.
inline constexpr int64_t kWaiting = 8;
struct PackOptions {
  int64_t rows = 16;
  uint64_t seed = 1;
  bool thin = true;
};
PackedSlots pack_step(const SlotLayout& layout, const PackOptions& options, int64_t step,
                      const std::function<Sample(RandomStream&)>& make_sample);

// A sample a row, with few spare slots: what generation and tests take. `ends`: one a sample, where
// it goes on; moved on. Empty: all begin.
PackedSlots pack_each(const std::vector<Sample>& samples, SlotLayout layout, RandomStream& random,
                      std::vector<SampleEnd>* ends = nullptr);

}  // namespace binade::data
