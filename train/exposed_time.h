// INTERNAL. How long a step waits for other ranks: what communication costs beside the computation.
#pragma once

#include <binade/core/array.h>
#include <binade/core/kernels/clock.h>
#include <binade/core/side_queue.h>
#include <binade/dist/communicator.h>

namespace binade::train {

// Measured where the waiting is done, by the device's own clock: on a GPU in its queue of work, so
// that a captured step measures anew with every replay.
class ExposedTime {
 public:
  // Off, it measures nothing and costs nothing.
  ExposedTime(Device device, bool on) : on_(on) {
    if (!on) return;
    start_ = Array::zeros({}, DType::i64, device);
    seconds_ = Array::zeros({}, DType::f64, device);
  }

  bool on() const { return on_; }
  void begin_step() const {
    if (on_) seconds_.zero();
  }
  // Of this step so far, f64 scalar; undefined if off.
  const Array& seconds() const { return seconds_; }

  template <class Waiting>
  void measure(const Waiting& waiting) const {
    if (on_) BINADE_DISPATCH(start_.device(), read_clock(start_));
    waiting();
    if (on_) BINADE_DISPATCH(start_.device(), add_elapsed(start_, seconds_));
  }

 private:
  bool on_;
  Array start_, seconds_;
};

// A communicator whose verbs are measured, and come behind what was queued beside them: verbs of
// one communicator have one order.
class TimedCommunicator : public dist::Communicator {
 public:
  TimedCommunicator(dist::Communicator& ranks, const ExposedTime& time, SideQueue& queue)
      : Communicator(ranks.rank(), ranks.size()), ranks_(ranks), time_(time), queue_(queue) {}
  Device device() const override { return ranks_.device(); }
  bool serves_any_thread() const override { return ranks_.serves_any_thread(); }

 protected:
  void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) override {
    time_.measure([&] {
      queue_.wait_for_all();
      ranks_.all_to_all(send, receive);
    });
  }

 private:
  dist::Communicator& ranks_;
  const ExposedTime& time_;
  SideQueue& queue_;
};

}  // namespace binade::train
