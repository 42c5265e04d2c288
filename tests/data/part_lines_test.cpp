#include <catch2/catch.hpp>

#include <binade/data/part_lines.h>
#include <binade/data/picture.h>

#include <examples/bagel/texts.h>
#include <examples/bagel/world.h>
#include "../temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

struct Fixture {
  Fixture() {
    data::write_png(folder / "a.png", Array::full({3, 8, 8}, 0.25, DType::f32));
    data::write_png(folder / "odd.png", Array::full({3, 6, 8}, 0.25, DType::f32));
    data::write_png(folder / "large.png", Array::full({3, 64, 68}, 0.25, DType::f32));
  }
  std::vector<data::Sample> read(const std::string& lines) const {
    return data::read_part_lines(
        folder.write("samples.jsonl", lines),
        {examples::world_layout(),
         [](std::string_view text) { return examples::Texts::bytes().ids(text); },
         examples::latents_of});
  }
  TemporaryFolder folder;
};

}  // namespace

TEST_CASE("samples of a JSONL file are read part by part", "[parts]") {
  const Fixture fixture;
  const auto samples = fixture.read(
      R"({"parts": [{"text": "ab", "drop": 0.1}, {"image": "a.png", "role": "noise"}]})"
      "\n\n"
      R"({"parts": [{"image": "a.png", "role": "vit"}, {"text": "c", "loss": true}]})"
      "\n");
  REQUIRE(samples.size() == 2);
  CHECK(samples[0][0].ids == std::vector<int32_t>{5 + 'a', 5 + 'b'});
  CHECK(samples[0][0].drop == 0.1);
  CHECK(samples[0][1].kind == data::PartKind::noise);
  CHECK(samples[0][1].loss);
  CHECK(samples[0][1].grid.shape() == Shape{3, 8, 8});
  CHECK(samples[0][1].grid.data<float>()[0] == Approx(1.96 * (0.25 + .73)).margin(0.01));
  CHECK(samples[1][0].kind == data::PartKind::vit);
  CHECK(samples[1][0].grid.data<float>()[0] == Approx(0.25).margin(0.005));
  CHECK(samples[1][1].loss);
}

TEST_CASE("samples that cannot be learned are refused with their line", "[parts][errors]") {
  const Fixture fixture;
  const std::string good = R"({"parts": [{"text": "ab"}]})"
                           "\n";
  const auto refused = [&](const std::string& line, const std::string& text) {
    CHECK_THROWS_WITH(fixture.read(good + line),
                      Contains("samples.jsonl, line 2") && Contains(text));
  };
  refused("{", "not valid JSON");
  refused(R"({"parts": []})", "the sample has no parts");
  refused("[]", "the sample: expected an object, found array");
  refused(R"({"parts": [{"text": "a"}], "parts": [{"text": "b"}]})", "names \"parts\" twice");
  refused(R"({"parts": [{"text": "a", "text": "b"}]})", "names \"text\" twice");
  refused(R"({"parts": [{"image": "a.png\u0000b", "role": "vit"}]})", "behind a NUL");
  refused(R"({"part": []})", "unknown key \"part\"");
  refused(R"({"parts": [{"text": "a", "image": "a.png"}]})", "either \"text\" or \"image\"");
  refused(R"({"parts": [{"image": "a.png", "role": "seen"}]})", "unknown role \"seen\"");
  refused(R"({"parts": [{"image": "a.png"}]})", "\"role\" is missing");
  refused(R"({"parts": [{"image": "a.png", "role": "noise", "loss": true}]})", "no \"loss\"");
  refused(R"({"parts": [{"image": "b.png", "role": "vit"}]})", "b.png");
  refused(R"({"parts": [{"image": "samples.jsonl", "role": "vit"}]})", "neither a PNG nor a JPEG");
  refused(R"({"parts": [{"image": "odd.png", "role": "vit"}]})", "cannot be cut into patches");
  refused(R"({"parts": [{"image": "large.png", "role": "vae"}]})", "exceeds the position table");
  refused(R"({"parts": [{"text": "a", "loss": true, "drop": 0.5}]})",
          "has a loss and may be dropped");
  refused(R"({"parts": [{"text": ")" + std::string(400, 'a') + R"("}]})", "does not fit a row");
  CHECK_THROWS_WITH(fixture.read("\n"), Contains("has no sample"));
}
