#include <binade/optim/state_loading.h>

#include <binade/core/update.h>
#include <binade/optim/gradient_norm.h>

namespace binade::optim {

namespace {

bool all_finite(const Array& values) {
  if (values.numel() == 0) return true;
  const Device device = values.device();
  const Array flat = values.contiguous().view({values.numel()});
  const Array one = Array::full({}, 1, DType::f32, device);
  const Array norm_sq = Array::zeros({}, DType::f64, device);
  const Array first_bad = Array::zeros({}, DType::i64, device);
  measure_gradients(flat, one, norm_sq, first_bad);
  return first_bad.to_vector<int64_t>()[0] == kNoBadGradient;
}

}  // namespace

void load_arrays(const std::string& who, const nn::StateDict& saved, const nn::StateDict& own) {
  for (const auto& [key, destination] : own) {
    const auto found = saved.find(key);
    check(found != saved.end() && found->second.defined(), who, ": the saved state has no ", key);
    const Array& values = found->second;
    check(values.shape() == destination.shape(), who, ": ", key, " has shape ", values.shape(),
          " in the saved state, ", destination.shape(), " here");
    check(is_floating(values.dtype()) == is_floating(destination.dtype()), who, ": ", key, " is ",
          values.dtype(), " in the saved state, ", destination.dtype(), " here");
    check(!is_floating(values.dtype()) || all_finite(values), who, ": ", key,
          " in the saved state has a value that is not finite");
  }
  check(saved.size() == own.size(), who, ": the saved state has ", saved.size(), " entries, ",
        own.size(), " were expected: it belongs to another optimizer or model");
  for (const auto& [key, destination] : own) destination.copy_from(saved.at(key));
}

nn::StateDict pieces_of(const std::string& who, const nn::StateDict& saved,
                        const std::vector<MemberState>& members) {
  nn::StateDict pieces = saved;
  for (const MemberState& one : members) {
    const auto found = pieces.find(one.name);
    if (found == pieces.end() || !found->second.defined()) continue;
    const Shape& shape = one.member->parameter.parameter->shape();
    check(found->second.shape() == shape, who, ": ", one.name, " has shape ", found->second.shape(),
          " in the saved state, ", shape, " here");
    found->second = one.group->own_piece(found->second, *one.member);
  }
  return pieces;
}

nn::StateDict parts_of(const std::vector<MemberState>& members) {
  nn::StateDict parts;
  for (const MemberState& one : members)
    parts[one.name] = one.group->own_part(one.buffer, *one.member);
  return parts;
}

}  // namespace binade::optim
