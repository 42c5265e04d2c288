// What FP16 loses of the gradients: for every parameter the share of elements that are zero though
// they are not when the loss is scaled by more, and where the others lie (Micikevicius et al. 2018,
// fig. 3). Made from two backward passes and read on the host: for now and then, not for every
// step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <binade/optim/optimizer.h>

namespace binade::amp {

struct UnderflowRow {
  std::string parameter;
  int64_t elements = 0;
  int64_t zeros = 0;        // zero as stored
  int64_t underflowed = 0;  // of those: finite and not zero with the larger scale
  // Elements by exponent ⌊log2 |g|⌋ of the scaled gradient g; those that underflowed are counted at
  // the exponent that they would have. FP16 holds −24 (its smallest subnormal) to 15.
  std::map<int, int64_t> exponents;
  double share() const { return static_cast<double>(underflowed) / static_cast<double>(elements); }
};

struct UnderflowReport {
  double scale = 1, larger_scale = 1;
  std::vector<UnderflowRow> rows;  // in module order

  double share() const;  // over all parameters
  // "0.31 % of the gradients underflow at scale 65536; most in wte.weight (2.4 %)".
  std::string summary() const;
  std::string to_json(int64_t step) const;  // one object in one line
};

// The larger scale is 2^8 times the scale unless said otherwise: gradients that FP16 flushes to
// zero become subnormal or normal, few others overflow.
inline constexpr double kUnderflowFactor = 256;

// `backward(scale)` runs forward and backward with the loss multiplied by `scale`, from gradients
// that were forgotten (Optimizer::zero_grad). It must give the same gradients but for the scale:
// the same batch and random numbers. Both scales are powers of two.
UnderflowReport underflow_report(optim::Optimizer& optimizer, double scale,
                                 const std::function<void(double scale)>& backward,
                                 double factor = kUnderflowFactor);

}  // namespace binade::amp
