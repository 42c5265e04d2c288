// INTERNAL. A communicator of ranks that hold their memory on the CPU: a TCP connection between
// every two.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <binade/dist/communicator.h>
#include <binade/dist/store.h>

namespace binade::dist {

struct TcpOptions {
  double connect_seconds = 60;
  // The longest that a verb waits for bytes of another rank, which may be writing a checkpoint or
  // reading its data meanwhile. In a step the store finds out earlier who is stuck.
  double idle_seconds = 3600;
};

class TcpCommunicator : public Communicator {
 public:
  // Called by every rank with the same `name`. Throws Error when a rank cannot be reached.
  TcpCommunicator(Store& store, const std::string& name, const std::string& own_address,
                  const TcpOptions& options = {});
  ~TcpCommunicator() override;
  Device device() const override { return {}; }

 protected:
  void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) override;

 private:
  struct Transfer;
  bool send_some(Transfer& transfer);     // false: the other side ended
  bool receive_some(Transfer& transfer);  // likewise
  [[noreturn]] void lost(int peer, const std::string& how);

  Store& store_;
  TcpOptions options_;
  std::vector<std::unique_ptr<Socket>> peers_;  // by rank; none for this one
  uint64_t sequence_ = 0;                       // of exchanges
};

}  // namespace binade::dist
