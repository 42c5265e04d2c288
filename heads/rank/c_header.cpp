#include <binade/heads/rank/c_header.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/heads/rank/onnx.h>

namespace binade::heads::rank {

namespace {

constexpr int64_t kWidest = 65536;

// In text that becomes C, @ stands for the name.
constexpr const char* kLayer = R"(
/* y = weights of (in, out), transposed, times x, and bias. */
static inline void @_layer(const float* x, int in, int out, const float* weight, const float* bias,
                           float* y) {
  for (int o = 0; o < out; ++o) y[o] = bias[o];
  for (int i = 0; i < in; ++i) {
    const float value = x[i];
    const float* row = weight + (size_t)i * (size_t)out;
    for (int o = 0; o < out; ++o) y[o] += value * row[o];
  }
}
)";
constexpr const char* kNorm = R"(
/* Layer norm (Ba et al. 2016). */
static inline void @_norm(float* x, int n, const float* weight, const float* bias) {
  double mean = 0, square = 0;
  for (int i = 0; i < n; ++i) mean += x[i];
  mean /= n;
  for (int i = 0; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
  const double scale = 1 / sqrt(square / n + 1e-5);
  for (int i = 0; i < n; ++i) x[i] = (float)((x[i] - mean) * scale) * weight[i] + bias[i];
}
)";
constexpr const char* kRelu = R"(
static inline void @_relu(float* x, int n) {
  for (int i = 0; i < n; ++i) x[i] = x[i] > 0 ? x[i] : 0;
}
)";

// Which C and C++ read as a number with a point: "1.0", "1e-05". Infinities, which only bounds of
// floats are, become the ends of double: they hold nothing either.
std::string literal(double value) {
  constexpr double kEnd = std::numeric_limits<double>::max();
  const std::string text = exact_number(std::clamp(value, -kEnd, kEnd));
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}
std::string literal(float value) {
  char text[32];
  std::string digits(text, std::to_chars(text, text + sizeof(text), value).ptr);
  if (digits.find_first_of(".e") == std::string::npos) digits += ".0";
  return digits + 'f';
}

class Header {
 public:
  Header(const SavedRanker& saved, std::string_view name)
      : saved_(saved),
        config_(saved.ranker->config()),
        name_(name),
        state_(saved.ranker->state()) {}

  std::string text() {
    // The body first, which adds the constants that it needs.
    std::string body = scaling() + network();
    const bool deep = config_.kind == RankerConfig::Kind::mlp && !config_.hidden.empty();
    std::string all = concat(
        "/* A ranker that Binade has trained: ", name_of(config_.kind), ", loss ",
        saved_.loss.text(), ", scaling ",
        saved_.scaling ? saved_.scaling->options().describe() : "none",
        ". @_score() takes the @_features\n   features of a document as they stand in files and"
        " returns what documents are ranked by. */\n");
    all +=
        "#ifndef BINADE_RANKER_@\n#define BINADE_RANKER_@\n\n#include <math.h>\n#include "
        "<stddef.h>\n\n";
    all += concat("enum { @_features = ", config_.features, " };\n\n") + constants_ + kLayer;
    if (deep && config_.layer_norm) all += kNorm;
    if (deep) all += kRelu;
    all += "\nstatic inline float @_score(const float* features) {\n" + body + "}\n\n#endif\n";
    return named(all);
  }

 private:
  template <class T>
  std::string constant(const std::string& what, const std::vector<T>& values) {
    std::string text = concat("static const ", sizeof(T) == 4 ? "float" : "double", " @_", what,
                              '[', values.size(), "] = {");
    constexpr size_t kPerLine = 8;
    for (size_t i = 0; i < values.size(); ++i)
      text += (i % kPerLine == 0 ? "\n    " : " ") + literal(values[i]) + ',';
    constants_ += text + "\n};\n";
    return "@_" + what;
  }

  // Lines that leave the scaled features in x.
  std::string scaling() {
    if (!saved_.scaling) return "  const float* x = features;\n";
    const data::FeatureScaling& scaling = *saved_.scaling;
    std::string text =
        concat("  float x[", config_.features, "];\n  for (int i = 0; i < @_features; ++i) {\n",
               "    double v = features[i];\n");
    const auto low = scaling.low().to_vector<double>(), high = scaling.high().to_vector<double>();
    const auto finite = [](double value) { return std::isfinite(value); };
    if (std::any_of(low.begin(), low.end(), finite) ||
        std::any_of(high.begin(), high.end(), finite)) {
      const std::string least = constant("low", low), most = constant("high", high);
      text += concat("    v = v < ", least, "[i] ? ", least, "[i] : v > ", most, "[i] ? ", most,
                     "[i] : v;\n");
    }
    const std::string mean = constant("mean", scaling.mean().to_vector<double>()),
                      scale = constant("scale", scaling.scale().to_vector<double>());
    const std::string limit = literal(scaling.options().limit);
    if (scaling.options().log1p) text += "    v = copysign(log1p(fabs(v)), v);\n";
    return text + concat("    v = (v - ", mean, "[i]) * ", scale, "[i];\n    x[i] = (float)(v < -",
                         limit, " ? -", limit, " : v > ", limit, " ? ", limit, " : v);\n  }\n");
  }

  // A layer of x (width `in`) into a new array, whose name is returned.
  std::string layer(std::string& body, const std::string& x, const std::string& name,
                    const std::string& what) {
    const Array& weight = state_.at(name + ".weight");  // (out, in)
    const int64_t out = weight.size(0), in = weight.size(1);
    check(std::max(in, out) <= kWidest, "a layer of ", std::max(in, out),
          " numbers is too wide for a C header, ", "whose layers lie on the stack: ", kWidest,
          " at most");
    const auto weights =
        constant(what + "_weight", weight.transpose(0, 1).contiguous().to_vector<float>());
    const auto bias = constant(what + "_bias", state_.at(name + ".bias").to_vector<float>());
    const std::string y = what + "_out";
    body += concat("  float ", y, '[', out, "];\n  @_layer(", x, ", ", in, ", ", out, ", ", weights,
                   ", ", bias, ", ", y, ");\n");
    return y;
  }

  std::string network() {
    std::string body, x = "x";
    for (int64_t i = 0; state_.contains(concat("layers.", i, ".linear.weight")); ++i) {
      const std::string name = concat("layers.", i, '.'), what = concat("layer", i);
      x = layer(body, x, name + "linear", what);
      const int64_t width = state_.at(name + "linear.bias").numel();
      if (config_.layer_norm) {
        const auto weight =
            constant(what + "_norm_weight", state_.at(name + "norm.weight").to_vector<float>());
        const auto bias =
            constant(what + "_norm_bias", state_.at(name + "norm.bias").to_vector<float>());
        body += concat("  @_norm(", x, ", ", width, ", ", weight, ", ", bias, ");\n");
      }
      body += concat("  @_relu(", x, ", ", width, ");\n");
    }
    const std::string y = layer(body, x, "output", "output");
    return body + score(y);
  }

  // ranking_scores().
  std::string score(const std::string& y) const {
    const LossInfo& loss = saved_.loss.info();
    if (loss.outputs == Outputs::score) return "  return " + y + "[0];\n";
    const std::string each = concat("  for (int k = 0; k < ", config_.outputs, "; ++k) ");
    const std::string value = y + "[k]";
    if (loss.name == "prank")
      return "  double sum = 0;\n" + each + "sum += " + value + ";\n  return (float)(sum / " +
             literal(static_cast<double>(config_.outputs)) + ");\n";
    if (loss.outputs == Outputs::thresholds)
      return "  double sum = 0;\n" + each + "sum += 1 / (1 + exp(-" + value +
             "));\n  return (float)sum;\n";
    return "  double largest = " + y + "[0], grade = 0, sum = 0;\n" + each + "if (" + value +
           " > largest) largest = " + value + ";\n" +
           concat("  for (int k = 0; k < ", config_.outputs, "; ++k) {\n") +
           "    const double share = exp(" + value +
           " - largest);\n    grade += k * share;\n    sum += share;\n  }\n" +
           "  return (float)(grade / sum);\n";
  }

  std::string named(const std::string& text) const {
    std::string out;
    for (const char c : text) c == '@' ? out += name_ : out += c;
    return out;
  }

  const SavedRanker& saved_;
  const RankerConfig& config_;
  std::string name_, constants_;
  nn::StateDict state_;
};

}  // namespace

std::string to_c_header(const SavedRanker& saved, std::string_view name) {
  const auto part = [](char c) { return is_letter(c) || is_digit(c) || c == '_'; };
  check(!name.empty() && !is_digit(name[0]) && std::all_of(name.begin(), name.end(), part), '"',
        name, "\" cannot begin names of C: expected letters, digits and _, and no digit in front");
  check(saved.ranker->config().kind != RankerConfig::Kind::attention,
        "an attention ranker cannot be a C header, whose function scores a document by itself; "
        "ONNX takes it");
  check(!needs_list(saved),
        "a ranker of features that minmax scales within their list cannot be a C header, whose "
        "function scores a document by itself; ONNX takes it");
  return Header(saved, name).text();
}

}  // namespace binade::heads::rank
