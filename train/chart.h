// Line charts as SVG: a column of panels over a common horizontal axis.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace binade::train {

struct ChartSeries {
  std::string name;
  std::vector<double> x, y;  // non-finite points break the line
};
// The vertical axis of a panel. Logarithmic ones leave out points ≤ 0.
enum class ChartAxis : uint8_t {
  linear,
  decades,    // logarithmic, with powers of ten for ticks
  doublings,  // logarithmic, with powers of two
  fitting,    // decades where all points are above 0 and span two of them; otherwise linear
};

struct ChartPanel {
  std::string title;
  std::vector<ChartSeries> series;
  ChartAxis axis = ChartAxis::linear;
};

// A whole SVG document; `x_title` names the common axis. A panel without a point to show is left
// out; one whose points are all equal is a line in the middle with one tick. Texts may be any
// bytes: what XML does not allow becomes U+FFFD.
std::string draw_chart(const std::vector<ChartPanel>& panels, const std::string& x_title);

}  // namespace binade::train
