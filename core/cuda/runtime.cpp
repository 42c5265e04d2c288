#include <binade/core/cuda/runtime.h>

#include <array>
#include <atomic>
#include <mutex>

#include <binade/core/cuda/architectures.h>
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/faults.h>
#include <binade/core/cuda/graph.h>

namespace binade::cuda {

namespace {

constexpr int kMaxDevices = 64;

// What is made once for a device and never destroyed: at exit the driver may be gone before us.
struct DeviceContext {
  std::once_flag once;
  cudaStream_t stream = nullptr;
  uint32_t* fault_word = nullptr;
  DeviceProperties properties{};
};

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

void open_device(DeviceContext& context, int device) {
  check_cuda(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking),
             "cudaStreamCreateWithFlags");
  void* word = nullptr;
  check_cuda(cudaMalloc(&word, sizeof(uint32_t)), "cudaMalloc");
  check_cuda(cudaMemsetAsync(word, 0, sizeof(uint32_t), context.stream), "cudaMemsetAsync");
  context.fault_word = static_cast<uint32_t*>(word);
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  context.properties = {
      .multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device),
      .max_threads_per_multiprocessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device),
      .major = attribute(cudaDevAttrComputeCapabilityMajor, device),
      .minor = attribute(cudaDevAttrComputeCapabilityMinor, device),
      .l2_bytes = static_cast<size_t>(attribute(cudaDevAttrL2CacheSize, device)),
      .total_bytes = total,
      .shared_bytes_per_block =
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)),
  };
}

DeviceContext& current_context() {
  static std::array<DeviceContext, kMaxDevices>& contexts =
      *new std::array<DeviceContext, kMaxDevices>;
  const int device = current_device();
  check(device < kMaxDevices, "CUDA device ", device, " is beyond the ", kMaxDevices,
        " that Binade knows");
  DeviceContext& context = contexts[static_cast<size_t>(device)];
  std::call_once(context.once, open_device, std::ref(context), device);
  return context;
}

thread_local cudaStream_t scoped_stream = nullptr;
std::atomic<int64_t> synchronisations{0};

// Usable devices and, if there is none, why.
struct Availability {
  int count = 0;
  std::string reason;
};

Availability find_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) cudaGetLastError();  // a later check must not see it
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return {0, "no NVIDIA driver is installed on this machine"};
    return {0, concat("the NVIDIA driver supports CUDA ", driver / 1000, ".", driver % 1000 / 10,
                      ", but this build of Binade needs CUDA ", CUDART_VERSION / 1000, ".",
                      CUDART_VERSION % 1000 / 10, ": update the driver")};
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    return {0, "this machine has an NVIDIA driver but shows no GPU (see CUDA_VISIBLE_DEVICES)"};
  if (status != cudaSuccess)
    return {0, concat("the NVIDIA driver does not start: ", cudaGetErrorString(status))};

  const int oldest = oldest_architecture();
  for (int device = 0; device < count; ++device) {
    const int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
    const int minor = attribute(cudaDevAttrComputeCapabilityMinor, device);
    if (10 * major + minor >= oldest) continue;
    if (device > 0) return {device, ""};
    return {0, concat("the GPU has compute capability ", major, ".", minor,
                      ", but this build of Binade has code for ", oldest / 10, ".", oldest % 10,
                      " and newer: configure with -DBINADE_CUDA_ARCHITECTURES=", major, minor)};
  }
  return {count, ""};
}

const Availability& availability() {
  static const Availability found = find_devices();
  return found;
}

}  // namespace

int device_count() {
  return availability().count;
}

std::string unavailable_reason() {
  return availability().reason;
}

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the error is reported here, not again by the next launch
  const std::string text =
      concat(what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory("out of GPU memory: " + text);
  throw Error("CUDA: " + text);
}

void check_launch(const char* name) {
  check_cuda(cudaGetLastError(), name);
}

int current_device() {
  if (device_count() == 0) fail("there is no usable CUDA device: ", unavailable_reason());
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

DeviceScope::DeviceScope(int device) : previous_(current_device()) {
  if (device != previous_) check_cuda(cudaSetDevice(device), "cudaSetDevice");
}

DeviceScope::~DeviceScope() {
  int device = previous_;
  if (cudaGetDevice(&device) == cudaSuccess && device != previous_) cudaSetDevice(previous_);
}

cudaStream_t current_stream() {
  return scoped_stream != nullptr ? scoped_stream : current_context().stream;
}

StreamScope::StreamScope(cudaStream_t stream) : previous_(std::exchange(scoped_stream, stream)) {}

StreamScope::~StreamScope() {
  scoped_stream = previous_;
}

const DeviceProperties& device_properties() {
  return current_context().properties;
}

int64_t host_synchronisations() {
  return synchronisations.load(std::memory_order_relaxed);
}

void note_host_synchronisation() {
  check(!is_capturing(),
        "something waits for the GPU (reads a value, copies from or to the CPU, or synchronises) "
        "inside a step that is being captured as a CUDA graph: move it out of the step, or turn "
        "capturing off");
  synchronisations.fetch_add(1, std::memory_order_relaxed);
}

// ---- copies -------------------------------------------------------------------------------------

void copy_async(void* destination, Device destination_device, const void* source,
                Device source_device, int64_t bytes) {
  const DeviceScope scope(
      (destination_device.is_cuda() ? destination_device : source_device).index());
  const cudaMemcpyKind kind = destination_device.is_cpu() ? cudaMemcpyDeviceToHost
                              : source_device.is_cpu()    ? cudaMemcpyHostToDevice
                                                          : cudaMemcpyDefault;
  check_cuda(
      cudaMemcpyAsync(destination, source, static_cast<size_t>(bytes), kind, current_stream()),
      "cudaMemcpyAsync");
}

void copy_and_wait(void* destination, Device destination_device, const void* source,
                   Device source_device, int64_t bytes) {
  note_host_synchronisation();
  const bool between_devices = destination_device.is_cuda() && source_device.is_cuda() &&
                               !(destination_device == source_device);
  if (between_devices) synchronize(source_device.index());  // the source is ready
  copy_async(destination, destination_device, source, source_device, bytes);
  const DeviceScope scope(
      (destination_device.is_cuda() ? destination_device : source_device).index());
  check_cuda(cudaStreamSynchronize(current_stream()), "cudaStreamSynchronize");
}

void synchronize(int device) {
  const DeviceScope scope(device);
  note_host_synchronisation();
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

// ---- faults -------------------------------------------------------------------------------------

uint32_t* fault_word() {
  return current_context().fault_word;
}

void check_faults(int device) {
  const DeviceScope scope(device);
  uint32_t fault = 0;
  copy_and_wait(&fault, Device::cpu(), fault_word(), Device::cuda(device), sizeof(fault));
  if (fault == 0) return;
  check_cuda(cudaMemsetAsync(fault_word(), 0, sizeof(fault), current_stream()), "cudaMemsetAsync");
  check(fault != static_cast<uint32_t>(DeviceFault::index_out_of_range),
        "an index was out of range in a kernel on cuda:", device,
        " (embedding, gather, scatter, index_select, index_add or a class index of a loss): it was "
        "left out; check token ids and targets against the sizes they index");
  fail("a kernel on cuda:", device, " noted an unknown fault (", fault, ")");
}

}  // namespace binade::cuda
