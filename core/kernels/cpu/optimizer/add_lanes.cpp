#include <binade/core/kernels/add_lanes.h>

#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {

void add_lanes(const std::vector<Array>& lanes, const Array& sums, bool first,
               const Array& inv_scale, const Array& statistics) {
  for (size_t lane = 0; lane < lanes.size(); ++lane) {
    if (first && lane == 0) {
      copy(lanes[lane], sums);
    } else {
      axpy(1, lanes[lane], sums);
    }
  }
  if (statistics.defined()) gradient_stats(sums, inv_scale, statistics);
}

}  // namespace binade::kernels::cpu
