#include <binade/train/data_parallel.h>

#include <algorithm>

#include <binade/core/kernels/elementwise.h>
#include <binade/train/checkpoint.h>

namespace binade::train {

namespace {

using Block = dist::Communicator::Block;

Block block_of(const Array& array) {
  return {array.data(), array.bytes()};
}

}  // namespace

void check_lanes(int64_t micro_batches, int ranks) {
  if (ranks > 0 && micro_batches % ranks == 0) return;
  std::string possible;
  for (int64_t n = 1; n <= micro_batches; ++n)
    if (micro_batches % n == 0) possible += concat(possible.empty() ? "" : ", ", n);
  fail("a step of ", micro_batches, " micro-batches cannot be shared out among ", ranks,
       " ranks; it can among ", possible,
       " (the number of micro-batches belongs to the run: --accumulation)");
}

DataParallel::DataParallel(dist::World& world, Device device, int stage)
    : world_(world), communicator_(world.communicator(device)), stage_(stage) {
  check(stage == 0 || stage == 1, "the stages of ZeRO that there are: 0 and 1, got ", stage);
}

std::vector<Batch> DataParallel::own(const std::vector<Batch>& micro_batches) const {
  check_lanes(std::ssize(micro_batches), size());
  std::vector<Batch> own;
  for (auto lane = static_cast<size_t>(rank()); lane < micro_batches.size();
       lane += static_cast<size_t>(size()))
    own.push_back(micro_batches[lane]);
  return own;
}

void DataParallel::accumulate(optim::Optimizer& optimizer) {
  optimizer.accumulate([this](optim::FlatGroup& group, bool first) {
    const Array& grad = group.grad();
    const std::vector<dist::Slice> parts = dist::slices(group.numel(), size());
    const dist::Slice mine = parts[static_cast<size_t>(rank())];
    const Array own = grad.slice(0, mine.begin, mine.end);
    const int64_t bytes = std::max<int64_t>(own.bytes(), 1);
    if (!received_.defined() || received_.size(1) < bytes)
      received_ = Array::empty({size(), bytes}, DType::u8, grad.device());
    std::vector<Block> send, receive;
    std::vector<Array> lanes;
    for (int peer = 0; peer < size(); ++peer) {
      const dist::Slice theirs = parts[static_cast<size_t>(peer)];
      send.push_back(block_of(grad.slice(0, theirs.begin, theirs.end)));
      lanes.push_back(peer == rank()
                          ? own
                          : Array::from_blob(received_.select(0, peer).data(), own.shape(),
                                             grad.dtype(), grad.device(), received_.storage()));
      receive.push_back(block_of(lanes.back()));
    }
    communicator_.all_to_all(send, receive);
    for (size_t peer = 0; peer < lanes.size(); ++peer)
      group.add_to_accumulated(lanes[peer], mine.begin, first && peer == 0);
  });
}

void DataParallel::gather_sums(optim::Optimizer& optimizer) {
  for (const optim::FlatGroup& group : optimizer.groups()) {
    if (group.shared()) continue;
    std::vector<Block> blocks;
    for (const dist::Slice& part : dist::slices(group.numel(), size()))
      blocks.push_back(block_of(group.accumulated().slice(0, part.begin, part.end)));
    communicator_.all_gather(blocks);
    group.accumulated().bump_version();
  }
}

std::vector<Array> DataParallel::gather_scalar(const Array& scalar) {
  const Array values = Array::zeros({size()}, DType::f32, scalar.device());
  BINADE_DISPATCH(scalar.device(), copy(scalar.reshape({}), values.select(0, rank())));
  communicator_.all_gather(values);
  std::vector<Array> scalars;
  for (int peer = 0; peer < size(); ++peer) scalars.push_back(values.select(0, peer));
  return scalars;
}

bool DataParallel::share(optim::Optimizer& optimizer, optim::Ema* averages) {
  if (stage_ == 0 || optimizer.shared()) return false;
  optimizer.zero_grad();  // what was left of an earlier step
  optimizer.share(communicator_);
  if (averages != nullptr) averages->share();
  return true;
}

void DataParallel::complete(optim::Optimizer& optimizer, optim::Ema* averages) {
  if (!optimizer.shared()) return;
  if (averages != nullptr) averages->unshare();
  optimizer.unshare();
}

bool DataParallel::any(bool here) {
  dist::Communicator& control = world_.communicator();
  std::vector<uint8_t> flags(static_cast<size_t>(size()), 0);
  flags[static_cast<size_t>(rank())] = here ? 1 : 0;
  std::vector<Block> blocks;
  for (uint8_t& flag : flags) blocks.push_back({&flag, 1});
  control.all_gather(blocks);
  return std::any_of(flags.begin(), flags.end(), [](uint8_t flag) { return flag != 0; });
}

bool DataParallel::as_first(bool here) {
  uint8_t said = here ? 1 : 0;
  world_.communicator().broadcast({&said, 1});
  return said != 0;
}

void DataParallel::check_equal(const nn::StateDict& state) {
  std::vector<uint32_t> sums;
  for (const auto& [name, array] : state)
    sums.push_back(checksum_of(array.to(Device::cpu()).contiguous()));
  std::vector<uint32_t> first = sums;
  world_.communicator().broadcast(
      {first.data(), static_cast<int64_t>(first.size() * sizeof(uint32_t))});
  size_t place = 0;
  for (const auto& [name, array] : state) {
    check(first[place] == sums[place], name, " differs from rank 0's at the start: the ranks need ",
          "the same model files, options and library");
    ++place;
  }
  world_.communicator().barrier();
}

double DataParallel::sum_of(int64_t count, const std::function<Array(int64_t index)>& evaluate) {
  const Device device = communicator_.device();
  const int64_t rounds = (count + size() - 1) / size();
  const Array values = Array::zeros({size(), rounds}, DType::f32, device);
  const Array own = values.select(0, rank());
  for (int64_t index = rank(); index < count; index += size())
    BINADE_DISPATCH(device, copy(evaluate(index).reshape({}), own.select(0, index / size())));
  communicator_.all_gather(values);
  const Array total = Array::zeros({}, DType::f64, device);
  for (int64_t index = 0; index < count; ++index)
    BINADE_DISPATCH(device,
                    axpy(1, values.select(0, index % size()).select(0, index / size()), total));
  return total.item();
}

}  // namespace binade::train
