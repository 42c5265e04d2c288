#include <binade/train/run_folder.h>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/log.h>
#include <binade/core/text.h>
#include <binade/core/version.h>
#include <binade/train/append_file.h>
#include <binade/train/checkpoint.h>

namespace binade::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kConfig = "config.json";
constexpr const char* kChart = "chart.svg";
constexpr const char* kTensorboard = "tensorboard";
constexpr const char* kCheckpoints = "checkpoints";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kUnderflow = "underflow.jsonl";
// Every file of the folder that grows row by row; a new one is cut back by being named here.
constexpr const char* kRowFiles[] = {kMetrics, kUnderflow};

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

// One line of JSON, whatever bytes its texts have.
std::string line_of(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

Json parse(const std::string& text, const std::string& name) {
  Json json = parse_json<Json>(text, name);
  check(json.is_object(), name, " is not a JSON object");
  return json;
}

// Passes the rows of a file up to `step` to `keep`, with the text of their lines. Half a line,
// which a killed process may leave at the end, is dropped; a row without a step is not ours and
// stays.
void read_rows(const fs::path& file, int64_t step,
               const std::function<void(const Json& row, const std::string& line)>& keep) {
  // A named pipe or a device would be read without end.
  std::error_code error;
  check(fs::is_regular_file(file, error), "cannot read ", file.string(),
        ": it is not a regular file");
  std::ifstream lines(file);
  check(lines.good(), "cannot read ", file.string(), ": ", std::strerror(errno));
  for (std::string line; std::getline(lines, line);) {
    const Json row = parse_json_or_null<Json>(line);
    if (!row.is_object()) continue;
    const auto at = row.find("step");
    if (at != row.end() && at->is_number() && at->get<double>() > static_cast<double>(step))
      continue;
    keep(row, line);
  }
}

std::string show(const Json& object, const std::string& key) {
  return object.contains(key) ? line_of(object.at(key)) : "unset";
}

}  // namespace

std::string configuration_differences(const std::string& before, const std::string& name,
                                      const std::string& now,
                                      const std::vector<std::string>& may_change) {
  const Json config = parse(now, "the configuration"), old = parse(before, name);
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.items()) keys.push_back(key);
  for (const auto& [key, value] : old.items())
    if (!config.contains(key)) keys.push_back(key);
  std::string differences;
  for (const std::string& key : keys) {
    if (std::find(may_change.begin(), may_change.end(), key) != may_change.end()) continue;
    if (old.contains(key) && config.contains(key) && old.at(key) == config.at(key)) continue;
    differences += concat(differences.empty() ? "" : ", ", key, " (", show(old, key), " -> ",
                          show(config, key), ")");
  }
  return differences;
}

RunFolder::RunFolder(fs::path path, bool resume, bool writes)
    : path_(std::move(path)), writes_(writes) {
  if (!writes) return;
  check(!resume || has_run(), "the run folder ", path_.string(),
        " holds no run that could be resumed; without --resume one begins there");
  std::error_code error;
  made_ = fs::create_directories(path_, error);
  if (!error && !fs::is_directory(path_, error))
    error = std::make_error_code(std::errc::not_a_directory);
  check(!error, "cannot make the run folder ", path_.string(), ": ", error.message());
  const fs::path lock = path_ / "lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(lock_ >= 0, "cannot write in the run folder ", path_.string(), ": ", std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    lock_ = -1;
    fail("the run folder ", path_.string(), " is in use by another process; choose another one");
  }
  try {
    if (!resume) begin_anew();
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

void RunFolder::begin_anew() {
  const bool steps = has_steps();
  check(!steps || !has_run(), "the run folder ", path_.string(),
        " holds a run already; continue it with --resume, or choose another folder");
  check(!steps, "the run folder ", path_.string(),
        " holds checkpoints or metrics of a run whose config.json is gone; choose another folder");
  if (!has_run()) return;
  std::vector<fs::path> left = list_checkpoints(path_ / kCheckpoints);
  left.push_back(path_ / kCheckpoints / "best.safetensors");
  // The configuration last, so that a kill in between leaves what is known again.
  for (const char* name : {kMetrics, kUnderflow, kTensorboard, kChart, "manifest.json", kConfig})
    left.push_back(path_ / name);
  for (const fs::path& one : left) {
    std::error_code error;
    fs::remove_all(one, error);
    check(!error, "cannot remove ", one.string(), " of a run that made no step: ", error.message());
  }
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (made_ && !fs::exists(path_ / kConfig, ignored)) fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);  // which releases it
}

bool RunFolder::has_run() const {
  std::error_code error;
  const bool there = fs::exists(path_ / kConfig, error);
  check(!error, "cannot look into the run folder ", path_.string(), ": ", error.message());
  return there;
}

bool RunFolder::has_steps() const {
  for (const fs::path& checkpoint : list_checkpoints(path_ / kCheckpoints))
    if (step_of(checkpoint).value_or(1) > 0) return true;
  std::error_code error;
  if (!fs::exists(path_ / kMetrics, error)) return false;
  bool any = false;
  read_rows(path_ / kMetrics, std::numeric_limits<int64_t>::max(),
            [&any](const Json& row, const std::string&) {
              const auto at = row.find("step");  // a validation in front of the first step has 0
              any = any || at == row.end() || !at->is_number() || at->get<double>() > 0;
            });
  return any;
}

void RunFolder::check_config(const std::string& json,
                             const std::vector<std::string>& may_change) const {
  if (!has_run()) return;
  const fs::path before = path_ / kConfig;
  const std::string differences =
      configuration_differences(read_text_file(before), before.string(), json, may_change);
  check(differences.empty(), "cannot resume ", path_.string(),
        " with a changed configuration: ", differences);
}

void RunFolder::set_config(const std::string& json) {
  if (!writes_) return;
  write_text_file(path_ / kConfig, parse(json, "the configuration").dump(2) + "\n");
}

void RunFolder::write_manifest(const std::map<std::string, std::string>& more) {
  if (!writes_) return;
  Json manifest;
  for (const auto& [name, value] : version_facts()) manifest[name] = value;
  for (const auto& [name, json] : more) manifest[name] = parse_json<Json>(json, name);
  write_text_file(path_ / "manifest.json", manifest.dump(2) + "\n");
}

void RunFolder::rewind(int64_t step) {
  if (!writes_) return;
  for (ChartSeries* series :
       {&loss_, &smoothed_, &validation_, &score_, &scale_, &throughput_, &learning_rate_})
    *series = {};
  for (const char* name : kRowFiles) {
    const fs::path path = path_ / name;
    std::error_code error;
    if (!fs::exists(path, error) && !error) continue;
    AtomicFile file(path);
    read_rows(path, step, [&](const Json& row, const std::string& line) {
      file.write(line + '\n');
      if (name != kMetrics) return;
      MetricRow values;
      for (const auto& [key, value] : row.items())
        if (value.is_number()) values.emplace_back(key, value.get<double>());
      const auto at = row.find("step");
      if (at != row.end() && at->is_number_integer()) plot(at->get<int64_t>(), values);
    });
    file.commit();
  }
  first_step_ = step + 1;
  tensorboard_.reset();
}

void RunFolder::report_failure(const char* what) {
  try {
    throw;
  } catch (const Error& error) {
    // A full disk costs rows, not the run. It is said once, until writing works again.
    if (failing_.insert(what).second) log_warning(error.what(), "; the run goes on without it");
  }
}

void RunFolder::append(const char* file, const std::string& row) {
  try {
    AppendFile(path_ / file).append(row + '\n');
    failing_.erase(file);
  } catch (const Error&) {
    report_failure(file);
  }
}

void RunFolder::add_metrics(int64_t step, const MetricRow& row) {
  if (!writes_) return;
  Json json;
  json["step"] = step;
  for (const auto& [key, value] : row) json[key] = to_json(value);
  append(kMetrics, line_of(json));
  plot(step, row);
  try {
    if (!tensorboard_)
      tensorboard_ = std::make_unique<TensorboardWriter>(path_ / kTensorboard, first_step_);
    for (const auto& [key, value] : row) {
      if (const double* number = std::get_if<double>(&value))
        tensorboard_->scalar(key, step, *number);
      if (const int64_t* count = std::get_if<int64_t>(&value))
        tensorboard_->scalar(key, step, static_cast<double>(*count));
    }
    tensorboard_->flush();
    failing_.erase("tensorboard");
  } catch (const Error&) {
    report_failure("tensorboard");
  }
}

void RunFolder::add_underflow_report(const std::string& json) {
  if (!writes_) return;
  append(kUnderflow, json);
}

void RunFolder::plot(int64_t step, const MetricRow& row) {
  const std::pair<const char*, ChartSeries*> known[] = {{"loss", &loss_},
                                                        {"loss_smoothed", &smoothed_},
                                                        {"validation_loss", &validation_},
                                                        {"validation_score", &score_},
                                                        {"scale", &scale_},
                                                        {"learning_rate", &learning_rate_}};
  const auto add = [&](ChartSeries& series, double value) {
    series.x.push_back(static_cast<double>(step));
    series.y.push_back(value);
  };
  constexpr std::string_view kRate = "_per_s";
  for (const auto& [key, value] : row) {
    const double* number = std::get_if<double>(&value);
    if (number == nullptr) continue;
    for (const auto& [name, series] : known)
      if (key == name) add(*series, *number);
    if (!key.ends_with(kRate)) continue;
    unit_ = key.substr(0, key.size() - kRate.size());
    add(throughput_, *number);
  }
}

void RunFolder::write_chart() {
  if (!writes_) return;
  const auto named = [](ChartSeries series, const char* name) {
    series.name = name;
    return series;
  };
  const std::vector<ChartPanel> panels = {
      {"loss",
       {named(loss_, "step"), named(smoothed_, "smoothed"), named(validation_, "validation")},
       ChartAxis::fitting},
      {"validation score", {named(score_, "")}},
      {"loss scale", {named(scale_, "")}, ChartAxis::doublings},
      {unit_ + " per second", {named(throughput_, "")}},
      {"learning rate", {named(learning_rate_, "")}}};
  try {
    write_text(kChart, draw_chart(panels, "step"));
    failing_.erase("chart");
  } catch (const Error&) {
    report_failure("chart");
  }
}

void RunFolder::write_text(const std::string& name, const std::string& text) {
  if (!writes_) return;
  write_text_file(path_ / name, text);
}

}  // namespace binade::train
