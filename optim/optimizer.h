// What all optimizers share: flat groups, device scalars, the state dictionary. An optimizer is a
// class with an update of one group; everything that moves from step to step (learning rate, step
// count) is read from the device, so that a captured step stays valid.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <binade/core/update.h>
#include <binade/optim/flat_group.h>

namespace binade::optim {

class FrozenParts;

// How to train a whole module, as the optimizers of this folder take it:
//   optim::AdamW optimizer(net, {.learning_rate = 1e-3, .weight_decay = 0.01});
//   optim::Sgd optimizer(net, {.learning_rate = 0.1}, {.momentum = 0.9});
// Every trainable parameter is in one group, with this decay, as with PyTorch's net.parameters().
// For others make groups (flat_group.h).
struct WholeModule {
  std::optional<double> learning_rate;  // set_learning_rate() of this; not given: not yet
  double weight_decay = 0;
};

// An optimizer holds its parameters from its construction to its end: they keep dtype and device,
// and belong to no other optimizer. Apply the preset, move the model, add adapters before it is
// made. Parameters that are frozen meanwhile (set_trainable(false)) stay exactly as they are.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  virtual const char* name() const = 0;  // "adamw"

  // Forgets the gradients; the next backward overwrites them.
  void zero_grad();
  // The learning rate of the coming updates, 0 or more, within f32's range (queued; no wait). Has
  // to be set before the first.
  void set_learning_rate(double learning_rate);
  double learning_rate() const { return learning_rate_.value_or(0); }

  // Stand-alone use, without a GradScaler: applies the gradients as they are. Throws Error as
  // check_ready() and gather_grads() do.
  void step();

  // ---- for whoever drives the step (amp::GradScaler, train::TrainStep) --------------------------
  // Reads gradients × grad_factor and updates masters and compute copies, unless found_inf.
  void update(const Array& grad_factor, const Array& found_inf);
  // After masters were written, or values that have none: every rank has all values, which are the
  // masters, rounded.
  void spread_masters() const;
  // Throws Error if an update would not train the model: no learning rate was set, every parameter
  // is frozen, a parameter was taken out of the model, or the model computes with averages (Ema).
  void check_ready() const;
  // Adds the current gradients to the step's f32 sums. While a sum is under way (until
  // zero_grad()), it is what statistics and update read.
  void accumulate();
  // The same where somebody else adds every group's gradients, and those of other ranks, to the
  // sums (train::DataParallel), which are begun anew if is_sum_begun() is false.
  void note_accumulated();
  bool is_sum_begun() const { return accumulated_ > 0; }
  // Makes gradient() complete: adds gradients that came after the last accumulate() to the sums,
  // zeroes those that backward did not reach. Throws Error if it reached none.
  void gather_grads();
  // Whether gradients came that no gather_grads() or accumulate() has seen, with a sum under way.
  bool has_pending_grads() const;
  // Stays equal as long as gradient() of every group holds what it holds now: after backward(),
  // accumulate(), zero_grad() or a write into it, another.
  std::vector<uint64_t> gradient_mark() const;
  // The gradients of a group's own elements that statistics and update read, after gather_grads().
  Array gradient(const FlatGroup& group) const {
    return accumulated_ > 0 ? group.accumulated() : group.grad();
  }
  // Σ (g·inv_scale)² over all finite gradients is added to norm_sq (f64 scalar); first_bad
  // ((groups) i64) becomes the first bad one of each group (core/update.h). After gather_grads().
  void measure(const Array& inv_scale, const Array& norm_sq, const Array& first_bad) const;
  // Zeroes gradients that backward did not reach.
  void fill_missing_grads();
  std::vector<FlatGroup>& groups() { return groups_; }
  const std::vector<FlatGroup>& groups() const { return groups_; }
  Device device() const { return groups_.front().device(); }
  // Which parameters are frozen now, in the order of the groups' members.
  std::vector<bool> frozen() const;

  // ---- ranks that share the state (ZeRO stage 1; flat_group.h) ----------------------------------
  // From here on each rank has the masters, sums and moments of its own elements; update() gives
  // all of them the values. Groups that an update needs whole stay so, on every rank. All ranks
  // call this together, and measure(), update(), gather_values() and unshare() then. Not while a
  // sum is under way.
  struct Sharing {
    int64_t bucket = 0;        // elements, about (dist/shards.h)
    bool gradients = false;    // as of FlatGroup::share()
    bool late_values = false;  // update() gives nobody its values: gather_values() does
    bool begin = true;         // false: a state is loaded next, or begin() is called
  };
  void share(dist::Communicator& ranks, const Sharing& sharing);
  // Values that were deferred (nn/deferred.h) are made, by each rank its own, and all have them.
  void begin();
  // Every rank has everything again.
  void unshare();
  bool shared() const { return shared_; }
  // Every rank has the values of the last update.
  void gather_values() const;
  // Of values that are late: whether the present ones are older than the last update, which of
  // values with masters has written FlatGroup::own_value() alone. Those who read values hold it
  // longer than the optimizer lives. Null if they are not late.
  struct LateValues {
    bool old = false;
    // Who sends some of them beside the rest of an update: called when the values of the first
    // `owned` own elements of the group are new. Of a group, in order.
    struct Early {
      size_t group;
      int64_t owned;
      std::function<void()> send;
    };
    std::vector<Early> early = {};
    // Waits for those that are on their way, whatever became of the step that sent them.
    std::function<void()> wait = {};
  };
  // Calls that, for whoever writes masters or values between steps.
  void wait_for_values() const;
  const std::shared_ptr<LateValues>& late_values() const { return late_values_; }
  // After an update in a replayed graph: what update() notes on the host.
  void note_update() const;
  // state(), which throws Error while it is shared, in parts: the moments, and what is no buffer.
  std::vector<MemberState> moments() const;
  nn::StateDict scalars() const { return {{"step", step_scalar_.clone()}}; }

  // Lives as long as the optimizer, and tells optimizers apart.
  struct Life {
    bool averages_in_use = false;  // set by Ema
  };
  const std::shared_ptr<Life>& life() const { return life_; }

  // Updates applied so far; skipped steps do not count (host synchronisation on a GPU).
  int64_t steps_done() const;
  // The same as an i64 scalar on the device, which moves with every update.
  const Array& step_count() const { return step_scalar_; }

  // Masters are the model's to save; this is the rest: "exp_avg.<parameter>", "step".
  nn::StateDict state() const;
  // Throws Error naming what is missing, of another shape or kind of dtype, not finite, or no value
  // that it can have (a mean of squares below 0); nothing is written then. Of ranks that share the
  // state each reads its own elements.
  void load_state(const nn::StateDict& saved);

 protected:
  // Every parameter in one group, under a name of its own: their states are told apart by it.
  explicit Optimizer(std::vector<ParameterGroup> groups);
  // The moments of group g; called for every group and step.
  enum class MomentOf : uint8_t { gradients, squares };
  struct Moment {
    std::string name;
    MomentOf kind;
    std::vector<Array> buffers;  // one a group; undefined until it is looked at
  };
  // Gives every group a zero buffer under this name (call from the constructor). It is made by
  // set_learning_rate(), or when it is looked at: ranks that share the state before never have all
  // of it.
  size_t add_moment(const std::string& name, MomentOf kind = MomentOf::gradients);
  const Array& moment(size_t index, size_t group) const;
  // `buffers` are those of the group's own elements. Where ranks share the group a step may call
  // this several times, each time with the elements behind those of the call before.
  virtual void update_group(size_t group, const UpdateBuffers& buffers,
                            const UpdateContext& context) = 0;
  // Whether an element's update depends on that element alone, so that ranks may share the group.
  virtual bool is_elementwise(const FlatGroup&) const { return true; }

 private:
  bool has_grads() const;
  void update_parts(size_t group, const UpdateBuffers& buffers, const UpdateContext& context,
                    const FrozenParts& frozen);

  std::vector<FlatGroup> groups_;
  mutable std::vector<Moment> moments_;
  std::shared_ptr<Life> life_ = std::make_shared<Life>();
  std::optional<double> learning_rate_;
  int accumulated_ = 0;
  bool shared_ = false;
  std::shared_ptr<LateValues> late_values_;  // while shared
  bool accumulated_any_ = false;             // a backward pass reached a parameter for these sums
  Array learning_rate_scalar_, step_scalar_;
};

}  // namespace binade::optim
