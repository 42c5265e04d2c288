// Draws the loss, validation loss and loss scale of several runs in one picture.
//
//   plot_runs --output curves.svg --runs runs/fp32 runs/fp16 --names fp32 fp16
#include <fmt/core.h>

#include <array>
#include <filesystem>
#include <sstream>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/train/chart.h>

#include "common.h"

using namespace binade;

namespace {

struct Options {
  std::vector<std::string> runs, names;
  std::string output = "runs.svg";
};

// The values of one metric over the steps.
train::ChartSeries read_metric(const std::string& run, const std::string& name,
                               const std::string& metric) {
  const std::filesystem::path path = std::filesystem::path(run) / "metrics.jsonl";
  std::istringstream file(read_text_file(path));
  train::ChartSeries series{name, {}, {}};
  for (std::string line; std::getline(file, line);) {
    const auto row = parse_json_or_null(line);
    const auto number = [&](const std::string& key) {
      return row.is_object() && row.contains(key) && row[key].is_number();
    };
    if (!number("step") || !number(metric)) continue;
    series.x.push_back(row["step"].get<double>());
    series.y.push_back(row[metric].get<double>());
  }
  return series;
}

void plot(const Options& o) {
  check(o.names.empty() || o.names.size() == o.runs.size(), "--names gives ", o.names.size(),
        " names for ", o.runs.size(), " runs");
  std::vector<train::ChartPanel> panels = {{"loss (smoothed)", {}, train::ChartAxis::fitting},
                                           {"validation loss", {}, train::ChartAxis::fitting},
                                           {"loss scale", {}, train::ChartAxis::doublings}};
  const std::array<const char*, 3> metrics = {"loss_smoothed", "validation_loss", "scale"};
  for (size_t r = 0; r < o.runs.size(); ++r)
    for (size_t p = 0; p < panels.size(); ++p)
      panels[p].series.push_back(
          read_metric(o.runs[r], o.names.empty() ? o.runs[r] : o.names[r], metrics[p]));
  write_text_file(o.output, train::draw_chart(panels, "step"));
  fmt::print("wrote {}\n", o.output);
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Draws several runs of train_gpt in one picture");
  Options options;
  command.add("--runs", options.runs, "Run folders").required();
  command.add("--names", options.names, "Their names in the picture; default: the folders");
  command.add("--output", options.output, "The SVG file");
  return examples::run_program(command, argc, argv, [&] { plot(options); });
}
