// Where an array lives. Nothing moves between devices unless the user says so.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

namespace binade {

class Device {
 public:
  enum class Kind : uint8_t { cpu, cuda };

  constexpr Device() = default;  // the CPU
  static constexpr Device cpu() { return Device(Kind::cpu, 0); }
  static constexpr Device cuda(int index = 0) { return Device(Kind::cuda, index); }
  // "cpu", "cuda", "cuda:1"; throws Error for anything else.
  static Device parse(std::string_view text);

  constexpr Kind kind() const { return kind_; }
  constexpr int index() const { return index_; }
  constexpr bool is_cpu() const { return kind_ == Kind::cpu; }
  constexpr bool is_cuda() const { return kind_ == Kind::cuda; }
  friend constexpr bool operator==(Device, Device) = default;

 private:
  constexpr Device(Kind kind, int index) : kind_(kind), index_(index) {}
  Kind kind_ = Kind::cpu;
  int index_ = 0;
};

std::ostream& operator<<(std::ostream& out, Device device);

inline constexpr bool kCudaBuilt = BINADE_HAVE_CUDA != 0;

// Number of usable CUDA devices: 0 in a build without CUDA, without a driver or without a card.
int cuda_device_count();
// Why there is no usable CUDA device, as a sentence; empty if there is one.
std::string cuda_unavailable_reason();

// Waits until everything queued on the device is done (a host synchronisation; the CPU: nothing).
void synchronize(Device device);

// Bytes of device memory. For the CPU: bytes of arrays alive.
struct MemoryStats {
  int64_t in_use = 0;         // bytes of live arrays
  int64_t peak_in_use = 0;    // largest in_use since reset_peak_memory
  int64_t reserved = 0;       // bytes the pool holds from the device
  int64_t peak_reserved = 0;  // largest reserved since reset_peak_memory
  int64_t device_total = 0;   // bytes on the card (CPU: 0)
};
MemoryStats memory_stats(Device device);
void reset_peak_memory(Device device);
// Gives cached blocks that are not in use back to the device.
void release_cached_memory(Device device);

}  // namespace binade
