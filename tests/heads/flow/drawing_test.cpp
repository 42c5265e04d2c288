#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <binade/autograd/create.h>
#include <binade/autograd/ops.h>
#include <binade/heads/flow/drawing.h>
#include <binade/infer/slot_cache.h>

#include "../../gpu.h"
#include "tiny_world.h"

using namespace binade;
using namespace binade::test;
using data::PartKind;
using data::Sample;

namespace {

std::shared_ptr<nn::MotModel> disturbed_model() {
  RandomState::current().set_seed(31);
  auto model = std::make_shared<nn::MotModel>(tiny_config());
  nn::StateDict state = model->snapshot();
  for (auto& [name, value] : state) value = (Tensor(value) + 0.1 * randn(value.shape())).array();
  model->load_state(state);
  model->eval();
  return model;
}

heads::flow::Artist artist_of(const nn::MotModel& model) {
  return {model, examples::world_layout(), Device::cpu(), amp::Preset::parse("fp32")};
}

Array shown(int64_t image) {
  return tiny_world().picture({{image, image % 10, 2}});
}

Sample edit_context(int64_t image) {
  return {data::image_part(PartKind::vae, examples::latents_of(shown(image))),
          data::image_part(PartKind::vit, shown(image)),
          data::text_part(examples::ids_of("make it blue"))};
}

// The velocity at latents x of the noised image that ends a sample, all of it in one pass.
Tensor velocity_of_whole(const nn::MotModel& model, Sample context, const Array& x, double t) {
  context.push_back(data::image_part(PartKind::noise, x));
  data::RandomStream none(0, 0);
  const data::PackedSlots packed = data::pack_each({context}, examples::world_layout(), none);
  const train::Named<Tensor> batch = heads::flow::on_device(packed, Device::cpu());
  const nn::Halves hidden =
      model.forward(heads::flow::inputs_of(batch, batch.at("latents"), batch.at("noised") * t));
  const int64_t tokens = x.numel() / 48, slots = packed.latents.size(1);
  return slice(model.velocity(hidden.generation), 1, slots - tokens);
}

// The likeliest next id behind each prefix of an answer, of one pass over all of it.
std::vector<int64_t> choices_of_whole(const nn::MotModel& model, Sample context,
                                      const std::vector<int32_t>& text) {
  context.push_back(data::text_part(text, /*loss=*/true));
  data::RandomStream none(0, 0);
  const data::PackedSlots packed = data::pack_each({context}, examples::world_layout(), none);
  const train::Named<Tensor> batch = heads::flow::on_device(packed, Device::cpu());
  const nn::Halves hidden = model.forward(heads::flow::inputs_of(
      batch, batch.at("latents"), Tensor::zeros(batch.at("noised").shape())));
  const auto all = argmax(model.logits(hidden.understanding), -1).to_vector<int64_t>();
  return {all.end() - std::ssize(text) - 2, all.end() - 1};
}

}  // namespace

TEST_CASE("a drawing by a cache is Euler's method with whole passes", "[flow][drawing]") {
  const auto model = disturbed_model();
  const NoGrad off;
  const heads::flow::DrawOptions options{
      .guidance = {.text_scale = 3, .image_scale = 1.7, .low = 0.5}, .points = 5, .seed = 9};
  const std::vector<Sample> contexts = {edit_context(1), edit_context(4)};
  const std::vector<Array> drawn = heads::flow::draw(artist_of(*model), contexts, 32, 32, options);
  REQUIRE(drawn.size() == 2);

  RandomState::current().set_seed(options.seed);
  const Tensor noise = randn({2, 64, 48});
  const std::vector<double> times = heads::flow::drawing_times(options.points, options.shift);
  for (int64_t i = 0; i < 2; ++i) {
    const Sample& context = contexts[static_cast<size_t>(i)];
    Sample no_text = context, no_images = context;
    no_text[2].kind = PartKind::no_text;
    no_images[0].kind = no_images[1].kind = PartKind::no_image;
    Tensor x = slice(noise, 0, i, i + 1);
    for (size_t step = 0; step + 1 < times.size(); ++step) {
      const double t = times[step];
      const Array grid = data::from_patches(x.array().select(0, 0), 4, 3, 32);
      Tensor v = velocity_of_whole(*model, context, grid, t);
      if (t > 0.5)
        v = heads::flow::guided(v, velocity_of_whole(*model, no_text, grid, t),
                                velocity_of_whole(*model, no_images, grid, t), options.guidance);
      x = x - v * (t - times[step + 1]);
    }
    const Array want = data::from_patches(x.array().select(0, 0), 4, 3, 32);
    double worst = 0;
    for (int64_t e = 0; e < want.numel(); ++e)
      worst = std::max(worst, std::abs(double{want.data<float>()[e]} -
                                       drawn[static_cast<size_t>(i)].data<float>()[e]));
    CHECK(worst < 1e-4);
  }
}

TEST_CASE("without guidance by text one branch draws", "[flow][drawing]") {
  const auto model = disturbed_model();
  const Sample context = {data::text_part({9, 8})};
  heads::flow::DrawOptions options{.guidance = {.text_scale = 1}, .points = 3};
  const Array plain = heads::flow::draw(artist_of(*model), {context}, 32, 32, options)[0];
  options.guidance = {.text_scale = 4, .low = 1};  // at no time
  CHECK(heads::flow::draw(artist_of(*model), {context}, 32, 32, options)[0].to_vector<float>() ==
        plain.to_vector<float>());
  options.guidance.low = 0;
  CHECK(heads::flow::draw(artist_of(*model), {context}, 32, 32, options)[0].to_vector<float>() !=
        plain.to_vector<float>());
}

// A model whose answer is longer than one id is looked for.
TEST_CASE("answers token by token are those of whole passes", "[flow][drawing]") {
  const auto model = disturbed_model();
  const NoGrad off;
  std::vector<Sample> contexts;
  for (int64_t image = 0; image < 4; ++image)
    contexts.push_back({data::image_part(PartKind::vit, shown(image)),
                        data::text_part(std::vector<int32_t>(static_cast<size_t>(1 + image), 7))});
  const auto texts = heads::flow::answer(artist_of(*model), contexts, 5);
  for (size_t i = 0; i < contexts.size(); ++i) {
    const std::vector<int64_t> want = choices_of_whole(*model, contexts[i], texts[i]);
    REQUIRE(want.size() == texts[i].size() + 1);
    for (size_t k = 0; k < texts[i].size(); ++k) CHECK(want[k] == texts[i][k]);
    if (texts[i].size() < 5) CHECK(want.back() == examples::world_layout().text_end);
  }
}

TEST_CASE("drawings that cannot be are refused", "[flow][drawing][errors]") {
  const auto model = disturbed_model();
  const auto artist = artist_of(*model);
  const auto draw = [&](const std::vector<Sample>& contexts, int64_t height, int64_t width) {
    return heads::flow::draw(artist, contexts, height, width, {.points = 2});
  };
  CHECK_THROWS_WITH(draw({}, 32, 32), Catch::Contains("nothing to draw"));
  CHECK_THROWS_WITH(draw({{data::text_part({9})}}, 30, 32),
                    Catch::Contains("an image of 30 x 32 cannot be cut"));
  CHECK_THROWS_WITH(draw({{data::text_part({9})}}, 32, 68),
                    Catch::Contains("exceeds the position table"));
  CHECK_THROWS_WITH(draw({{data::text_part({9})}, edit_context(1)}, 32, 32),
                    Catch::Contains("have images, all of them, or none has"));
  for (const int32_t id : {64, -1})
    CHECK_THROWS_WITH(draw({{data::text_part({9, id})}}, 32, 32),
                      Catch::Contains("has the token " + std::to_string(id) + ", the model 64"));
  nn::StateDict state = model->snapshot();
  state["llm2vae.bias"].fill(std::numeric_limits<double>::quiet_NaN());
  model->load_state(state);
  CHECK_THROWS_WITH(draw({{data::text_part({9})}}, 32, 32), Catch::Contains("not finite"));
}

TEST_CASE("drawings and answers take no more positions than a model has", "[flow][drawing]") {
  nn::MotConfig config = tiny_config();
  config.max_positions = 8;
  RandomState::current().set_seed(31);
  const nn::MotModel model(config);
  const auto artist = artist_of(model);
  const auto text = [](size_t length) {  // with its begin and end
    return std::vector<Sample>{{data::text_part(std::vector<int32_t>(length - 2, 7))}};
  };
  const heads::flow::DrawOptions options{.points = 2};
  CHECK(heads::flow::draw(artist, text(7), 32, 32, options).size() == 1);
  CHECK_THROWS_WITH(heads::flow::draw(artist, text(8), 32, 32, options),
                    Catch::Contains("has the position 8, the model 8 of them"));
  CHECK_THROWS_WITH(heads::flow::answer(artist, text(9), 4), Catch::Contains("has the position 8"));
  CHECK(heads::flow::answer(artist, text(6), 100)[0].size() <= 2);
  CHECK(heads::flow::answer(artist, text(8), 100)[0].empty());
}

TEST_CASE("a cache of slots refuses what it cannot hold", "[flow][drawing][errors]") {
  infer::SlotCache cache(2, 1, 8, Device::cpu());
  CHECK_THROWS_WITH(cache.begin(Tensor::zeros({1, 4, 9}, DType::i32)),
                    Catch::Contains("a pass of 9 slots does not fit a cache of 8 that holds 0"));
  CHECK_THROWS_WITH(cache.begin(Tensor::zeros({2, 4, 3}, DType::i32)),
                    Catch::Contains("a pass of this cache has slots (1, 4, T) i32"));
  CHECK_THROWS_WITH(infer::SlotCache(0, 1, 8, Device::cpu()), Catch::Contains("needs layers"));
}

TEST_CASE("drawings agree on both devices", "[cuda][flow]") {
  require_gpu();
  const auto model = disturbed_model();
  const heads::flow::DrawOptions options{.guidance = {.text_scale = 2}, .points = 4};
  const Array here = heads::flow::draw(artist_of(*model), {edit_context(1)}, 32, 32, options)[0];
  model->to(test_gpu());
  heads::flow::Artist artist{*model, examples::world_layout(), test_gpu(),
                             amp::Preset::parse("fp32")};
  const Array there = heads::flow::draw(artist, {edit_context(1)}, 32, 32, options)[0];
  for (int64_t i = 0; i < here.numel(); ++i)
    CHECK(there.data<float>()[i] == Approx(here.data<float>()[i]).margin(1e-3));
}
