#include <binade/dist/world.h>

#include <utility>

#include <binade/core/error.h>
#include <binade/dist/mpi_communicator.h>
#include <binade/dist/remote_shell.h>
#include <binade/dist/socket.h>
#include <binade/dist/store.h>
#include <binade/dist/tcp_communicator.h>
#if BINADE_HAVE_CUDA
#include <binade/dist/cuda/nccl_communicator.h>
#endif

namespace binade::dist {

World::World(const Launch& launch, const Limits& limits) : launch_(launch) {
  const bool chosen = launch.transport == Transport::mpi;
  check(!chosen || !alone(), "MPI as a transport is for several ranks, which mpirun starts");
  if (alone()) return;
  if (chosen || (launch.transport == Transport::automatic && launch.by_mpirun)) {
    meet_over_mpi(limits);
    return;
  }
  check(!launch.address.empty(), "mpirun does not say where ranks meet over TCP: set MASTER_ADDR ",
        "and MASTER_PORT to a host and a free port of rank 0's, or take MPI as the transport");
  store_ = std::make_unique<Store>(launch, limits);
  communicator_ =
      std::make_unique<TcpCommunicator>(*store_, "tcp", address_towards(launch.address));
}

// Without an address rank 0 listens where there is room, and tells the others.
void World::meet_over_mpi(const Limits& limits) {
  mpi_ = std::make_unique<MpiSession>(launch_);
  Socket listener;
  if (launch_.address.empty()) {
    struct {
      int port = 0;
      char address[256] = "";
    } place;
    if (is_first()) {
      listener = listen_on(0, launch_.on_one_host);
      place.port = port_of(listener);
      const std::string address = launch_.on_one_host ? "127.0.0.1" : host_name();
      address.copy(place.address, sizeof place.address - 1);
    }
    mpi_->broadcast(&place, sizeof place);
    launch_.port = place.port;
    launch_.address = place.address;
  }
  store_ = std::make_unique<Store>(launch_, limits, std::move(listener));
  communicator_ = std::make_unique<MpiCommunicator>(*store_, *mpi_);
}

World::~World() {
  if (mpi_ && failed()) mpi_->give_up();
}

Communicator& World::communicator() {
  check(!alone(), "a run of one rank has nobody to communicate with");
  return *communicator_;
}

Communicator& World::communicator([[maybe_unused]] Device device) {
  if (device.is_cpu()) return communicator();
#if BINADE_HAVE_CUDA
  Communicator& control = communicator();
  if (!gpu_communicator_) gpu_communicator_ = make_nccl_communicator(*store_, control, device);
  check(gpu_communicator_->device() == device, "this rank communicates from ",
        gpu_communicator_->device(), ", not from ", device);
  return *gpu_communicator_;
#else
  fail("this build of Binade has no CUDA");
#endif
}

void World::report_failure(const std::string& reason) {
  if (!store_) return;
  store_->report_failure(reason);
  store_->failure(/*seconds=*/1);  // until this rank hears of it itself
}

bool World::failed() const {
  return store_ && store_->failure().has_value();
}

void World::note_step(int64_t step) const {
  if (store_) store_->note_step(step);
}

void World::note_finished(int64_t step) const {
  if (store_) store_->note_finished(step);
}

void World::note_checkpoint(int64_t step) const {
  if (store_) store_->note_checkpoint(step);
}

World::Busy::Busy(Store* store) : store_(store) {
  if (store_ != nullptr) store_->begin_busy();
}

World::Busy::~Busy() {
  if (store_ != nullptr) store_->end_busy();
}

void World::leave() {
  if (store_) store_->leave();
}

void World::first_alone(const std::function<void()>& body) {
  constexpr double kNoLimit = 1e9;  // s; a rank that is lost ends the waiting
  const std::string key = concat("alone/", ++alone_count_);
  if (is_first()) {
    const Busy scope = busy();
    body();
  }
  if (alone()) return;
  if (is_first()) {
    store_->set(key, "done");
  } else {
    store_->get(key, kNoLimit);
  }
}

void World::require_same(
    const std::string& what, const std::string& text,
    const std::function<std::string(const std::string&, const std::string&)>& differences) {
  if (alone()) return;
  int64_t length = static_cast<int64_t>(text.size());
  communicator_->broadcast({&length, sizeof length});
  std::string first = is_first() ? text : std::string(static_cast<size_t>(length), '\0');
  communicator_->broadcast({first.data(), length});
  if (first == text) {
    communicator_->barrier();  // the others may have something to say
    return;
  }
  fail("the ranks have different ", what, ": ",
       differences ? differences(first, text)
                   : concat(first, " on rank 0, ", text, " on rank ", rank()));
}

}  // namespace binade::dist
