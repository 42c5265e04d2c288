#include <binade/train/run_folder.h>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include <binade/core/file.h>
#include <binade/core/log.h>
#include <binade/core/version.h>

namespace binade::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json to_json(const MetricValue& value) {
  return std::visit(
      [](const auto& v) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, double>)
          return std::isfinite(v) ? Json(v) : Json(nullptr);
        else
          return Json(v);
      },
      value);
}

Json parse(const fs::path& path) {
  try {
    const std::string text = read_text_file(path);
    check_json_text(text, path.string());
    return Json::parse(text);
  } catch (const Json::exception& error) {
    fail(path.string(), " is not valid JSON: ", error.what());
  }
}

std::string show(const Json& object, const std::string& key) {
  return object.contains(key) ? object.at(key).dump() : "unset";
}

}  // namespace

RunFolder::RunFolder(fs::path path, bool resume) : path_(std::move(path)) {
  std::error_code error;
  made_ = fs::create_directories(path_, error);
  check(!error && fs::is_directory(path_), "cannot make the run folder ", path_.string(), ": ",
        error ? error.message() : "a file of that name is there");
  const fs::path lock = path_ / "lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(lock_ >= 0, "cannot write in the run folder ", path_.string(), ": ", std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    lock_ = -1;
    fail("the run folder ", path_.string(), " is in use by another process; choose another one");
  }
  if (has_run() && !resume) {
    ::close(lock_);
    lock_ = -1;
    fail("the run folder ", path_.string(),
         " holds a run already; continue it with --resume, or choose another folder");
  }
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (made_ && !has_run()) fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);  // which releases it
}

bool RunFolder::has_run() const {
  return fs::exists(path_ / "config.json");
}

void RunFolder::check_config(const std::string& json,
                             const std::vector<std::string>& may_change) const {
  if (!has_run()) return;
  const Json config = Json::parse(json), before = parse(path_ / "config.json");
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.items()) keys.push_back(key);
  for (const auto& [key, value] : before.items())
    if (!config.contains(key)) keys.push_back(key);
  std::string differences;
  for (const std::string& key : keys) {
    if (std::find(may_change.begin(), may_change.end(), key) != may_change.end()) continue;
    if (before.contains(key) && config.contains(key) && before.at(key) == config.at(key)) continue;
    differences += concat(differences.empty() ? "" : ", ", key, " (", show(before, key), " -> ",
                          show(config, key), ")");
  }
  check(differences.empty(), "cannot resume ", path_.string(),
        " with a changed configuration: ", differences);
}

void RunFolder::set_config(const std::string& json) {
  write_text_file(path_ / "config.json", Json::parse(json).dump(2) + "\n");
}

void RunFolder::write_manifest(const std::map<std::string, std::string>& more) {
  Json manifest;
  for (const auto& [name, value] : version_facts()) manifest[name] = value;
  for (const auto& [name, json] : more) manifest[name] = Json::parse(json);
  write_text_file(path_ / "manifest.json", manifest.dump(2) + "\n");
}

void RunFolder::rewind_metrics(int64_t step) {
  const fs::path file = path_ / "metrics.jsonl";
  metrics_.close();
  std::string kept;
  if (fs::exists(file)) {
    std::istringstream lines(read_text_file(file));
    for (std::string line; std::getline(lines, line);) {
      // A killed process may leave half a line at the end.
      const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (row.is_discarded() || !row.is_object() || row.value("step", int64_t{0}) > step) continue;
      kept += line + '\n';
      MetricRow values;
      for (const auto& [key, value] : row.items())
        if (value.is_number()) values.emplace_back(key, value.get<double>());
      plot(row.value("step", int64_t{0}), values);
    }
  }
  write_text_file(file, kept);
}

void RunFolder::add_metrics(int64_t step, const MetricRow& row) {
  if (!metrics_.is_open()) metrics_.open(path_ / "metrics.jsonl", std::ios::app);
  if (!tensorboard_) tensorboard_ = std::make_unique<TensorboardWriter>(path_ / "tensorboard");
  Json json;
  json["step"] = step;
  for (const auto& [key, value] : row) {
    json[key] = to_json(value);
    if (const double* number = std::get_if<double>(&value))
      tensorboard_->scalar(key, step, *number);
    if (const int64_t* count = std::get_if<int64_t>(&value))
      tensorboard_->scalar(key, step, static_cast<double>(*count));
  }
  metrics_ << json.dump() << '\n';
  metrics_.flush();
  tensorboard_->flush();
  // A full disk costs rows, not the run; what was cut short is ended, so that later rows are whole.
  const bool fails = !metrics_.good() || !tensorboard_->good();
  if (fails && !metrics_fail_)
    log_warning("cannot write the metrics in ", path_.string(), ": is the disk full?");
  metrics_fail_ = fails;
  if (!metrics_.good()) {
    metrics_.clear();
    metrics_ << '\n';
  }
  plot(step, row);
}

void RunFolder::plot(int64_t step, const MetricRow& row) {
  const std::pair<const char*, ChartSeries*> known[] = {
      {"loss", &loss_},   {"loss_smoothed", &smoothed_},  {"validation_loss", &validation_},
      {"scale", &scale_}, {"tokens_per_s", &throughput_}, {"learning_rate", &learning_rate_}};
  for (const auto& [key, value] : row) {
    const double* number = std::get_if<double>(&value);
    if (number == nullptr) continue;
    for (const auto& [name, series] : known) {
      if (key != name) continue;
      series->x.push_back(static_cast<double>(step));
      series->y.push_back(*number);
    }
  }
}

void RunFolder::write_chart() {
  const auto named = [](ChartSeries series, const char* name) {
    series.name = name;
    return series;
  };
  write_text("chart.svg", draw_chart({{"loss",
                                       {named(loss_, "step"), named(smoothed_, "smoothed"),
                                        named(validation_, "validation")},
                                       false},
                                      {"loss scale", {named(scale_, "")}, true},
                                      {"tokens per second", {named(throughput_, "")}, false},
                                      {"learning rate", {named(learning_rate_, "")}, false}},
                                     "step"));
}

void RunFolder::append_line(const std::string& name, const std::string& line) const {
  std::ofstream file(path_ / name, std::ios::app);
  file << line << '\n';
  file.flush();
  if (!file.good()) log_warning("cannot write ", (path_ / name).string(), ": is the disk full?");
}

void RunFolder::write_text(const std::string& name, const std::string& text) {
  write_text_file(path_ / name, text);
}

}  // namespace binade::train
