#include "data.h"

#include <filesystem>
#include <memory>

#include <binade/core/file.h>
#include <binade/data/part_lines.h>

namespace binade::examples {

namespace {

TrainBagelData world_data(const TrainBagelOptions& o) {
  const auto maker = [&](const char* split) -> SampleMaker {
    const auto world = std::make_shared<const World>(World::read(o.data, split));
    return [world](data::RandomStream& random) { return world->sample(random); };
  };
  TrainBagelData all{.sample = maker("train"),
                     .held_out = maker("t10k"),
                     .vocabulary = kVocabulary,
                     .fingerprint = concat("Fashion-MNIST in ", o.data)};
  for (const Item& item : all_items(o.drawings))
    all.prompts.push_back(draw_context(ids_of(caption({item}))));
  return all;
}

SampleMaker any_of(std::vector<data::Sample> samples) {
  return [samples = std::move(samples)](data::RandomStream& random) {
    return samples[static_cast<size_t>(random.below(std::ssize(samples)))];
  };
}

TrainBagelData own_data(const TrainBagelOptions& o, const data::SlotLayout& layout) {
  constexpr size_t kHeldOut = 20;
  const std::vector<data::Sample> samples =
      data::read_part_lines(o.data, {layout, byte_ids_of, latents_of});
  std::vector<data::Sample> training, held_out;
  for (size_t i = 0; i < samples.size(); ++i)
    (i % kHeldOut == 0 ? held_out : training).push_back(samples[i]);
  if (training.empty()) training = held_out;
  const std::string text = read_text_file(o.data);
  return {.sample = any_of(std::move(training)),
          .held_out = any_of(std::move(held_out)),
          .vocabulary = kByteVocabulary,
          .fingerprint = concat(samples.size(), " samples of ", o.data, ", CRC-32C ",
                                crc32c(text.data(), text.size()))};
}

}  // namespace

std::vector<std::string> may_change() {
  std::vector<std::string> names = kMayChange;
  names.insert(names.end(), {"save", "drawings", "workers"});
  return names;
}

TrainBagelData read_data(const TrainBagelOptions& options, const data::SlotLayout& layout) {
  return std::filesystem::path(options.data).extension() == ".jsonl" ? own_data(options, layout)
                                                                     : world_data(options);
}

}  // namespace binade::examples
