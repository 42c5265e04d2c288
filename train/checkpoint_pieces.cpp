#include <binade/train/checkpoint_pieces.h>

#include <vector>

#include <binade/core/crc32c_combine.h>
#include <binade/core/file.h>
#include <binade/train/checkpoint.h>

namespace binade::train {

std::map<std::string, uint32_t> CheckpointPieces::checksums(const SafetensorsFile& file) {
  std::map<std::string, Array> found;
  std::vector<int64_t> own;  // of this rank's pieces, one behind the other
  for (const auto& [name, state] : tensors_) {
    if (!file.contains(name)) continue;
    const Array values = file.get(name);
    if (!(values.shape() == state.member->parameter.parameter->shape())) continue;
    found[name] = values;
    const auto* bytes = static_cast<const std::byte*>(values.data());
    const int64_t width = size_of(values.dtype());
    for (const auto& [begin, end] : state.group->places(*state.member, ranks_.rank())) {
      own.push_back(crc32c(bytes + begin * width, static_cast<size_t>((end - begin) * width)));
      bytes_read_ += (end - begin) * width;
    }
  }
  const Array all = Array::zeros({ranks_.size(), std::ssize(own)}, DType::i64);
  all.select(0, ranks_.rank()).copy_from(Array::from(own, {std::ssize(own)}));
  ranks_.all_gather(all);
  std::map<std::string, uint32_t> sums;
  int64_t place = 0;
  for (const auto& [name, values] : found) {
    const optim::MemberState& state = tensors_.at(name);
    std::vector<std::vector<dist::Slice>> places;
    for (int rank = 0; rank < ranks_.size(); ++rank)
      places.push_back(state.group->places(*state.member, rank));
    uint32_t sum = checksum_of_form(values);
    for (size_t bucket = 0; bucket < places[0].size(); ++bucket, ++place)
      for (int rank = 0; rank < ranks_.size(); ++rank) {
        const dist::Slice piece = places[static_cast<size_t>(rank)][bucket];
        const auto crc = static_cast<uint32_t>(all.data<int64_t>()[rank * all.size(1) + place]);
        sum = crc32c_combine(
            sum, crc, static_cast<uint64_t>((piece.end - piece.begin) * size_of(values.dtype())));
      }
    sums[name] = sum;
  }
  return sums;
}

}  // namespace binade::train
