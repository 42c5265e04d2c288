// A library that records what the GPU did, for programs that know nothing of it:
//
//   CUDA_INJECTION64_PATH=build/bench/libkernel_trace.so KERNEL_TRACE=trace.csv train_gpt ...
//
// One line for each kernel, copy and fill, in order of their start: start and end (ns), name.
// `bench/timeline.py trace.csv` makes a table of it. Kernels inside CUDA graphs are recorded one by
// one.
#include <cupti.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr size_t kBufferBytes = size_t{8} << 20;

struct Event {
  uint64_t start, end;  // ns
  std::string name;
};

std::mutex mutex;
std::vector<Event> events;

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* max_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *max_records = 0;
}

void note(const CUpti_Activity& record) {
  switch (record.kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto& kernel = reinterpret_cast<const CUpti_ActivityKernel10&>(record);
      events.push_back({kernel.start, kernel.end, kernel.name});
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
      const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy6&>(record);
      const bool away = copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_PTOP;
      events.push_back({copy.start, copy.end, away ? "[memcpy to another GPU]" : "[memcpy]"});
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
      const auto& fill = reinterpret_cast<const CUpti_ActivityMemset4&>(record);
      events.push_back({fill.start, fill.end, "[memset]"});
      break;
    }
    default:
      break;
  }
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) note(*record);
  std::free(buffer);
}

void write_trace() {
  cuptiActivityFlushAll(1);
  const std::lock_guard lock(mutex);
  const char* path = std::getenv("KERNEL_TRACE");
  std::FILE* file = std::fopen(path ? path : "kernel_trace.csv", "w");
  if (!file) {
    std::perror("kernel_trace");
    return;
  }
  std::sort(events.begin(), events.end(),
            [](const Event& a, const Event& b) { return a.start < b.start; });
  for (const Event& event : events)
    std::fprintf(file, "%llu,%llu,%s\n", static_cast<unsigned long long>(event.start),
                 static_cast<unsigned long long>(event.end), event.name.c_str());
  std::fclose(file);
}

}  // namespace

// Called by the CUDA driver, which loads the library that CUDA_INJECTION64_PATH names.
extern "C" int InitializeInjection() {
  cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  for (const auto kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                          CUPTI_ACTIVITY_KIND_MEMSET}) {
    if (cuptiActivityEnable(kind) != CUPTI_SUCCESS) {
      std::fprintf(stderr, "kernel_trace: the GPU's activity cannot be recorded here\n");
      return 1;
    }
  }
  std::atexit(write_trace);
  return 1;
}
