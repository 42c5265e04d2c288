#include <binade/dist/communicator.h>

#include <algorithm>

#include <binade/core/error.h>

namespace binade::dist {

void Communicator::check_blocks(const std::vector<Block>& send,
                                const std::vector<Block>& receive) const {
  check(std::ssize(send) == size_ && std::ssize(receive) == size_, "a communicator of ", size_,
        " ranks got ", send.size(), " blocks to send and ", receive.size(), " to receive");
  const Block &own = send[static_cast<size_t>(rank_)], &kept = receive[static_cast<size_t>(rank_)];
  check(own.bytes == kept.bytes, "a rank sends itself ", own.bytes, " bytes and expects ",
        kept.bytes);
}

void Communicator::all_to_all(const std::vector<Block>& send, const std::vector<Block>& receive) {
  check_blocks(send, receive);
  exchange(send, receive);
}

std::vector<Communicator::Block> Communicator::copies_of_own(
    const std::vector<Block>& blocks) const {
  check(std::ssize(blocks) == size_, "a communicator of ", size_, " ranks got ", blocks.size(),
        " blocks");
  return std::vector<Block>(blocks.size(), blocks[static_cast<size_t>(rank_)]);
}

void Communicator::all_gather(const std::vector<Block>& blocks) {
  exchange(copies_of_own(blocks), blocks);
}

int64_t Communicator::Window::offset_of(const Block& block) const {
  const auto* begin = static_cast<const std::byte*>(memory_.data());
  const auto* data = static_cast<const std::byte*>(block.data);
  check(data >= begin && data - begin <= memory_.bytes() - block.bytes,
        "a block lies outside of the window that it is received in");
  return data - begin;
}

std::shared_ptr<const Communicator::Window> Communicator::open_window(const Array& memory) {
  check(memory.is_contiguous() && memory.device() == device(), "a window of a communicator of ",
        device(), " is contiguous memory there, got ", memory.shape(), " on ", memory.device());
  return std::make_shared<Window>(memory);
}

void Communicator::all_to_all(const std::vector<Block>& send, const std::vector<Block>& receive,
                              const Window& window, int64_t offset) {
  check_blocks(send, receive);
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    const Block &out = send[static_cast<size_t>(peer)], &in = receive[static_cast<size_t>(peer)];
    check(out.bytes == 0 || (offset >= 0 && offset <= window.memory().bytes() - out.bytes),
          "a block of ", out.bytes, " bytes, sent to byte ", offset,
          ", lies outside of a window of ", window.memory().bytes());
    if (in.bytes > 0) window.offset_of(in);
  }
  exchange_into(window, offset, send, receive);
}

void Communicator::all_gather(const std::vector<Block>& blocks, const Window& window) {
  const std::vector<Block> send = copies_of_own(blocks);
  const Block& own = send.front();
  all_to_all(send, blocks, window, own.bytes > 0 ? window.offset_of(own) : 0);
}

void Communicator::exchange_into(const Window&, int64_t, const std::vector<Block>& send,
                                 const std::vector<Block>& receive) {
  exchange(send, receive);
}

void Communicator::all_gather(const Array& rows) {
  check(rows.dims() > 0 && rows.size(0) == size_ && rows.is_contiguous(),
        "a gathered array has a row for each of ", size_, " ranks and no gaps, got ", rows.shape());
  std::vector<Block> blocks;
  const int64_t bytes = rows.bytes() / size_;
  for (int rank = 0; rank < size_; ++rank)
    blocks.push_back({static_cast<std::byte*>(rows.data()) + rank * bytes, bytes});
  all_gather(blocks);
  rows.bump_version();
}

void Communicator::broadcast(Block block, int root) {
  check(root >= 0 && root < size_, "there is no rank ", root, " of ", size_);
  const auto everybody = static_cast<size_t>(size_);
  std::vector<Block> send(everybody), receive(everybody);
  if (rank_ == root) {
    std::fill(send.begin(), send.end(), block);
    receive[static_cast<size_t>(rank_)] = block;
  } else {
    receive[static_cast<size_t>(root)] = block;
  }
  exchange(send, receive);
}

void Communicator::barrier() {
  all_gather(Array::zeros({size_}, DType::u8, device()));
}

std::vector<Slice> slices(int64_t elements, int ranks, int64_t chunk) {
  const int64_t chunks = (elements + chunk - 1) / chunk;
  const int64_t share = (chunks + ranks - 1) / ranks * chunk;
  std::vector<Slice> all;
  for (int rank = 0; rank < ranks; ++rank)
    all.push_back({std::min(elements, rank * share), std::min(elements, (rank + 1) * share)});
  return all;
}

}  // namespace binade::dist
