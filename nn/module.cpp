#include <binade/nn/module.h>

#include <algorithm>
#include <set>

#include <binade/core/text.h>
#include <binade/nn/state.h>

namespace binade::nn {
namespace {

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() || name.empty() ? prefix + name : prefix + "." + name;
}

// Up to ten names behind what is wrong with them.
void list_names(TextStream& text, const char* what, const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  if (names.empty()) return;
  text << (text.tellp() > 0 ? "; " : "") << what << " (" << names.size() << "): ";
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text << (i ? ", " : "") << names[i];
  if (names.size() > kShown) text << ", ...";
}

}  // namespace

std::string StateMismatch::describe() const {
  TextStream text;
  list_names(text, "missing", missing);
  list_names(text, "unexpected", unexpected);
  list_names(text, "of another shape", wrong_shape);
  list_names(text, "of another kind of dtype", wrong_dtype);
  return text.str();
}

StateMismatch compare_state(const StateDict& expected, const StateDict& given) {
  StateMismatch mismatch;
  for (const auto& [name, array] : expected) {
    const auto found = given.find(name);
    if (found == given.end())
      mismatch.missing.push_back(name);
    else if (found->second.shape() != array.shape())
      mismatch.wrong_shape.push_back(
          concat(name, ": ", found->second.shape(), " instead of ", array.shape()));
    else if (is_floating(found->second.dtype()) != is_floating(array.dtype()))
      mismatch.wrong_dtype.push_back(
          concat(name, ": ", found->second.dtype(), " instead of ", array.dtype()));
  }
  for (const auto& [name, array] : given)
    if (!expected.count(name)) mismatch.unexpected.push_back(name);
  return mismatch;
}

template <class Visit>
void Module::walk(const std::string& prefix, const Visit& visit) const {
  visit(prefix, *this);
  for (const auto& [name, child] : children_) child->walk(join(prefix, name), visit);
}

std::vector<NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> parameters;
  std::set<const Parameter*> seen;
  walk("", [&](const std::string& prefix, const Module& module) {
    for (const auto& [name, parameter] : module.parameters_)
      if (seen.insert(parameter.get()).second)
        parameters.push_back(
            {join(prefix, name), parameter, static_cast<int64_t>(parameters.size())});
  });
  return parameters;
}

std::vector<NamedBuffer> Module::named_buffers() const {
  std::vector<NamedBuffer> buffers;
  walk("", [&](const std::string& prefix, const Module& module) {
    for (const Buffer& buffer : module.buffers_)
      if (buffer.persistent) buffers.push_back({join(prefix, buffer.name), *buffer.tensor});
  });
  return buffers;
}

std::vector<std::pair<std::string, Module*>> Module::named_modules() const {
  std::vector<std::pair<std::string, Module*>> modules;
  for (const auto& [name, child] : children_) {
    modules.emplace_back(name, child.get());
    for (const auto& [below, module] : child->named_modules())
      modules.emplace_back(join(name, below), module);
  }
  return modules;
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const NamedParameter& named : named_parameters()) count += named.parameter->numel();
  return count;
}

void Module::train(bool training) {
  training_ = training;
  for (const auto& [name, child] : children_) child->train(training);
}

void Module::to(Device device) {
  for (const NamedParameter& named : named_parameters())
    if (!(named.parameter->tensor().device() == device))
      named.parameter->require_unbound(Parameter::kDeviceIsFixed);
  for (const auto& [name, parameter] : parameters_) parameter->to(device);
  for (Buffer& buffer : buffers_) *buffer.tensor = Tensor(buffer.tensor->array().to(device));
  for (const auto& [name, child] : children_) child->to(device);
}

void Module::set_trainable(bool trainable) {
  for (const NamedParameter& named : named_parameters()) named.parameter->set_trainable(trainable);
}

void Module::set_compute_dtype(DType dtype, bool with_master) {
  std::vector<NamedParameter> parameters = named_parameters();
  std::erase_if(parameters,
                [](const auto& named) { return named.parameter->keeps_full_precision(); });
  for (const NamedParameter& named : parameters)
    if (!named.parameter->computes_in(dtype, with_master))
      named.parameter->require_unbound(Parameter::kDtypeIsFixed);
  for (const NamedParameter& named : parameters)
    named.parameter->set_compute_dtype(dtype, with_master);
}

StateDict Module::state() const {
  StateDict state;
  for (const NamedParameter& named : named_parameters())
    state.emplace(named.name, named.parameter->master());
  for (const NamedBuffer& named : named_buffers()) state.emplace(named.name, named.buffer.array());
  return state;
}

StateDict Module::form() const {
  StateDict form;
  for (const NamedParameter& named : named_parameters())
    form.emplace(named.name, named.parameter->form());
  for (const NamedBuffer& named : named_buffers()) form.emplace(named.name, named.buffer.array());
  return form;
}

StateDict Module::snapshot() const {
  return copy_of(state());
}

void Module::load_state(const StateDict& given, bool strict) {
  const StateMismatch mismatch = compare_state(form(), given);
  const bool fits = strict ? mismatch.empty() : mismatch.fits_where_named();
  check(fits, "the state does not fit the module: ", mismatch.describe());
  for (const NamedParameter& named : named_parameters())
    if (const auto found = given.find(named.name); found != given.end())
      named.parameter->assign(found->second);
  for (const NamedBuffer& named : named_buffers())
    if (const auto found = given.find(named.name); found != given.end())
      named.buffer.array().copy_from(found->second);
}

void Module::copy_values(const Module& other) {
  const StateMismatch mismatch = compare_state(form(), other.form());
  check(mismatch.empty(), "the other module's values do not fit: ", mismatch.describe());
  std::map<std::string, ParameterPtr> theirs;
  for (const NamedParameter& named : other.named_parameters()) theirs[named.name] = named.parameter;
  for (const NamedParameter& named : named_parameters())
    named.parameter->assign(*theirs.at(named.name));
  std::map<std::string, Array> their_buffers;
  for (const NamedBuffer& named : other.named_buffers())
    their_buffers[named.name] = named.buffer.array();
  for (const NamedBuffer& named : named_buffers())
    named.buffer.array().copy_from(their_buffers.at(named.name));
}

void Module::add_child(const std::string& name, std::shared_ptr<Module> child) {
  check(child != nullptr, "module '", name, "' is null");
  for (const auto& [existing, module] : children_)
    check(existing != name, "there is already a module '", name, "'");
  children_.emplace_back(name, std::move(child));
}

void Module::remove_child(const std::string& name) {
  for (const auto& [child_name, child] : children_)
    if (child_name == name)
      for (const NamedParameter& named : child->named_parameters())
        named.parameter->lose_binding(concat("module '", name, "' was taken out of its parent"));
  std::erase_if(children_, [&](const auto& child) { return child.first == name; });
}

ParameterPtr Module::add_parameter(const std::string& name, Array value, bool keep_full_precision) {
  auto parameter = std::make_shared<Parameter>(std::move(value), keep_full_precision);
  share_parameter(name, parameter);
  return parameter;
}

ParameterPtr Module::add_parameter(const std::string& name, const Shape& shape,
                                   const Initialiser& values, bool keep_full_precision) {
  auto parameter = std::make_shared<Parameter>(shape, values, keep_full_precision);
  share_parameter(name, parameter);
  return parameter;
}

void Module::share_parameter(const std::string& name, ParameterPtr parameter) {
  check(parameter != nullptr, "parameter '", name, "' is null");
  for (const auto& [existing, other] : parameters_)
    check(existing != name, "there is already a parameter '", name, "'");
  parameters_.emplace_back(name, std::move(parameter));
}

BufferPtr Module::add_buffer(const std::string& name, Array value, bool persistent) {
  auto tensor = std::make_shared<Tensor>(std::move(value));
  buffers_.push_back({name, tensor, persistent});
  return tensor;
}

}  // namespace binade::nn
