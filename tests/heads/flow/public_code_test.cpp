// Folders of models that read and draw against BAGEL's public code: scripts/long/bagel_public.sh
// runs the first test, lets the public classes read what it wrote and write folders of their own,
// and runs the second.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <binade/autograd/create.h>
#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/heads/flow/drawing.h>
#include <binade/heads/flow/training.h>
#include <binade/nn/mot/files.h>
#include <binade/nn/state.h>
#include <nlohmann/json.hpp>

#include "../../nn/hashed_weights.h"
#include "../../skip.h"
#include "public_config.h"

using namespace binade;
using namespace binade::test;
namespace fs = std::filesystem;

namespace {

using NamedArrays = std::map<std::string, Array>;

// Two images, as latents and as pixels; their sizes have nothing to do with each other.
NamedArrays public_images() {
  NamedArrays images;
  for (const auto& [name, shape] : std::map<std::string, Shape>{{"first", {16, 4, 6}},
                                                                {"second", {16, 2, 4}},
                                                                {"first_pixels", {3, 28, 42}},
                                                                {"second_pixels", {3, 56, 14}}}) {
    std::vector<float> values;
    for (const double one : directions(name, shape.numel()))
      values.push_back(static_cast<float>(one));
    images[name] = Array::from(values, shape);
  }
  return images;
}

// The parts of the packed sample, and what is drawn and answered, as the public side reads them.
nlohmann::json public_cases() {
  using nlohmann::json;
  const auto text = [](std::vector<int32_t> ids, bool loss = false) {
    return json{{"kind", "text"}, {"ids", ids}, {"loss", loss}};
  };
  const auto image = [](const char* kind, const char* name) {
    return json{{"kind", kind}, {"image", name}};
  };
  const auto drawing = [](const char* renorm, double least, bool edit) {
    json one = {{"kind", "draw"},   {"ids", {9, 10, 60}},   {"size", {4, 6}},
                {"points", 7},      {"shift", 3.0},         {"low", 0.5},
                {"high", 1.0},      {"text_scale", 4.0},    {"image_scale", 1.5},
                {"renorm", renorm}, {"least_renorm", least}};
    if (edit) one.update({{"latents", "first"}, {"pixels", "first_pixels"}});
    return one;
  };
  const auto answer = [](std::vector<int32_t> ids, const char* latents, const char* pixels) {
    return json{
        {"kind", "answer"}, {"ids", ids}, {"most", 8}, {"latents", latents}, {"pixels", pixels}};
  };
  return {{"sample",
           {text({7, 9, 11}), image("noise", "first"), image("vae", "first"),
            image("vit", "first_pixels"), text({8}), text({5, 6, 30}, true), image("vae", "second"),
            image("vit", "second_pixels"), text({12, 13}), image("noise", "second")}},
          {"inference",
           {{"drawing", drawing("global", 0, false)},
            {"edit_global", drawing("global", 0, true)},
            {"edit_channel", drawing("channel", 0.3, true)},
            {"edit_text_channel", drawing("text_channel", 0, true)},
            {"answer", answer({20, 21}, "first", "first_pixels")},
            {"other_answer", answer({40}, "second", "second_pixels")}}}};
}

data::Sample public_sample(const nlohmann::json& parts, const NamedArrays& images) {
  static const std::map<std::string, data::PartKind> kinds = {
      {"vit", data::PartKind::vit}, {"vae", data::PartKind::vae}, {"noise", data::PartKind::noise}};
  data::Sample sample;
  for (const auto& part : parts)
    sample.push_back(part["kind"] == "text"
                         ? data::text_part(part["ids"], part["loss"])
                         : data::image_part(kinds.at(part["kind"]), images.at(part["image"])));
  return sample;
}

// What both sides get, and what Binade makes of it.
struct PublicResults {
  NamedArrays inputs, results;
};

class PublicRun {
 public:
  explicit PublicRun(nn::MotModel& model)
      : artist_{model, {}, Device::cpu(), amp::Preset::parse("fp32")} {
    model.eval();
    artist_.layout.latents = model.config().latents;
    artist_.layout.pixels = model.config().pixels;
    made_.inputs = images_;
  }

  PublicResults run() {
    const nlohmann::json cases = public_cases();
    const NoGrad off;
    packed(public_sample(cases["sample"], images_));
    for (const auto& [name, one] : cases["inference"].items())
      made_.results[name] = one["kind"] == "draw" ? drawn(one) : answered(one);
    return made_;
  }

 private:
  void packed(const data::Sample& sample) {
    data::RandomStream random(5, 0);
    const data::PackedSlots pack = data::pack_each({sample}, artist_.layout, random);
    const train::Named<Tensor> batch = heads::flow::on_device(pack, artist_.device);
    const Tensor noise = randn(pack.latents.shape());
    const auto count = [](int64_t n) { return Tensor::scalar(static_cast<double>(n)); };
    const heads::flow::UnifiedLoss loss = heads::flow::unified_loss(
        artist_.model, batch,
        {{"noised_tokens", count(pack.noised_tokens)}, {"labels", count(pack.labels)}}, noise, 1);
    const Tensor times = heads::flow::times_of(batch.at("logit_times"), 1);
    const nn::Halves hidden = artist_.model.forward(heads::flow::inputs_of(
        batch, heads::flow::noised(batch.at("latents"), noise, times), times));

    std::vector<int64_t> noised, labelled;
    for (int64_t i = 0; i < pack.noised.numel(); ++i)
      if (pack.noised.data<float>()[i] > 0) noised.push_back(i);
    for (int64_t i = 0; i < pack.targets.numel(); ++i)
      if (pack.targets.data<int32_t>()[i] >= 0) labelled.push_back(i);
    const auto rows = [](const Tensor& x, const std::vector<int64_t>& chosen) {
      return index_select(select(x, 0, 0), 0, Tensor::from(chosen, {std::ssize(chosen)}))
          .array()
          .contiguous();
    };
    made_.inputs["noise"] = rows(noise, noised);
    made_.inputs["u"] = rows(unsqueeze(batch.at("logit_times"), -1), noised);
    made_.results["velocity"] = rows(artist_.model.velocity(hidden.generation), noised);
    made_.results["logits"] = rows(artist_.model.logits(hidden.understanding), labelled);
    made_.results["losses"] = Array::from<float>(
        {static_cast<float>(loss.mse.item()), static_cast<float>(loss.ce.item())}, {2});
  }

  Array drawn(const nlohmann::json& one) {
    data::Sample context;
    if (one.contains("pixels"))
      context = {data::image_part(data::PartKind::vae, images_.at(one["latents"])),
                 data::image_part(data::PartKind::vit, images_.at(one["pixels"]))};
    context.push_back(data::text_part(one["ids"]));
    heads::flow::DrawOptions options{
        .guidance = {.text_scale = one["text_scale"],
                     .image_scale = one["image_scale"],
                     .renorm = heads::flow::parse_renorm(one["renorm"].get<std::string>()),
                     .least_renorm = one["least_renorm"],
                     .low = one["low"],
                     .high = one["high"]},
        .points = one["points"],
        .shift = one["shift"],
        .seed = 6};
    // Where there are no images, the public program takes the conditional velocity for the one
    // without them.
    if (!one.contains("pixels"))
      options.guidance.text_scale =
          1 + options.guidance.image_scale * (options.guidance.text_scale - 1);
    const int64_t height = one["size"][0], width = one["size"][1];
    const data::PatchGrid& grid = artist_.layout.latents;
    RandomState::current().set_seed(options.seed);  // as draw() begins
    made_.inputs["begin"] =
        randn({1, height / grid.patch * (width / grid.patch), grid.values()}).array().select(0, 0);
    return heads::flow::draw(artist_, {context}, height, width, options)[0];
  }

  Array answered(const nlohmann::json& one) {
    const data::Sample context = {data::image_part(data::PartKind::vit, images_.at(one["pixels"])),
                                  data::text_part(one["ids"])};
    const std::vector<int32_t> ids = heads::flow::answer(artist_, {context}, one["most"])[0];
    return Array::from(std::vector<int64_t>(ids.begin(), ids.end()), {std::ssize(ids)});
  }

  heads::flow::Artist artist_;
  NamedArrays images_ = public_images();
  PublicResults made_;
};

PublicResults public_results(nn::MotModel& model) {
  RandomState::current().set_seed(4);
  return PublicRun(model).run();
}

constexpr nn::ExpertChoice kChoices[] = {nn::ExpertChoice::dense, nn::ExpertChoice::moe,
                                         nn::ExpertChoice::mot};

fs::path given_folder() {
  const char* folder = std::getenv("BINADE_BAGEL_PUBLIC");
  if (folder == nullptr) skip("run scripts/long/bagel_public.sh");
  return folder;
}

// As far apart as the largest value allows: sums have other orders.
void check_close(const Array& got, const Array& want) {
  constexpr double kTolerance = 1e-5;
  REQUIRE(got.shape() == want.shape());
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < want.numel(); ++i) {
    const double value = want.data<float>()[i];
    worst = std::max(worst, std::abs(got.data<float>()[i] - value));
    largest = std::max(largest, std::abs(value));
  }
  CHECK(worst <= kTolerance * largest);
}

}  // namespace

TEST_CASE("models that read and draw are written for the public code", "[.bagel-public-write]") {
  const fs::path folder = given_folder();
  for (const nn::ExpertChoice choice : kChoices) {
    RandomState::current().set_seed(40);
    nn::MotModel model(public_config(choice));
    nn::StateDict state = model.snapshot();
    for (auto& [name, value] : state) value = (Tensor(value) + 0.1 * randn(value.shape())).array();
    model.load_state(state);
    const std::string name(nn::name_of(choice));
    nn::save_mot(model, folder / name);
    const PublicResults made = public_results(model);
    write_safetensors(folder / (name + ".safetensors"), made.results);
    write_safetensors(folder / "inputs.safetensors", made.inputs);
  }
  write_text_file(folder / "cases.json", public_cases().dump(2));
}

TEST_CASE("folders that the public code wrote are read", "[.bagel-public-read]") {
  const fs::path folder = given_folder();
  for (const nn::ExpertChoice choice : kChoices) {
    const std::string name = "public-" + std::string(nn::name_of(choice));
    const auto model = nn::load_mot(folder / name);
    const NamedArrays got = public_results(*model).results;
    const SafetensorsFile want(folder / (name + ".safetensors"));
    CHECK(want.names().size() == got.size());
    for (const auto& [what, values] : got) {
      INFO(name << ": " << what);
      REQUIRE(want.contains(what));
      const Array expected = want.get(what);
      if (values.dtype() == DType::i64)
        CHECK(values.to_vector<int64_t>() == expected.to_vector<int64_t>());
      else
        check_close(values, expected);
    }
  }
}
