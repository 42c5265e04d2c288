// Precision presets a user picks by name:
//
//   name            parameters              masters  activations, products   loss scaling
//   fp32            f32                     –        f32                     off
//   fp16            f16, norms f32          f32      f16, f32 accumulation   dynamic
//   fp16-autocast   f32, cast at use        –        f16 by op class         dynamic
//   bf16            bf16, norms f32         f32      bf16                    off
//   fp16-static:S   as fp16                 f32      f16                     constant S
//   fp16-no-masters f16, norms f32          –        f16                     dynamic
//   fp16-pure       f16, norms f32          –        f16                     off
//
// The last two and fp16-static:1 exist to show what fails without masters and without loss scaling
// (Micikevicius et al. 2018, §3).
#pragma once

#include <string>

#include <binade/core/array.h>
#include <binade/core/precision.h>
#include <binade/nn/module.h>

namespace binade::amp {

class GradScaler;

struct Preset {
  enum class Scaling : uint8_t { off, dynamic, constant };
  std::string name;
  DType parameter_dtype = DType::f32;
  bool masters = false;
  bool autocast = false;             // op-class casts are on
  DType compute_dtype = DType::f32;  // of activations and products
  Scaling scaling = Scaling::off;
  float constant_scale = 1;

  // Throws Error naming the presets; S must be a power of two.
  static Preset parse(const std::string& name);
  // The default: fp32 on a CPU, fp16 on a GPU.
  static Preset default_for(Device device);

  // Gives the module's parameters their compute dtype and masters.
  void apply(nn::Module& module) const;
};

// Ops inside run under the preset's policy while this is alive (nothing changes for fp32). The
// casts of parameters are kept until the scope ends. Given the loss scale (an f32 scalar on the
// device) or the scaler that has it, ops that compute gradients in their forward pass store them
// with that scale on them (core/precision.h); a scope without one keeps the scale of the scope
// around it.
class Autocast {
 public:
  explicit Autocast(const Preset& preset);
  Autocast(const Preset& preset, const GradScaler& scaler);
  Autocast(const Preset& preset, const Array& loss_scale);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  PrecisionScope scope_;
};

}  // namespace binade::amp
