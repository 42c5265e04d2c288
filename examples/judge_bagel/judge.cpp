#include "judge.h"

#include <numeric>

#include <binade/autograd/ops.h>
#include <binade/core/safetensors.h>
#include <binade/nn/state.h>
#include <binade/optim/adamw.h>
#include <binade/optim/schedule.h>

namespace binade::examples {

namespace {

constexpr uint64_t kSeed = 1234;
constexpr int64_t kBatch = 256;

Array stacked(const std::vector<Array>& pictures, size_t begin, size_t end) {
  const Array all =
      Array::empty({static_cast<int64_t>(end - begin), 3, kItemSize, kItemSize}, DType::f32);
  for (size_t i = begin; i < end; ++i)
    all.select(0, static_cast<int64_t>(i - begin)).copy_from(pictures[i]);
  return all;
}

std::pair<Tensor, Tensor> split_logits(const Tensor& logits) {
  return {slice(logits, 1, 0, kClasses), slice(logits, 1, kClasses)};
}

}  // namespace

Judge::Judge() {
  int64_t channels = 3;
  for (const int64_t width : {32, 64, 128}) {
    stages_.push_back({add<nn::Conv2d>(concat("conv", width), channels, width, 3,
                                       Conv2dOptions{.padding = {1, 1}}),
                       add<nn::BatchNorm2d>(concat("norm", width), width)});
    channels = width;
  }
  hidden_ = add<nn::Linear>("hidden", 128 * 4 * 4, kFeatures);
  out_ = add<nn::Linear>("out", kFeatures, kClasses + kColors);
}

std::pair<Tensor, Tensor> Judge::forward(const Tensor& pictures) const {
  Tensor x = pictures;
  for (const Stage& stage : stages_)
    x = max_pool2d(relu(stage.norm->forward(stage.conv->forward(x))));
  const Tensor features = relu(hidden_->forward(flatten(x, 1)));
  return {features, out_->forward(features)};
}

Tinted tinted(const World& world, const std::vector<int64_t>& images, data::RandomStream& random,
              bool mirror) {
  Tinted all;
  for (const int64_t image : images) {
    const Item item{image, world.label(image), random.below(kColors)};
    all.items.push_back(item);
    all.pictures.push_back(world.picture({item}, mirror && random.chance(.5)));
  }
  return all;
}

namespace {

void train_judge(Judge& judge, const World& world, int64_t steps, Device device) {
  optim::AdamW optimizer(optim::split_by_decay(judge, .05));
  const optim::Schedule schedule{
      .learning_rate = 2e-3, .warmup = steps * 3 / 10, .total = steps, .final_factor = 0};
  for (int64_t step = 0; step < steps; ++step) {
    data::RandomStream random(kSeed, static_cast<uint64_t>(step));
    std::vector<int64_t> images(kBatch);
    for (int64_t& image : images) image = random.below(world.size());
    const Tinted batch = tinted(world, images, random, /*mirror=*/true);
    std::vector<int64_t> classes, colors;
    for (const Item& item : batch.items) {
      classes.push_back(item.item_class);
      colors.push_back(item.color);
    }
    const auto [of_class, of_color] =
        split_logits(judge.forward(Tensor(stacked(batch.pictures, 0, kBatch).to(device))).second);
    optimizer.zero_grad();
    optimizer.set_learning_rate(schedule.at(step));
    (cross_entropy(of_class, Tensor::from(classes, {kBatch}, device)) +
     cross_entropy(of_color, Tensor::from(colors, {kBatch}, device)))
        .backward();
    optimizer.step();
  }
}

}  // namespace

std::shared_ptr<Judge> make_judge(const World& world, int64_t steps, Device device,
                                  const std::filesystem::path& kept) {
  RandomState::current().set_seed(kSeed);
  auto judge = std::make_shared<Judge>();
  const bool known = !kept.empty() && std::filesystem::exists(kept);
  if (known) judge->load_state(nn::read_state(kept));
  judge->to(device);
  if (!known) train_judge(*judge, world, steps, device);
  judge->eval();
  if (!known && !kept.empty()) write_safetensors(kept, judge->state());
  return judge;
}

Verdict judge(const Judge& judge, const std::vector<Array>& pictures, Device device) {
  constexpr size_t kAtATime = 500;
  const NoGrad off;
  Verdict verdict;
  TensorList features;
  const auto append = [](std::vector<int64_t>& to, const Tensor& logits) {
    const auto more = argmax(logits, 1).to_vector<int64_t>();
    to.insert(to.end(), more.begin(), more.end());
  };
  for (size_t begin = 0; begin < pictures.size(); begin += kAtATime) {
    const size_t end = std::min(begin + kAtATime, pictures.size());
    const auto [seen, logits] = judge.forward(Tensor(stacked(pictures, begin, end).to(device)));
    const auto [of_class, of_color] = split_logits(logits);
    features.push_back(to(seen, Device::cpu()));
    append(verdict.classes, of_class);
    append(verdict.colors, of_color);
  }
  verdict.features = cat(features, 0).array();
  return verdict;
}

}  // namespace binade::examples
