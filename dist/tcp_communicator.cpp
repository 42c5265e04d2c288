#include <binade/dist/tcp_communicator.h>

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <binade/core/error.h>
#include <binade/dist/exchange_header.h>
#include <binade/dist/socket.h>

namespace binade::dist {

namespace {

// A rank that hears of a lost one directly waits so long for the store's word on who was first.
constexpr double kFailureSeconds = 1;

}  // namespace

// What is left to be sent to a peer and received from it.
struct TcpCommunicator::Transfer {
  Transfer(int peer, int descriptor, ExchangeHeader own, const Block& out, const Block& in)
      : peer(peer), descriptor(descriptor), own(own), out(out), in(in) {}

  int64_t to_send() const { return static_cast<int64_t>(sizeof own) + out.bytes - sent; }
  int64_t to_receive() const { return static_cast<int64_t>(sizeof own) + in.bytes - received; }

  int peer, descriptor;
  ExchangeHeader own, theirs;
  Block out, in;
  int64_t sent = 0, received = 0;  // headers included
};

TcpCommunicator::TcpCommunicator(Store& store, const std::string& name,
                                 const std::string& own_address, const TcpOptions& options)
    : Communicator(store.rank(), store.size()), store_(store), options_(options) {
  const Deadline deadline = after(options.connect_seconds);
  const auto key = [&](int of) { return concat(name, '/', of); };
  const Socket listener = listen_on(0, own_address.starts_with("127."));
  store.set(key(rank()) + "/address", own_address);
  store.set(key(rank()), std::to_string(port_of(listener)));
  peers_.resize(static_cast<size_t>(size()));
  // Each connects to those before it, and takes those behind it.
  for (int peer = 0; peer < rank(); ++peer) {
    const std::string host = store.get(key(peer) + "/address", options.connect_seconds);
    const std::string port = store.get(key(peer), options.connect_seconds);
    Socket socket = connect_to(host, static_cast<int>(parse_number(port).value_or(0)), deadline);
    send_message(socket, {name, std::to_string(rank())}, deadline);
    peers_[static_cast<size_t>(peer)] = std::make_unique<Socket>(std::move(socket));
  }
  for (int missing = size() - 1 - rank(); missing > 0;) {
    std::optional<Socket> socket = accept_from(listener, std::min(deadline, after(0.2)));
    if (const auto failure = store.failure()) fail(*failure);
    if (!socket && Clock::now() < deadline) continue;
    check(socket.has_value(), "rank ", rank(), " of ", size(), " waits for ", missing,
          " more ranks to connect on port ", port_of(listener), "; is it open between the hosts?");
    try {
      const Message hello = receive_message(*socket, after(5));
      const double peer =
          hello.size() == 2 && hello[0] == name ? parse_number(hello[1]).value_or(-1) : -1;
      if (!(peer > rank() && peer < size()) || peers_[static_cast<size_t>(peer)]) continue;
      peers_[static_cast<size_t>(peer)] = std::make_unique<Socket>(std::move(*socket));
      --missing;
    } catch (const Error&) {
      // Nothing of ours.
    }
  }
}

TcpCommunicator::~TcpCommunicator() = default;

void TcpCommunicator::lost(int peer, const std::string& how) {
  if (const auto failure = store_.failure(kFailureSeconds)) fail(*failure);
  store_.report_lost(peer, how);
  fail(store_.failure(kFailureSeconds).value_or(concat(store_.name_of(peer), ' ', how)));
}

bool TcpCommunicator::send_some(Transfer& transfer) {
  const auto header = static_cast<int64_t>(sizeof transfer.own);
  while (transfer.to_send() > 0) {
    const bool in_header = transfer.sent < header;
    const std::byte* data =
        in_header ? reinterpret_cast<const std::byte*>(&transfer.own) + transfer.sent
                  : static_cast<const std::byte*>(transfer.out.data) + transfer.sent - header;
    const int64_t count = in_header ? header - transfer.sent : transfer.to_send();
    const ssize_t done =
        ::send(transfer.descriptor, data, static_cast<size_t>(count),
               MSG_NOSIGNAL | (in_header && transfer.out.bytes > 0 ? MSG_MORE : 0));
    if (done < 0) return errno == EAGAIN || errno == EINTR;
    transfer.sent += done;
  }
  return true;
}

bool TcpCommunicator::receive_some(Transfer& transfer) {
  const auto header = static_cast<int64_t>(sizeof transfer.theirs);
  while (transfer.to_receive() > 0) {
    const bool in_header = transfer.received < header;
    std::byte* data = in_header
                          ? reinterpret_cast<std::byte*>(&transfer.theirs) + transfer.received
                          : static_cast<std::byte*>(transfer.in.data) + transfer.received - header;
    const int64_t count = in_header ? header - transfer.received : transfer.to_receive();
    const ssize_t done = ::recv(transfer.descriptor, data, static_cast<size_t>(count), 0);
    if (done == 0) return false;
    if (done < 0) return errno == EAGAIN || errno == EINTR;
    transfer.received += done;
    if (transfer.received == header && in_header)
      transfer.theirs.check_expected(
          {transfer.own.sequence, static_cast<uint64_t>(transfer.in.bytes)},
          store_.name_of(transfer.peer));
  }
  return true;
}

void TcpCommunicator::exchange(const std::vector<Block>& send, const std::vector<Block>& receive) {
  ++sequence_;
  store_.note_exchange();
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < size(); ++peer) {
    const Block &out = send[static_cast<size_t>(peer)], &in = receive[static_cast<size_t>(peer)];
    if (peer == rank()) {
      if (in.bytes > 0 && in.data != out.data)
        std::memcpy(in.data, out.data, static_cast<size_t>(in.bytes));
      continue;
    }
    transfers.emplace_back(peer, peers_[static_cast<size_t>(peer)]->get(),
                           ExchangeHeader{sequence_, static_cast<uint64_t>(out.bytes)}, out, in);
  }
  Deadline deadline = after(options_.idle_seconds);
  for (;;) {
    std::vector<pollfd> entries;
    for (const Transfer& one : transfers) {
      const int events = (one.to_send() > 0 ? POLLOUT : 0) | (one.to_receive() > 0 ? POLLIN : 0);
      entries.push_back({events != 0 ? one.descriptor : -1, static_cast<short>(events), 0});
    }
    const bool done = std::all_of(entries.begin(), entries.end(),
                                  [](const pollfd& entry) { return entry.fd < 0; });
    if (done) return;
    entries.push_back({store_.failure_descriptor(), POLLIN, 0});
    const int count = ::poll(entries.data(), entries.size(), milliseconds_to(deadline));
    check(count >= 0 || errno == EINTR, "poll: ", std::strerror(errno));
    if (count <= 0) {
      if (Clock::now() < deadline) continue;
      for (const Transfer& one : transfers)
        if (one.to_send() + one.to_receive() > 0)
          lost(one.peer, concat("has not answered for ", options_.idle_seconds, " s (",
                                one.to_receive(), " bytes of exchange ", sequence_, " missing)"));
    }
    if (entries.back().revents != 0) fail(store_.failure().value_or("a rank failed"));
    for (size_t i = 0; i < transfers.size(); ++i) {
      Transfer& one = transfers[i];
      if (entries[i].fd < 0 || entries[i].revents == 0) continue;
      if (!send_some(one) || !receive_some(one)) lost(one.peer, "ended without a word");
    }
    deadline = after(options_.idle_seconds);
  }
}

}  // namespace binade::dist
