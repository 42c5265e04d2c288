#include <binade/dist/mpi_communicator.h>

#include <dlfcn.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include <binade/core/error.h>
#include <binade/dist/exchange_header.h>
#include <binade/dist/socket.h>

namespace binade::dist {

namespace {

// The part of Open MPI's C interface that is used here (mpi.h of versions 4 and 5, which share
// libmpi.so.40; it need not be there when Binade is built). Handles are pointers; those with names
// are objects of the library.
using MpiHandle = void*;
constexpr int kMpiSuccess = 0, kMpiThreadSerialized = 2, kLongestMpiText = 256;

struct Mpi {
  int (*init_thread)(int*, char***, int required, int* provided);
  int (*initialized)(int*);
  int (*finalized)(int*);
  int (*finalize)();
  int (*comm_rank)(MpiHandle, int*);
  int (*comm_size)(MpiHandle, int*);
  int (*comm_dup)(MpiHandle, MpiHandle*);
  int (*comm_set_errhandler)(MpiHandle, MpiHandle);
  int (*bcast)(void*, int count, MpiHandle type, int root, MpiHandle);
  int (*isend)(const void*, int count, MpiHandle type, int to, int tag, MpiHandle, MpiHandle*);
  int (*irecv)(void*, int count, MpiHandle type, int from, int tag, MpiHandle, MpiHandle*);
  int (*testall)(int count, MpiHandle*, int* flag, void* statuses);
  int (*error_string)(int, char*, int*);
  MpiHandle world, byte, errors_return;

  void check_status(int status, const char* what) const {
    if (status == kMpiSuccess) return;
    char text[kLongestMpiText] = "";
    int length = 0;
    error_string(status, text, &length);
    fail("MPI: ", what, ": ", text);
  }
};

// Loaded once; `reason` says why it could not be.
struct LoadedMpi {
  LoadedMpi() {
    // Its own parts are loaded later and look for what it defines.
    void* library = ::dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
      reason = concat("Open MPI's library could not be loaded (", ::dlerror(), ')');
      return;
    }
    const auto find = [&](auto& place, const char* name) {
      void* symbol = ::dlsym(library, name);
      if (symbol == nullptr) reason = concat("libmpi.so.40 is not Open MPI's: it has no ", name);
      std::memcpy(&place, &symbol, sizeof symbol);
    };
    find(mpi.init_thread, "MPI_Init_thread");
    find(mpi.initialized, "MPI_Initialized");
    find(mpi.finalized, "MPI_Finalized");
    find(mpi.finalize, "MPI_Finalize");
    find(mpi.comm_rank, "MPI_Comm_rank");
    find(mpi.comm_size, "MPI_Comm_size");
    find(mpi.comm_dup, "MPI_Comm_dup");
    find(mpi.comm_set_errhandler, "MPI_Comm_set_errhandler");
    find(mpi.bcast, "MPI_Bcast");
    find(mpi.isend, "MPI_Isend");
    find(mpi.irecv, "MPI_Irecv");
    find(mpi.testall, "MPI_Testall");
    find(mpi.error_string, "MPI_Error_string");
    find(mpi.world, "ompi_mpi_comm_world");
    find(mpi.byte, "ompi_mpi_byte");
    find(mpi.errors_return, "ompi_mpi_errors_return");
  }

  Mpi mpi{};
  std::string reason;
};

const LoadedMpi& loaded() {
  static const LoadedMpi library;
  return library;
}

const Mpi& mpi() {
  check(loaded().reason.empty(), "MPI as a transport: ", loaded().reason);
  return loaded().mpi;
}

enum Tag : int { kHeaderTag = 1, kBytesTag = 2 };

constexpr int64_t kLargestPart = int64_t{1} << 30;  // counts are int
// The longest wait for another rank; in a step the store finds out earlier who is stuck.
constexpr double kIdleSeconds = 3600;
constexpr int kSpins = 2000;  // looks at what is under way before this thread sleeps
constexpr unsigned kSleepMicroseconds = 50;

}  // namespace

std::string mpi_unavailable_reason() {
  return loaded().reason;
}

MpiSession::MpiSession(const Launch& launch) {
  const Mpi& library = mpi();
  int before = 0, over = 0, provided = 0, rank = 0, size = 0;
  library.check_status(library.finalized(&over), "MPI_Finalized");
  check(over == 0, "MPI has ended in this process, and begins once only");
  library.check_status(library.initialized(&before), "MPI_Initialized");
  if (before == 0)
    library.check_status(library.init_thread(nullptr, nullptr, kMpiThreadSerialized, &provided),
                         "MPI_Init_thread");
  any_thread_ = provided >= kMpiThreadSerialized;
  library.check_status(library.comm_rank(library.world, &rank), "MPI_Comm_rank");
  library.check_status(library.comm_size(library.world, &size), "MPI_Comm_size");
  if (rank != launch.rank || size != launch.size) {
    library.finalize();
    fail("this is rank ", launch.rank, " of ", launch.size, ", and MPI knows it as rank ", rank,
         " of ", size,
         ": MPI as a transport needs MPI's own launcher, mpirun; with another one "
         "leave --transport mpi out");
  }
  library.check_status(library.comm_dup(library.world, &communicator_), "MPI_Comm_dup");
  library.check_status(library.comm_set_errhandler(communicator_, library.errors_return),
                       "MPI_Comm_set_errhandler");
}

MpiSession::~MpiSession() {
  if (!given_up_) mpi().finalize();
}

void MpiSession::broadcast(void* data, int bytes) const {
  mpi().check_status(mpi().bcast(data, bytes, mpi().byte, 0, communicator_), "MPI_Bcast");
}

// Transfers that are under way.
class MpiCommunicator::Requests {
 public:
  explicit Requests(MpiCommunicator& owner) : owner_(owner) {}

  void send(const void* data, int64_t bytes, int peer, Tag tag) {
    for (int64_t at = 0; at < bytes; at += kLargestPart)
      mpi().check_status(
          mpi().isend(static_cast<const std::byte*>(data) + at, part(bytes - at), mpi().byte, peer,
                      tag, owner_.session_.communicator_, &requests_.emplace_back()),
          "MPI_Isend");
  }
  void receive(void* data, int64_t bytes, int peer, Tag tag) {
    for (int64_t at = 0; at < bytes; at += kLargestPart)
      mpi().check_status(
          mpi().irecv(static_cast<std::byte*>(data) + at, part(bytes - at), mpi().byte, peer, tag,
                      owner_.session_.communicator_, &requests_.emplace_back()),
          "MPI_Irecv");
  }
  // Until all are done.
  void wait() {
    const Deadline deadline = after(kIdleSeconds);
    for (int turn = 0;; ++turn) {
      int done = 0;
      const int status = mpi().testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                                       /*statuses=*/nullptr);
      if (status != kMpiSuccess) owner_.give_up("a transfer of MPI's failed");
      if (done != 0) return;
      pollfd entry{owner_.store_.failure_descriptor(), POLLIN, 0};
      if (::poll(&entry, 1, 0) > 0) owner_.give_up("a rank failed");
      if (Clock::now() > deadline)
        owner_.give_up(concat("a rank has not answered for ", kIdleSeconds, " s"));
      if (turn < kSpins) {
        ::sched_yield();
      } else {
        ::usleep(kSleepMicroseconds);
      }
    }
  }

 private:
  static int part(int64_t left) { return static_cast<int>(std::min(left, kLargestPart)); }

  MpiCommunicator& owner_;
  std::vector<MpiHandle> requests_;
};

MpiCommunicator::MpiCommunicator(Store& store, MpiSession& session)
    : Communicator(store.rank(), store.size()), store_(store), session_(session) {}

void MpiCommunicator::give_up(const std::string& reason) {
  session_.give_up();
  fail(store_.failure(/*seconds=*/1).value_or(reason));
}

void MpiCommunicator::exchange(const std::vector<Block>& send, const std::vector<Block>& receive) {
  store_.note_exchange();
  ++sequence_;
  const auto at = [](int peer) { return static_cast<size_t>(peer); };
  const Block &own_in = receive[at(rank())], &own_out = send[at(rank())];
  if (own_in.bytes > 0 && own_in.data != own_out.data)
    std::memcpy(own_in.data, own_out.data, static_cast<size_t>(own_in.bytes));
  std::vector<ExchangeHeader> theirs(at(size())), ours(at(size()));
  Requests headers(*this), transfers(*this);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    ours[at(peer)] = {sequence_, static_cast<uint64_t>(send[at(peer)].bytes)};
    headers.receive(&theirs[at(peer)], sizeof(ExchangeHeader), peer, kHeaderTag);
    headers.send(&ours[at(peer)], sizeof(ExchangeHeader), peer, kHeaderTag);
    transfers.send(send[at(peer)].data, send[at(peer)].bytes, peer, kBytesTag);
  }
  headers.wait();
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const Block& in = receive[at(peer)];
    theirs[at(peer)].check_expected({sequence_, static_cast<uint64_t>(in.bytes)},
                                    store_.name_of(peer));
    transfers.receive(in.data, in.bytes, peer, kBytesTag);
  }
  transfers.wait();
}

}  // namespace binade::dist
