#include <binade/train/checkpoint_source.h>

#include <binade/core/file.h>
#include <binade/core/json_view.h>

namespace binade::train {

namespace {

using Json = nlohmann::json;
using Metadata = std::map<std::string, std::string>;

uint32_t checksum(const std::string& text) {
  return crc32c(text.data(), text.size());
}

Metadata metadata_of(const std::filesystem::path& path, const Metadata& values,
                     const std::map<std::string, uint32_t>& checksums) {
  try {
    const std::string text = Json(values).dump(), sums = Json(checksums).dump();
    return {{"binade_checkpoint", std::to_string(kCheckpointFormat)},
            {"values", text},
            {"checksums", sums},
            {"metadata_checksum", std::to_string(checksum(text + sums))}};
  } catch (const Json::exception&) {
    fail("cannot write ", path.string(), ": the name of a tensor or a value is not UTF-8");
  }
}

}  // namespace

CheckpointSource::CheckpointSource(const Checkpoint& checkpoint) : values(checkpoint.values) {
  for (const auto& [section, state] : checkpoint.sections) add(section, state);
}

void CheckpointSource::add(const std::string& section, const nn::StateDict& state) {
  for (const auto& [name, array] : state) add(section, name, array);
}

void CheckpointSource::add(const std::string& section, const std::string& name,
                           const Array& values) {
  add(section + '.' + name, {values.dtype(), values.shape()}, {[values] { return values; }, false});
}

void CheckpointSource::add(const std::string& section, const std::string& name,
                           const optim::MemberState& state) {
  if (state.group->shared()) pieces_.emplace(section + '.' + name, state);
  add(section + '.' + name, {state.buffer.dtype(), state.member->parameter.parameter->shape()},
      {[state] { return state.group->whole_part(state.buffer, *state.member); },
       state.group->shared()});
}

void CheckpointSource::add(const std::string& name, TensorForm form, Values values) {
  check(taken_ == 0 && forms_.emplace(name, std::move(form)).second,
        "a checkpoint has two tensors named ", name, ", or got one when it was being written");
  tensors_.emplace(name, std::move(values));
}

Array CheckpointSource::take(bool needed) {
  if (order_.empty()) order_ = SafetensorsWriter::order(forms_);
  const Values& values = tensors_.at(order_.at(taken_++));
  return needed || values.in_pieces ? values.get() : Array();
}

Array CheckpointSource::next() {
  const Array values = take(/*needed=*/true);
  return values.defined() ? values.to(Device::cpu()).contiguous() : values;
}

void CheckpointSource::finish() {
  while (taken_ < tensors_.size()) take(/*needed=*/false);
}

void write_checkpoint(const std::filesystem::path& path, CheckpointSource& source) {
  // The header comes first and has the checksums, which are known last: room is left for the
  // longest.
  std::map<std::string, uint32_t> checksums;
  for (const auto& [name, form] : source.forms()) checksums[name] = UINT32_MAX;
  Metadata longest = metadata_of(path, source.values, checksums);
  longest["metadata_checksum"] = std::to_string(UINT32_MAX);
  SafetensorsWriter writer(path, source.forms(), longest);
  for (const std::string& name : SafetensorsWriter::order(source.forms())) {
    const Array host = source.next();
    checksums[name] = checksum_of(host);
    writer.write(host);
  }
  writer.commit(metadata_of(path, source.values, checksums));
}

void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  CheckpointSource source(checkpoint);
  write_checkpoint(path, source);
}

}  // namespace binade::train
