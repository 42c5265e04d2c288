// Things made ahead by several threads and handed out in order: batches of named arrays, say.
//
//   data::OrderedPrefetcher<train::Batch> batches(
//       [&](int64_t number) -> train::Batch { return {{"images", …}, {"labels", …}}; },
//       {.workers = 4});
//   const train::Batch batch = batches.next();
//
// What comes out is the same whatever the number of threads, as long as what makes number n depends
// on n alone: each is made with random numbers of its own, by (seed, n).
// A train::Task takes its data this way by train::prefetched() (train/prefetched.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

namespace binade::data {

struct PrefetchWorkers {
  int workers = 2;    // threads, at least 1
  int ahead = 0;      // most that are being made or wait to be handed out; 0: twice the threads
  int64_t first = 0;  // the first number
  uint64_t seed = 0;  // of RandomState while something is made
};

// The threads behind an OrderedPrefetcher.
class OrderedWork {
 public:
  using Make = std::function<std::shared_ptr<void>(int64_t number)>;

  OrderedWork(Make make, const PrefetchWorkers& options);
  ~OrderedWork();
  OrderedWork(OrderedWork&&) noexcept;
  OrderedWork& operator=(OrderedWork&&) noexcept;

  std::shared_ptr<void> next();
  int64_t next_number() const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// next() is for one thread at a time.
template <class T>
class OrderedPrefetcher {
 public:
  // `make` gives number `first`, `first` + 1, …; it is called on several threads at once, and its
  // CPU kernels run on the calling thread alone. Throws Error for fewer than one thread and for
  // `ahead` below 0.
  explicit OrderedPrefetcher(std::function<T(int64_t number)> make,
                             const PrefetchWorkers& options = {})
      : work_(
            [make = std::move(make)](int64_t number) -> std::shared_ptr<void> {
              return std::make_shared<T>(make(number));
            },
            options) {}
  // The destructor waits for what is being made, and no longer.

  // The next one; waits for it. Rethrows what `make` threw for it, once those in front were handed
  // out, and the same again if called again.
  T next() { return std::move(*std::static_pointer_cast<T>(work_.next())); }
  // The number of what next() gives: where to go on after a resume.
  int64_t next_number() const { return work_.next_number(); }

 private:
  OrderedWork work_;
};

}  // namespace binade::data
