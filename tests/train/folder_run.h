// The small run in a folder, and what it left there.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include <binade/core/file.h>
#include <binade/train/trainer.h>

#include "parsed_json.h"
#include "train/small_run.h"

namespace binade::test {

// A run in a folder, from nothing or resumed.
struct FolderRun {
  explicit FolderRun(const std::filesystem::path& path, const SmallRunOptions& options = {})
      : small(options),
        folder(path, /*resume=*/std::filesystem::exists(path / "config.json")),
        ema(*small.optimizer, 0.9) {
    task.model = small.model.get();
    task.data = [](int64_t step) { return small_batch(step, 8, 2); };
    task.loss = heads::language_model::loss(*small.model);
    trainer_options.steps = 12;
    trainer_options.schedule = {.learning_rate = 0.02, .warmup = 3, .total = 12};
    trainer_options.step = small.step_options;
    trainer_options.quiet = true;
    folder.set_config("{}");
  }
  // Resumes if there is something to resume from.
  train::Trainer::Outcome run() {
    train::Trainer trainer(task, *small.optimizer, *small.scaler, small.preset, folder,
                           trainer_options, &ema);
    resumed = trainer.resume();
    resumed_at = trainer.steps_done();
    return trainer.run();
  }

  SmallRun small;
  train::RunFolder folder;
  optim::Ema ema;
  train::Task task;
  train::TrainerOptions trainer_options;
  bool resumed = false;
  int64_t resumed_at = 0;
};

inline std::vector<nlohmann::json> rows_of(const std::filesystem::path& file) {
  std::vector<nlohmann::json> rows;
  std::istringstream lines(read_text_file(file));
  for (std::string line; std::getline(lines, line);)
    if (!line.empty()) rows.push_back(test::parsed(line));
  return rows;
}

inline bool same_bits(const train::Checkpoint& a, const train::Checkpoint& b) {
  if (a.values != b.values || a.sections.size() != b.sections.size()) return false;
  for (const auto& [section, arrays] : a.sections) {
    if (b.sections.at(section).size() != arrays.size()) return false;
    for (const auto& [name, array] : arrays)
      if (array.to_vector<double>() != b.sections.at(section).at(name).to_vector<double>())
        return false;
  }
  return true;
}

inline train::Checkpoint checkpoint_at(const std::filesystem::path& run, int64_t step) {
  std::string number = std::to_string(step);
  number.insert(0, 9 - number.size(), '0');
  return train::read_checkpoint(run / "checkpoints" / ("step-" + number + ".safetensors"));
}

}  // namespace binade::test
