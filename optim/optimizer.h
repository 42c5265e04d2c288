// What all optimizers share: flat groups, device scalars, the state dictionary. An optimizer is a
// class with an update of one group; everything that moves from step to step (learning rate, step
// count) is read from the device, so that a captured step stays valid.
#pragma once

#include <string>
#include <vector>

#include <binade/core/kernels/optimizer.h>
#include <binade/optim/flat_group.h>

namespace binade::optim {

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  virtual const char* name() const = 0;  // "adamw"

  // Forgets the gradients; the next backward overwrites them.
  void zero_grad();
  // The learning rate of the coming updates (queued; no wait).
  void set_learning_rate(double learning_rate);
  double learning_rate() const { return learning_rate_; }

  // Stand-alone use, without a GradScaler: applies the gradients as they are.
  void step();

  // ---- for whoever drives the step (amp::GradScaler, train::TrainStep) --------------------------
  // Reads gradients × grad_factor and updates masters and compute
  // copies, unless found_inf.
  void update(const Array& grad_factor, const Array& found_inf);
  // Adds the current gradients to the step's f32 sums. While a sum is under way (until
  // zero_grad()), it is what statistics and update read.
  void accumulate();
  // The gradient buffer of a group that statistics and update read.
  const Array& gradient(const FlatGroup& group) const {
    return accumulated_ > 0 ? group.accumulated() : group.grad();
  }
  // Zeroes gradients that backward did not reach.
  void fill_missing_grads();
  std::vector<FlatGroup>& groups() { return groups_; }
  const std::vector<FlatGroup>& groups() const { return groups_; }
  Device device() const { return groups_.front().device(); }

  // Updates applied so far; skipped steps do not count (host synchronisation on a GPU).
  int64_t steps_done() const;

  // Masters are the model's to save; this is the rest: "exp_avg.<parameter>", "step".
  nn::StateDict state() const;
  // Throws Error naming what is missing or of another shape; nothing is written then.
  void load_state(const nn::StateDict& state);

 protected:
  explicit Optimizer(std::vector<ParameterGroup> groups);
  // The moments of group g; called for every group and step.
  struct Moment {
    std::string name;
    std::vector<Array> buffers;  // one a group
  };
  // Gives every group a zero buffer under this name (call from the constructor).
  size_t add_moment(const std::string& name);
  const Array& moment(size_t index, size_t group) const { return moments_[index].buffers[group]; }
  virtual void update_group(size_t group, const kernels::UpdateBuffers& buffers,
                            const kernels::UpdateContext& context) = 0;

 private:
  std::vector<FlatGroup> groups_;
  std::vector<Moment> moments_;
  double learning_rate_ = 0;
  int accumulated_ = 0;
  Array learning_rate_scalar_, step_scalar_;
};

}  // namespace binade::optim
