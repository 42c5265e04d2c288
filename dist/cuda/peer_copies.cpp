#include <binade/dist/cuda/peer_copies.h>

#include <cuda.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <binade/core/cuda/event.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/pool.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/error.h>
#include <binade/dist/gathered.h>
#include <binade/dist/remote_shell.h>

namespace binade::dist {

// The driver's functions, found when they are needed: programs start without a driver.
struct PeerCopies::Driver {
  CUresult (*batch)(CUstream, unsigned count, CUstreamBatchMemOpParams*, unsigned flags) = nullptr;
  CUresult (*address_range)(CUdeviceptr* base, size_t* bytes, CUdeviceptr) = nullptr;

  bool complete() const { return batch != nullptr && address_range != nullptr; }
  static const Driver& loaded();
};

namespace {

// What one rank tells the others.
struct Home {
  char host[256] = "";
  int32_t willing = 0;
};
struct Offer {
  int64_t process = 0, device = 0, address = 0, bytes = 0;
  cudaIpcMemHandle_t handle{};
  int64_t offset = 0;  // in the memory of the handle
  int32_t valid = 0;   // is the handle
};

// Another rank's memory in this process; without `data` it is not reached.
struct There {
  std::shared_ptr<void> mapping;
  std::byte* data = nullptr;
};

// Unlike that of any other process: the system numbers those of containers alike.
int64_t own_process() {
  static const int64_t number = [] {
    std::random_device random;
    return static_cast<int64_t>(uint64_t{random()} << 32 | random());
  }();
  return number;
}

// What a rank of the same host offers, in this process.
There map_memory(const Offer& own, const Offer& offer) {
  if (offer.process == own.process) {  // ranks may be threads
    const cudaError_t status = cudaDeviceEnablePeerAccess(static_cast<int>(offer.device), 0);
    if (status != cudaSuccess && status != cudaErrorPeerAccessAlreadyEnabled) return {};
    return {nullptr, reinterpret_cast<std::byte*>(offer.address)};
  }
  void* start = nullptr;
  if (own.valid == 0 || offer.valid == 0 ||
      cudaIpcOpenMemHandle(&start, offer.handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess)
    return {};
  return {{start, [](void* opened) { cudaIpcCloseMemHandle(opened); }},
          static_cast<std::byte*>(start) + offer.offset};
}

bool is(const char* variable, std::string_view value) {
  const char* set = std::getenv(variable);
  return set != nullptr && set == value;
}

Home home() {
  Home own;
  std::string host;
  if (const char* id = std::getenv("NCCL_HOSTID")) {
    host = concat("NCCL_HOSTID ", id);
  } else {  // names of hosts need not differ
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
    host = concat(host_name(), ' ', boot);
  }
  host.copy(own.host, sizeof own.host - 1);
  const char* copies = std::getenv("BINADE_PEER_COPIES");
  check(copies == nullptr || is("BINADE_PEER_COPIES", "0") || is("BINADE_PEER_COPIES", "1"),
        "BINADE_PEER_COPIES is 0 or 1, got \"", copies, '"');
  own.willing = !is("BINADE_PEER_COPIES", "0") && !is("NCCL_P2P_DISABLE", "1");
  return own;
}

// Words of device memory, on a line each, for every rank: a rank writes 1 into another's, and that
// one waits for it and takes it back.
enum class Word { ready, done };
constexpr int64_t kLine = 128;
constexpr int64_t kLinesOfRank = 2;

int64_t place(int rank, Word word) {
  return (rank * kLinesOfRank + static_cast<int64_t>(word)) * kLine;
}

CUstreamBatchMemOpParams write(std::byte* word, uint32_t value) {
  CUstreamBatchMemOpParams op{};
  op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  op.writeValue.address = reinterpret_cast<CUdeviceptr>(word);
  op.writeValue.value = value;
  return op;
}

CUstreamBatchMemOpParams wait_for_one(std::byte* word) {
  CUstreamBatchMemOpParams op{};
  op.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  op.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  op.waitValue.address = reinterpret_cast<CUdeviceptr>(word);
  op.waitValue.value = 1;
  op.waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
  return op;
}

}  // namespace

// A window's memory, and that of all ranks.
struct PeerCopies::Memory {
  Array own;
  std::vector<There> ranks;
  bool near = false;  // every rank has mapped every other's
};

class PeerCopies::OwnWindow : public Communicator::Window {
 public:
  OwnWindow(std::shared_ptr<Memory> memory, bool near)
      : Window(memory->own), there_(std::move(memory)), near_(near) {}
  bool is_near() const override { return near_; }
  const std::shared_ptr<Memory>& there() const { return there_; }

 private:
  std::shared_ptr<Memory> there_;
  bool near_;
};

const PeerCopies::Driver& PeerCopies::Driver::loaded() {
  static const Driver all = [] {
    Driver found;
    const auto find = [](auto& function, const char* name) {
      void* symbol = nullptr;
      cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
      const cudaError_t status =
          cudaGetDriverEntryPointByVersion(name, &symbol, 12000, cudaEnableDefault, &result);
#else
      const cudaError_t status = cudaGetDriverEntryPoint(name, &symbol, cudaEnableDefault, &result);
#endif
      if (status != cudaSuccess) cudaGetLastError();
      if (status != cudaSuccess || result != cudaDriverEntryPointSuccess) return;
      std::memcpy(&function, &symbol, sizeof symbol);
    };
    find(found.batch, "cuStreamBatchMemOp");
    find(found.address_range, "cuMemGetAddressRange");
    return found;
  }();
  return all;
}

PeerCopies::PeerCopies(Communicator& control, Device device)
    : control_(control), device_(device), driver_(Driver::loaded()) {
  const cuda::DeviceScope scope(device);
  Home own = home();
  own.willing = own.willing != 0 && driver_.complete();
  const std::vector<Home> homes = gathered(control, own);
  for (int rank = 0; rank < control.size(); ++rank) {
    const Home& there = homes[static_cast<size_t>(rank)];
    on_host_.push_back(rank != control.rank() && own.willing != 0 && there.willing != 0 &&
                       std::string_view(there.host) == own.host);
  }
  const int64_t bytes = control.size() * kLinesOfRank * kLine;
  ones_ = cuda::allocate_pinned(bytes);
  std::fill_n(static_cast<uint32_t*>(ones_.get()), bytes / 4, uint32_t{1});
  cudaStream_t stream = nullptr;
  cuda::check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                   "cudaStreamCreateWithFlags");
  stream_ = {stream, [](void* own) { cudaStreamDestroy(static_cast<cudaStream_t>(own)); }};
  const Array words = Array::zeros({bytes}, DType::u8, device);
  cuda::wait_for_event(cuda::record_event(device).get());  // before anybody writes
  words_ = exchange_handles(words);
  try_out();
}

std::shared_ptr<PeerCopies::Memory> PeerCopies::exchange_handles(const Array& array) {
  const cuda::DeviceScope scope(device_);
  Offer own;
  own.process = own_process();
  own.device = device_.index();
  own.address = reinterpret_cast<int64_t>(array.data());
  own.bytes = array.bytes();
  const auto data = reinterpret_cast<CUdeviceptr>(array.data());
  CUdeviceptr base = 0;
  if (driver_.complete() && driver_.address_range(&base, nullptr, data) == CUDA_SUCCESS) {
    own.offset = static_cast<int64_t>(data - base);
    own.valid = cudaIpcGetMemHandle(&own.handle, reinterpret_cast<void*>(base)) == cudaSuccess;
  }
  auto memory = std::make_shared<Memory>();
  memory->own = array;
  for (const Offer& offer : gathered(control_, own)) {
    const size_t rank = memory->ranks.size();
    check(offer.bytes == own.bytes, "a window has ", offer.bytes, " bytes on rank ", rank, " and ",
          own.bytes, " on rank ", control_.rank());
    memory->ranks.push_back(on_host_[rank] ? map_memory(own, offer) : There{});
  }
  cudaGetLastError();  // of what could not be opened
  keep_reached(*memory);
  return memory;
}

// Those that have mapped this rank's memory, too.
void PeerCopies::keep_reached(Memory& memory) {
  const int ranks = control_.size();
  const Array all = Array::zeros({ranks, ranks}, DType::u8);
  auto* mapped = all.data<uint8_t>();
  for (int rank = 0; rank < ranks; ++rank)
    mapped[control_.rank() * ranks + rank] =
        memory.ranks[static_cast<size_t>(rank)].data != nullptr;
  control_.all_gather(all);
  for (int rank = 0; rank < ranks; ++rank)
    if (mapped[rank * ranks + control_.rank()] == 0) memory.ranks[static_cast<size_t>(rank)] = {};
  memory.near = std::count(mapped, mapped + ranks * ranks, uint8_t{0}) == ranks;  // the diagonal
}

// A copy from every rank to every other: some machines say that they can do it, and lose bytes
// (an IOMMU between the GPUs), or never bring what is waited for.
void PeerCopies::try_out() {
  constexpr int64_t kBytes = 65536;
  constexpr double kSeconds = 20;
  using Clock = std::chrono::steady_clock;
  const int ranks = control_.size();
  const Array received = Array::zeros({ranks, kBytes}, DType::u8, device_);
  const auto byte_of = [](int rank) { return static_cast<uint8_t>(rank % 255 + 1); };
  const Array sent = Array::full({kBytes}, byte_of(control_.rank()), DType::u8, device_);
  const std::shared_ptr<const Communicator::Window> window = open(received);
  bool good = true;
  send(std::vector<Communicator::Block>(static_cast<size_t>(ranks), {sent.data(), kBytes}), *window,
       control_.rank() * kBytes);
  const std::shared_ptr<void> behind = cuda::record_event(device_);
  const auto limit = Clock::now() + std::chrono::duration<double>(kSeconds);
  while (!cuda::event_passed(behind.get())) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    if (Clock::now() < limit) continue;
    good = false;
    give_up();
  }
  const std::vector<uint8_t> bytes = received.to_vector<uint8_t>();
  for (int rank = 0; rank < ranks; ++rank) {
    if (!reaches(rank, *window)) continue;
    const auto begin = bytes.begin() + rank * kBytes;
    good = good && std::count(begin, begin + kBytes, byte_of(rank)) == kBytes;
  }
  const std::vector<uint8_t> verdicts = gathered<uint8_t>(control_, good ? 1 : 0);
  if (std::find(verdicts.begin(), verdicts.end(), uint8_t{0}) == verdicts.end()) return;
  std::fill(on_host_.begin(), on_host_.end(), false);
  for (There& there : words_->ranks) there = {};
  words_->near = false;
}

std::shared_ptr<const Communicator::Window> PeerCopies::open(const Array& memory) {
  drop_unused();
  opened_.push_back(exchange_handles(memory));
  return std::make_shared<OwnWindow>(opened_.back(), opened_.back()->near && words_->near);
}

// Memory goes when no rank has a use for the window, nor has a graph, and when nobody maps it.
void PeerCopies::drop_unused() {
  if (opened_.empty()) return;
  const int64_t windows = std::ssize(opened_);
  const Array unused = Array::zeros({control_.size(), windows}, DType::u8);
  auto* flags = unused.data<uint8_t>();
  for (int64_t i = 0; i < windows; ++i)
    flags[control_.rank() * windows + i] = opened_[static_cast<size_t>(i)].use_count() == 1;
  control_.all_gather(unused);
  std::vector<std::shared_ptr<Memory>> kept, dropped;
  for (int64_t i = 0; i < windows; ++i) {
    bool everywhere = true;
    for (int rank = 0; rank < control_.size(); ++rank)
      everywhere = everywhere && flags[rank * windows + i] != 0;
    (everywhere ? dropped : kept).push_back(opened_[static_cast<size_t>(i)]);
  }
  opened_ = std::move(kept);
  if (dropped.empty()) return;
  for (const auto& memory : dropped) memory->ranks.clear();
  control_.barrier();
}

bool PeerCopies::reaches(int rank, const Communicator::Window& window) const {
  const auto* own = dynamic_cast<const OwnWindow*>(&window);
  return own != nullptr && words_->ranks[static_cast<size_t>(rank)].data != nullptr &&
         own->there()->ranks[static_cast<size_t>(rank)].data != nullptr;
}

void PeerCopies::send(const std::vector<Communicator::Block>& blocks,
                      const Communicator::Window& window, int64_t offset) {
  std::vector<int> peers;  // each rank begins with another one
  for (int step = 1; step < control_.size(); ++step)
    if (const int peer = (control_.rank() + step) % control_.size(); reaches(peer, window))
      peers.push_back(peer);
  if (peers.empty()) return;
  const std::shared_ptr<Memory>& memory = static_cast<const OwnWindow&>(window).there();
  cuda::keep_with_capture(memory);
  cuda::keep_with_capture(words_);
  const cuda::DeviceScope scope(device_);
  const cudaStream_t stream = cuda::current_stream();
  std::vector<CUstreamBatchMemOpParams> operations;
  const auto tell = [&](int peer, Word word) {
    operations.push_back(
        write(words_->ranks[static_cast<size_t>(peer)].data + place(control_.rank(), word), 1));
  };
  const auto wait = [&](int peer, Word word) {
    auto* own = static_cast<std::byte*>(words_->own.data()) + place(peer, word);
    operations.push_back(wait_for_one(own));
    operations.push_back(write(own, 0));
  };
  const auto queue = [&] {
    const CUresult status =
        driver_.batch(stream, static_cast<unsigned>(operations.size()), operations.data(), 0);
    check(status == CUDA_SUCCESS, "cuStreamBatchMemOp failed: CUDA error ",
          static_cast<int>(status));
    operations.clear();
  };
  for (const int peer : peers) tell(peer, Word::ready);
  for (const int peer : peers) {
    const Communicator::Block& block = blocks[static_cast<size_t>(peer)];
    wait(peer, Word::ready);
    queue();
    if (block.bytes > 0)
      cuda::check_cuda(
          cudaMemcpyAsync(memory->ranks[static_cast<size_t>(peer)].data + offset, block.data,
                          static_cast<size_t>(block.bytes), cudaMemcpyDeviceToDevice, stream),
          "cudaMemcpyAsync");
    tell(peer, Word::done);
  }
  for (const int peer : peers) wait(peer, Word::done);
  queue();
}

void PeerCopies::give_up() {
  const cuda::DeviceScope scope(device_);
  auto* stream = static_cast<cudaStream_t>(stream_.get());
  cudaMemcpyAsync(words_->own.data(), ones_.get(), static_cast<size_t>(words_->own.bytes()),
                  cudaMemcpyHostToDevice, stream);
  cudaStreamSynchronize(stream);
}

}  // namespace binade::dist
