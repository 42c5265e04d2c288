// INTERNAL. Work that goes on beside what a device does, in an order of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include <binade/core/device.h>

namespace binade {

namespace cuda {
class SideStream;
}

// On a GPU a stream of its own, forked from the device's and joined again by events, also inside a
// captured graph; on the CPU a thread of its own. One thread at a time uses it.
class SideQueue {
 public:
  // `beside` false: the work is done at once, in the order of the rest.
  explicit SideQueue(Device device, bool beside = true);
  // Work that has begun ends; what has not is left out.
  ~SideQueue();
  SideQueue(const SideQueue&) = delete;
  SideQueue& operator=(const SideQueue&) = delete;

  using Ticket = uint64_t;  // numbers of pieces of work, from 1 on
  // The work runs behind all that was queued on the device before, and behind earlier work. It
  // takes and frees no memory of a device: the pool knows one stream (core/cuda/pool.h).
  Ticket run(std::function<void()> work);
  // What is queued on the device from here on runs behind this piece of work and those before it.
  // Throws what they threw; then the queue is empty.
  void wait(Ticket ticket);
  void wait_for_all() { wait(queued_); }
  // Within a piece of work of another queue of the same GPU: what it queues from here on runs
  // behind this piece of work and those before it.
  void lead(Ticket ticket);
  // Of work that was queued in a capture of a graph which then failed, and which never runs: nobody
  // waits for it any more.
  void forget();

  bool is_beside() const { return beside_; }

 private:
  void serve();

  Device device_;
  bool beside_;
  Ticket queued_ = 0, waited_ = 0;
  // Of a GPU; and the events behind pieces of work that were not waited for.
  std::shared_ptr<cuda::SideStream> stream_;
  std::deque<std::pair<Ticket, std::shared_ptr<void>>> events_;
  // Of the thread, which is started by the first piece of work.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  Ticket done_ = 0;
  std::exception_ptr error_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace binade
