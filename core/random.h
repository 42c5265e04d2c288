// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011). A draw is a pure function of (seed, step, place,
// element), so a seed gives the same bits on CPU and GPU, in any order of execution, under
// recompute and in a replayed graph: the step is a device scalar, the place is fixed when an op is
// recorded.
//
// Layout: key = (low, high 32 bits of seed); counter = (element/4 low 32 bits,
// (element/4 high 8 bits) << 24 | place & 0xffffff, step low, step high). Element e takes word e %
// 4 of its block.
//
// The 24 bits of a place keep apart what may share seed and step (RandomState gives them out):
//   bit 23     1 inside a step (after begin_step), 0 before (after set_seed): what is drawn while a
//              model is built never meets what step 0 draws
//   bit 22     1 for ops (dropout masks), 0 for initialisers
//   bits 0-21  the count of uses since set_seed or begin_step
// Sampling of tokens (infer/sampling.h) and the order of data (data/permutation.h) have seeds and
// counters of their own, which nothing else draws from.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include <binade/core/array.h>
#include <binade/core/host_device.h>

namespace binade {

struct PhiloxBlock {
  uint32_t word[4];
};

// Four random words of block `block` (= element / 4) for this seed, step and place.
BINADE_HOST_DEVICE inline PhiloxBlock philox(uint64_t seed, uint64_t step, uint64_t place,
                                             uint64_t block) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = static_cast<uint32_t>(block);
  uint32_t c1 =
      static_cast<uint32_t>((block >> 32) << 24) | static_cast<uint32_t>(place & 0xffffffu);
  uint32_t c2 = static_cast<uint32_t>(step), c3 = static_cast<uint32_t>(step >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The uniform of a word: 24 bits, in [0, 1). A Bernoulli draw is uniform < probability.
BINADE_HOST_DEVICE inline float uniform_of(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

// Uniform in [low, high), computed in double with one rounding, so that all devices agree.
BINADE_HOST_DEVICE inline double uniform_in(double low, double high, uint32_t word) {
  return std::fma(high - low, static_cast<double>(uniform_of(word)), low);
}

struct NormalPair {
  double value[2];
};

// Two standard normals of two words (Box & Muller 1958): r·cos(2πu) and r·sin(2πu) with
// r = sqrt(−2 ln v), v = (word0 + 1)·2^-32, u = word1·2^-32. Elements e % 4 = 0, 1 of a block come
// from words 0 and 1, elements 2, 3 from words 2 and 3. In double, with the angle brought into
// [−π/4, π/4] exactly, so that the floats of all devices agree within an ulp or two.
BINADE_HOST_DEVICE inline NormalPair normal_pair(uint32_t word0, uint32_t word1) {
  const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(word0) + 1.0) * 0x1p-32));
  const double turns = static_cast<double>(word1) * 0x1p-30;  // quarter turns in [0, 4)
  const int quarter = static_cast<int>(turns + 0.5);  // NOLINT(bugprone-incorrect-roundings): ≥ 0
  const double angle = (turns - quarter) * 1.5707963267948966;
  const double c = std::cos(angle), s = std::sin(angle);
  switch (quarter & 3) {
    case 0:
      return {{radius * c, radius * s}};
    case 1:
      return {{-radius * s, radius * c}};
    case 2:
      return {{-radius * c, -radius * s}};
    default:
      return {{radius * s, -radius * c}};
  }
}

// Which draws an op takes: those of its elements at this seed, step and place.
struct PhiloxKey {
  uint64_t seed = 0;
  Array step;  // i64 scalar on the device of what is drawn
  uint64_t place = 0;
};

// The state that ops and initialisers draw from. Thread-local; a trainer sets it at the start of a
// step. Uses are counted within a step; recompute restores the count it started with.
class RandomState {
 public:
  // What is drawn for; see the layout above.
  enum class Use : uint32_t { initialiser = 0, op = 1u << 22 };
  static constexpr uint64_t kInsideStep = 1u << 23;

  static RandomState& current();

  // Starts step `step`; counts begin at 0 again.
  void begin_step(uint64_t seed, uint64_t step) { start(seed, step, kInsideStep); }
  // The same outside of any step, for example before a model is built.
  void set_seed(uint64_t seed) { start(seed, 0, 0); }
  uint64_t seed() const { return seed_; }
  // The count of uses so far.
  uint64_t place() const { return place_; }
  void set_place(uint64_t place) { place_ = place; }
  // The place of the coming draw. Throws Error after 2^22 uses.
  uint64_t next_place(Use use = Use::op);
  // The step as an i64 scalar on the device. `bind_step` gives the scalar that a captured step
  // reads (its owner writes it); otherwise one is made from begin_step's number.
  Array step_on(Device device);
  void bind_step(Array step);

 private:
  void start(uint64_t seed, uint64_t step, uint64_t phase);

  uint64_t seed_ = 0;
  uint64_t step_ = 0;
  uint64_t place_ = 0;
  uint64_t phase_ = 0;                // kInsideStep or 0
  std::array<Array, 2> step_scalar_;  // CPU, CUDA
  bool bound_ = false;
};

}  // namespace binade
