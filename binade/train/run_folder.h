// What a run leaves behind:
//
//   config.json      the exact configuration       manifest.json   versions, device, chosen
//   algorithms metrics.jsonl    a row a step                  tensorboard/    the same for
//   TensorBoard chart.svg        loss, scale, throughput       checkpoints/    see checkpoint.h
//   sample.txt       text at the end               lock            held while a process uses the
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
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool has_run() const;  // a configuration is there

  // Stores the configuration (a JSON object). When one is there already, throws Error listing every
  // difference unless it is in one of the `may_change` keys.
  void set_config(const std::string& json, const std::vector<std::string>& may_change);
  // JSON object: library version, commit, dependencies, device, and what the caller adds as
  // name → JSON text.
  void write_manifest(const std::map<std::string, std::string>& more);

  // Drops rows past `step`: they belong to steps that will be run again.
  void rewind_metrics(int64_t step);
  // Appends a row (its "step" is the key) and sends its numbers to TensorBoard.
  void add_metrics(int64_t step, const MetricRow& row);
  void write_chart();  // from the rows so far
  void write_text(const std::string& name, const std::string& text);

 private:
  void plot(int64_t step, const MetricRow& row);
  std::filesystem::path path_;
  int lock_ = -1;
  std::unique_ptr<TensorboardWriter> tensorboard_;
  std::ofstream metrics_;
  ChartSeries loss_, smoothed_, validation_, scale_, throughput_, learning_rate_;
};

}  // namespace binade::train
