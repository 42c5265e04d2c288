#include <binade/train/frozen_weights.h>

#include <binade/core/json_view.h>
#include <binade/train/checkpoint.h>

namespace binade::train {

namespace {

using Json = nlohmann::json;

std::map<std::string, uint32_t> parse(const std::string& text) {
  if (text.empty()) return {};
  const auto json = parse_json(text, "the checkpoint's fingerprints of frozen weights");
  try {
    return json.get<std::map<std::string, uint32_t>>();
  } catch (const Json::exception& error) {
    fail("the checkpoint's fingerprints of frozen weights cannot be read: ", error.what());
  }
}

}  // namespace

FrozenWeights::FrozenWeights(nn::Module& model, std::vector<const optim::Optimizer*> optimizers)
    : model_(model), optimizers_(std::move(optimizers)) {
  look();
}

void FrozenWeights::look() {
  // By identity: another module may call the parameter otherwise.
  std::set<const nn::Parameter*> held;
  for (const optim::Optimizer* optimizer : optimizers_)
    for (const optim::FlatGroup& group : optimizer->groups())
      for (const optim::FlatGroup::Member& member : group.members())
        held.insert(member.parameter.parameter.get());
  for (const nn::NamedParameter& named : model_.named_parameters())
    if (named.parameter->trainable() || held.count(named.parameter.get())) {
      kept_.insert(named.name);
      fingerprints_.erase(named.name);
    }
}

nn::StateDict FrozenWeights::state() {
  look();
  nn::StateDict state = model_.state();
  for (const nn::NamedParameter& named : model_.named_parameters())
    if (!kept_.count(named.name)) state.erase(named.name);
  return state;
}

std::map<const nn::Parameter*, optim::MemberState> FrozenWeights::masters() const {
  std::map<const nn::Parameter*, optim::MemberState> all;
  for (const optim::Optimizer* optimizer : optimizers_)
    for (const optim::FlatGroup& group : optimizer->groups())
      for (const optim::FlatGroup::Member& member : group.members())
        all[member.parameter.parameter.get()] = {member.parameter.name, &group, &member,
                                                 group.master()};
  return all;
}

void FrozenWeights::add_to(CheckpointSource& source) {
  look();
  const auto masters = this->masters();
  for (const nn::NamedParameter& named : model_.named_parameters()) {
    if (!kept_.count(named.name)) continue;
    if (named.parameter->master_in_pieces()) {
      source.add("model", named.name, masters.at(named.parameter.get()));
    } else {
      source.add("model", named.name, named.parameter->master());
    }
  }
  for (const nn::NamedBuffer& one : model_.named_buffers())
    source.add("model", one.name, one.buffer.array());
}

uint32_t FrozenWeights::fingerprint(const std::string& name, const Array& values) {
  const auto known = fingerprints_.find(name);
  if (known != fingerprints_.end()) return known->second;
  return fingerprints_[name] = checksum_of(values.to(Device::cpu()).contiguous());
}

std::string FrozenWeights::fingerprints() {
  look();
  Json json = Json::object();
  for (const nn::NamedParameter& named : model_.named_parameters())
    if (!kept_.count(named.name))
      json[named.name] = fingerprint(named.name, named.parameter->master());
  return json.empty() ? "" : json.dump();
}

void FrozenWeights::load(const nn::StateDict& state, const std::string& fingerprints) {
  nn::StateDict expected;
  for (const nn::NamedParameter& named : model_.named_parameters())
    expected[named.name] = named.parameter->tensor().array();
  for (const nn::NamedBuffer& one : model_.named_buffers()) expected[one.name] = one.buffer.array();
  std::map<std::string, uint32_t> saved = parse(fingerprints);
  for (const nn::NamedParameter& named : model_.named_parameters()) {
    const auto found = saved.find(named.name);
    if (found == saved.end()) continue;
    check(fingerprint(named.name, named.parameter->master()) == found->second, "frozen weight ",
          named.name, " is not the one that the run began with; give the run the model it had");
    expected.erase(named.name);
    saved.erase(found);
  }
  check(saved.empty(), "frozen weight ", saved.empty() ? "" : saved.begin()->first,
        " of the run is not in this model; give the run the model it had");
  const nn::StateMismatch mismatch = nn::compare_state(expected, state);
  check(mismatch.empty(), "the checkpoint does not fit the model: ", mismatch.describe());
  const auto masters = this->masters();
  for (const nn::NamedParameter& named : model_.named_parameters()) {
    const auto found = state.find(named.name);
    if (found == state.end()) continue;
    if (named.parameter->master_in_pieces()) {
      const auto& [name, group, member, buffer] = masters.at(named.parameter.get());
      group->own_part(buffer, *member).copy_from(group->own_piece(found->second, *member));
    } else {
      named.parameter->assign(found->second);
    }
  }
  for (const nn::NamedBuffer& one : model_.named_buffers())
    if (const auto found = state.find(one.name); found != state.end())
      one.buffer.array().copy_from(found->second);
  for (const optim::Optimizer* optimizer : optimizers_)
    if (optimizer->shared()) optimizer->spread_masters();
  for (const auto& [name, values] : state) {
    kept_.insert(name);
    fingerprints_.erase(name);
  }
}

}  // namespace binade::train
