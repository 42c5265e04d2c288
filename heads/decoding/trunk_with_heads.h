// A language model and its heads as one module, for training both: the model's parameters keep
// their names, those of the heads stand behind `name`.
#pragma once

#include <memory>
#include <string>

#include <binade/nn/models/causal_lm.h>

namespace binade::heads::decoding {

class TrunkWithHeads : public nn::Module {
 public:
  TrunkWithHeads(std::shared_ptr<nn::CausalLm> trunk, const std::string& name,
                 std::shared_ptr<nn::Module> heads) {
    add_child("", std::move(trunk));
    add_child(name, std::move(heads));
  }
};

}  // namespace binade::heads::decoding
