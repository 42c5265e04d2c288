#include <binade/core/cuda/runtime.h>

#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include <binade/core/cuda/architectures.h>
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/faults.h>
#include <binade/core/cuda/own_stream.h>

namespace binade::cuda {

namespace {

constexpr int kMaxDevices = 64;

// What is made once for a device and never destroyed: at exit the driver may be gone before us.
struct DeviceContext {
  std::once_flag once;
  cudaStream_t stream = nullptr;
  uint32_t* fault_word = nullptr;
  DeviceProperties properties{};
  std::mutex mutex;
  std::vector<cudaStream_t> idle_capture_streams;
  int captures = 0;  // under way, of all threads
};

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

std::string name_of(int device) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
             "cudaStreamCreateWithFlags");
  return stream;
}

void open_device(DeviceContext& context, int device) {
  context.stream = make_stream();
  void* word = nullptr;
  check_cuda(cudaMalloc(&word, sizeof(uint32_t)), "cudaMalloc");
  check_cuda(cudaMemsetAsync(word, 0, sizeof(uint32_t), context.stream), "cudaMemsetAsync");
  context.fault_word = static_cast<uint32_t*>(word);
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  context.properties = {
      .name = name_of(device),
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

// The context of the current device, whose index is `device`.
DeviceContext& context_of(int device) {
  static std::array<DeviceContext, kMaxDevices>& contexts =
      *new std::array<DeviceContext, kMaxDevices>;
  check(device < kMaxDevices, "CUDA device ", device, " is beyond the ", kMaxDevices,
        " that Binade knows");
  DeviceContext& context = contexts[static_cast<size_t>(device)];
  std::call_once(context.once, open_device, std::ref(context), device);
  return context;
}

DeviceContext& current_context() {
  return context_of(current_device());
}

// A stream that this thread works on, and its device.
struct OwnStream {
  cudaStream_t stream = nullptr;
  int device = 0;
};
thread_local OwnStream capturing;  // that this thread captures, if it does
thread_local OwnStream beside;     // a side stream that it works on, if it does

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

// The runtime keeps the current device of each thread itself. A copy of it here would be wrong as
// soon as the host program calls cudaSetDevice.
DeviceScope::DeviceScope(Device device) : previous_(current_device()) {
  check(device.is_cuda(), "a CUDA device was expected, got ", device);
  if (device.index() == previous_) return;
  check(device.index() < device_count(), "there is no device ", device, ": this machine has ",
        device_count(), " usable GPU(s), numbered from 0");
  check_cuda(cudaSetDevice(device.index()), "cudaSetDevice");
  changed_ = true;
}

DeviceScope::~DeviceScope() {
  if (changed_) cudaSetDevice(previous_);
}

cudaStream_t current_stream() {
  const int device = current_device();
  if (beside.stream != nullptr && beside.device == device) return beside.stream;
  if (capturing.stream == nullptr) return context_of(device).stream;
  check(
      device == capturing.device, "work for cuda:", device,
      " was queued inside a step that is being captured as a CUDA graph on cuda:", capturing.device,
      ": a captured step works on one device; move it out of the step, or turn "
      "capturing off");
  return capturing.stream;
}

void set_side_stream(void* stream, int device) {
  check(stream == nullptr || beside.stream == nullptr,
        "work beside a device's stream cannot have work beside it");
  beside = {static_cast<cudaStream_t>(stream), device};
}

CaptureScope::CaptureScope() {
  check(!active(), "a capture cannot start inside another one");
  const int device = current_device();
  DeviceContext& context = context_of(device);
  {
    const std::scoped_lock lock(context.mutex);
    if (context.idle_capture_streams.empty()) context.idle_capture_streams.push_back(make_stream());
    stream_ = context.idle_capture_streams.back();
    context.idle_capture_streams.pop_back();
    ++context.captures;
  }
  capturing = {stream_, device};
}

CaptureScope::~CaptureScope() {
  DeviceContext& context = context_of(capturing.device);
  capturing = {};
  const std::scoped_lock lock(context.mutex);
  context.idle_capture_streams.push_back(stream_);
  --context.captures;
}

bool CaptureScope::others_active(int device) {
  DeviceContext& context = context_of(device);
  const std::scoped_lock lock(context.mutex);
  return context.captures > (active() && capturing.device == device ? 1 : 0);
}

bool CaptureScope::active() {
  return capturing.stream != nullptr;
}

const DeviceProperties& device_properties() {
  return current_context().properties;
}

int64_t host_synchronisations() {
  return synchronisations.load(std::memory_order_relaxed);
}

void note_host_synchronisation() {
  check(!CaptureScope::active(),
        "something waits for the GPU (reads a value, copies from or to the CPU, or synchronises) "
        "inside a step that is being captured as a CUDA graph: move it out of the step, or turn "
        "capturing off");
  synchronisations.fetch_add(1, std::memory_order_relaxed);
}

// ---- copies -------------------------------------------------------------------------------------

namespace {

cudaStream_t stream_of(Device device) {
  const DeviceScope scope(device);
  return current_stream();
}

// Lets what is queued on one device's stream from now on run after what is queued on another's.
void order_after(Device later, Device earlier) {
  const cudaStream_t behind = stream_of(later);
  const DeviceScope scope(earlier);
  Event mark;
  check_cuda(cudaEventCreateWithFlags(mark.put(), cudaEventDisableTiming), "cudaEventCreate");
  check_cuda(cudaEventRecord(mark.get(), current_stream()), "cudaEventRecord");
  check_cuda(cudaStreamWaitEvent(behind, mark.get(), 0), "cudaStreamWaitEvent");
}

}  // namespace

void copy_async(void* destination, Device destination_device, const void* source,
                Device source_device, int64_t bytes) {
  const auto count = static_cast<size_t>(bytes);
  const bool host_involved = destination_device.is_cpu() || source_device.is_cpu();
  const Device device = destination_device.is_cpu() ? source_device : destination_device;
  if (host_involved || destination_device == source_device) {
    const cudaMemcpyKind kind = destination_device.is_cpu() ? cudaMemcpyDeviceToHost
                                : source_device.is_cpu()    ? cudaMemcpyHostToDevice
                                                            : cudaMemcpyDeviceToDevice;
    check_cuda(cudaMemcpyAsync(destination, source, count, kind, stream_of(device)),
               "cudaMemcpyAsync");
    return;
  }
  // The source was written on its own stream, and its memory is used again there.
  order_after(destination_device, source_device);
  check_cuda(cudaMemcpyPeerAsync(destination, destination_device.index(), source,
                                 source_device.index(), count, stream_of(destination_device)),
             "cudaMemcpyPeerAsync");
  order_after(source_device, destination_device);
}

void copy_and_wait(void* destination, Device destination_device, const void* source,
                   Device source_device, int64_t bytes) {
  note_host_synchronisation();
  copy_async(destination, destination_device, source, source_device, bytes);
  const Device device = destination_device.is_cpu() ? source_device : destination_device;
  check_cuda(cudaStreamSynchronize(stream_of(device)), "cudaStreamSynchronize");
}

// Not the device: that cannot be waited for while another thread captures a step.
void synchronize(int device) {
  note_host_synchronisation();
  check_cuda(cudaStreamSynchronize(stream_of(Device::cuda(device))), "cudaStreamSynchronize");
}

// ---- faults -------------------------------------------------------------------------------------

uint32_t* fault_word() {
  return current_context().fault_word;
}

void check_faults(int device) {
  const DeviceScope scope(Device::cuda(device));
  uint32_t fault = 0;
  copy_and_wait(&fault, Device::cpu(), fault_word(), Device::cuda(device), sizeof(fault));
  if (fault == 0) return;
  check_cuda(cudaMemsetAsync(fault_word(), 0, sizeof(fault), current_stream()), "cudaMemsetAsync");
  check(fault != static_cast<uint32_t>(DeviceFault::index_out_of_range),
        "an index was out of range in a kernel on cuda:", device,
        " (embedding, gather, scatter, index_select, index_add or a class index of a loss): it was "
        "left out; check token ids and targets against the sizes they index");
  check(fault != static_cast<uint32_t>(DeviceFault::bad_tree_node),
        "the accepted nodes of a tree did not ascend within the pending ones on cuda:", device);
  check(fault != static_cast<uint32_t>(DeviceFault::cache_full),
        "a key-value cache on cuda:", device,
        " is full: a row was to hold more tokens than its capacity");
  fail("a kernel on cuda:", device, " noted an unknown fault (", fault, ")");
}

}  // namespace binade::cuda
