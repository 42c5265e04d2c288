// Ranker: a network that gives every document of a list a score.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <binade/nn/linear.h>
#include <binade/nn/module.h>
#include <binade/nn/norm.h>

namespace binade::heads::rank {

struct RankerConfig {
  enum class Kind : uint8_t {
    linear,     // a weighted sum of the features
    mlp,        // layers of `hidden` widths, each document by itself
    attention,  // documents of a list see each other (Pobrotyn et al. 2020, allRank)
  };

  int64_t features = 0;
  Kind kind = Kind::mlp;
  std::vector<int64_t> hidden = {256, 128, 64};  // of mlp; attention: its first layer's is `dim`
  bool layer_norm = true;                        // in front of each activation
  double dropout = 0;   // behind each activation, and in attention's blocks
  double noise = 0;     // standard deviation of what is added to the features in training
  int64_t outputs = 1;  // numbers a document: output_columns() of the loss
  // attention
  int64_t dim = 128, blocks = 2, heads = 2;

  // Throws Error for sizes that are no use.
  void validate() const;
  std::string to_json() const;
  static RankerConfig from_json(const std::string& text, const std::string& name);
};

std::string_view name_of(RankerConfig::Kind kind);
RankerConfig::Kind parse_ranker_kind(std::string_view name);  // Error for another name

class Ranker : public nn::Module {
 public:
  // Weights are drawn on the CPU in f32.
  explicit Ranker(const RankerConfig& config);

  const RankerConfig& config() const { return config_; }
  // features (N, F), half or f32 → (N), or (N, outputs). list_of (N) i32: which list each document
  // is of; an attention ranker needs it. The order of documents within a list does not matter.
  Tensor forward(const Tensor& features, const Tensor& list_of = {}) const;

 private:
  class Layer;
  class Block;

  RankerConfig config_;
  std::vector<std::shared_ptr<Layer>> layers_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<nn::LayerNorm> last_norm_;
  std::shared_ptr<nn::Linear> output_;
};

}  // namespace binade::heads::rank
