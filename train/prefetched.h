// The data of steps, made ahead by worker threads.
#pragma once

#include <functional>

#include <binade/data/ordered_prefetcher.h>
#include <binade/train/trainer.h>

namespace binade::train {

// For Task::data: calls make(index) for coming steps on several threads at once, from the first
// index that is asked for on. What is made must depend on the index alone; arrays lie in host
// memory. Other indices than the next begin anew there.
//
//   task.data = train::prefetched(
//       [&](int64_t step) -> train::StepData { return {.micro_batches = {batch_of(step)}, …}; },
//       {.workers = 4});
//
// `options.first` is not used.
std::function<StepData(int64_t index)> prefetched(std::function<StepData(int64_t index)> make,
                                                  const data::PrefetchWorkers& options = {});

}  // namespace binade::train
