// Module: a named tree of parameters, buffers and sub-modules. A layer is a class with a
// constructor that adds its parts and a forward() of its own signature:
//
//   class Mlp : public nn::Module {
//    public:
//     Mlp(int64_t dim, int64_t hidden)
//         : up_(add<Linear>("up", dim, hidden)), down_(add<Linear>("down", hidden, dim)) {}
//     Tensor forward(const Tensor& x) const { return down_->forward(gelu(up_->forward(x))); }
//    private:
//     std::shared_ptr<Linear> up_, down_;
//   };
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <binade/nn/parameter.h>

namespace binade::nn {

struct NamedParameter {
  std::string name;  // "h.0.attn.c_attn.weight"
  ParameterPtr parameter;
  int64_t order = 0;  // its place among named_parameters()
};
struct NamedBuffer {
  std::string name;
  Tensor buffer;  // a leaf without a gradient, for example running statistics
};

// A buffer stays itself when the module moves to another device: *buffer is the present tensor.
using BufferPtr = std::shared_ptr<Tensor>;

using StateDict = std::map<std::string, Array>;

// How a state differs from the one that is expected; describe() lists the names, on one line.
struct StateMismatch {
  std::vector<std::string> missing, unexpected, wrong_shape, wrong_dtype;
  bool empty() const { return missing.empty() && unexpected.empty() && fits_where_named(); }
  // What both have can be copied: same shapes, floating where floating is expected.
  bool fits_where_named() const { return wrong_shape.empty() && wrong_dtype.empty(); }
  std::string describe() const;
};
StateMismatch compare_state(const StateDict& expected, const StateDict& given);

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // A module's own before its children's, each in the order of definition. A tied parameter appears
  // once, under its first name.
  std::vector<NamedParameter> named_parameters() const;
  std::vector<NamedBuffer> named_buffers() const;  // those that belong to the state
  std::vector<std::pair<std::string, Module*>> named_modules() const;
  int64_t parameter_count() const;

  // This module and all below. A module with a part that stays in evaluation mode, for example a
  // frozen trunk whose dropout must do nothing, overrides it and calls eval() on that part after
  // Module::train(training); trainers switch modes on the whole model again and again.
  virtual void train(bool training = true);
  void eval() { train(false); }
  bool training() const { return training_; }
  // Throws Error, and moves nothing, if an optimizer holds a parameter that would move.
  void to(Device device);
  void set_trainable(bool trainable);
  // Compute copies of every parameter in `dtype` (those that keep full precision excepted). Frozen
  // parameters get no master until they are trainable again. Throws Error, and changes nothing, if
  // an optimizer holds a parameter that would change.
  void set_compute_dtype(DType dtype, bool with_master);

  // Masters and buffers by name: the module's own memory, which training goes on to write. For
  // values that stay, take a snapshot().
  StateDict state() const;
  // The same as copies.
  StateDict snapshot() const;
  // The same names, shapes and dtypes, where deferred parameters stay deferred: values must not be
  // touched.
  StateDict form() const;
  // Values converted to the parameters' dtypes (NaN, too: a value is a value). Strict: throws Error
  // that lists names missing, unexpected, of another shape or not floating where they should be;
  // nothing is written then. Not strict: names may be missing or unexpected.
  void load_state(const StateDict& state, bool strict = true);
  // The values of a module that has the same names and shapes; throws Error as load_state() does.
  // Deferred values stay so.
  void copy_values(const Module& other);

 protected:
  template <class M, class... Args>
  std::shared_ptr<M> add(const std::string& name, Args&&... args) {
    auto child = std::make_shared<M>(std::forward<Args>(args)...);
    add_child(name, child);
    return child;
  }
  // Without a name the child's names stand beside the module's own.
  void add_child(const std::string& name, std::shared_ptr<Module> child);
  ParameterPtr add_parameter(const std::string& name, Array value,
                             bool keep_full_precision = false);
  // With what the initialiser makes, now or later (nn/deferred.h).
  ParameterPtr add_parameter(const std::string& name, const Shape& shape, const Initialiser& values,
                             bool keep_full_precision = false);
  // Uses an existing parameter under this name too (tied weights).
  void share_parameter(const std::string& name, ParameterPtr parameter);
  // A buffer that is not persistent (a table computed from the configuration) moves with the module
  // but is not part of its state.
  BufferPtr add_buffer(const std::string& name, Array value, bool persistent = true);
  // An optimizer that holds parameters of the child throws Error at its next use.
  void remove_child(const std::string& name);

 private:
  struct Buffer {
    std::string name;
    BufferPtr tensor;
    bool persistent;
  };
  // visit(prefix, module) for this module and all below.
  template <class Visit>
  void walk(const std::string& prefix, const Visit& visit) const;

  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
  std::vector<std::pair<std::string, ParameterPtr>> parameters_;
  std::vector<Buffer> buffers_;
  bool training_ = true;
};

}  // namespace binade::nn
