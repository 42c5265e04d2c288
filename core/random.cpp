#include <binade/core/random.h>

namespace binade {

RandomState& RandomState::current() {
  thread_local RandomState state;
  return state;
}

void RandomState::start(uint64_t seed, uint64_t step, uint64_t phase) {
  seed_ = seed;
  step_ = step;
  place_ = 0;
  phase_ = phase;
  if (!bound_) step_scalar_ = {};
}

uint64_t RandomState::next_place(Use use) {
  constexpr uint64_t kMostPlaces = uint64_t{1} << 22;
  check(place_ < kMostPlaces, "more than ", kMostPlaces,
        " random draws in one step: call RandomState::current().begin_step() for every step");
  return phase_ | static_cast<uint64_t>(use) | place_++;
}

Array RandomState::step_on(Device device) {
  Array& scalar = step_scalar_[device.is_cuda()];
  if (!scalar.defined() || !(scalar.device() == device)) {
    check(!bound_, "the bound random step lives on another device than ", device);
    scalar = Array::full({}, static_cast<double>(step_), DType::i64, device);
  }
  return scalar;
}

void RandomState::bind_step(Array step) {
  step_scalar_ = {};
  bound_ = step.defined();
  if (bound_) step_scalar_[step.device().is_cuda()] = std::move(step);
}

}  // namespace binade
