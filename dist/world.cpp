#include <binade/dist/world.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <binade/core/error.h>
#include <binade/dist/socket.h>
#include <binade/dist/tcp_communicator.h>
#if BINADE_HAVE_CUDA
#include <binade/dist/cuda/nccl_communicator.h>
#endif

namespace binade::dist {

namespace {

// The address that this host has towards rank 0.
std::string address_towards(const std::string& host, int port) {
  const Socket socket = connect_to(host, port, after(20));
  sockaddr_in address{};
  socklen_t size = sizeof address;
  check(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
        "this host has no address towards ", host);
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return text;
}

}  // namespace

World::World(const Launch& launch, const StoreOptions& options) : launch_(launch) {
  if (alone()) return;
  store_ = std::make_unique<Store>(launch, options);
  communicator_ = std::make_unique<TcpCommunicator>(*store_, "tcp",
                                                    address_towards(launch.address, launch.port));
}

World::~World() = default;

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
  store_->report_failure("failed: " + reason);
  store_->failure(/*seconds=*/1);  // until this rank hears of it itself
}

bool World::failed() const {
  return store_ && store_->failure().has_value();
}

void World::leave() {
  if (store_) store_->leave();
}

void World::first_alone(const std::function<void()>& body) {
  constexpr double kNoLimit = 1e9;  // s; a rank that is lost ends the waiting
  const std::string key = concat("alone/", ++alone_count_);
  if (is_first()) body();
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
