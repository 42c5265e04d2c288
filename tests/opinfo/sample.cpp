#include "sample.h"

#include <cmath>
#include <map>

namespace binade::opinfo {

using nlohmann::json;

Sample::Sample(const json& description, const SafetensorsFile& tensors, Device device)
    : description_(description), file_(tensors), device_(device) {}

const json* Sample::find(int position, const std::string& name) {
  const json& args = description_.at("args");
  const json& kwargs = description_.at("kwargs");
  const json* found = nullptr;
  if (position >= 0 && static_cast<size_t>(position) < args.size()) {
    found = &args[static_cast<size_t>(position)];
    read_.insert(std::to_string(position));
  } else if (!name.empty() && kwargs.contains(name)) {
    found = &kwargs.at(name);
    read_.insert(name);
  }
  return found && !found->is_null() ? found : nullptr;
}

const json& Sample::need(int position, const std::string& name) {
  const json* found = find(position, name);
  if (!found)
    throw NotOffered("without argument " + (name.empty() ? std::to_string(position) : name));
  return *found;
}

bool Sample::given(int position, const std::string& name) {
  return find(position, name) != nullptr;
}

bool Sample::is_tensor(int position, const std::string& name) {
  const json* found = find(position, name);
  return found && found->is_object() && found->contains("tensor");
}

Tensor Sample::load(const json& argument) {
  if (!argument.is_object() || !argument.contains("tensor"))
    throw NotOffered("no tensor: " + argument.dump());
  const std::string name = argument.at("tensor");
  for (const auto& [known, tensor] : leaves_)
    if (known == name) return tensor;
  Tensor tensor(file_.get(name).to(device_));
  // A copy: the file's mapping cannot be written to, and a row may do what it likes.
  if (device_.is_cpu()) tensor = Tensor(tensor.array().clone());
  if (argument.at("requires_grad")) tensor.set_requires_grad(true);
  leaves_.emplace_back(name, tensor);
  return tensor;
}

Tensor Sample::tensor(int position, const std::string& name) {
  return load(need(position, name));
}

TensorList Sample::tensors(int position, const std::string& name) {
  const json& list = need(position, name);
  if (!list.is_array()) throw NotOffered("no list of tensors");
  TensorList result;
  for (const json& item : list) result.push_back(load(item));
  return result;
}

bool Sample::is_number(int position, const std::string& name) {
  const json* value = find(position, name);
  return value && (value->is_number() || (value->is_object() && value->contains("number")));
}

double Sample::number(int position, const std::string& name) {
  const json& value = need(position, name);
  if (value.is_number()) return value;
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_object() && value.contains("number"))
    return std::stod(value.at("number").get<std::string>());
  const std::string argument = name.empty() ? std::to_string(position) : name;
  throw NotOffered(value.contains("tensor") ? argument + " is a tensor"
                                            : argument + " = " + value.dump());
}

double Sample::number(int position, const std::string& name, double otherwise) {
  return given(position, name) ? number(position, name) : otherwise;
}

int64_t Sample::integer(int position, const std::string& name) {
  const double value = number(position, name);
  if (value != std::trunc(value)) throw NotOffered(name + " is no integer");
  return static_cast<int64_t>(value);
}

int64_t Sample::integer(int position, const std::string& name, int64_t otherwise) {
  return given(position, name) ? integer(position, name) : otherwise;
}

bool Sample::flag(int position, const std::string& name, bool otherwise) {
  return number(position, name, otherwise ? 1 : 0) != 0;
}

std::string Sample::text(int position, const std::string& name, const std::string& otherwise) {
  const json* value = find(position, name);
  if (!value) return otherwise;
  if (!value->is_string()) throw NotOffered(name + " = " + value->dump());
  return *value;
}

DType Sample::dtype(int position, const std::string& name, DType otherwise) {
  static const std::map<std::string, DType> dtypes = {
      {"torch.float64", DType::f64},   {"torch.float32", DType::f32}, {"torch.float16", DType::f16},
      {"torch.bfloat16", DType::bf16}, {"torch.int64", DType::i64},   {"torch.int32", DType::i32}};
  if (!given(position, name)) return otherwise;
  const auto found = dtypes.find(text(position, name, ""));
  if (found == dtypes.end()) throw NotOffered(name + " = " + text(position, name, ""));
  return found->second;
}

std::vector<int64_t> Sample::integers(int position, const std::string& name) {
  const json& value = need(position, name);
  if (value.is_number_integer()) return {value.get<int64_t>()};
  if (!value.is_array()) throw NotOffered(name + " = " + value.dump());
  std::vector<int64_t> result;
  for (const json& item : value) {
    if (!item.is_number_integer()) throw NotOffered(name + " = " + value.dump());
    result.push_back(item);
  }
  return result;
}

std::vector<int64_t> Sample::sizes(int position) {
  const json& args = description_.at("args");
  if (static_cast<size_t>(position) < args.size() && args[static_cast<size_t>(position)].is_array())
    return integers(position);
  std::vector<int64_t> result;
  for (size_t i = static_cast<size_t>(position); i < args.size(); ++i)
    result.push_back(integer(static_cast<int>(i)));
  return result;
}

void Sample::check_all_read() const {
  const json& args = description_.at("args");
  for (size_t i = 0; i < args.size(); ++i)
    if (!read_.count(std::to_string(i)) && !args[i].is_null())
      throw NotOffered("argument " + std::to_string(i));
  for (const auto& [name, value] : description_.at("kwargs").items())
    if (!read_.count(name) && !value.is_null()) throw NotOffered("argument " + name);
}

}  // namespace binade::opinfo
