#include <binade/core/transfer.h>

#include <cstring>

#include <binade/core/memory.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/event.h>
#endif

namespace binade {

namespace {
constexpr size_t kRing = 4;  // steps that the host may run ahead of a device
}

#if BINADE_HAVE_CUDA

Fence Fence::after_queued_work(Device device) {
  Fence fence;
  if (device.is_cuda()) fence.event_ = cuda::record_event(device);
  return fence;
}
bool Fence::passed() const {
  return !event_ || cuda::event_passed(event_.get());
}
void Fence::wait() const {
  if (event_) cuda::wait_for_event(event_.get());
}

#else

Fence Fence::after_queued_work(Device) {
  return {};
}
bool Fence::passed() const {
  return true;
}
void Fence::wait() const {}

#endif

Array pinned_array(const Shape& shape, DType dtype) {
  const int64_t bytes = shape.numel() * size_of(dtype);
  std::shared_ptr<void> memory = allocate_pinned(bytes);
  return Array::from_blob(memory.get(), shape, dtype, {}, memory);
}

void copy_queued(const Array& source, const Array& destination) {
  check(source.shape() == destination.shape() && source.dtype() == destination.dtype() &&
            source.is_contiguous() && destination.is_contiguous(),
        "copy_queued needs contiguous arrays of one shape and dtype, got ", source.shape(), ' ',
        source.dtype(), " and ", destination.shape(), ' ', destination.dtype());
  if (source.device().is_cpu() && destination.device().is_cpu()) {
    std::memcpy(destination.data(), source.data(), static_cast<size_t>(source.bytes()));
    return;
  }
#if BINADE_HAVE_CUDA
  cuda::copy_async(destination.data(), destination.device(), source.data(), source.device(),
                   source.bytes());
#endif
}

Uploader::Uploader(Array destination) : destination_(std::move(destination)) {
  if (destination_.device().is_cuda()) ring_.resize(kRing);
}

void Uploader::upload(const Array& source) {
  if (ring_.empty()) {
    destination_.copy_from(source);
    return;
  }
  for (Slot& slot : ring_)
    if (slot.source.defined() && slot.copied.passed()) slot.source = {};
  destination_.bump_version();
  Slot& slot = ring_[next_++ % kRing];
  slot.copied.wait();
  const bool as_it_is = source.is_contiguous() && source.dtype() == destination_.dtype() &&
                        source.shape() == destination_.shape();
  if (as_it_is && is_pinned(source.data())) {
    slot.source = source;
    copy_queued(source, destination_);
  } else {
    if (!slot.buffer.defined())
      slot.buffer = pinned_array(destination_.shape(), destination_.dtype());
    // On this thread alone: others may be busy with the data of coming steps, and a team of threads
    // would wait for them.
    if (as_it_is)
      copy_queued(source, slot.buffer);
    else
      slot.buffer.copy_from(source);
    copy_queued(slot.buffer, destination_);
  }
  slot.copied = Fence::after_queued_work(destination_.device());
}

void Downloader::download(const Array& source) {
  Array buffer;
  if (spare_.empty()) {
    buffer = pinned_array(source.shape(), source.dtype());
  } else {
    buffer = std::move(spare_.back());
    spare_.pop_back();
  }
  copy_queued(source, buffer);
  queue_.push_back({std::move(buffer), Fence::after_queued_work(source.device())});
}

std::vector<Array> Downloader::take(bool wait) {
  return take_but(wait ? 0 : queue_.size());
}

std::vector<Array> Downloader::take_but(size_t latest) {
  std::vector<Array> finished;
  while (!queue_.empty()) {
    Slot& slot = queue_.front();
    if (queue_.size() > latest) slot.copied.wait();
    if (!slot.copied.passed()) break;
    finished.push_back(slot.buffer.clone());
    spare_.push_back(std::move(slot.buffer));
    queue_.pop_front();
  }
  return finished;
}

}  // namespace binade
