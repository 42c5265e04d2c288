// Parameter: what training changes. It has a compute copy, the leaf tensor that ops read, and,
// under a preset with half parameters, an FP32 master that the optimizer updates and rewrites the
// copy from.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <binade/autograd/tensor.h>
#include <binade/nn/init.h>

namespace binade::nn {

class Parameter {
 public:
  // A trainable leaf around `value` (f32, or f64 in gradient checks).
  explicit Parameter(Array value, bool keep_full_precision = false);
  // One around what the initialiser makes, on the CPU: now or, inside an nn::Deferred, when it is
  // first read.
  Parameter(const Shape& shape, const Initialiser& values, bool keep_full_precision = false);
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const Tensor& tensor() const { return tensor_; }
  // The values that the optimizer owns: the master if there is one, otherwise the compute copy.
  // Throws Error while the ranks of a run hold pieces of the master (optim/optimizer.h).
  const Array& master() const;
  bool has_master() const { return held_->master_is != Master::none; }
  bool master_in_pieces() const { return held_->master_is == Master::in_pieces; }
  // Whether values are still to be made, when tensor() or master() is read (nn/deferred.h).
  bool deferred() const { return held_->source.has_value(); }
  // master()'s values to be made once more at another time, whatever is assigned meanwhile: those
  // of a parameter that is not deferred are copied.
  ValueSource source() const {
    return deferred() ? *held_->source : ValueSource::of(master().clone());
  }
  // What master() would be, without giving memory to a deferred parameter: its values are made
  // anew, in f32 on the CPU, for whoever looks at them once.
  Array peek() const { return deferred() ? held_->source->make() : master(); }
  // Shape and dtype of master() in an array that has no memory: its values must not be touched.
  Array form() const;
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
  // The same; a deferred parameter stays deferred.
  void assign(const ValueSource& values);
  // The values of another parameter: deferred ones, where both are.
  void assign(const Parameter& other);
  // Throws Error while an optimizer holds the parameter, unless it is there already.
  void to(Device device);

  // ---- for optimizers (optim/flat_group.h) ----
  // What ties a parameter to the buffers that an optimizer has laid it out in.
  struct Binding {
    std::string name;  // the parameter's
    std::string lost;  // why the model no longer trains what the buffers hold; empty: it does
  };
  // Moves master, compute copy and gradient into slices of contiguous buffers; the values are
  // copied there. `master` is undefined where there is none, or it stays where it is. Of a deferred
  // parameter both are made there: the master now, the copy with it, or without one when it is
  // first read. The parameter is held as long as the result lives; one that is held already throws
  // Error.
  [[nodiscard]] std::shared_ptr<const Binding> bind(Array value, Array grad, Array master,
                                                    const std::string& name);
  // The optimizer holds the master in another place from here on: `whole`, in the parameter's
  // shape, has its values; undefined: other ranks hold some of them, and master() throws.
  void move_master(Array whole);
  // Where the values of a deferred parameter come from, for whoever writes them into the bound
  // buffers, now, and calls move_master() where there is a master; nothing of another one.
  std::optional<ValueSource> take_source();
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

  enum class Master : uint8_t { none, here, deferred, in_pieces };
  // What a parameter has beside its tensor, and shares with those who make deferred values.
  struct Held {
    Master master_is = Master::none;
    Array master;                       // if it is here
    std::optional<ValueSource> source;  // of values that are still to be made
    bool bound = false;                 // the compute copy has memory for them
    Device home;                        // where a master is made whose copy is bound
  };
  void defer(DType dtype, Device device);
  void forget_source();
  static void make_values(const Tensor& tensor, Held& held);

  Tensor tensor_;
  std::shared_ptr<Held> held_ = std::make_shared<Held>();
  bool keep_full_precision_;
  bool wants_master_ = false;  // when it is trainable
  std::weak_ptr<Binding> binding_;
};

using ParameterPtr = std::shared_ptr<Parameter>;

}  // namespace binade::nn
