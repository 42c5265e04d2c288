#include <binade/heads/rank/onnx.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <binade/core/error.h>
#include <binade/heads/rank/protobuf.h>

namespace binade::heads::rank {

namespace {

constexpr int64_t kIrVersion = 8, kOpset = 17;
constexpr float kNormEpsilon = 1e-5F;  // nn::LayerNorm's

// Numbers that onnx.proto gives to fields and types.
namespace field {
constexpr int kIrVersion = 1, kProducer = 2, kGraph = 7, kOpsetImport = 8, kMetadata = 14;
constexpr int kNode = 1, kGraphName = 2, kInitializer = 5, kInput = 11, kOutput = 12;
constexpr int kNodeInput = 1, kNodeOutput = 2, kNodeName = 3, kNodeType = 4, kAttribute = 5;
constexpr int kTensorDims = 1, kTensorType = 2, kTensorName = 8, kTensorBytes = 9;
}  // namespace field

enum ElementType : int64_t { kFloat = 1, kInt64 = 7, kDouble = 11 };

ElementType element_type(DType dtype) {
  return dtype == DType::f64 ? kDouble : dtype == DType::i64 ? kInt64 : kFloat;
}

// AttributeProto.
ProtoMessage attribute(std::string_view name, int64_t value) {
  return ProtoMessage().text(1, name).integer(3, value).integer(20, 2);
}
ProtoMessage attribute(std::string_view name, float value) {
  return ProtoMessage().text(1, name).number(2, value).integer(20, 1);
}
ProtoMessage attribute_list(std::string_view name, int64_t value) {
  return ProtoMessage().text(1, name).integer(8, value).integer(20, 7);
}

// ValueInfoProto: f32 of so many documents, and of `width` numbers each unless that is 0.
ProtoMessage documents_of(std::string_view name, int64_t width) {
  ProtoMessage shape;
  shape.message(1, ProtoMessage().text(2, "documents"));
  if (width > 0) shape.message(1, ProtoMessage().integer(1, width));
  const ProtoMessage tensor = ProtoMessage().integer(1, kFloat).message(2, shape);
  return ProtoMessage().text(1, name).message(2, ProtoMessage().message(1, tensor));
}

ProtoMessage entry(std::string_view key, std::string_view value) {
  return ProtoMessage().text(1, key).text(2, value);
}

// A graph that grows by nodes; values are called by name.
class Graph {
 public:
  using Values = std::vector<std::string>;
  using Attributes = std::vector<ProtoMessage>;

  // The op's one result, which is called `name` if that is given.
  std::string op(const char* type, const Values& inputs, const Attributes& attributes = {},
                 std::string name = {}) {
    if (name.empty()) name = concat(type, '_', ++count_);
    ProtoMessage node;
    for (const std::string& input : inputs) node.text(field::kNodeInput, input);
    node.text(field::kNodeOutput, name).text(field::kNodeName, name).text(field::kNodeType, type);
    for (const ProtoMessage& one : attributes) node.message(field::kAttribute, one);
    graph_.message(field::kNode, node);
    return name;
  }

  std::string constant(const std::string& name, const Array& values) {
    ProtoMessage tensor;
    const Array whole = values.contiguous();
    for (const int64_t size : whole.shape()) tensor.integer(field::kTensorDims, size);
    tensor.integer(field::kTensorType, element_type(whole.dtype()))
        .text(field::kTensorName, name)
        .text(field::kTensorBytes,
              {static_cast<const char*>(whole.data()), static_cast<size_t>(whole.bytes())});
    graph_.message(field::kInitializer, tensor);
    return name;
  }
  std::string scalar(double value) {
    return constant(concat("number_", ++count_), Array::full({}, value, DType::f64));
  }
  std::string sizes(const std::vector<int64_t>& values) {
    return constant(concat("sizes_", ++count_),
                    Array::from(values, {static_cast<int64_t>(values.size())}));
  }

  ProtoMessage& message() { return graph_; }

 private:
  ProtoMessage graph_;
  int count_ = 0;
};

bool all_are(const Array& values, double value) {
  const auto all = values.to_vector<double>();
  return std::all_of(all.begin(), all.end(), [&](double x) { return x == value; });
}

// The steps of FeatureScaling::apply(), f32 → f32.
class ScalingGraph {
 public:
  ScalingGraph(Graph& graph, const data::FeatureScaling& scaling)
      : graph_(graph), scaling_(scaling) {}

  std::string operator()(const std::string& features) {
    std::string x = graph_.op("Cast", {features}, {attribute("to", int64_t{kDouble})});
    if (!all_are(scaling_.low(), -HUGE_VAL))
      x = graph_.op("Max", {x, graph_.constant("low", scaling_.low())});
    if (!all_are(scaling_.high(), HUGE_VAL))
      x = graph_.op("Min", {x, graph_.constant("high", scaling_.high())});
    const data::FeatureScalingOptions& options = scaling_.options();
    if (options.log1p) x = signed_log(x);
    if (options.normalise == data::FeatureScalingOptions::Normalise::query_min_max) {
      x = min_max(x);
    } else {
      if (!all_are(scaling_.mean(), 0))
        x = graph_.op("Sub", {x, graph_.constant("mean", scaling_.mean())});
      if (!all_are(scaling_.scale(), 1))
        x = graph_.op("Mul", {x, graph_.constant("scale", scaling_.scale())});
    }
    x = graph_.op("Clip", {x, graph_.scalar(-options.limit), graph_.scalar(options.limit)});
    return graph_.op("Cast", {x}, {attribute("to", int64_t{kFloat})});
  }

 private:
  // Where `x` is 0: 1.
  std::pair<std::string, std::string> without_zeros(const std::string& x) {
    const std::string zero = graph_.op("Equal", {x, graph_.scalar(0)});
    return {zero, graph_.op("Where", {zero, graph_.scalar(1), x})};
  }
  // ONNX has no log1p. With u = 1 + a as it rounds, log1p(a) = a·log(u)/(u − 1), and a where u is 1
  // (Kahan; HP-15C Advanced Functions Handbook, 1982).
  std::string signed_log(const std::string& x) {
    const std::string one = graph_.scalar(1), a = graph_.op("Abs", {x});
    const std::string u = graph_.op("Add", {a, one});
    const auto [tiny, rest] = without_zeros(graph_.op("Sub", {u, one}));
    const std::string log = graph_.op("Where", {tiny, one, graph_.op("Log", {u})});
    const std::string y = graph_.op("Mul", {a, graph_.op("Div", {log, rest})});
    return graph_.op("Mul", {graph_.op("Sign", {x}), y});
  }
  std::string min_max(const std::string& x) {
    const Graph::Attributes over_documents = {attribute_list("axes", 0),
                                              attribute("keepdims", int64_t{1})};
    const std::string least = graph_.op("ReduceMin", {x}, over_documents);
    const std::string largest = graph_.op("ReduceMax", {x}, over_documents);
    // x − least is 0 where they are the same.
    const std::string span = without_zeros(graph_.op("Sub", {largest, least})).second;
    return graph_.op("Div", {graph_.op("Sub", {x, least}), span});
  }

  Graph& graph_;
  const data::FeatureScaling& scaling_;
};

// Ranker::forward() in evaluation mode, f32.
class NetworkGraph {
 public:
  NetworkGraph(Graph& graph, const Ranker& ranker)
      : graph_(graph), config_(ranker.config()), state_(ranker.state()) {}

  std::string operator()(std::string x) {
    for (int64_t i = 0; state_.contains(concat("layers.", i, ".linear.weight")); ++i) {
      const std::string layer = concat("layers.", i, '.');
      x = linear(x, layer + "linear");
      if (config_.layer_norm) x = norm(x, layer + "norm");
      x = graph_.op("Relu", {x});
    }
    if (config_.kind == RankerConfig::Kind::attention) {
      for (int64_t i = 0; i < config_.blocks; ++i) x = block(x, concat("blocks.", i, '.'));
      x = norm(x, "norm");
    }
    return linear(x, "output");
  }

 private:
  Array weight(const std::string& name) const {
    return state_.at(name).to(Device::cpu()).to(DType::f32);
  }
  std::string linear(const std::string& x, const std::string& name) {
    return linear(x, name, weight(name + ".weight"), weight(name + ".bias"));
  }
  std::string linear(const std::string& x, const std::string& name, const Array& weights,
                     const Array& bias) {
    return graph_.op(
        "Gemm",
        {x, graph_.constant(name + ".weight", weights), graph_.constant(name + ".bias", bias)},
        {attribute("transB", int64_t{1})});
  }
  std::string norm(const std::string& x, const std::string& name) {
    return graph_.op("LayerNormalization",
                     {x, graph_.constant(name + ".weight", weight(name + ".weight")),
                      graph_.constant(name + ".bias", weight(name + ".bias"))},
                     {attribute("axis", int64_t{-1}), attribute("epsilon", kNormEpsilon)});
  }
  std::string transposed(const std::string& x, const std::vector<int64_t>& order) {
    ProtoMessage list = ProtoMessage().text(1, "perm");
    for (const int64_t axis : order) list.integer(8, axis);
    return graph_.op("Transpose", {x}, {list.integer(20, 7)});
  }

  std::string block(const std::string& x, const std::string& name) {
    const std::string seen = attention(norm(x, name + "attention_norm"), name + "qkv");
    const std::string y = graph_.op("Add", {x, linear(seen, name + "merge")});
    const std::string up = graph_.op("Relu", {linear(norm(y, name + "mlp_norm"), name + "up")});
    return graph_.op("Add", {y, linear(up, name + "down")});
  }

  // All documents are of one list, so each sees all.
  std::string attention(const std::string& x, const std::string& name) {
    const int64_t dim = config_.dim, size = dim / config_.heads;
    const Array weights = weight(name + ".weight"), bias = weight(name + ".bias");
    const std::string by_heads = graph_.sizes({-1, config_.heads, size});
    // (documents, dim) → (heads, …) in this order of documents and the head's numbers.
    const auto part = [&](int64_t p, const char* what, const std::vector<int64_t>& order) {
      const std::string y =
          linear(x, concat(name, '.', what), weights.slice(0, p * dim, (p + 1) * dim),
                 bias.slice(0, p * dim, (p + 1) * dim));
      return transposed(graph_.op("Reshape", {y, by_heads}), order);
    };
    const std::string q = part(0, "query", {1, 0, 2}), k = part(1, "key", {1, 2, 0}),
                      v = part(2, "value", {1, 0, 2});
    const std::string scale = graph_.constant(
        name + ".scale", Array::full({}, 1 / std::sqrt(static_cast<double>(size)), DType::f32));
    const std::string scores = graph_.op("Mul", {graph_.op("MatMul", {q, k}), scale});
    const std::string shares = graph_.op("Softmax", {scores}, {attribute("axis", int64_t{-1})});
    const std::string seen = transposed(graph_.op("MatMul", {shares, v}), {1, 0, 2});
    return graph_.op("Reshape", {seen, graph_.sizes({-1, dim})});
  }

  Graph& graph_;
  const RankerConfig& config_;
  nn::StateDict state_;
};

// ranking_scores(): x (documents, outputs) → `name` (documents).
void scores_of(Graph& graph, const std::string& x, const SavedRanker& saved, const char* name) {
  const LossInfo& loss = saved.loss.info();
  if (loss.outputs == Outputs::score) {
    graph.op("Reshape", {x, graph.sizes({-1})}, {}, name);
  } else if (loss.name == "prank") {
    graph.op("ReduceMean", {x}, {attribute_list("axes", 1), attribute("keepdims", int64_t{0})},
             name);
  } else {
    std::string terms;
    if (loss.outputs == Outputs::classes) {
      const std::string grades = graph.constant(
          "grades", Array::arange(saved.ranker->config().outputs, DType::f32, Device::cpu()));
      terms = graph.op("Mul", {graph.op("Softmax", {x}, {attribute("axis", int64_t{1})}), grades});
    } else {
      terms = graph.op("Sigmoid", {x});
    }
    graph.op("ReduceSum", {terms, graph.sizes({1})}, {attribute("keepdims", int64_t{0})}, name);
  }
}

}  // namespace

bool needs_list(const SavedRanker& saved) {
  return saved.ranker->config().kind == RankerConfig::Kind::attention ||
         (saved.scaling && saved.scaling->options().normalise ==
                               data::FeatureScalingOptions::Normalise::query_min_max);
}

std::string to_onnx(const SavedRanker& saved) {
  constexpr const char* kFeatures = "features";
  constexpr const char* kScores = "scores";
  Graph graph;
  std::string x = kFeatures;
  if (saved.scaling) x = ScalingGraph(graph, *saved.scaling)(x);
  scores_of(graph, NetworkGraph(graph, *saved.ranker)(x), saved, kScores);
  graph.message()
      .text(field::kGraphName, "ranker")
      .message(field::kInput, documents_of(kFeatures, saved.ranker->config().features))
      .message(field::kOutput, documents_of(kScores, 0));
  ProtoMessage model;
  model.integer(field::kIrVersion, kIrVersion)
      .text(field::kProducer, "binade")
      .message(field::kOpsetImport, ProtoMessage().text(1, "").integer(2, kOpset))
      .message(field::kGraph, graph.message())
      .message(field::kMetadata, entry("loss", saved.loss.text()))
      .message(field::kMetadata,
               entry("scaling", saved.scaling ? saved.scaling->options().describe() : "none"))
      .message(field::kMetadata,
               entry("documents", needs_list(saved) ? "of one list" : "each by itself"));
  constexpr size_t kMost = size_t{1} << 31;
  check(model.bytes().size() < kMost, "a model of ",
        gib(static_cast<int64_t>(model.bytes().size())),
        " does not fit into an ONNX file, which ends at 2 GiB");
  return model.bytes();
}

}  // namespace binade::heads::rank
