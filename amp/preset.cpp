#include <binade/amp/preset.h>

#include <cmath>
#include <optional>
#include <string_view>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/autocast.h>
#include <binade/core/text.h>

namespace binade::amp {

namespace {

constexpr const char* kStatic = "fp16-static:";

bool is_power_of_two(double value) {
  int exponent = 0;
  return value > 0 && std::isfinite(value) && std::frexp(value, &exponent) == 0.5;
}

}  // namespace

Preset Preset::parse(const std::string& name) {
  using enum DType;
  if (name == "fp32") return {.name = name};
  const Preset half{.name = name,
                    .parameter_dtype = f16,
                    .masters = true,
                    .autocast = true,
                    .compute_dtype = f16,
                    .scaling = Scaling::dynamic};
  Preset preset = half;
  if (name == "fp16") return preset;
  if (name == "fp16-autocast") {
    preset.parameter_dtype = f32;
    preset.masters = false;
    return preset;
  }
  if (name == "bf16") {
    preset.parameter_dtype = preset.compute_dtype = bf16;
    preset.scaling = Scaling::off;
    return preset;
  }
  if (name == "fp16-no-masters" || name == "fp16-pure") {
    preset.masters = false;
    if (name == "fp16-pure") preset.scaling = Scaling::off;
    return preset;
  }
  if (name.rfind(kStatic, 0) == 0) {
    const std::optional<double> scale =
        parse_number(std::string_view(name).substr(std::char_traits<char>::length(kStatic)));
    check(scale && is_power_of_two(*scale), "preset ", name,
          ": the scale must be a power of two, as in fp16-static:1024");
    preset.scaling = Scaling::constant;
    preset.constant_scale = static_cast<float>(*scale);
    return preset;
  }
  fail("unknown precision preset \"", name,
       "\": use fp32, fp16, fp16-autocast, bf16, fp16-static:S, fp16-no-masters or fp16-pure");
}

Preset Preset::default_for(Device device) {
  return parse(device.is_cuda() ? "fp16" : "fp32");
}

void Preset::apply(nn::Module& module) const {
  if (is_half(parameter_dtype)) module.set_compute_dtype(parameter_dtype, masters);
}

Autocast::Autocast(const Preset& preset) : Autocast(preset, Array()) {}

Autocast::Autocast(const Preset& preset, const GradScaler& scaler)
    : Autocast(preset, scaler.scale_scalar()) {}

Autocast::Autocast(const Preset& preset, const Array& loss_scale)
    : scope_({preset.autocast ? std::optional(PrecisionPolicy{preset.compute_dtype}) : std::nullopt,
              loss_scale.defined() ? loss_scale : Precision::current().loss_scale}) {}

Autocast::~Autocast() {
  clear_cast_cache();
}

}  // namespace binade::amp
