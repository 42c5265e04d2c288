// FlatGroup: parameters of one dtype and one set of hyper-parameters, laid out contiguously.
// Values, gradients, masters and moments each lie in one contiguous buffer, so that the pass over
// the gradients and the update are one launch each, whatever the number of parameters.
//
// Ranks of a run may share a group (ZeRO stage 1, Rajbhandari et al. 2020): each of them then has
// the masters, sums and moments of one slice of its elements, its own, and all have the values and
// gradients of all elements.
#pragma once

#include <string>
#include <vector>

#include <binade/dist/communicator.h>
#include <binade/nn/module.h>

namespace binade::optim {

// Parameters with settings of their own.
struct ParameterGroup {
  std::vector<nn::NamedParameter> parameters;
  double lr_factor = 1;     // multiplies the learning rate; 0 or more
  double weight_decay = 0;  // 0 or more
};

// The trainable parameters of `module` in one group, or in two: those of more than one dimension
// decay, the others do not.
std::vector<ParameterGroup> one_group(const nn::Module& module, double weight_decay);
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
  const Array& grad() const { return grad_; }  // the compute copies' dtype, scaled
  // Of the own elements, f32; own(value()) itself where there are no masters.
  const Array& master() const { return master_; }

  // The elements whose masters, sums and moments are this process's: all, unless the group is
  // shared.
  dist::Slice own() const { return own_; }
  // The own elements of a buffer of all.
  Array own(const Array& buffer) const { return buffer.slice(0, own_.begin, own_.end); }

  // A zero buffer for the own elements, of the masters' dtype (f32 where the values are half and
  // there are no masters).
  Array new_moment() const;
  // This member's part of a buffer of all elements, in its shape.
  Array part(const Array& buffer, const Member& member) const;
  // What a buffer of the own elements has of this member: (k), as many as there are.
  Array own_part(const Array& buffer, const Member& member) const;

  // Sum over micro-batches in f32. add_to_accumulated(first = true) starts a new sum. Not of a
  // shared group.
  void add_to_accumulated(bool first) { add_to_accumulated(grad_, 0, first); }
  // The same for the elements from `begin` on, own ones, with gradients that came from elsewhere
  // (n) of any floating dtype.
  void add_to_accumulated(const Array& grads, int64_t begin, bool first);
  const Array& accumulated() const { return accumulated_; }  // of the own elements

  // ---- ranks that share the group ---------------------------------------------------------------
  // Each of them keeps what it has of its slice (dist::slices). The masters of the parameters are
  // in pieces from here on. `ranks` must outlive the sharing.
  void share(dist::Communicator& ranks);
  bool shared() const { return ranks_ != nullptr; }
  // What follows is for all ranks to call together; of a group that is not shared nothing is sent.
  //
  // Ends the sharing: every rank has all masters again. Sums that were begun are lost.
  void unshare();
  // The values of all elements become those that the ranks have of their own.
  void gather_values() const;
  // A buffer of all elements, from the ranks' buffers of their own; not a copy if not shared.
  Array whole(const Array& buffer) const;
  // The same of one member, in its shape, for rank 0; undefined on the others.
  Array whole_part(const Array& buffer, const Member& member) const;
  // What gradient_stats says of `gradients`, those of the own elements, and then of all elements:
  // (chunks, 2) f64, in a buffer that is written again by the next call.
  const Array& measure(const Array& gradients, const Array& inv_scale) const;

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
  // `rows` has one for every `elements` elements: the ranks give each other those of their own.
  void gather(const Array& rows, int64_t elements) const;
  // Where the elements [first, last) that a slice has of a member lie in the slice.
  static dist::Slice within(dist::Slice slice, const Member& member);

  std::vector<Member> members_;
  double lr_factor_, weight_decay_;
  int64_t numel_ = 0;
  dist::Slice own_;
  dist::Communicator* ranks_ = nullptr;
  Array value_, grad_, master_, accumulated_, statistics_;
};

// A tensor of a state that lies in a group's buffer of its own elements.
struct MemberState {
  std::string name;
  const FlatGroup* group;
  const FlatGroup::Member* member;
  Array buffer;
};

}  // namespace binade::optim
