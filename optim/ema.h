// Exponential moving average: average ← decay·average + (1−decay)·master after every update that
// was applied.
#pragma once

#include <memory>
#include <vector>

#include <binade/optim/optimizer.h>

namespace binade::optim {

// {.decay = 0.9999, .kind = EmaDecay::Kind::ratio}: the decay grows with the optimizer's updates.
using EmaDecay = AverageDecay;

class Ema {
 public:
  // Of the optimizer's parameters, from their present values, which are made when they are needed
  // where they are deferred (nn/deferred.h). `statistics`: what the model measures
  // of its activations and computes with later (batch norm), for example named_buffers() of a
  // module: averaged with the weights that they were measured with; buffers that are not
  // floating-point are left alone. Every use after the optimizer is gone throws Error.
  Ema(const Optimizer& optimizer, const EmaDecay& decay,
      const std::vector<nn::NamedBuffer>& statistics = {});
  // With a constant decay, in (0, 1).
  Ema(const Optimizer& optimizer, double decay, const std::vector<nn::NamedBuffer>& statistics = {})
      : Ema(optimizer, EmaDecay{.decay = decay}, statistics) {}
  // A copy would write the same averages.
  Ema(const Ema&) = delete;
  Ema& operator=(const Ema&) = delete;
  // Whether these are averages of that optimizer's parameters.
  bool averages(const Optimizer& optimizer) const { return life_.lock() == optimizer.life(); }
  // After Optimizer::update, with the found_inf that it was given, or after Optimizer::step. Throws
  // Error while the averages are in use.
  void update(const Array& found_inf);
  void update();
  // The averages by the names of parameters and statistics. Throws Error while ranks share them.
  nn::StateDict state() const;
  // Throws Error naming what does not fit; nothing is written then. Not while the averages are in
  // use. Of ranks that share them each reads its own elements.
  void load_state(const nn::StateDict& saved);

  // The averages follow the optimizer's slices: share() after Optimizer::share(), unshare(), which
  // all ranks call together, before Optimizer::unshare(). Not while the averages are in use.
  void share();
  void unshare();
  // Those of the parameters, and of the statistics.
  std::vector<MemberState> parameter_averages() const;
  nn::StateDict statistics() const;

  // The model computes with the averages while this lives; afterwards it has its own weights again,
  // bit by bit, also when an exception ends the scope. The optimizer makes no step meanwhile. Ranks
  // that share the averages begin and end it together.
  class Scope {
   public:
    explicit Scope(Ema& ema);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Ema& ema_;
  };
  // What begins a Scope, and ends it: masters (and the compute copies) and statistics become the
  // averages, then what they were.
  void swap();

 private:
  const Optimizer& optimizer() const;
  // Averages of masters that had not moved to the optimizer's device are there from here on.
  void place();
  // What average i is of: the master of a group, behind all groups a buffer of statistics.
  const Array& averaged(size_t i) const;
  // Average i, which begins as what it is of.
  const Array& begun(size_t i) const;
  // Where average i lies now.
  const Array& average(size_t i) const;

  const Optimizer* optimizer_;
  std::weak_ptr<Optimizer::Life> life_;
  EmaDecay decay_;
  std::vector<nn::NamedBuffer> statistics_;
  // With masters of the same dtype: what was exchanged, while in use. Undefined of a group that is
  // not begun, whose members' first values come from `sources_`.
  mutable std::vector<Array> averages_;
  mutable std::vector<std::vector<nn::ValueSource>> sources_;
  std::vector<Array> kept_;  // while in use: masters that cannot hold the averages' bits
  bool in_use_ = false;
  bool shared_;
};

}  // namespace binade::optim
