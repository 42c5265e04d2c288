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

bool is_own(const TrainBagelOptions& options) {
  return std::filesystem::path(options.data).extension() == ".jsonl";
}

TrainBagelData own_data(const TrainBagelOptions& o, const data::SlotLayout& layout,
                        const Texts& texts) {
  constexpr size_t kHeldOut = 20;
  const auto encode = [&](std::string_view text) { return texts.ids(text); };
  const std::vector<data::Sample> samples =
      data::read_part_lines(o.data, {layout, encode, latents_of});
  std::vector<data::Sample> training, held_out;
  for (size_t i = 0; i < samples.size(); ++i)
    (i % kHeldOut == 0 ? held_out : training).push_back(samples[i]);
  if (training.empty()) training = held_out;
  const std::string text = read_text_file(o.data);
  return {.sample = any_of(std::move(training)),
          .held_out = any_of(std::move(held_out)),
          .fingerprint = concat(samples.size(), " samples of ", o.data, ", CRC-32C ",
                                crc32c(text.data(), text.size()))};
}

}  // namespace

std::vector<std::string> may_change() {
  std::vector<std::string> names = kMayChange;
  names.insert(names.end(), {"save", "drawings", "workers"});
  return names;
}

Texts texts_of(const TrainBagelOptions& options) {
  if (!is_own(options)) {
    check(options.tokenizer.empty(),
          "--tokenizer is for the texts of a JSONL file; the small world ", "has words of its own");
    return Texts::words();
  }
  return options.tokenizer.empty() ? Texts::bytes() : Texts::of_tokenizer(options.tokenizer);
}

TrainBagelData read_data(const TrainBagelOptions& options, const data::SlotLayout& layout,
                         const Texts& texts) {
  return is_own(options) ? own_data(options, layout, texts) : world_data(options);
}

}  // namespace binade::examples
