#include <utility>

#include <binade/autograd/graph.h>
#include <binade/core/cuda/graph.h>

namespace binade {

namespace {

bool capturing() {
  if constexpr (kCudaBuilt) return cuda::is_capturing();
  return false;
}

}  // namespace

void call_hooks(const std::shared_ptr<Hooks>& hooks, Pending& pending, bool create_graph) {
  if (!hooks || hooks->entries.empty() || !pending.holds) return;
  pending.column_sums = {};
  check(!capturing(),
        "a tensor hook runs on the host and would not run in a replayed CUDA graph; remove the "
        "hook or run the step without capture");
  if (!pending.tensor.defined()) pending.own();  // a hook that writes into it changes this one only
  for (const auto& [id, hook] : std::vector(hooks->entries)) {
    const Array replaced = hook(pending.tensor.defined() ? pending.tensor.array() : pending.array);
    if (!replaced.defined()) continue;
    check(!create_graph, "a hook cannot replace a gradient under create_graph");
    check(replaced.shape() == pending.shape && replaced.dtype() == pending.dtype &&
              replaced.device() == pending.device,
          "a hook returned a gradient of ", replaced.shape(), ' ', replaced.dtype(), " on ",
          replaced.device(), " for a tensor of ", pending.shape, ' ', pending.dtype, " on ",
          pending.device);
    pending.array = replaced;
  }
}

}  // namespace binade
