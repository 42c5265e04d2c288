#include <binade/dist/cuda/nccl_communicator.h>

#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <binade/core/cuda/event.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/error.h>
#include <binade/core/start_thread.h>
#include <binade/dist/cuda/peer_copies.h>
#include <binade/dist/gathered.h>
#include <binade/dist/socket.h>

namespace binade::dist {

namespace {

// The part of NCCL's C interface that is used here (nccl.h of version 2; its headers need not be
// there when Binade is built).
struct NcclId {
  char bytes[128];
};
using NcclComm = void*;
constexpr int kNcclSuccess = 0, kNcclUint8 = 1;

struct Nccl {
  int (*get_unique_id)(NcclId*);
  int (*comm_init_rank)(NcclComm*, int ranks, NcclId, int rank);
  int (*comm_destroy)(NcclComm);
  int (*comm_abort)(NcclComm);
  int (*group_start)();
  int (*group_end)();
  int (*send)(const void*, size_t count, int type, int peer, NcclComm, cudaStream_t);
  int (*receive)(void*, size_t count, int type, int peer, NcclComm, cudaStream_t);
  const char* (*error_string)(int);

  void check_status(int status, const char* what) const {
    check(status == kNcclSuccess, "NCCL: ", what, ": ", error_string(status));
  }
};

const Nccl& nccl() {
  static const Nccl loaded = [] {
    void* library = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    check(library != nullptr,
          "several ranks with a GPU each need NCCL 2, which could not be loaded (", ::dlerror(),
          "); install it, or train on one GPU");
    Nccl all{};
    const auto find = [&](auto& function, const char* name) {
      void* symbol = ::dlsym(library, name);
      check(symbol != nullptr, "libnccl.so.2 has no ", name);
      std::memcpy(&function, &symbol, sizeof symbol);
    };
    find(all.get_unique_id, "ncclGetUniqueId");
    find(all.comm_init_rank, "ncclCommInitRank");
    find(all.comm_destroy, "ncclCommDestroy");
    find(all.comm_abort, "ncclCommAbort");
    find(all.group_start, "ncclGroupStart");
    find(all.group_end, "ncclGroupEnd");
    find(all.send, "ncclSend");
    find(all.receive, "ncclRecv");
    find(all.error_string, "ncclGetErrorString");
    return all;
  }();
  return loaded;
}

// Host and bus of the device.
struct Place {
  char name[320] = "";
};

Place place_of(Device device) {
  char host[256] = "", bus[32] = "";
  ::gethostname(host, sizeof host - 1);
  cuda::check_cuda(cudaDeviceGetPCIBusId(bus, sizeof bus, device.index()), "cudaDeviceGetPCIBusId");
  Place place;
  concat(host, " GPU ", bus).copy(place.name, sizeof place.name - 1);
  return place;
}

void check_own_gpu(Communicator& control, Device device) {
  if (std::getenv("BINADE_SHARED_GPU") != nullptr) return;  // tests of several ranks on one GPU
  const std::vector<Place> places = gathered(control, place_of(device));
  for (size_t a = 0; a < places.size(); ++a)
    for (size_t b = 0; b < a; ++b)
      check(std::string_view(places[a].name) != places[b].name, "ranks ", b, " and ", a,
            " have the same GPU (", places[a].name, "); start as many ranks as there are GPUs");
}

// What goes to windows of ranks of this host is copied there (peer_copies.h); all else is NCCL's.
class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(Store& store, Communicator& control, Device device)
      : Communicator(store.rank(), store.size()), store_(store), device_(device) {
    const cuda::DeviceScope scope(device);
    check_own_gpu(control, device);
    copies_ = std::make_unique<PeerCopies>(control, device);
    // NVLink multicast and what graphs do not get along with everywhere stay off (docs).
    for (const char* name :
         {"NCCL_NVLS_ENABLE", "NCCL_GRAPH_REGISTER", "NCCL_GRAPH_MIXING_SUPPORT"})
      ::setenv(name, "0", 1);
    // Before the others wait for this rank.
    control.broadcast(id_block(nccl()));
    nccl().check_status(nccl().comm_init_rank(&comm_, size(), id_, rank()), "ncclCommInitRank");
    watcher_ = start_thread([this] { watch(); });
  }

  ~NcclCommunicator() override {
    stop_.wake();
    watcher_.join();
    if (aborted_) {
      static_cast<void>(copies_.release());  // to unmap is to wait for what a lost rank was to do
      return;
    }
    store_.failure() ? nccl().comm_abort(comm_) : nccl().comm_destroy(comm_);
  }

  Device device() const override { return device_; }

  std::shared_ptr<const Window> open_window(const Array& memory) override {
    check(!cuda::is_capturing(), "a window is opened outside of captured graphs");
    return copies_->open(Communicator::open_window(memory)->memory());
  }

 protected:
  void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) override {
    begin();
    exchange_through_nccl(send, receive, [](int) { return true; });
    keep_own(send, receive);
  }

  void exchange_into(const Window& window, int64_t offset, const std::vector<Block>& send,
                     const std::vector<Block>& receive) override {
    begin();
    copies_->send(send, window, offset);
    exchange_through_nccl(send, receive, [&](int peer) { return !copies_->reaches(peer, window); });
    keep_own(send, receive);
  }

 private:
  void begin() {
    store_.note_exchange();
    check_going_on();
  }

  void check_going_on() const {
    if (aborted_) fail(store_.failure().value_or("a rank failed"));
  }

  // What this rank sends itself. A copy within a GPU needs multiprocessors, so it comes last: it
  // may have to wait for a kernel that others need not wait for.
  void keep_own(const std::vector<Block>& send, const std::vector<Block>& receive) {
    const cuda::DeviceScope scope(device_);
    const Block &out = send[static_cast<size_t>(rank())],
                &in = receive[static_cast<size_t>(rank())];
    if (in.bytes > 0 && in.data != out.data)
      cuda::check_cuda(cudaMemcpyAsync(in.data, out.data, static_cast<size_t>(in.bytes),
                                       cudaMemcpyDeviceToDevice, cuda::current_stream()),
                       "cudaMemcpyAsync");
  }

  template <class Chosen>
  void exchange_through_nccl(const std::vector<Block>& send, const std::vector<Block>& receive,
                             const Chosen& chosen) {
    std::vector<int> peers;
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank() && chosen(peer)) peers.push_back(peer);
    if (peers.empty()) return;
    if (cuda::is_capturing()) {
      captured_ = true;
    } else if (captured_) {
      wait_for_graphs();
    }
    const std::lock_guard lock(mutex_);
    check_going_on();
    const cuda::DeviceScope scope(device_);
    const cudaStream_t stream = cuda::current_stream();
    const Nccl& library = nccl();
    library.check_status(library.group_start(), "ncclGroupStart");
    for (const int peer : peers) {
      const Block &out = send[static_cast<size_t>(peer)], &in = receive[static_cast<size_t>(peer)];
      if (out.bytes > 0)
        library.check_status(
            library.send(out.data, static_cast<size_t>(out.bytes), kNcclUint8, peer, comm_, stream),
            "ncclSend");
      if (in.bytes > 0)
        library.check_status(library.receive(in.data, static_cast<size_t>(in.bytes), kNcclUint8,
                                             peer, comm_, stream),
                             "ncclRecv");
    }
    library.check_status(library.group_end(), "ncclGroupEnd");
  }

  // Without NCCL_GRAPH_MIXING_SUPPORT, NCCL hands its proxy thread what a captured verb needs when
  // the graph runs, and what any other verb needs at once. A verb that comes while a graph is still
  // queued would overtake it there, but not on the device, and each would wait for the other.
  void wait_for_graphs() {
    const uint64_t replays = cuda::replay_count();
    if (replays == passed_replays_) return;
    const std::shared_ptr<void> behind = cuda::record_event(device_);
    while (!aborted_ && !cuda::event_passed(behind.get()))
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    passed_replays_ = replays;
  }

  Block id_block(const Nccl& library) {
    if (rank() == 0) library.check_status(library.get_unique_id(&id_), "ncclGetUniqueId");
    return {&id_, sizeof id_};
  }

  // What waits on the device for a rank that has ended waits forever, and the host with it: what is
  // queued has to be given up from another thread.
  void watch() {
    pollfd entries[] = {{store_.failure_descriptor(), POLLIN, 0}, {stop_.out.get(), POLLIN, 0}};
    while (::poll(entries, 2, -1) < 0 && errno == EINTR) {
    }
    if (entries[0].revents == 0) return;  // of a failure and an end at once the failure counts
    aborted_ = true;
    // Which may wait for the device, and that for copies.
    const auto aborting = std::async(std::launch::async, [this] {
      const std::lock_guard lock(mutex_);
      nccl().comm_abort(comm_);
    });
    do {
      copies_->give_up();
    } while (::poll(&entries[1], 1, /*milliseconds=*/1) <= 0 ||
             aborting.wait_for(std::chrono::seconds(0)) != std::future_status::ready);
  }

  Store& store_;
  Device device_;
  NcclId id_{};
  NcclComm comm_ = nullptr;
  std::unique_ptr<PeerCopies> copies_;
  std::mutex mutex_;
  std::atomic<bool> aborted_ = false;
  bool captured_ = false;        // some verb was part of a graph
  uint64_t passed_replays_ = 0;  // of graphs, which verbs outside of them have waited for
  Pipe stop_;
  std::thread watcher_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Store& store, Communicator& control,
                                                     Device device) {
  return std::make_unique<NcclCommunicator>(store, control, device);
}

}  // namespace binade::dist
