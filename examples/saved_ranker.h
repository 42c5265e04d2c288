// Options of programs that compute with a saved ranker.
#pragma once

#include <binade/heads/rank/files.h>

#include <string>

#include "device.h"
#include "ranked_lists.h"

namespace binade::examples {

struct SavedRankerOptions {
  std::string ranker, device = "auto", precision;
};

inline void add_ranker_option(const OptionGroup& files, SavedRankerOptions& o) {
  files.add("--ranker", o.ranker, "Folder of a ranker, as train_ranker --save writes it")
      .required();
}
inline void add_device_options(CommandLine& command, SavedRankerOptions& o) {
  const OptionGroup device{command, "Precision and device"};
  device.add("--device", o.device, "auto (a GPU where one is usable), cpu, cuda or cuda:N");
  device.add("--precision", o.precision,
             "fp32, fp16, fp16-autocast or bf16; default: fp32 on a CPU, fp16 on a GPU");
}

inline void add_sparse_option(const OptionGroup& lines, bool& sparse) {
  lines.add("--sparse", sparse, "The last features may be in no line, as all of them are 0");
}
// Without --sparse: that the lines leave out none of the features that a ranker has.
inline void check_all_features(int64_t seen, int64_t width) {
  check(seen >= width, "the lines have ", seen, " features, the ranker has ", width,
        "; if they leave features out that are always 0, say --sparse");
}

// Lines whose options leave it open number their features as those that the ranker learned from.
inline void number_features(LineOptions& lines, const heads::rank::SavedRanker& saved) {
  if (lines.first_feature == "detect" && saved.first_feature)
    lines.first_feature = std::to_string(*saved.first_feature);
}

// A ranker on its device, in evaluation mode.
struct ReadyRanker {
  Device device;
  amp::Preset preset;
  heads::rank::SavedRanker saved;
};
inline ReadyRanker load_ready_ranker(const SavedRankerOptions& o) {
  const Device device = choose_device(o.device);
  ReadyRanker ready{
      device,
      o.precision.empty() ? amp::Preset::default_for(device) : amp::Preset::parse(o.precision),
      heads::rank::load_ranker(o.ranker)};
  ready.saved.ranker->to(device);
  ready.preset.apply(*ready.saved.ranker);
  return ready;
}

}  // namespace binade::examples
