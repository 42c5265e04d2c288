#include <binade/core/side_queue.h>

#include <omp.h>

#include <algorithm>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/start_thread.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/event.h>
#include <binade/core/cuda/side_stream.h>
#endif

namespace binade {

SideQueue::SideQueue(Device device, bool beside) : device_(device), beside_(beside) {
#if BINADE_HAVE_CUDA
  if (device.is_cuda() && beside) stream_ = std::make_shared<cuda::SideStream>(device);
#endif
}

SideQueue::~SideQueue() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

SideQueue::Ticket SideQueue::run(std::function<void()> work) {
  ++queued_;
  if (!beside_) {
    work();
    return queued_;
  }
#if BINADE_HAVE_CUDA
  if (stream_) {
    const cuda::SideStream::Scope scope(*stream_);
    work();
    events_.emplace_back(queued_, cuda::record_event(device_));
    return queued_;
  }
#endif
  if (!thread_.joinable()) thread_ = start_thread([this] { serve(); });
  {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
  }
  changed_.notify_all();
  return queued_;
}

void SideQueue::wait(Ticket ticket) {
  check(ticket <= queued_, "a side queue has ", queued_, " pieces of work, not ", ticket);
  if (!beside_ || ticket <= waited_) return;
  waited_ = ticket;
#if BINADE_HAVE_CUDA
  if (stream_) {
    std::shared_ptr<void> event;
    for (; !events_.empty() && events_.front().first <= ticket; events_.pop_front())
      event = events_.front().second;
    if (event) cuda::order_after(event.get(), device_);
    return;
  }
#endif
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= ticket; });
  if (error_) {
    waited_ = done_ = queued_;
    work_.clear();
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void SideQueue::lead([[maybe_unused]] Ticket ticket) {
#if BINADE_HAVE_CUDA
  if (!stream_) return;           // a thread's work, which has one order, calls this
  if (ticket <= waited_) return;  // the device waits for it, and the other queue for the device
  const auto piece = std::find_if(events_.begin(), events_.end(),
                                  [&](const auto& event) { return event.first >= ticket; });
  if (piece != events_.end()) cuda::order_after(piece->second.get(), device_);
#endif
}

void SideQueue::forget() {
  check(!thread_.joinable(), "a thread's work is not captured, and runs");
  events_.clear();
  waited_ = queued_;
}

void SideQueue::serve() {
  omp_set_num_threads(1);  // of this thread: the others compute meanwhile
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ends_ || !work_.empty(); });
    if (ends_) return;
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    if (!error_) {
      lock.unlock();
      std::exception_ptr error;
      try {
        work();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      error_ = error;
    }
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace binade
