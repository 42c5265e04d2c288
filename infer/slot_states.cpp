#include <binade/infer/slot_states.h>

#include <algorithm>
#include <numeric>

#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/indexing.h>

namespace binade::infer {
namespace {

enum Field : int64_t { kTokens, kStatus, kDrawn, kLimits, kPlaces, kFields };

Array ids_on(const std::vector<int32_t>& ids, Device device) {
  if (ids.empty()) return {};
  return Array::from(ids, {static_cast<int64_t>(ids.size())}, device);
}

}  // namespace

struct SlotStates::Kernel {
  kernels::SampleRules rules;
  kernels::SampleState state;
};

SlotStates::~SlotStates() = default;

SlotStates::SlotStates(int64_t slots, const ChoiceRules& rules, Device device)
    : kernel_(std::make_unique<Kernel>()) {
  rules.sampling.validate();
  check(slots > 0, "generation needs slots, got ", slots);
  kernels::SampleRules& given = kernel_->rules;
  given.temperature = rules.sampling.temperature;
  given.top_k = rules.sampling.top_k;
  given.top_p = rules.sampling.top_p;
  given.seed = rules.sampling.seed;
  given.forbidden = ids_on(rules.forbidden, device);
  given.forbidden_for = rules.forbidden_for;
  given.stop_ids = ids_on(rules.stop_ids, device);
  all_ = Array::zeros({kFields, slots}, DType::i32, device);
  packed_ = all_.slice(0, kTokens, kStatus + 1);
  kernel_->state = {all_.select(0, kTokens), all_.select(0, kStatus), all_.select(0, kDrawn),
                    all_.select(0, kLimits), all_.select(0, kPlaces)};
}

void SlotStates::start(const std::vector<int32_t>& slots, const std::vector<Start>& starts) {
  check(slots.size() == starts.size(), slots.size(), " slots cannot begin ", starts.size(),
        " times");
  const auto count = static_cast<int64_t>(slots.size());
  std::vector<int32_t> values;
  for (const Start& start : starts) {
    check(start.limit > 0 && start.place < 1 << 24,
          "a slot needs a limit of tokens and a place below 2^24, got ", start.limit, " and ",
          start.place);
    values.push_back(0);
  }
  for (const Start& start : starts)
    values.push_back(start.drawn < start.limit ? kernels::kRunning : kernels::kDone);
  for (const Start& start : starts) values.push_back(start.drawn);
  for (const Start& start : starts) values.push_back(start.limit);
  for (size_t i = 0; i < starts.size(); ++i)
    values.push_back(starts[i].place < 0 ? slots[i] : starts[i].place);
  const Array fresh = Array::from(values, {kFields, count}, all_.device());
  const Array index = Array::from(slots, {1, count}, all_.device()).expand({kFields, count});
  BINADE_DISPATCH(all_.device(), scatter(all_, 1, index, fresh, /*add=*/false));
  all_.bump_version();
}

void SlotStates::start_all(const Start& start) {
  std::vector<int32_t> all(static_cast<size_t>(slots()));
  std::iota(all.begin(), all.end(), 0);
  this->start(all, std::vector<Start>(all.size(), start));
}

void SlotStates::stop(const std::vector<int32_t>& slots) {
  if (slots.empty()) return;
  const auto count = static_cast<int64_t>(slots.size());
  const Array index = Array::from(slots, {count}, all_.device());
  const Array done = Array::full({count}, kernels::kDone, DType::i32, all_.device());
  BINADE_DISPATCH(all_.device(), scatter(running(), 0, index, done, /*add=*/false));
  all_.bump_version();
}

void SlotStates::sample(const Array& logits, const Array& slots) {
  const int64_t rows = slots.defined() ? slots.numel() : this->slots();
  check(logits.dims() == 2 && logits.size(0) == rows && is_floating(logits.dtype()) &&
            logits.device() == all_.device(),
        "sampling for ", rows, " slots on ", all_.device(), " needs floating logits (B, V), got ",
        logits.shape(), ' ', logits.dtype(), " on ", logits.device());
  check(logits.size(1) < int64_t{1} << 22, "sampling takes vocabularies below 2^22, got ",
        logits.size(1));
  const Array rows_of = logits.stride(1) == 1 ? logits : logits.contiguous();
  BINADE_DISPATCH(all_.device(), sample(rows_of, kernel_->rules, slots, kernel_->state));
  all_.bump_version();
}

void SlotStates::accept_sampled(const Array& logits, const kernels::DraftNodes& drafts,
                                const kernels::AcceptedPaths& accepted) const {
  check(kernel_->rules.temperature > 0, "drafts are sampled at a positive temperature, got 0");
  BINADE_DISPATCH(all_.device(),
                  accept_sampled(logits, drafts, kernel_->rules, kernel_->state, accepted));
}

void SlotStates::note(const kernels::DraftNodes& drafts, const kernels::AcceptedPaths& accepted,
                      const kernels::NotedPaths& noted) {
  BINADE_DISPATCH(all_.device(),
                  note_accepted(drafts, accepted, kernel_->rules, kernel_->state, noted));
  all_.bump_version();
}

Array SlotStates::drawn() const {
  return all_.select(0, kDrawn);
}

Array SlotStates::places() const {
  return all_.select(0, kPlaces);
}

std::vector<SlotStates::Seen> SlotStates::read(const Array& packed) {
  const std::vector<int32_t> values = packed.to_vector<int32_t>();
  const size_t slots = values.size() / 2;
  std::vector<Seen> seen;
  for (size_t s = 0; s < slots; ++s) {
    const int32_t status = values[slots + s];
    check(status != kernels::kInvalidLogits, "the logits of row ", s,
          " have a NaN, or are -inf for every token");
    seen.push_back({values[s], status == kernels::kRunning});
  }
  return seen;
}

}  // namespace binade::infer
