#include <binade/heads/rank/ranker.h>

#include <nlohmann/json.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/json_view.h>
#include <binade/core/text.h>
#include <binade/nn/dropout.h>

namespace binade::heads::rank {

namespace {

constexpr std::pair<std::string_view, RankerConfig::Kind> kKinds[] = {
    {"linear", RankerConfig::Kind::linear},
    {"mlp", RankerConfig::Kind::mlp},
    {"attention", RankerConfig::Kind::attention}};
constexpr int64_t kMostUnits = int64_t{1} << 20;

}  // namespace

std::string_view name_of(RankerConfig::Kind kind) {
  for (const auto& [name, value] : kKinds)
    if (value == kind) return name;
  fail("a ranker of no known kind");
}

RankerConfig::Kind parse_ranker_kind(std::string_view name) {
  for (const auto& [known, value] : kKinds)
    if (known == name) return value;
  fail("there is no ranker of the kind ", name, "; there are linear, mlp and attention");
}

void RankerConfig::validate() const {
  const auto in_range = [](const char* what, int64_t value, int64_t least) {
    check(value >= least && value <= kMostUnits, "a ranker's ", what, " lies in [", least, ", ",
          kMostUnits, "], got ", value);
  };
  in_range("number of features", features, 1);
  in_range("number of outputs", outputs, 1);
  for (const int64_t width : hidden) in_range("hidden width", width, 1);
  check(dropout >= 0 && dropout < 1, "dropout lies in [0, 1), got ", dropout);
  check(noise >= 0 && noise <= 100, "the noise on features lies in [0, 100], got ", noise);
  if (kind != Kind::attention) return;
  in_range("width of attention", dim, 1);
  in_range("number of attention blocks", blocks, 1);
  in_range("number of attention heads", heads, 1);
  check(dim % heads == 0, "the width of attention, ", dim, ", is no multiple of its ", heads,
        " heads");
}

std::string RankerConfig::to_json() const {
  nlohmann::ordered_json json;
  json["features"] = features;
  json["kind"] = name_of(kind);
  json["hidden"] = hidden;
  json["layer_norm"] = layer_norm;
  json["dropout"] = dropout;
  json["noise"] = noise;
  json["outputs"] = outputs;
  if (kind == Kind::attention) {
    json["dim"] = dim;
    json["blocks"] = blocks;
    json["heads"] = heads;
  }
  return json.dump(2) + "\n";
}

RankerConfig RankerConfig::from_json(const std::string& text, const std::string& name) {
  const nlohmann::json document = parse_json(text, name);
  const JsonView json(document, concat(name, ": "));
  json.expect_object();
  RankerConfig config;
  const auto integer = [&](const char* key) { return json[key].integer(0, kMostUnits); };
  config.features = integer("features");
  config.kind = parse_ranker_kind(json["kind"].text());
  config.hidden.clear();
  const JsonView hidden = json["hidden"];
  for (size_t i = 0; i < hidden.size(); ++i)
    config.hidden.push_back(hidden[i].integer(1, kMostUnits));
  config.layer_norm = json["layer_norm"].flag();
  config.dropout = json["dropout"].number();
  config.noise = json["noise"].number();
  config.outputs = integer("outputs");
  if (config.kind == Kind::attention) {
    config.dim = integer("dim");
    config.blocks = integer("blocks");
    config.heads = integer("heads");
  }
  config.validate();
  return config;
}

// Linear, norm, ReLU, dropout.
class Ranker::Layer : public nn::Module {
 public:
  Layer(int64_t in, int64_t out, const RankerConfig& config)
      : linear_(add<nn::Linear>("linear", in, out)),
        dropout_(add<nn::Dropout>("dropout", config.dropout)) {
    if (config.layer_norm) norm_ = add<nn::LayerNorm>("norm", out);
  }
  Tensor forward(const Tensor& x) const {
    Tensor y = linear_->forward(x);
    if (norm_) y = norm_->forward(y);
    return dropout_->forward(relu(y));
  }

 private:
  std::shared_ptr<nn::Linear> linear_;
  std::shared_ptr<nn::Dropout> dropout_;
  std::shared_ptr<nn::LayerNorm> norm_;
};

// x + attention(norm(x)), then x + MLP(norm(x)), of four times the width.
class Ranker::Block : public nn::Module {
 public:
  explicit Block(const RankerConfig& config)
      : heads_(config.heads),
        dropout_rate_(config.dropout),
        attention_norm_(add<nn::LayerNorm>("attention_norm", config.dim)),
        qkv_(add<nn::Linear>("qkv", config.dim, 3 * config.dim)),
        merge_(add<nn::Linear>("merge", config.dim, config.dim)),
        mlp_norm_(add<nn::LayerNorm>("mlp_norm", config.dim)),
        up_(add<nn::Linear>("up", config.dim, 4 * config.dim)),
        down_(add<nn::Linear>("down", 4 * config.dim, config.dim)),
        dropout_(add<nn::Dropout>("dropout", config.dropout)) {}

  // x (N, dim), list_of (1, N)
  Tensor forward(const Tensor& x, const Tensor& list_of) const {
    AttentionOptions options;
    options.documents = list_of;
    options.dropout = dropout_rate_;
    options.training = training();
    const Tensor seen = packed_attention(unsqueeze(qkv_->forward(attention_norm_->forward(x)), 0),
                                         heads_, heads_, options);
    const Tensor y = x + dropout_->forward(merge_->forward(squeeze(seen, 0)));
    return y + dropout_->forward(down_->forward(relu(up_->forward(mlp_norm_->forward(y)))));
  }

 private:
  int64_t heads_;
  double dropout_rate_;
  std::shared_ptr<nn::LayerNorm> attention_norm_;
  std::shared_ptr<nn::Linear> qkv_, merge_;
  std::shared_ptr<nn::LayerNorm> mlp_norm_;
  std::shared_ptr<nn::Linear> up_, down_;
  std::shared_ptr<nn::Dropout> dropout_;
};

Ranker::Ranker(const RankerConfig& config) : config_(config) {
  config.validate();
  int64_t width = config.features;
  std::vector<int64_t> hidden;
  if (config.kind == RankerConfig::Kind::mlp) hidden = config.hidden;
  if (config.kind == RankerConfig::Kind::attention) hidden = {config.dim};
  for (const int64_t next : hidden) {
    layers_.push_back(add<Layer>(concat("layers.", layers_.size()), width, next, config));
    width = next;
  }
  if (config.kind == RankerConfig::Kind::attention) {
    for (int64_t i = 0; i < config.blocks; ++i)
      blocks_.push_back(add<Block>(concat("blocks.", i), config));
    last_norm_ = add<nn::LayerNorm>("norm", width);
  }
  output_ = add<nn::Linear>("output", width, config.outputs);
}

Tensor Ranker::forward(const Tensor& features, const Tensor& list_of) const {
  check(features.dims() == 2 && features.size(1) == config_.features, "a ranker of ",
        config_.features, " features got ", features.shape());
  Tensor x = features;
  if (training() && config_.noise > 0)
    x = x + Tensor(nn::init::normal(config_.noise)(x.shape(), x.device()).to(x.dtype()));
  for (const auto& layer : layers_) x = layer->forward(x);
  if (!blocks_.empty()) {
    check(list_of.defined() && list_of.numel() == features.size(0),
          "an attention ranker must know which list each document is of");
    const Tensor lists = reshape(list_of, {1, list_of.numel()});
    for (const auto& block : blocks_) x = block->forward(x, lists);
    x = last_norm_->forward(x);
  }
  const Tensor y = output_->forward(x);
  return config_.outputs == 1 ? reshape(y, {y.size(0)}) : y;
}

}  // namespace binade::heads::rank
