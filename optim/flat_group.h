// FlatGroup: parameters of one dtype and one set of hyper-parameters, laid out contiguously.
// Values, gradients, masters and moments each lie in one contiguous buffer, so that the pass over
// the gradients and the update are one launch each, whatever the number of parameters.
#pragma once

#include <string>
#include <vector>

#include <binade/nn/module.h>

namespace binade::optim {

// Parameters with settings of their own.
struct ParameterGroup {
  std::vector<nn::NamedParameter> parameters;
  double lr_factor = 1;     // multiplies the learning rate; 0 or more
  double weight_decay = 0;  // 0 or more
};

// The usual split: parameters of more than one dimension decay, the others do not. Parameters that
// are not trainable are left out.
std::vector<ParameterGroup> split_by_decay(const nn::Module& module, double weight_decay);

class FlatGroup {
 public:
  struct Member {
    nn::NamedParameter parameter;
    int64_t offset;  // elements from the start of the buffers
    int64_t numel;
    // Holds the parameter for this group.
    std::shared_ptr<const nn::Parameter::Binding> binding = nullptr;

    bool frozen() const { return !parameter.parameter->trainable(); }
  };

  // Moves the parameters into new buffers and holds them there: another group may have them when
  // this one and its copies are gone. Members start at multiples of 128 elements; the gaps are zero
  // and stay so.
  FlatGroup(std::vector<Member> members, double lr_factor, double weight_decay);

  const std::vector<Member>& members() const { return members_; }
  double lr_factor() const { return lr_factor_; }
  double weight_decay() const { return weight_decay_; }
  int64_t numel() const { return numel_; }  // gaps included
  Device device() const { return value_.device(); }

  const Array& value() const { return value_; }
  const Array& grad() const { return grad_; }      // the compute copies' dtype, scaled
  const Array& master() const { return master_; }  // f32; value() itself where there are no masters

  // A zero buffer of the masters' dtype (f32 where the values are half and there are no masters).
  Array new_moment() const;
  // This member's part of a buffer of this group, in its shape.
  Array part(const Array& buffer, const Member& member) const;

  // Sum over micro-batches in f32. add_to_accumulated(first = true) starts a new sum.
  void add_to_accumulated(bool first) { add_to_accumulated(grad_, 0, first); }
  // The same for the elements from `begin` on, with gradients that came from elsewhere (n) of any
  // floating dtype.
  void add_to_accumulated(const Array& grads, int64_t begin, bool first);
  const Array& accumulated() const { return accumulated_; }

  // Forgets the gradients; the next backward overwrites them.
  void zero_grad() const;
  // Whether a backward pass reached a member since zero_grad().
  bool has_grads() const;
  // Zeroes the gradients of members that backward did not reach since zero_grad(), and of frozen
  // ones.
  void fill_missing_grads() const;
  // Zeroes the sums of frozen members.
  void zero_frozen_sums() const;

 private:
  std::vector<Member> members_;
  double lr_factor_, weight_decay_;
  int64_t numel_ = 0;
  Array value_, grad_, master_, accumulated_;
};

}  // namespace binade::optim
