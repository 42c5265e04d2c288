// What a run leaves behind:
//
//   config.json     the exact configuration      manifest.json  versions, device, algorithms
//   metrics.jsonl   a row a step                 tensorboard/   the same for TensorBoard
//   chart.svg       loss, scale, throughput      checkpoints/   see checkpoint.h
//   sample.txt      text at the end              lock           held while a process uses the
//   folder
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <binade/train/chart.h>
#include <binade/train/tensorboard.h>

namespace binade::train {

// A row of metrics.jsonl, in order of insertion. Non-finite numbers are written as null.
using MetricValue = std::variant<int64_t, double, bool, std::string>;
using MetricRow = std::vector<std::pair<std::string, MetricValue>>;

class RunFolder {
 public:
  // Makes the folder and takes its lock; throws Error when another process has it, or when it holds
  // a run and `resume` is false.
  RunFolder(std::filesystem::path path, bool resume);
  // Removes the folder again if it was made here and no run was begun in it (set_config).
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool has_run() const;  // a configuration is there

  // Throws Error listing every difference between the configuration that is there, if any, and this
  // one (a JSON object), except in the `may_change` keys.
  void check_config(const std::string& json, const std::vector<std::string>& may_change) const;
  // Stores the configuration: from here on the folder holds a run.
  void set_config(const std::string& json);
  // JSON object: library version, commit, dependencies, device, and what the caller adds as
  // name → JSON text.
  void write_manifest(const std::map<std::string, std::string>& more);

  // Drops rows past `step`: they belong to steps that will be run again.
  void rewind_metrics(int64_t step);
  // Appends a row (its "step" is the key) and sends its numbers to TensorBoard.
  void add_metrics(int64_t step, const MetricRow& row);
  void write_chart();  // from the rows so far
  void write_text(const std::string& name, const std::string& text);
  void append_line(const std::string& name, const std::string& line) const;

 private:
  void plot(int64_t step, const MetricRow& row);
  std::filesystem::path path_;
  int lock_ = -1;
  bool made_ = false;          // the folder was not there before
  bool metrics_fail_ = false;  // the last row could not be written
  std::unique_ptr<TensorboardWriter> tensorboard_;
  std::ofstream metrics_;
  ChartSeries loss_, smoothed_, validation_, scale_, throughput_, learning_rate_;
};

}  // namespace binade::train
