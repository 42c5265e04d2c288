// What a run leaves behind:
//
//   config.json     the exact configuration      manifest.json  versions, device, algorithms
//   metrics.jsonl   a row a step                 tensorboard/   the same for TensorBoard
//   chart.svg       loss, scale, throughput      checkpoints/   see checkpoint.h
//   sample.txt      text at the end              lock           held while a process uses it
//   underflow.jsonl reports, on request
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <binade/train/chart.h>
#include <binade/train/tensorboard.h>

namespace binade::train {

// A row of metrics.jsonl, in order of insertion. Non-finite numbers are written as null; in texts,
// bytes that are no UTF-8 become U+FFFD.
using MetricValue = std::variant<int64_t, double, bool, std::string>;
using MetricRow = std::vector<std::pair<std::string, MetricValue>>;

// What differs between two configurations, JSON objects, except in the `may_change` keys: "steps (4
// -> 5), seed (unset -> 1)"; empty if nothing does. `name` is said of a `before` that is no JSON.
std::string configuration_differences(const std::string& before, const std::string& name,
                                      const std::string& now,
                                      const std::vector<std::string>& may_change);

class RunFolder {
 public:
  // Takes the folder's lock; throws Error when another process has it. To begin a run (`resume` is
  // false) the folder is made; Error when it holds one already, or checkpoints of one. A run that
  // ended before its first step is none: what it left is removed. To resume, it must hold a run.
  RunFolder(std::filesystem::path path, bool resume) : RunFolder(std::move(path), resume, true) {}
  // Of a run on several ranks one `writes`. What the others have is for reading: nothing is checked
  // or locked, and what would write does nothing.
  RunFolder(std::filesystem::path path, bool resume, bool writes);
  // Removes the folder again if it was made here and no run was begun in it (set_config).
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool writes() const { return writes_; }
  bool has_run() const;    // a configuration is there
  bool has_steps() const;  // a step was done: a checkpoint or a row of metrics says so

  // Throws Error listing every difference between the configuration that is there, if any, and this
  // one (a JSON object), except in the `may_change` keys.
  void check_config(const std::string& json, const std::vector<std::string>& may_change) const;
  // Stores the configuration: from here on the folder holds a run.
  void set_config(const std::string& json);
  // JSON object: library version, commit, dependencies, device, and what the caller adds as
  // name → JSON text.
  void write_manifest(const std::map<std::string, std::string>& more);

  // Takes metrics, underflow reports and TensorBoard events back to the end of `step`: later steps
  // will be run again.
  void rewind(int64_t step);
  // Appends a row to metrics.jsonl (its "step" is the key) and sends its numbers to TensorBoard. A
  // row that cannot be written, on a full disk say, is lost with a warning.
  void add_metrics(int64_t step, const MetricRow& row);
  // Appends a row, a JSON object with its "step", to underflow.jsonl; as above.
  void add_underflow_report(const std::string& json);
  void write_chart();  // from the rows so far; a failure as above
  void write_text(const std::string& name, const std::string& text);

 private:
  void begin_anew();  // removes what a run without a step left
  void append(const char* file, const std::string& row);
  void report_failure(const char* what);
  void plot(int64_t step, const MetricRow& row);
  std::filesystem::path path_;
  bool writes_;
  int lock_ = -1;
  bool made_ = false;                  // the folder was not there before
  std::set<std::string> failing_;      // what could not be written the last time
  std::optional<int64_t> first_step_;  // where a resumed run goes on
  std::unique_ptr<TensorboardWriter> tensorboard_;
  ChartSeries loss_, smoothed_, validation_, score_, scale_, throughput_, learning_rate_;
  std::string unit_ = "tokens";  // of the throughput, by the name of its metric
};

}  // namespace binade::train
