// Transfers between host and device that nobody waits for.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include <binade/core/array.h>

namespace binade {

// A mark in a device's queue of work. On the CPU it has always been passed.
class Fence {
 public:
  Fence() = default;
  static Fence after_queued_work(Device device);
  bool passed() const;
  void wait() const;  // a host synchronisation if it was not passed

 private:
  std::shared_ptr<void> event_;
};

// A contiguous array in page-locked host memory.
Array pinned_array(const Shape& shape, DType dtype);

// Queues a copy between contiguous arrays of one shape and dtype, one of them page-locked on the
// host, the other on a device. The host side must stay as it is until a Fence queued after it is
// passed.
void copy_queued(const Array& source, const Array& destination);

// Copies host arrays of one shape to one device array again and again. A small ring of page-locked
// buffers lets the host run a few steps ahead.
class Uploader {
 public:
  explicit Uploader(Array destination);
  // Queues a copy of the values to the destination: straight from page-locked memory, which is kept
  // alive until it is done, otherwise by way of the ring.
  void upload(const Array& source);
  const Array& destination() const { return destination_; }

 private:
  struct Slot {
    Array buffer;  // page-locked, made when first needed
    Array source;  // page-locked memory of the caller's, while it is read
    Fence copied;
  };
  Array destination_;
  std::vector<Slot> ring_;
  size_t next_ = 0;
};

// Brings device arrays of one shape to the host without waiting.
class Downloader {
 public:
  // Queues a copy of `source` (contiguous).
  void download(const Array& source);
  // Host arrays of finished copies, oldest first; with `wait` all of them.
  std::vector<Array> take(bool wait = false);
  // Waits for all but the newest `latest` copies; the finished ones, oldest first.
  std::vector<Array> take_but(size_t latest);

 private:
  struct Slot {
    Array buffer;
    Fence copied;
  };
  std::deque<Slot> queue_;
  std::vector<Array> spare_;
};

}  // namespace binade
