#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include <binade/core/kernels/split_rules.h>
#include <binade/data/slot_packer.h>

#include "../heads/flow/tiny_world.h"

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;

namespace {

SlotLayout small_layout() {
  SlotLayout layout;
  layout.understanding = 16;
  layout.generation = 6;
  layout.vit = 5;
  layout.latents = {.channels = 1, .patch = 2, .side = 8};
  layout.pixels = {.channels = 1, .patch = 2, .side = 8};
  return layout;
}

// (1, height, width): 0, 1, 2, …
Array grid(int64_t height, int64_t width) {
  const Array values = Array::empty({1, height, width}, DType::f32);
  for (int64_t i = 0; i < values.numel(); ++i) values.data<float>()[i] = static_cast<float>(i);
  return values;
}

std::vector<int32_t> row_of(const Array& array, int64_t row) {
  return array.select(0, row).contiguous().to_vector<int32_t>();
}
std::vector<int32_t> field(const PackedSlots& packed, int64_t number) {
  return packed.slots.select(0, 0).select(0, number).contiguous().to_vector<int32_t>();
}

bool same(const Array& a, const Array& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::equal(static_cast<const std::byte*>(a.data()),
                    static_cast<const std::byte*>(a.data()) + a.bytes(),
                    static_cast<const std::byte*>(b.data()));
}

}  // namespace

TEST_CASE("a packed row says of each slot what it is", "[packer]") {
  RandomStream random(1, 0);
  SlotPacker packer(small_layout(), 1);
  // A caption, its noised picture, the clean one, and an answer.
  packer.add(0,
             {text_part({9}), image_part(PartKind::noise, grid(2, 4)),
              image_part(PartKind::vae, grid(2, 4)), text_part({8, 7}, /*loss=*/true)},
             random);
  const PackedSlots& p = packer.packed();
  using Row = std::vector<int32_t>;
  CHECK(row_of(p.ids, 0) == Row{1, 9, 2, 3, 4, 3, 4, 1, 8, 7, 2, 0, 0, 0, 0, 0});
  CHECK(row_of(p.targets, 0) ==
        Row{-100, -100, -100, -100, -100, -100, -100, 8, 7, 2, -100, -100, -100, -100, -100, -100});
  //                       text     noise  vae    text        spare            noise  vae    spare
  CHECK(field(p, 0) ==
        Row{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, 0, 0, 0, 0, -1, -1});
  CHECK(field(p, 1) == Row{0, 1, 2, 3, 6, 7, 10, 11, 12, 13, 14, 0, 0, 0, 0, 0, 4, 5, 8, 9, 0, 0});
  CHECK(field(p, 2) == Row{0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 0, 0, 0, 0, 0, 1, 1, 2, 2, 0, 0});
  CHECK(field(p, 3) == Row{0, 0, 0, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 1, 1, 0, 0});
  // The noised picture and its clean copy share a position.
  CHECK(row_of(p.positions, 0) ==
        Row{0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 3, 3, 3, 3, 0, 0});
  CHECK(p.noised.to_vector<float>() == std::vector<float>{1, 1, 0, 0, 0, 0});
  const std::vector<float> u = p.logit_times.to_vector<float>();
  CHECK(std::isfinite(u[0]));
  CHECK(u[0] == u[1]);
  CHECK(std::all_of(u.begin() + 2, u.end(), [](float v) { return v == -INFINITY; }));
  CHECK(p.latents.select(0, 0).select(0, 1).contiguous().to_vector<float>() ==
        std::vector<float>{2, 3, 6, 7});
  CHECK(row_of(p.latent_places, 0) == Row{0, 1, 0, 1, 0, 0});
  CHECK(p.noised_tokens == 2);
  CHECK(p.labels == 3);
  CHECK(p.used == 15);
}

TEST_CASE("what the ViT sees goes to slots of the first half", "[packer]") {
  RandomStream random(1, 0);
  SlotPacker packer(small_layout(), 2);
  packer.add(1, {{.kind = PartKind::no_image}, image_part(PartKind::vit, grid(4, 2))}, random);
  packer.add(1, {image_part(PartKind::vit, grid(2, 2)), text_part({5})}, random);
  const PackedSlots& p = packer.packed();
  using Row = std::vector<int32_t>;
  CHECK(row_of(p.ids, 1) == Row{3, 0, 0, 4, 3, 0, 4, 1, 5, 2, 0, 0, 0, 0, 0, 0});
  CHECK(row_of(p.patch_slots, 1) == Row{1, 2, 5, 16, 16});
  CHECK(row_of(p.patch_images, 1) == Row{0, 0, 1, -1, -1});
  CHECK(row_of(p.patch_places, 1) == Row{0, 8, 0, 0, 0});
  CHECK(row_of(p.patch_slots, 0) == Row{16, 16, 16, 16, 16});
  // A picture that was left out still took a position.
  CHECK(row_of(p.positions, 1)[0] == 1);
  CHECK(row_of(p.positions, 1)[4] == 0);
}

// In the sequence's own order: earlier splits but noised ones, of its own a text up to itself.
TEST_CASE("slots of packed samples see what their sequence lets them see", "[packer][splits]") {
  const std::vector<Sample> samples = test::world_samples(12);
  RandomStream random(1, 0);
  const PackedSlots packed = pack_each(samples, examples::world_layout(), random);
  const int64_t tokens = packed.slots.size(2);
  for (int64_t row = 0; row < std::ssize(samples); ++row) {
    const kernels::SlotTable table{packed.slots.data<int32_t>(), packed.slots.stride(0),
                                   packed.slots.stride(1)};
    // The splits of the sample, told from its parts alone.
    std::vector<std::pair<int, PartKind>> sequence;
    int split = 0;
    for (const Part& part : samples[static_cast<size_t>(row)]) {
      const int64_t length = part.kind == PartKind::text
                                 ? std::ssize(part.ids) + 2
                                 : part.grid.size(1) * part.grid.size(2) / 16 + 2;
      sequence.insert(sequence.end(), static_cast<size_t>(length), {split++, part.kind});
    }
    std::map<int32_t, int64_t> by_order;
    for (int64_t i = 0; i < tokens; ++i)
      if (table.at(row, i).sample >= 0) by_order[table.at(row, i).order] = i;
    REQUIRE(by_order.size() == sequence.size());
    int64_t wrong = 0;
    for (size_t q = 0; q < sequence.size(); ++q)
      for (size_t k = 0; k < sequence.size(); ++k) {
        const bool own = sequence[q].first == sequence[k].first;
        const bool want =
            own ? sequence[q].second != PartKind::text || k <= q
                : sequence[k].first < sequence[q].first && sequence[k].second != PartKind::noise;
        wrong += want != kernels::sees(table.at(row, by_order[static_cast<int32_t>(q)]),
                                       table.at(row, by_order[static_cast<int32_t>(k)]));
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("the pack of a step depends on seed and step alone", "[packer]") {
  const examples::World world = test::tiny_world();
  const auto make = [&](RandomStream& random) { return world.sample(random); };
  const auto pack = [&](uint64_t seed, int64_t step) {
    return pack_step(examples::world_layout(), {.rows = 2, .seed = seed}, step, make);
  };
  const PackedSlots first = pack(1, 7), again = pack(1, 7);
  CHECK(same(first.ids, again.ids));
  CHECK(same(first.latents, again.latents));
  CHECK(same(first.logit_times, again.logit_times));
  CHECK(same(first.patches, again.patches));
  CHECK_FALSE(same(first.ids, pack(1, 8).ids));
  CHECK_FALSE(same(first.ids, pack(2, 7).ids));
  // About a tenth of the slots is spare.
  CHECK(first.used > 2 * 1024 * 7 / 10);
}

TEST_CASE("samples that go on in another pass have the slots that follow", "[packer]") {
  const Sample whole = {text_part({6, 7}), image_part(PartKind::vae, grid(2, 2)), text_part({5})};
  RandomStream random(1, 0);
  const PackedSlots all = pack_each({whole}, small_layout(), random);
  std::vector<SampleEnd> ends(1);
  pack_each({{whole[0], whole[1]}}, small_layout(), random, &ends);
  const PackedSlots rest = pack_each({{whole[2]}}, small_layout(), random, &ends);
  for (int64_t i = 0; i < 3; ++i) {
    CHECK(rest.positions.data<int32_t>()[i] == all.positions.data<int32_t>()[6 + i]);
    for (int64_t f = 0; f < 3; ++f)
      CHECK(rest.slots.data<int32_t>()[f * rest.slots.size(2) + i] ==
            all.slots.data<int32_t>()[f * all.slots.size(2) + 6 + i]);
  }
}

TEST_CASE("pictures are cut into patches and put together again", "[packer]") {
  Array picture = Array::empty({3, 8, 12}, DType::f32);
  for (int64_t i = 0; i < picture.numel(); ++i) picture.data<float>()[i] = static_cast<float>(i);
  const Array patches = to_patches(picture, 4);
  REQUIRE(patches.shape() == Shape{6, 48});
  // Patch 4 is in the second row and column; its values are (row, column, channel).
  CHECK(patches.data<float>()[4 * 48 + (1 * 4 + 2) * 3 + 1] == 1 * 96 + (4 + 1) * 12 + 4 + 2);
  CHECK(same(from_patches(patches, 4, 3, 12), picture));
}

TEST_CASE("what cannot be packed is refused with the reason", "[packer][errors]") {
  RandomStream random(1, 0);
  const SlotLayout layout = small_layout();
  const auto pack = [&](const Sample& sample) { SlotPacker(layout, 1).add(0, sample, random); };
  CHECK_THROWS_WITH(pack({text_part(std::vector<int32_t>(15, 5))}),
                    Contains("a sample of 17 understanding, 0 generation and 0 ViT slots does not "
                             "fit a row of 16, 6 and 5, of which 0, 0 and 0 are used"));
  CHECK_THROWS_WITH(pack({image_part(PartKind::vit, grid(3, 2))}),
                    Contains("an image of 3 x 2 cannot be cut into patches of 2 x 2"));
  CHECK_THROWS_WITH(pack({image_part(PartKind::vit, grid(18, 2))}),
                    Contains("an image of 9 x 1 patches exceeds the position table of 8 x 8"));
  CHECK_THROWS_WITH(pack({image_part(PartKind::vae, Array::zeros({2, 2, 2}, DType::f32))}),
                    Contains("an image part needs a grid (1, H, W) f32"));
  const Array broken = grid(2, 2);
  broken.data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(pack({image_part(PartKind::noise, broken)}),
                    Contains("an image holds a value that is not finite"));
  CHECK_THROWS_WITH(thinned({text_part({5}, /*loss=*/true, /*drop=*/.1)}, random),
                    Contains("part 0 of a sample has a loss and may be dropped"));
  CHECK_THROWS_WITH(thinned({image_part(PartKind::noise, grid(2, 2), .1)}, random),
                    Contains("has a loss and may be dropped"));
  CHECK_THROWS_WITH(SlotPacker(layout, 0), Contains("a pack needs rows and slots of every kind"));
  // Not for ever in search of a row.
  CHECK_THROWS_WITH(
      pack_step(layout, {.rows = 1}, 0,
                [](RandomStream&) -> Sample { return {image_part(PartKind::vae, grid(8, 8))}; }),
      Contains("does not fit a row of"));
}
