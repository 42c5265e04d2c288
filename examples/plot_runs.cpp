// Draws metrics of several runs in one picture: the loss, validation loss and loss scale, or
// others.
//
//   plot_runs --output curves.svg --runs runs/fp32 runs/fp16 --names fp32 fp16
//   plot_runs --output gaps.svg --runs runs/moe runs/mot --metrics mse ce --minus runs/dense --mean
//   100
#include <fmt/core.h>

#include <filesystem>
#include <map>
#include <sstream>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/train/chart.h>

#include "common.h"

using namespace binade;

namespace {

struct Options {
  std::vector<std::string> runs, names, metrics;
  std::string output = "runs.svg", minus;
  int64_t mean = 1;
};

// A panel and the metric that it shows.
struct Shown {
  std::string metric, title;
  train::ChartAxis axis = train::ChartAxis::fitting;
};

using Points = std::vector<std::pair<double, double>>;  // step, value

// The values of one metric over the steps.
Points read_metric(const std::string& run, const std::string& metric) {
  const std::filesystem::path path = std::filesystem::path(run) / "metrics.jsonl";
  std::istringstream file(read_text_file(path));
  Points points;
  for (std::string line; std::getline(file, line);) {
    const auto row = parse_json_or_null(line);
    const auto number = [&](const std::string& key) {
      return row.is_object() && row.contains(key) && row[key].is_number();
    };
    if (number("step") && number(metric))
      points.emplace_back(row["step"].get<double>(), row[metric].get<double>());
  }
  return points;
}

// Differences at the steps that both have.
Points minus(const Points& points, const Points& others) {
  const std::map<double, double> at(others.begin(), others.end());
  Points differences;
  for (const auto& [step, value] : points)
    if (const auto other = at.find(step); other != at.end())
      differences.emplace_back(step, value - other->second);
  return differences;
}

// Each point the mean of `count`, of which it is the last.
Points moving_mean(const Points& points, size_t count) {
  Points means;
  for (size_t end = count; end <= points.size(); ++end) {
    double sum = 0;
    for (size_t i = end - count; i < end; ++i) sum += points[i].second;
    means.emplace_back(points[end - 1].first, sum / static_cast<double>(count));
  }
  return means;
}

std::vector<Shown> shown(const Options& o) {
  if (o.metrics.empty())
    return {{"loss_smoothed", "loss (smoothed)"},
            {"validation_loss", "validation loss"},
            {"scale", "loss scale", train::ChartAxis::doublings}};
  std::vector<Shown> all;
  for (const std::string& metric : o.metrics) {
    std::string title = metric;
    if (!o.minus.empty()) title += concat(" beyond ", o.minus);
    if (o.mean > 1) title += concat(", mean of ", o.mean, " steps");
    all.push_back({metric, title});
  }
  return all;
}

void plot(const Options& o) {
  check(o.names.empty() || o.names.size() == o.runs.size(), "--names gives ", o.names.size(),
        " names for ", o.runs.size(), " runs");
  check(!o.metrics.empty() || (o.mean == 1 && o.minus.empty()),
        "--mean and --minus are for the metrics that --metrics names");
  std::vector<train::ChartPanel> panels;
  for (const auto& [metric, title, axis] : shown(o)) {
    train::ChartPanel& panel = panels.emplace_back(train::ChartPanel{title, {}, axis});
    const Points others = o.minus.empty() ? Points() : read_metric(o.minus, metric);
    for (size_t r = 0; r < o.runs.size(); ++r) {
      Points points = read_metric(o.runs[r], metric);
      if (!o.minus.empty()) points = minus(points, others);
      train::ChartSeries& series = panel.series.emplace_back();
      series.name = o.names.empty() ? o.runs[r] : o.names[r];
      for (const auto& [step, value] : moving_mean(points, static_cast<size_t>(o.mean))) {
        series.x.push_back(step);
        series.y.push_back(value);
      }
    }
  }
  write_text_file(o.output, train::draw_chart(panels, "step"));
  fmt::print("wrote {}\n", o.output);
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Draws metrics of several runs in one picture");
  Options options;
  command.add("--runs", options.runs, "Run folders").required();
  command.add("--names", options.names, "Their names in the picture; default: the folders");
  command.add("--output", options.output, "The SVG file");
  command.add("--metrics", options.metrics,
              "Numbers of metrics.jsonl to draw; default: loss_smoothed, validation_loss, scale");
  command.add("--minus", options.minus, "A run folder whose metrics are subtracted, step by step");
  command.add("--mean", options.mean, "Draw means of so many points").at_least(1);
  return examples::run_program(command, argc, argv, [&] { plot(options); });
}
