// A tiny reader of ONNX models that computes them in f64, written from the format's description
// (github.com/onnx/onnx: onnx.proto, Operators.md): an oracle for what is exported.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace binade::test::onnx {

inline void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("ONNX model: " + what);
}

// ---- protocol buffers
struct Field {
  int number = 0;
  uint64_t value = 0;
  std::string_view bytes;
};

inline std::vector<Field> fields_of(std::string_view message) {
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      expect(!message.empty() && shift < 64, "a number that does not end");
      const auto byte = static_cast<uint8_t>(message[0]);
      message.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  std::vector<Field> fields;
  while (!message.empty()) {
    const uint64_t key = varint();
    Field field{.number = static_cast<int>(key >> 3)};
    if ((key & 7) == 0) {
      field.value = varint();
    } else {
      expect((key & 7) == 2 || (key & 7) == 5, "an unknown wire type");
      const uint64_t size = (key & 7) == 5 ? 4 : varint();
      expect(size <= message.size(), "a field beyond its message");
      field.bytes = message.substr(0, size);
      message.remove_prefix(size);
    }
    fields.push_back(field);
  }
  return fields;
}

inline std::vector<Field> all(std::string_view message, int number) {
  std::vector<Field> fields;
  for (const Field& field : fields_of(message))
    if (field.number == number) fields.push_back(field);
  return fields;
}
inline Field one(std::string_view message, int number) {
  const auto fields = all(message, number);
  expect(fields.size() == 1, "field " + std::to_string(number) + " is not there once");
  return fields[0];
}

// ---- tensors
enum Element { kFloat = 1, kInt64 = 7, kBool = 9, kDouble = 11 };

struct Value {
  std::vector<int64_t> shape;
  std::vector<double> numbers;
  int element = kFloat;

  int64_t dim(int64_t axis) const {
    return shape.at(
        static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(shape.size()) : axis));
  }
};

inline int64_t count_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}
inline Value made(std::vector<int64_t> shape, int element) {
  const auto count = static_cast<size_t>(count_of(shape));
  return {std::move(shape), std::vector<double>(count), element};
}

inline Value tensor_of(std::string_view message) {
  Value value;
  for (const Field& dim : all(message, 1)) value.shape.push_back(static_cast<int64_t>(dim.value));
  value.element = static_cast<int>(one(message, 2).value);
  const std::string_view raw = one(message, 9).bytes;
  const auto read = [&](auto number) {
    expect(raw.size() == static_cast<size_t>(count_of(value.shape)) * sizeof(number),
           "raw data of another size");
    for (size_t at = 0; at < raw.size(); at += sizeof(number)) {
      std::memcpy(&number, raw.data() + at, sizeof(number));
      value.numbers.push_back(static_cast<double>(number));
    }
  };
  if (value.element == kFloat)
    read(float{});
  else if (value.element == kDouble)
    read(double{});
  else if (value.element == kInt64)
    read(int64_t{});
  else
    expect(false, "a tensor of another type");
  return value;
}

// Element by element, with NumPy's broadcasting.
inline Value each(const std::vector<Value>& in,
                  const std::function<double(const std::vector<double>&)>& f) {
  size_t dims = 0;
  for (const Value& x : in) dims = std::max(dims, x.shape.size());
  std::vector<int64_t> shape(dims, 1);
  for (const Value& x : in)
    for (size_t d = 0; d < x.shape.size(); ++d) {
      int64_t& size = shape[dims - x.shape.size() + d];
      expect(size == 1 || x.shape[d] == 1 || size == x.shape[d], "shapes that do not broadcast");
      size = size == 1 ? x.shape[d] : size;
    }
  Value out = made(shape, in.back().element);
  for (int64_t i = 0; i < count_of(shape); ++i) {
    std::vector<double> numbers;
    for (const Value& x : in) {
      int64_t rest = i, at = 0, stride = 1;
      for (size_t d = dims; d-- > dims - x.shape.size();) {
        const int64_t place = rest % shape[d], size = x.shape[d - (dims - x.shape.size())];
        rest /= shape[d];
        at += (size == 1 ? 0 : place) * stride;
        stride *= size;
      }
      numbers.push_back(x.numbers[static_cast<size_t>(at)]);
    }
    out.numbers[static_cast<size_t>(i)] = f(numbers);
  }
  return out;
}

// ---- graphs
struct Node {
  std::string type, output;
  std::vector<std::string> inputs;
  std::map<std::string, std::vector<double>> attributes;

  double attribute(const std::string& name, double otherwise) const {
    const auto found = attributes.find(name);
    return found == attributes.end() ? otherwise : found->second.at(0);
  }
};

inline Node node_of(std::string_view message) {
  Node node{.type = std::string(one(message, 4).bytes),
            .output = std::string(one(message, 2).bytes)};
  for (const Field& input : all(message, 1)) node.inputs.emplace_back(input.bytes);
  for (const Field& field : all(message, 5)) {
    std::vector<double> values;
    const uint64_t type = one(field.bytes, 20).value;
    if (type == 1) {
      float number = 0;
      std::memcpy(&number, one(field.bytes, 2).bytes.data(), 4);
      values = {number};
    } else {
      expect(type == 2 || type == 7, "an attribute of another type");
      for (const Field& value : all(field.bytes, type == 2 ? 3 : 8))
        values.push_back(static_cast<double>(static_cast<int64_t>(value.value)));
    }
    node.attributes[std::string(one(field.bytes, 1).bytes)] = values;
  }
  return node;
}

// Runs f on the rows of x that lie along `axis`: f(the row) gives what stands in their place.
inline Value along(const Value& x, int64_t axis, bool keep,
                   const std::function<std::vector<double>(const std::vector<double>&)>& f) {
  if (axis < 0) axis += static_cast<int64_t>(x.shape.size());
  const int64_t size = x.dim(axis);
  int64_t inner = 1;
  for (size_t d = static_cast<size_t>(axis) + 1; d < x.shape.size(); ++d) inner *= x.shape[d];
  const int64_t outer = size == 0 ? 0 : count_of(x.shape) / size / inner;
  std::vector<std::vector<double>> rows;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < inner; ++i) {
      std::vector<double> row;
      for (int64_t k = 0; k < size; ++k)
        row.push_back(x.numbers[static_cast<size_t>((o * size + k) * inner + i)]);
      rows.push_back(f(row));
    }
  Value out = x;
  const auto after = rows.empty() ? size : static_cast<int64_t>(rows[0].size());
  out.shape[static_cast<size_t>(axis)] = after;
  out.numbers.resize(static_cast<size_t>(outer * after * inner));
  for (int64_t r = 0; r < outer * inner; ++r)
    for (int64_t k = 0; k < after; ++k)
      out.numbers[static_cast<size_t>((r / inner * after + k) * inner + r % inner)] =
          rows[static_cast<size_t>(r)][static_cast<size_t>(k)];
  if (!keep) out.shape.erase(out.shape.begin() + axis);
  return out;
}

inline Value matmul(const Value& a, const Value& b) {
  expect(a.shape.size() == b.shape.size() && a.dim(-1) == b.dim(-2), "a matmul that does not fit");
  Value out = a;
  out.shape.back() = b.dim(-1);
  out.numbers.assign(static_cast<size_t>(count_of(out.shape)), 0);
  const int64_t m = a.dim(-2), n = b.dim(-1), k = a.dim(-1),
                batches = m == 0 ? 0 : count_of(a.shape) / (m * k);
  expect(count_of(b.shape) == batches * k * n, "batches that do not fit");
  for (int64_t s = 0; s < batches; ++s)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t t = 0; t < k; ++t)
          out.numbers[static_cast<size_t>((s * m + i) * n + j)] +=
              a.numbers[static_cast<size_t>((s * m + i) * k + t)] *
              b.numbers[static_cast<size_t>((s * k + t) * n + j)];
  return out;
}

inline Value transpose(const Value& x, const std::vector<double>& order) {
  Value out = x;
  for (size_t d = 0; d < order.size(); ++d)
    out.shape[d] = x.shape.at(static_cast<size_t>(order[d]));
  for (int64_t i = 0; i < count_of(out.shape); ++i) {
    int64_t rest = i, at = 0;
    for (size_t d = order.size(); d-- > 0;) {
      int64_t stride = 1;
      for (size_t e = static_cast<size_t>(order[d]) + 1; e < x.shape.size(); ++e)
        stride *= x.shape[e];
      at += rest % out.shape[d] * stride;
      rest /= out.shape[d];
    }
    out.numbers[static_cast<size_t>(i)] = x.numbers[static_cast<size_t>(at)];
  }
  return out;
}

inline double total(const std::vector<double>& row) {
  double sum = 0;
  for (const double x : row) sum += x;
  return sum;
}

inline Value compute(const Node& node, const std::vector<Value>& in) {
  using Numbers = std::vector<double>;
  const std::string& op = node.type;
  const auto unary = [&](double (*f)(double)) {
    return each(in, [&](const Numbers& x) { return f(x.at(0)); });
  };
  const auto binary = [&](auto f) {
    expect(in.size() == 2 && in[0].element == in[1].element, op + " of two types");
    return each(in, [&](const Numbers& x) { return f(x[0], x[1]); });
  };
  if (op == "Add") return binary([](double a, double b) { return a + b; });
  if (op == "Sub") return binary([](double a, double b) { return a - b; });
  if (op == "Mul") return binary([](double a, double b) { return a * b; });
  if (op == "Div") return binary([](double a, double b) { return a / b; });
  if (op == "Max") return binary([](double a, double b) { return std::max(a, b); });
  if (op == "Min") return binary([](double a, double b) { return std::min(a, b); });
  if (op == "Equal") {
    Value out = binary([](double a, double b) -> double { return a == b ? 1 : 0; });
    out.element = kBool;
    return out;
  }
  if (op == "Where") {
    expect(in[0].element == kBool && in[1].element == in[2].element, "Where of other types");
    return each(in, [](const Numbers& x) { return x[0] != 0 ? x[1] : x[2]; });
  }
  if (op == "Clip") return each(in, [](const Numbers& x) { return std::clamp(x[0], x[1], x[2]); });
  if (op == "Abs") return unary([](double x) { return std::abs(x); });
  if (op == "Log") return unary([](double x) { return std::log(x); });
  if (op == "Relu") return unary([](double x) { return std::max(x, 0.0); });
  if (op == "Sign") return unary([](double x) -> double { return (x > 0) - (x < 0); });
  if (op == "Sigmoid") return unary([](double x) { return 1 / (1 + std::exp(-x)); });
  if (op == "Cast") {
    Value out = in[0];
    out.element = static_cast<int>(node.attribute("to", 0));
    if (out.element == kFloat)
      for (double& x : out.numbers) x = static_cast<float>(x);
    return out;
  }
  if (op == "ReduceMin" || op == "ReduceMax" || op == "ReduceMean" || op == "ReduceSum") {
    // In opset 17 ReduceSum takes its axes as an input, the others as an attribute.
    const double axis =
        op == "ReduceSum" ? in.at(1).numbers.at(0) : node.attributes.at("axes").at(0);
    return along(
        in[0], static_cast<int64_t>(axis), node.attribute("keepdims", 1) != 0,
        [&](const Numbers& row) -> Numbers {
          if (op == "ReduceMin") return {*std::min_element(row.begin(), row.end())};
          if (op == "ReduceMax") return {*std::max_element(row.begin(), row.end())};
          return {op == "ReduceSum" ? total(row) : total(row) / static_cast<double>(row.size())};
        });
  }
  if (op == "Softmax")
    return along(in[0], static_cast<int64_t>(node.attribute("axis", -1)), true, [](Numbers row) {
      const double largest = *std::max_element(row.begin(), row.end());
      for (double& x : row) x = std::exp(x - largest);
      const double sum = total(row);
      for (double& x : row) x /= sum;
      return row;
    });
  if (op == "LayerNormalization") {
    expect(node.attribute("axis", -1) == -1, "another axis of the norm");
    const Value normed = along(in[0], -1, true, [&](Numbers row) {
      const auto n = static_cast<double>(row.size());
      const double mean = total(row) / n;
      double square = 0;
      for (const double x : row) square += (x - mean) * (x - mean);
      for (double& x : row)
        x = (x - mean) / std::sqrt(square / n + node.attribute("epsilon", 1e-5));
      return row;
    });
    return each({normed, in.at(1), in.at(2)}, [](const Numbers& x) { return x[0] * x[1] + x[2]; });
  }
  if (op == "Gemm") {
    expect(node.attribute("transB", 0) == 1, "a Gemm of another form");
    return each({matmul(in[0], transpose(in[1], {1, 0})), in.at(2)},
                [](const Numbers& x) { return x[0] + x[1]; });
  }
  if (op == "MatMul") return matmul(in[0], in[1]);
  if (op == "Transpose") return transpose(in[0], node.attributes.at("perm"));
  if (op == "Reshape") {
    Value out = in[0];
    expect(in[1].element == kInt64, "a shape of another type");
    out.shape.assign(in[1].numbers.begin(), in[1].numbers.end());
    const int64_t known = -count_of(out.shape), whole = count_of(in[0].shape);
    for (int64_t& size : out.shape)
      if (size == -1) size = whole / known;
    expect(count_of(out.shape) == whole, "a reshape that does not fit");
    return out;
  }
  throw std::runtime_error("ONNX model: no op " + op);
}

struct Model {
  int64_t ir_version = 0, opset = 0;
  std::map<std::string, std::string> metadata;
  std::string input, output;
  std::map<std::string, Value> constants;
  std::vector<Node> nodes;

  explicit Model(std::string_view bytes) {
    ir_version = static_cast<int64_t>(one(bytes, 1).value);
    opset = static_cast<int64_t>(one(one(bytes, 8).bytes, 2).value);
    for (const Field& field : all(bytes, 14))
      metadata[std::string(one(field.bytes, 1).bytes)] = one(field.bytes, 2).bytes;
    const std::string_view graph = one(bytes, 7).bytes;
    input = one(one(graph, 11).bytes, 1).bytes;
    output = one(one(graph, 12).bytes, 1).bytes;
    for (const Field& field : all(graph, 5))
      expect(constants.emplace(one(field.bytes, 8).bytes, tensor_of(field.bytes)).second,
             "two constants of one name");
    for (const Field& field : all(graph, 1)) nodes.push_back(node_of(field.bytes));
  }

  // Nodes must stand in an order in which they can be computed.
  std::vector<double> run(const Value& features) const {
    std::map<std::string, Value> values = constants;
    values[input] = features;
    for (const Node& node : nodes) {
      std::vector<Value> in;
      for (const std::string& name : node.inputs) {
        expect(values.contains(name), node.type + " takes " + name + ", which is not there yet");
        in.push_back(values.at(name));
      }
      expect(values.emplace(node.output, compute(node, in)).second, "two values of one name");
    }
    expect(values.at(output).shape.size() == 1, "scores of another shape");
    return values.at(output).numbers;
  }
};

}  // namespace binade::test::onnx
