#include <binade/data/ordered_prefetcher.h>

#include <omp.h>

#include <condition_variable>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/core/start_thread.h>

namespace binade::data {

struct OrderedWork::Shared {
  struct Made {
    std::shared_ptr<void> value;
    std::exception_ptr error;
  };

  Make make;
  int64_t ahead = 0;
  uint64_t seed = 0;

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::map<int64_t, Made> made;                          // and not yet handed out
  int64_t next_out = 0;                                  // to hand out
  int64_t next_begun = 0;                                // to make
  int64_t failed = std::numeric_limits<int64_t>::max();  // nothing behind it is made
  bool stop = false;
  std::vector<std::thread> threads;

  ~Shared();
  void work();
  Made one(int64_t number) const;
};

OrderedWork::Shared::~Shared() {
  {
    const std::lock_guard lock(mutex);
    stop = true;
  }
  changed.notify_all();
  for (std::thread& thread : threads) thread.join();
}

OrderedWork::Shared::Made OrderedWork::Shared::one(int64_t number) const {
  try {
    RandomState::current() = RandomState();
    RandomState::current().begin_step(seed, static_cast<uint64_t>(number));
    return {make(number), nullptr};
  } catch (...) {
    return {nullptr, std::current_exception()};
  }
}

void OrderedWork::Shared::work() {
  omp_set_num_threads(1);  // of this thread: the workers share the cores with each other
  std::unique_lock lock(mutex);
  const auto has_work = [this] { return next_begun < next_out + ahead && next_begun <= failed; };
  for (;;) {
    changed.wait(lock, [&] { return stop || has_work(); });
    if (stop) return;
    const int64_t number = next_begun++;
    lock.unlock();
    Made result = one(number);
    lock.lock();
    if (result.error) failed = std::min(failed, number);
    made[number] = std::move(result);
    changed.notify_all();
  }
}

OrderedWork::OrderedWork(Make make, const PrefetchWorkers& options)
    : shared_(std::make_unique<Shared>()) {
  check(options.workers >= 1, "a prefetcher needs one thread at least, not ", options.workers);
  check(options.ahead >= 0, "a prefetcher cannot be ", options.ahead, " ahead");
  shared_->make = std::move(make);
  shared_->ahead = options.ahead > 0 ? options.ahead : 2 * int64_t{options.workers};
  shared_->seed = options.seed;
  shared_->next_out = shared_->next_begun = options.first;
  for (int i = 0; i < options.workers; ++i)
    shared_->threads.push_back(start_thread([shared = shared_.get()] { shared->work(); }));
}

OrderedWork::~OrderedWork() = default;
OrderedWork::OrderedWork(OrderedWork&&) noexcept = default;
OrderedWork& OrderedWork::operator=(OrderedWork&&) noexcept = default;

std::shared_ptr<void> OrderedWork::next() {
  std::unique_lock lock(shared_->mutex);
  const auto found = [this] { return shared_->made.find(shared_->next_out); };
  shared_->changed.wait(lock, [&] { return found() != shared_->made.end(); });
  const auto at = found();
  if (at->second.error) std::rethrow_exception(at->second.error);
  std::shared_ptr<void> value = std::move(at->second.value);
  shared_->made.erase(at);
  ++shared_->next_out;
  lock.unlock();
  shared_->changed.notify_all();
  return value;
}

int64_t OrderedWork::next_number() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->next_out;
}

}  // namespace binade::data
