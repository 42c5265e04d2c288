// Samples of one's own texts and pictures in a JSONL file: a sample a line, its parts in order.
//
//   {"parts": [{"text": "a lighthouse at dusk", "drop": 0.1}, {"image": "sea/1.png", "role":
//   "noise"}]}
//   {"parts": [{"image": "sea/1.png", "role": "vit"}, {"text": "what is it"},
//              {"text": "a lighthouse", "loss": true}]}
//
// A part has "text", or "image" with the path of a PNG or JPEG, from the file's folder on, and a
// "role": vit (the ViT sees it), vae (clean latents) or noise (it is learned). With "loss" a text
// is learned; with "drop" a part is left out so often, for guidance.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include <binade/data/slot_packer.h>

namespace binade::data {

struct PartLineOptions {
  SlotLayout layout;  // that every sample must fit
  std::function<std::vector<int32_t>(std::string_view text)> encode;
  std::function<Array(const Array& picture)> to_latents;  // (3, H, W) → latents
};

// All samples of the file; a picture that several parts name is in memory once for each use, by the
// ViT and as latents. Throws Error, with the line, for what is no such JSON, has unknown keys or
// roles, names a picture that cannot be read or cut into patches, does not fit a row, or may drop
// what has a loss; and for a file without a sample.
std::vector<Sample> read_part_lines(const std::filesystem::path& path,
                                    const PartLineOptions& options);

}  // namespace binade::data
