// CheckpointSource: what becomes a checkpoint. Its tensors are brought to host memory one by one as
// they are written, also those that the ranks of a run hold in pieces, so that no process ever has
// all of them.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <binade/core/safetensors.h>
#include <binade/optim/flat_group.h>
#include <binade/train/checkpoint.h>

namespace binade::train {

// Ranks that share an optimizer's state make the same source and go through it together: one of
// them writes it, the others call finish().
class CheckpointSource {
 public:
  CheckpointSource() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): of a checkpoint that is at hand
  CheckpointSource(const Checkpoint& checkpoint);

  std::map<std::string, std::string> values;  // as in Checkpoint
  void add(const std::string& section, const nn::StateDict& state);
  void add(const std::string& section, const std::string& name, const Array& values);
  // Under its own name, or another one.
  void add(const std::string& section, const optim::MemberState& state) {
    add(section, state.name, state);
  }
  void add(const std::string& section, const std::string& name, const optim::MemberState& state);

  // Those that ranks hold in pieces, by <section>.<name>.
  const std::map<std::string, optim::MemberState>& pieces() const { return pieces_; }
  // <section>.<name>
  const std::map<std::string, TensorForm>& forms() const { return forms_; }
  // The tensors in the order of the file, each once, in host memory without gaps. Of one in pieces
  // the first rank gets the values, the others nothing.
  Array next();
  // Sends what other ranks still need of this one: every rank calls it, also when writing failed.
  void finish();

 private:
  struct Values {
    std::function<Array()> get;
    bool in_pieces;
  };
  void add(const std::string& name, TensorForm form, Values values);
  // The next one; undefined where there is nothing to do for it and `needed` is false.
  Array take(bool needed);

  std::map<std::string, TensorForm> forms_;
  std::map<std::string, Values> tensors_;
  std::map<std::string, optim::MemberState> pieces_;
  std::vector<std::string> order_;  // once the first was taken
  size_t taken_ = 0;
};

// As the function of a Checkpoint does.
void write_checkpoint(const std::filesystem::path& path, CheckpointSource& source);

}  // namespace binade::train
