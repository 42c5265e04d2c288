// Memory for arrays: one pool per device. CPU blocks are 64-byte aligned; CUDA blocks come from a
// stream-ordered caching pool (core/cuda/pool.h) and are 256-byte aligned.
#pragma once

#include <cstdint>
#include <memory>

#include <binade/core/device.h>

namespace binade {

// `bytes` of memory on the device; throws OutOfMemory naming what was asked, what is in use and
// what to lower. Zero bytes give a valid pointer.
void* allocate_bytes(int64_t bytes, Device device);
void free_bytes(void* data, int64_t bytes, Device device) noexcept;

// Host memory that a GPU copies from and to asynchronously (page-locked); plain memory where there
// is no usable GPU.
std::shared_ptr<void> allocate_pinned(int64_t bytes);
// Whether this address lies in a live block of page-locked memory from allocate_pinned.
bool is_pinned(const void* address);

}  // namespace binade
