#include <binade/train/prefetched.h>

#include <memory>
#include <optional>
#include <utility>

namespace binade::train {

std::function<StepData(int64_t index)> prefetched(std::function<StepData(int64_t index)> make,
                                                  const data::PrefetchWorkers& options) {
  using Steps = data::OrderedPrefetcher<StepData>;
  // Shared by copies of the function, which go on where another one was.
  return [make = std::move(make), options,
          steps = std::make_shared<std::optional<Steps>>()](int64_t index) {
    if (!steps->has_value() || (*steps)->next_number() != index) {
      data::PrefetchWorkers from_here = options;
      from_here.first = index;
      steps->reset();
      steps->emplace(make, from_here);
    }
    return (*steps)->next();
  };
}

}  // namespace binade::train
