#include <algorithm>
#include <cmath>

#include <binade/nn/mot/model.h>
#include <binade/nn/rope_frequencies.h>

namespace binade::nn {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;  // no size of a real model comes near
constexpr int64_t kMostLayers = 1 << 16;
constexpr int64_t kLargestTable = int64_t{1} << 28;  // numbers in a table of positions: 1 GiB

void check_size(const char* name, int64_t size, int64_t least = 1, int64_t most = kLargest) {
  check(size >= least && size <= most, name, " is ", size, ", which is no possible size");
}

void check_epsilon(const char* name, double epsilon) {
  check(std::isfinite(epsilon) && epsilon > 0, name, " must be positive, got ", epsilon);
}

// A table of `rows` positions.
void check_table(const char* name, int64_t rows, int64_t width) {
  check(rows <= kLargestTable / width, name, " of ", rows, " positions for a width of ", width,
        " would not fit into memory");
}

void check_grid(const char* name, const data::PatchGrid& grid, int64_t width) {
  constexpr int64_t kLargestPatch = 1 << 12, kMostChannels = 1 << 16, kLargestSide = 1 << 15;
  const bool possible = grid.channels > 0 && grid.channels <= kMostChannels && grid.patch > 0 &&
                        grid.patch <= kLargestPatch && grid.side > 0 && grid.side <= kLargestSide;
  check(possible, name, " of ", grid.channels, " channels cannot be cut into patches of ",
        grid.patch, " x ", grid.patch, ", ", grid.side, " a side");
  check_table(name, grid.side * grid.side, width);
}

}  // namespace

void MotConfig::validate() const {
  check_size("the vocabulary", vocab_size);
  check_size("the hidden size", block.dim);
  check_size("the feed-forward size", block.hidden);
  check_size("the number of layers", layers, 1, kMostLayers);
  check_size("the number of heads", block.heads);
  check_size("the number of key heads", block.kv_heads);
  check_size("the number of positions", max_positions);
  check(block.heads % block.kv_heads == 0 && block.dim % block.heads == 0 &&
            block.head_dim() % 2 == 0,
        "a width of ", block.dim, " cannot be shared by ", block.heads, " query heads of even ",
        "size and ", block.kv_heads, " key heads");
  check(block.dim % 4 == 0, "a hidden size of ", block.dim,
        " has no table of two-dimensional positions: it must be a multiple of 4");
  check_epsilon("the norm's epsilon", block.norm_eps);
  RopeConfig rope;
  rope.theta = rope_theta;
  rope_frequencies(block.head_dim(), rope);
  check_table("rotary embedding", max_positions, block.head_dim());

  check_size("the ViT's hidden size", vit.dim);
  check_size("the ViT's feed-forward size", vit.hidden);
  check_size("the ViT's number of layers", vit.layers, 0, kMostLayers);
  check_size("the ViT's number of heads", vit.heads);
  check(vit.dim % vit.heads == 0, "a width of ", vit.dim, " cannot be shared by ", vit.heads,
        " heads of the ViT");
  check_epsilon("the ViT's epsilon", vit.norm_eps);
  check_grid("an image", pixels, std::max(vit.dim, block.dim));
  check_grid("latents", latents, block.dim);
}

}  // namespace binade::nn
