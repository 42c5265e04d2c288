// Ranker: a network that gives every document of a list a score.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <binade/heads/rank/batch_norm.h>
#include <binade/nn/linear.h>
#include <binade/nn/module.h>
#include <binade/nn/norm.h>

namespace binade::heads::rank {

struct RankerConfig {
  enum class Kind : uint8_t {
    linear,     // a weighted sum of the features
    mlp,        // layers of `hidden` widths, each document by itself
    attention,  // documents of a list see each other (Pobrotyn et al. 2020, allRank)
    // An mlp beside attention, relu(h·c + h) of what they make of a document, "latent cross" (Qin
    // et al., "Are neural rankers still outperformed by gradient boosted decision trees?", ICLR
    // 2021).
    dasalc,
  };
  enum class Norm : uint8_t { none, layer, batch };

  int64_t features = 0;
  Kind kind = Kind::mlp;
  std::vector<int64_t> hidden = {256, 128, 64};  // of mlp and dasalc
  Norm norm = Norm::layer;                       // in front of each activation
  bool input_norm = false;                       // batch norm of the features
  double dropout = 0;   // behind each activation, and in attention's blocks
  double noise = 0;     // standard deviation of what is added to the (normed) features in training
  int64_t outputs = 1;  // numbers a document: output_columns() of the loss
  // attention and dasalc
  int64_t dim = 128, blocks = 2, heads = 2;

  bool attends() const { return kind == Kind::attention || kind == Kind::dasalc; }
  bool has_batch_norm() const {
    return input_norm || (norm == Norm::batch && kind != Kind::linear);
  }
  // Throws Error for sizes that are no use.
  void validate() const;
  std::string to_json() const;
  static RankerConfig from_json(const std::string& text, const std::string& name);
};

std::string_view name_of(RankerConfig::Kind kind);
RankerConfig::Kind parse_ranker_kind(std::string_view name);  // Error for another name
std::string_view name_of(RankerConfig::Norm norm);
RankerConfig::Norm parse_ranker_norm(std::string_view name);
std::vector<std::string> ranker_kinds();  // their names, in order
std::vector<std::string> ranker_norms();

class Ranker : public nn::Module {
 public:
  // Weights are drawn on the CPU in f32.
  explicit Ranker(const RankerConfig& config);

  const RankerConfig& config() const { return config_; }
  // features (N, F), half or f32 → (N), or (N, outputs). list_of (N) i32: which list each document
  // is of, -1 in rows that only fill up; one that attends needs it, and in training batch norm
  // does where there are such rows. The order of documents within a list does not matter.
  Tensor forward(const Tensor& features, const Tensor& list_of = {}) const;

 private:
  class Layer;
  class Block;

  Tensor attend(Tensor x, const Tensor& list_of) const;

  RankerConfig config_;
  std::shared_ptr<BatchNorm> input_norm_;
  std::vector<std::shared_ptr<Layer>> layers_;
  std::shared_ptr<Layer> embed_;  // of dasalc: what attention begins with
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<nn::LayerNorm> last_norm_;
  std::shared_ptr<nn::Linear> cross_;  // of dasalc: c
  std::shared_ptr<nn::Linear> output_;
};

}  // namespace binade::heads::rank
