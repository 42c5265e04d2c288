#include <binade/train/data_parallel.h>

#include <algorithm>
#include <numeric>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/fingerprint.h>
#include <binade/core/side_queue.h>
#include <binade/dist/gathered.h>
#include <binade/train/exposed_time.h>
#include <binade/train/gradient_exchange.h>
#include <binade/train/value_exchange.h>

namespace binade::train {

namespace {

using Block = dist::Communicator::Block;

// Says whose of the ranks' numbers differ; more than half of them agree, or nobody knows.
template <class Number>
std::string difference(const std::string& name, int ranks, const Number& of) {
  for (int usual = 0; usual < ranks; ++usual) {
    std::string others;
    int alike = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      if (of(rank) == of(usual)) {
        ++alike;
      } else {
        others += concat(others.empty() ? "rank " : ", rank ", rank);
      }
    }
    if (2 * alike > ranks) return concat(name, " of ", others, " differs from the other ranks'");
  }
  return concat(name, " is not the same on all ranks");
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

DataParallel::DataParallel(dist::World& world, Device device, const DataParallelOptions& options)
    : world_(world),
      communicator_(world.communicator(device)),
      options_(options),
      time_(std::make_unique<ExposedTime>(device, options.timeline)),
      queue_(std::make_unique<SideQueue>(device,
                                         options.overlap && communicator_.serves_any_thread())) {
  if (device.is_cuda()) sums_ = std::make_unique<SideQueue>(device, options.overlap);
  timed_ = std::make_unique<TimedCommunicator>(communicator_, *time_, *queue_);
  check(options.stage >= 0 && options.stage <= 2,
        "the stages of ZeRO that there are: 0, 1 and 2, got ", options.stage);
  check(options.bucket > 0, "a bucket of gradients has elements, got ", options.bucket);
}

DataParallel::~DataParallel() = default;

std::vector<Batch> DataParallel::own(const std::vector<Batch>& micro_batches) const {
  check_lanes(std::ssize(micro_batches), size());
  std::vector<Batch> own;
  for (auto lane = static_cast<size_t>(rank()); lane < micro_batches.size();
       lane += static_cast<size_t>(size()))
    own.push_back(micro_batches[lane]);
  return own;
}

GradientExchange& DataParallel::exchange_of(optim::Optimizer& optimizer) {
  for (const auto& exchange : exchanges_)
    if (exchange->is_of(optimizer)) return *exchange;
  drop_gone();
  exchanges_.push_back(std::make_unique<GradientExchange>(world_, communicator_, *queue_,
                                                          sums_ ? *sums_ : *queue_, *time_,
                                                          optimizer, options_.bucket));
  return *exchanges_.back();
}

void DataParallel::drop_gone() {
  settle();
  for (const auto& exchange : exchanges_) {
    if (!exchange->is_gone()) continue;
    sent_by_gone_ += exchange->counts().sent;
    early_by_gone_ += exchange->counts().early;
  }
  std::erase_if(exchanges_, [](const auto& exchange) { return exchange->is_gone(); });
  std::erase_if(values_, [](const auto& values) { return values->is_gone(); });
}

GradientWatch* DataParallel::begin_round(optim::Optimizer& optimizer, bool last,
                                         const Array& inv_scale) {
  GradientExchange& exchange = exchange_of(optimizer);
  exchange.begin_round(last, inv_scale);
  return &exchange;
}

void DataParallel::end_round(optim::Optimizer& optimizer) {
  exchange_of(optimizer).end_round();
}

void DataParallel::finish_rounds(optim::Optimizer& optimizer) {
  finish_values();  // what the passes did not use
  exchange_of(optimizer).finish();
}

void DataParallel::finish_values() {
  for (const auto& values : values_) values->wait();
}

void DataParallel::settle() {
  finish_values();
  queue_->wait_for_all();
  if (sums_) sums_->wait_for_all();
}

void DataParallel::send_values(const optim::Optimizer& optimizer) {
  for (const auto& values : values_)
    if (values->is_of(optimizer)) values->send();
}

void DataParallel::capture(const std::function<void()>& body) {
  std::vector<bool> were_old;
  for (const auto& values : values_) were_old.push_back(values->is_old());
  try {
    body();
  } catch (...) {
    queue_->forget();
    if (sums_) sums_->forget();
    for (size_t i = 0; i < were_old.size(); ++i) values_[i]->forget(were_old[i]);
    throw;
  }
}

void DataParallel::begin_step() const {
  time_->begin_step();
}

const Array& DataParallel::exposed_seconds() const {
  return time_->seconds();
}

int64_t DataParallel::buckets_sent() const {
  int64_t sent = sent_by_gone_;
  for (const auto& exchange : exchanges_) sent += exchange->counts().sent;
  return sent;
}

int64_t DataParallel::buckets_sent_early() const {
  int64_t early = early_by_gone_;
  for (const auto& exchange : exchanges_) early += exchange->counts().early;
  return early;
}

Array DataParallel::gather(const Array& own) {
  std::vector<int64_t> sizes = {size()};
  for (int i = 0; i < own.dims(); ++i) sizes.push_back(own.size(i));
  const Array all = Array::empty(Shape(sizes), own.dtype(), own.device());
  BINADE_DISPATCH(own.device(), copy(own, all.select(0, rank())));
  timed_->all_gather(all);
  return all;
}

bool DataParallel::share(optim::Optimizer& optimizer, optim::Ema* averages, bool begin) {
  if (options_.stage == 0 || optimizer.shared()) return false;
  optimizer.zero_grad();  // what was left of an earlier step
  optimizer.share(*timed_, {.bucket = options_.bucket,
                            .gradients = options_.stage == 2,
                            .late_values = options_.late_values,
                            .begin = begin});
  if (averages != nullptr) averages->share();
  exchange_of(optimizer);  // gives gradients memory, in the passes of other parts of the step, too
  if (options_.late_values)
    values_.push_back(std::make_unique<ValueExchange>(communicator_, *queue_, *time_, optimizer,
                                                      options_.bucket, options_.early_values));
  return true;
}

void DataParallel::complete(optim::Optimizer& optimizer, optim::Ema* averages) {
  if (!optimizer.shared()) return;
  settle();
  if (averages != nullptr) averages->unshare();
  optimizer.unshare();
  std::erase_if(values_, [&](const auto& values) { return values->is_of(optimizer); });
  for (const auto& exchange : exchanges_)
    if (exchange->is_of(optimizer)) exchange->free_memory();
}

void DataParallel::complete_values() {
  for (const auto& values : values_) values->complete();
}

dist::Communicator& DataParallel::control() {
  queue_->wait_for_all();
  return world_.communicator();
}

bool DataParallel::any(bool here) {
  const std::vector<uint8_t> flags = dist::gathered(control(), uint8_t{here});
  return std::any_of(flags.begin(), flags.end(), [](uint8_t flag) { return flag != 0; });
}

std::string DataParallel::as_first(std::string here) {
  int64_t length = std::ssize(here);
  control().broadcast({&length, sizeof length});
  here.resize(static_cast<size_t>(length));
  control().broadcast({here.data(), length});
  return here;
}

void DataParallel::check_equal(const nn::StateDict& state, const std::string& when) {
  const Device device = communicator_.device();
  const Array own = Array::zeros({std::ssize(state)}, DType::i64, device);
  int64_t place = 0;
  for (const auto& [name, array] : state) {
    const Array values = array.to(device).contiguous();
    BINADE_DISPATCH(device, fingerprint(values, own.select(0, place++)));
  }
  const Array all = Array::zeros({size(), own.numel()}, DType::i64);
  all.select(0, rank()).copy_from(own);
  control().all_gather(all);
  place = 0;
  for (const auto& [name, array] : state) {
    const int64_t* prints = all.data<int64_t>() + place++;
    const auto of = [&](int peer) { return prints[peer * own.numel()]; };
    for (int peer = 1; peer < size(); ++peer)
      check(of(peer) == of(0), difference(name, size(), of), ' ', when);
  }
}

std::vector<std::vector<double>> DataParallel::deal(
    int64_t count, const std::function<std::vector<double>(int64_t index)>& piece) {
  complete_values();
  const auto ranks = static_cast<int64_t>(size());
  std::vector<double> own;
  // Piece i·ranks + r is rank r's i-th.
  const int64_t rounds = (count + ranks - 1) / ranks;
  const Array lengths = Array::zeros({ranks, rounds}, DType::i64);
  for (int64_t index = rank(); index < count; index += ranks) {
    const std::vector<double> values = piece(index);
    own.insert(own.end(), values.begin(), values.end());
    lengths.select(0, rank()).data<int64_t>()[index / ranks] = std::ssize(values);
  }
  control().all_gather(lengths);
  std::vector<std::vector<double>> of_ranks(static_cast<size_t>(ranks));
  std::vector<Block> blocks;
  for (int64_t peer = 0; peer < ranks; ++peer) {
    std::vector<double>& values = of_ranks[static_cast<size_t>(peer)];
    const auto* row = lengths.data<int64_t>() + peer * rounds;
    values.resize(static_cast<size_t>(std::accumulate(row, row + rounds, int64_t{0})));
    if (peer == rank()) values = own;
    blocks.push_back({values.data(), std::ssize(values) * static_cast<int64_t>(sizeof(double))});
  }
  control().all_gather(blocks);
  std::vector<std::vector<double>> pieces;
  std::vector<size_t> taken(static_cast<size_t>(ranks), 0);
  for (int64_t index = 0; index < count; ++index) {
    const auto peer = static_cast<size_t>(index % ranks);
    const auto length = static_cast<size_t>(
        lengths.data<int64_t>()[static_cast<int64_t>(peer) * rounds + index / ranks]);
    const auto begin = of_ranks[peer].begin() + static_cast<ptrdiff_t>(taken[peer]);
    pieces.emplace_back(begin, begin + static_cast<ptrdiff_t>(length));
    taken[peer] += length;
  }
  return pieces;
}

std::vector<std::vector<double>> deal(
    DataParallel* parallel, int64_t count,
    const std::function<std::vector<double>(int64_t index)>& piece) {
  if (parallel != nullptr) return parallel->deal(count, piece);
  std::vector<std::vector<double>> pieces;
  for (int64_t index = 0; index < count; ++index) pieces.push_back(piece(index));
  return pieces;
}

double DataParallel::sum_of(int64_t count, const std::function<Array(int64_t index)>& evaluate) {
  complete_values();
  const Device device = communicator_.device();
  const int64_t rounds = (count + size() - 1) / size();
  const Array values = Array::zeros({size(), rounds}, DType::f32, device);
  const Array own = values.select(0, rank());
  for (int64_t index = rank(); index < count; index += size())
    BINADE_DISPATCH(device, copy(evaluate(index).reshape({}), own.select(0, index / size())));
  timed_->all_gather(values);
  const Array total = Array::zeros({}, DType::f64, device);
  for (int64_t index = 0; index < count; ++index)
    BINADE_DISPATCH(device,
                    axpy(1, values.select(0, index % size()).select(0, index / size()), total));
  return total.item();
}

}  // namespace binade::train
