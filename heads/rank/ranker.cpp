#include <binade/heads/rank/ranker.h>

#include <nlohmann/json.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/json_view.h>
#include <binade/core/text.h>
#include <binade/nn/dropout.h>
#include <binade/nn/linear_relu.h>

namespace binade::heads::rank {

namespace {

using Kind = RankerConfig::Kind;
using Norm = RankerConfig::Norm;

template <class T>
struct Choice {
  std::string_view name;
  T value;
};
constexpr Choice<Kind> kKinds[] = {{"linear", Kind::linear},
                                   {"mlp", Kind::mlp},
                                   {"attention", Kind::attention},
                                   {"dasalc", Kind::dasalc}};
constexpr Choice<Norm> kNorms[] = {
    {"none", Norm::none}, {"layer", Norm::layer}, {"batch", Norm::batch}};
constexpr int64_t kMostUnits = int64_t{1} << 20, kMostLayers = 1024;

template <class T, size_t n>
std::vector<std::string> names_of(const Choice<T> (&choices)[n]) {
  std::vector<std::string> names;
  for (const auto& choice : choices) names.emplace_back(choice.name);
  return names;
}
template <class T, size_t n>
std::string_view name_in(const Choice<T> (&choices)[n], T value) {
  for (const auto& choice : choices)
    if (choice.value == value) return choice.name;
  fail("a ranker of no known kind");
}
template <class T, size_t n>
T parse_in(const Choice<T> (&choices)[n], const char* what, std::string_view name) {
  for (const auto& choice : choices)
    if (choice.name == name) return choice.value;
  std::string all;
  for (const auto& choice : choices) all += (all.empty() ? "" : ", ") + std::string(choice.name);
  fail("there is no ", what, " ", name, "; there are ", all);
}

}  // namespace

std::string_view name_of(Kind kind) {
  return name_in(kKinds, kind);
}
Kind parse_ranker_kind(std::string_view name) {
  return parse_in(kKinds, "ranker of the kind", name);
}
std::vector<std::string> ranker_kinds() {
  return names_of(kKinds);
}
std::string_view name_of(Norm norm) {
  return name_in(kNorms, norm);
}
Norm parse_ranker_norm(std::string_view name) {
  return parse_in(kNorms, "norm of a ranker", name);
}
std::vector<std::string> ranker_norms() {
  return names_of(kNorms);
}

void RankerConfig::validate() const {
  const auto in_range = [](const char* what, int64_t value, int64_t least,
                           int64_t most = kMostUnits) {
    check(value >= least && value <= most, "a ranker's ", what, " lies in [", least, ", ", most,
          "], got ", value);
  };
  in_range("number of features", features, 1);
  in_range("number of outputs", outputs, 1);
  in_range("number of hidden layers", static_cast<int64_t>(hidden.size()), 0, kMostLayers);
  for (const int64_t width : hidden) in_range("hidden width", width, 1);
  check(dropout >= 0 && dropout < 1, "dropout lies in [0, 1), got ", dropout);
  check(noise >= 0 && noise <= 100, "the noise on features lies in [0, 100], got ", noise);
  check(kind != Kind::dasalc || !hidden.empty(),
        "a dasalc ranker needs hidden layers, whose last attention crosses");
  if (!attends()) return;
  in_range("width of attention", dim, 1);
  in_range("number of attention blocks", blocks, 1, kMostLayers);
  in_range("number of attention heads", heads, 1);
  check(dim % heads == 0, "the width of attention, ", dim, ", is no multiple of its ", heads,
        " heads");
}

std::string RankerConfig::to_json() const {
  nlohmann::ordered_json json;
  json["features"] = features;
  json["kind"] = name_of(kind);
  json["hidden"] = hidden;
  json["norm"] = name_of(norm);
  json["input_norm"] = input_norm;
  json["dropout"] = dropout;
  json["noise"] = noise;
  json["outputs"] = outputs;
  if (attends()) {
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
  // Files of before there was a choice say whether there is a layer norm.
  if (json.has("norm"))
    config.norm = parse_ranker_norm(json["norm"].text());
  else
    config.norm = json["layer_norm"].flag() ? Norm::layer : Norm::none;
  config.input_norm = json.flag_or("input_norm", false);
  config.dropout = json["dropout"].number();
  config.noise = json["noise"].number();
  config.outputs = integer("outputs");
  if (config.attends()) {
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
    if (config.norm == Norm::layer) norm_ = add<nn::LayerNorm>("norm", out, kNormEpsilon);
    if (config.norm == Norm::batch) batch_norm_ = add<BatchNorm>("norm", out);
  }
  // documents: see BatchNorm
  Tensor forward(const Tensor& x, const Tensor& documents) const {
    if (!norm_ && !batch_norm_) return dropout_->forward(nn::forward_relu(*linear_, x));
    Tensor y = linear_->forward(x);
    if (norm_) y = norm_->forward(y);
    if (batch_norm_) y = batch_norm_->forward(y, documents);
    return dropout_->forward(relu(y));
  }

 private:
  std::shared_ptr<nn::Linear> linear_;
  std::shared_ptr<nn::Dropout> dropout_;
  std::shared_ptr<nn::LayerNorm> norm_;
  std::shared_ptr<BatchNorm> batch_norm_;
};

// x + attention(norm(x)), then x + MLP(norm(x)), of four times the width.
class Ranker::Block : public nn::Module {
 public:
  explicit Block(const RankerConfig& config)
      : heads_(config.heads),
        dropout_rate_(config.dropout),
        attention_norm_(add<nn::LayerNorm>("attention_norm", config.dim, kNormEpsilon)),
        qkv_(add<nn::Linear>("qkv", config.dim, 3 * config.dim)),
        merge_(add<nn::Linear>("merge", config.dim, config.dim)),
        mlp_norm_(add<nn::LayerNorm>("mlp_norm", config.dim, kNormEpsilon)),
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
    return y + dropout_->forward(down_->forward(nn::forward_relu(*up_, mlp_norm_->forward(y))));
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
  if (config.input_norm) input_norm_ = add<BatchNorm>("input_norm", width);
  std::vector<int64_t> hidden;
  if (config.kind == Kind::mlp || config.kind == Kind::dasalc) hidden = config.hidden;
  if (config.kind == Kind::attention) hidden = {config.dim};
  for (const int64_t next : hidden) {
    layers_.push_back(add<Layer>(concat("layers.", layers_.size()), width, next, config));
    width = next;
  }
  if (config.kind == Kind::dasalc)
    embed_ = add<Layer>("embed", config.features, config.dim, config);
  if (config.attends()) {
    for (int64_t i = 0; i < config.blocks; ++i)
      blocks_.push_back(add<Block>(concat("blocks.", i), config));
    last_norm_ = add<nn::LayerNorm>("norm", config.dim, kNormEpsilon);
  }
  if (config.kind == Kind::dasalc) cross_ = add<nn::Linear>("cross", config.dim, width);
  output_ = add<nn::Linear>("output", width, config.outputs);
}

Tensor Ranker::attend(Tensor x, const Tensor& list_of) const {
  check(list_of.defined() && list_of.numel() == x.size(0),
        "an attention ranker must know which list each document is of");
  const Tensor lists = reshape(list_of, {1, list_of.numel()});
  for (const auto& block : blocks_) x = block->forward(x, lists);
  return last_norm_->forward(x);
}

Tensor Ranker::forward(const Tensor& features, const Tensor& list_of) const {
  check(features.dims() == 2 && features.size(1) == config_.features, "a ranker of ",
        config_.features, " features got ", features.shape());
  Tensor documents;  // (N, 1): 0 where list_of is -1, else 1
  if (training() && config_.has_batch_norm() && list_of.defined())
    documents = reshape(clamp(binade::to(list_of, DType::f32) + 1.0, 0, 1), {features.size(0), 1});
  Tensor x = features;
  if (input_norm_) x = input_norm_->forward(x, documents);
  if (training() && config_.noise > 0)
    x = x + Tensor(nn::init::normal(config_.noise)(x.shape(), x.device()).to(x.dtype()));
  Tensor h = x;
  for (const auto& layer : layers_) h = layer->forward(h, documents);
  if (config_.kind == Kind::attention) h = attend(h, list_of);
  if (config_.kind == Kind::dasalc) {
    const Tensor c = cross_->forward(attend(embed_->forward(x, documents), list_of));
    h = relu(h * c + h);
  }
  const Tensor y = output_->forward(h);
  return config_.outputs == 1 ? reshape(y, {y.size(0)}) : y;
}

}  // namespace binade::heads::rank
