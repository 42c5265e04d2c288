// FrozenWeights: what a run cannot change and its checkpoints therefore do not hold. In their place
// they hold a fingerprint of every such parameter, so that a run does not go on beside other ones.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <binade/nn/module.h>
#include <binade/optim/optimizer.h>
#include <binade/train/checkpoint_source.h>

namespace binade::train {

class FrozenWeights {
 public:
  // Of a model of which the optimizer trains some parameters; both must outlive it. A parameter is
  // frozen as long as it was not trainable, belonged to no optimizer, and came from no checkpoint
  // while this object looked.
  FrozenWeights(nn::Module& model, const optim::Optimizer& optimizer)
      : FrozenWeights(model, std::vector{&optimizer}) {}
  // The same of several optimizers.
  FrozenWeights(nn::Module& model, std::vector<const optim::Optimizer*> optimizers);

  // Masters and buffers that are not frozen. state() throws Error while ranks hold masters in
  // pieces; add_to() makes them the section "model" of a checkpoint.
  nn::StateDict state();
  void add_to(CheckpointSource& source);
  // A JSON object: name → CRC-32C of dtype, shape and values; empty if nothing is frozen. Each
  // parameter is read once, when it is first met as a frozen one: at the first call, or in load().
  std::string fingerprints();

  // Puts a checkpoint's state() and fingerprints() (empty: everything is in the state) into the
  // model. Throws Error, and changes nothing, where a frozen weight is not the one that the
  // fingerprint was made of ("frozen weight X is not the one …"), or where the state does not fit.
  // Ranks that hold masters in pieces call it together, and each reads its own.
  void load(const nn::StateDict& state, const std::string& fingerprints);

 private:
  void look();                                                         // which are frozen now
  std::map<const nn::Parameter*, optim::MemberState> masters() const;  // of the optimizers
  uint32_t fingerprint(const std::string& name, const Array& values);

  nn::Module& model_;
  std::vector<const optim::Optimizer*> optimizers_;
  std::set<std::string> kept_;  // in checkpoints; once there, a name stays
  std::map<std::string, uint32_t> fingerprints_;
};

}  // namespace binade::train
