// Who says what is in a drawing: a small convolutional network that has seen the training items
// alone, in every colour.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include <binade/nn/batch_norm.h>
#include <binade/nn/conv2d.h>
#include <binade/nn/linear.h>

#include "../bagel/world.h"

namespace binade::examples {

class Judge : public nn::Module {
 public:
  static constexpr int64_t kFeatures = 128;
  Judge();
  // pictures (N, 3, 32, 32) → features (N, 128), logits (N, 10 + 8): class and colour.
  std::pair<Tensor, Tensor> forward(const Tensor& pictures) const;

 private:
  struct Stage {
    std::shared_ptr<nn::Conv2d> conv;
    std::shared_ptr<nn::BatchNorm2d> norm;
  };
  std::vector<Stage> stages_;
  std::shared_ptr<nn::Linear> hidden_, out_;
};

// Trained on the device for so many steps of 256 items; in evaluation mode. `kept`: a file that has
// its weights, or gets them; empty: none.
std::shared_ptr<Judge> make_judge(const World& world, int64_t steps, Device device,
                                  const std::filesystem::path& kept);

struct Verdict {
  Array features;  // (N, 128) f32 on the CPU
  std::vector<int64_t> classes, colors;
};
// Of pictures of one item each.
Verdict judge(const Judge& judge, const std::vector<Array>& pictures, Device device);

// Items of the world by number, in random colours, and their pictures.
struct Tinted {
  Items items;
  std::vector<Array> pictures;
};
Tinted tinted(const World& world, const std::vector<int64_t>& images, data::RandomStream& random,
              bool mirror);

}  // namespace binade::examples
