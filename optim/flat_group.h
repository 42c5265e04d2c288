// FlatGroup: parameters of one dtype and one set of hyper-parameters, laid out contiguously.
// Values, gradients, masters and moments each lie in one contiguous buffer, so that the pass over
// the gradients and the update are one launch each, whatever the number of parameters.
//
// Ranks of a run may share a group (ZeRO stage 1, Rajbhandari et al. 2020): each of them then has
// the masters, sums and moments of its own elements, a slice of every bucket (dist/shards.h), and
// all have the values and gradients of all elements.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <binade/dist/shards.h>
#include <binade/nn/module.h>

namespace binade::optim {

// Parameters with settings of their own.
struct ParameterGroup {
  std::vector<nn::NamedParameter> parameters;
  double lr_factor = 1;     // multiplies the learning rate; 0 or more
  double weight_decay = 0;  // 0 or more
  // Where the optimizer's buffers are made; not given: where the parameters are. With it values
  // move there one by one, and masters stay in the parameters' own memory until the first learning
  // rate is set or ranks share them: so of deferred ones (nn/deferred.h) a rank never makes more
  // than its own. What ranks have shared and put together again is where the parameters were: no
  // GPU ever has all of it.
  std::optional<Device> device = {};
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
  // `device`: as ParameterGroup::device.
  FlatGroup(std::vector<Member> members, double lr_factor, double weight_decay,
            std::optional<Device> device = {});

  const std::vector<Member>& members() const { return members_; }
  double lr_factor() const { return lr_factor_; }
  double weight_decay() const { return weight_decay_; }
  int64_t numel() const { return numel_; }  // gaps included
  Device device() const { return value_.device(); }

  DType dtype() const { return value_.dtype(); }

  const Array& value() const;
  const Array& grad() const { return grad_; }  // the compute copies' dtype, scaled
  // Whether gradients have a buffer here. Of a group that is shared without them they have memory
  // for as long as somebody gives it to them (train/gradient_exchange.h), and grad() is undefined.
  bool has_grad_buffer() const { return grad_.defined(); }
  // Of the own elements, f32; own_value() itself where there are no masters. Those that are still
  // in the parameters' own memory move here.
  const Array& master() const;
  bool has_masters() const { return has_masters_; }  // apart from the values
  // Copies of the same, in f32 at least; of those that have not moved where they are.
  Array copy_of_masters() const;
  // Whether some values are still to be made, and where those of each member then come from.
  bool deferred() const { return deferred_; }
  std::vector<nn::ValueSource> sources() const;

  // Own elements are those whose masters, sums and moments are this process's: all, unless the
  // group is shared. How many there are, and how many of them lie in front of `element`.
  int64_t owned() const { return owned_before(numel_); }
  int64_t owned_before(int64_t element) const;
  // The own elements of a buffer of all, on the group's device: itself if it is there and the group
  // not shared, otherwise a copy.
  Array own(const Array& buffer) const;
  // The values of the own elements, which updates write; of a shared group apart from value().
  const Array& own_value() const;

  // A zero buffer for the own elements, of the masters' dtype (f32 where the values are half and
  // there are no masters).
  Array new_moment() const;
  // This member's part of a buffer of all elements, in its shape.
  Array part(const Array& buffer, const Member& member) const;
  // What a buffer of the own elements has of this member: (k), as many as there are.
  Array own_part(const Array& buffer, const Member& member) const;
  // The own elements among a member's values, of its shape and on any device: (k), in the order of
  // own_part(). Nothing else of the values is read.
  Array own_piece(const Array& values, const Member& member) const;
  // The same of values that are made now, no others among them: written to the member's part of
  // `buffer`, one of the own elements.
  void make_own(const Array& buffer, const Member& member, const nn::ValueSource& values) const;
  // Where those of a rank lie among them, by bucket; some may be empty. All if not shared.
  std::vector<dist::Slice> places(const Member& member, int rank) const;
  dist::Communicator* ranks() const { return ranks_; }  // null if not shared

  // Sum over micro-batches in f32. add_to_accumulated(first = true) starts a new sum. Not of a
  // shared group.
  void add_to_accumulated(bool first);
  // The sums of some elements, own ones and without others between them; after make_sums().
  Array sums(dist::Slice elements) const;
  void make_sums();                                          // the buffer, unless there is one
  const Array& accumulated() const { return accumulated_; }  // of the own elements

  // ---- ranks that share the group ---------------------------------------------------------------
  // Each of them keeps what it has of its own elements. The masters of the parameters are in pieces
  // from here on, and with `gradients` those have no buffer (ZeRO stage 2). begin() comes next, or
  // all masters are loaded and spread (Optimizer). `ranks` must outlive the sharing.
  void share(dist::Communicator& ranks, const dist::Shards& shards, bool gradients = false);
  bool shared() const { return ranks_ != nullptr; }
  // What follows is for all ranks to call together; of a group that is not shared nothing is sent.
  //
  // Makes the own elements of parameters that were deferred and, with ParameterGroup::device, gives
  // all ranks all values.
  void begin();
  // Ends the sharing: every rank has all masters again. Sums that were begun are lost.
  void unshare();
  // Values that were changed in value() since the last update, where there are no masters: the next
  // one goes on from them.
  void take_values() const;
  // Masters that were written become own_value(), rounded.
  void take_masters() const;
  // The own elements of value() become own_value(); on other ranks they stay as they were.
  void put_values() const;
  // Every rank's elements of value() become what that rank has there.
  void gather_values() const;
  // A buffer of all elements, from the ranks' buffers of their own; not a copy if not shared. With
  // ParameterGroup::device it is made where the masters were at first.
  Array whole(const Array& buffer) const;
  // The same of one member, in its shape, for rank 0; undefined on the others.
  Array whole_part(const Array& buffer, const Member& member) const;
  // What gradient_stats says of `gradients`, those of the own elements, and then of all elements:
  // (chunks, 2) f64, in a buffer that is written again by the next call.
  const Array& measure(const Array& gradients, const Array& inv_scale) const;
  // Of a shared group, the rows that measure() makes of some own elements, a slice of a bucket. Who
  // has written those of all own elements, from the sums as they are, says so: the next measure()
  // with this inv_scale takes them, if neither has changed.
  Array statistics(dist::Slice elements) const;
  void note_measured(const Array& inv_scale) const;

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
  void make_grad_buffer();
  void make_values() const;
  // Whole masters in the group's own buffer.
  void make_masters() const;
  std::vector<Member> members_;
  double lr_factor_, weight_decay_;
  int64_t numel_ = 0;
  bool has_masters_;
  std::optional<Device> home_;           // of masters that this does not hold; none: it holds them
  dist::Communicator* ranks_ = nullptr;  // of a shared group
  std::optional<dist::Shards> shards_;   // likewise
  Array value_, own_value_, grad_, accumulated_;
  mutable Array master_;           // undefined while masters are in the parameters' own memory
  mutable bool deferred_ = false;  // some members' values are still to be made
  mutable std::vector<std::optional<nn::ValueSource>> to_begin_;  // by member; once shared
  // Of gradient_stats: of all chunks, and of a shared group of every rank's own (ranks, most, 2).
  Array statistics_, statistics_of_ranks_;
  struct Measured {
    Array inv_scale;
    uint64_t versions = 0;  // its own and that of the sums, added up: they only grow
  };
  uint64_t versions_with(const Array& inv_scale) const;
  mutable Measured measured_;
};

// A tensor of a state that lies in a group's buffer of its own elements.
struct MemberState {
  std::string name;
  const FlatGroup* group;
  const FlatGroup::Member* member;
  Array buffer;
};

}  // namespace binade::optim
