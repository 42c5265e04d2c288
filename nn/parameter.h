// Parameter: what training changes. It has a compute copy, the leaf tensor that ops read, and,
// under a preset with half parameters, an FP32 master that the optimizer updates and rewrites the
// copy from.
#pragma once

#include <memory>
#include <string>

#include <binade/autograd/tensor.h>

namespace binade::nn {

class Parameter {
 public:
  // A trainable leaf around `value` (f32, or f64 in gradient checks).
  explicit Parameter(Array value, bool keep_full_precision = false);

  const Tensor& tensor() const { return tensor_; }
  // The values that the optimizer owns: the master if there is one, otherwise the compute copy.
  // Throws Error while the ranks of a run hold pieces of the master (optim/optimizer.h).
  const Array& master() const;
  bool has_master() const { return master_.defined() || in_pieces_; }
  bool master_in_pieces() const { return in_pieces_; }
  const Shape& shape() const { return tensor_.shape(); }
  int64_t numel() const { return tensor_.numel(); }
  bool trainable() const { return tensor_.requires_grad(); }
  // While an optimizer holds the parameter, its updates leave a frozen one exactly alone. What gets
  // trainable again gets the master that its preset asked for.
  void set_trainable(bool trainable);
  // Norm weights and the like stay f32 under every preset.
  bool keeps_full_precision() const { return keep_full_precision_; }

  // Gives the compute copy another dtype; with `with_master` the present values stay as f32 master
  // beside a half copy (not where the parameter is frozen). Throws Error while an optimizer holds
  // the parameter, unless nothing would change.
  void set_compute_dtype(DType dtype, bool with_master);
  bool computes_in(DType dtype, bool with_master) const;  // as after set_compute_dtype
  // Overwrites the values (shape must match; converted). Works in place, so that bound buffers stay
  // bound.
  void assign(const Array& values);
  // Throws Error while an optimizer holds the parameter, unless it is there already.
  void to(Device device);

  // ---- for optimizers (optim/flat_group.h) ----
  // What ties a parameter to the buffers that an optimizer has laid it out in.
  struct Binding {
    std::string name;  // the parameter's
    std::string lost;  // why the model no longer trains what the buffers hold; empty: it does
  };
  // Moves master, compute copy and gradient into slices of contiguous buffers; the values are
  // copied there. `master` is undefined where there is none, or it stays where it is. The parameter
  // is held as long as the result lives; one that is held already throws Error.
  [[nodiscard]] std::shared_ptr<const Binding> bind(Array value, Array grad, Array master,
                                                    const std::string& name);
  // The optimizer holds the master in another place from here on: `whole`, in the parameter's
  // shape, has its values; undefined: other ranks hold some of them, and master() throws.
  void move_master(Array whole);
  // Throws Error while an optimizer holds the parameter: "parameter <name> belongs to an optimizer,
  // …, so <what>".
  void require_unbound(const char* what) const;
  static constexpr const char* kDtypeIsFixed =
      "its dtype and master are fixed; apply the preset first and make the optimizer after it";
  static constexpr const char* kDeviceIsFixed =
      "it cannot move to another device; move the model first and make the optimizer after it";
  static constexpr const char* kOwnerIsFixed =
      "a second one cannot have it; destroy the first optimizer before the second is made";
  // Tells the optimizer that holds the parameter, if any: its next use throws Error.
  void lose_binding(const std::string& why) const;

 private:
  bool needs_master(DType dtype, bool with_master) const;
  void require_whole_master() const;

  Tensor tensor_;
  Array master_;
  bool in_pieces_ = false;  // there is a master, and it is not here
  bool keep_full_precision_;
  bool wants_master_ = false;  // when it is trainable
  std::weak_ptr<Binding> binding_;
};

using ParameterPtr = std::shared_ptr<Parameter>;

}  // namespace binade::nn
