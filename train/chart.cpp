#include <binade/train/chart.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <binade/core/error.h>
#include <binade/core/text.h>

namespace binade::train {

namespace {

constexpr double kWidth = 860, kPanelHeight = 230, kLeft = 74, kRight = 24, kTop = 34, kBottom = 30,
                 kFooter = 22;
// Okabe & Ito's palette, which readers with a colour vision deficiency tell apart.
constexpr std::array<const char*, 6> kColours = {"#0072b2", "#d55e00", "#009e73",
                                                 "#cc79a7", "#e69f00", "#56b4e9"};
constexpr size_t kMostPoints = 1500;  // a line of more is thinned

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
  bool flat() const { return low == high; }
};

// The range itself, or one around it where it has no height.
Range widened(Range range) {
  if (range.empty()) return {0, 1};
  if (!range.flat()) return range;
  const double margin = std::max(std::abs(range.low) * 0.1, 1e-6);
  return {range.low - margin, range.high + margin};
}

// A step of 1, 2 or 5 times a power of ten that gives about `count` ticks.
double tick_step(const Range& range, int count) {
  const double raw = (range.high - range.low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

struct Ticks {
  std::vector<double> values;
  int digits = 4;  // significant ones that tell the ticks apart
};

Ticks linear_ticks(const Range& range, int count) {
  const double step = tick_step(range, count);
  Ticks ticks;
  // Multiples of the step by number: a sum of steps may stand still beside a large value.
  const double first = std::ceil(range.low / step);
  for (int i = 0; i <= 2 * count; ++i) {
    const double value = (first + i) * step;
    if (value > range.high + step * 1e-9) break;
    if (ticks.values.empty() || value != ticks.values.back()) ticks.values.push_back(value);
  }
  const double largest = std::max(std::abs(range.low), std::abs(range.high));
  const double digits = std::floor(std::log10(largest)) - std::floor(std::log10(step)) + 1;
  ticks.digits = static_cast<int>(std::clamp(digits, 4.0, 17.0));
  return ticks;
}

// Powers of ten, and 2 and 5 times those where there are few; `range` is of values, above 0.
Ticks logarithmic_ticks(const Range& range) {
  const double first = std::floor(std::log10(range.low)), last = std::ceil(std::log10(range.high));
  const double stride = std::ceil((last - first) / 8);  // decades between ticks
  Ticks ticks;
  for (double power = first; power <= last; power += std::max(stride, 1.0))
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor != 1 && last - first > 3) continue;
      const double value = factor * std::pow(10, power);
      if (value >= range.low && value <= range.high) ticks.values.push_back(value);
    }
  return ticks.values.size() >= 2 ? ticks : linear_ticks(range, 5);
}

// Powers of two; `range` is of values, above 0.
Ticks doubling_ticks(const Range& range) {
  const double first = std::ceil(std::log2(range.low)), last = std::floor(std::log2(range.high));
  const double stride = std::max(std::ceil((last - first) / 8), 1.0);
  Ticks ticks;
  for (double power = first; power <= last; power += stride)
    ticks.values.push_back(std::exp2(power));
  return ticks.values.size() >= 2 ? ticks : linear_ticks(range, 5);
}

constexpr double kFewDecades = 100;  // a loss that spans more is drawn on a logarithmic axis

// What `fitting` means for these points.
ChartAxis fitted(const ChartPanel& panel) {
  if (panel.axis != ChartAxis::fitting) return panel.axis;
  Range range;
  for (const ChartSeries& series : panel.series)
    for (const double value : series.y)
      if (std::isfinite(value)) range.include(value);
  return range.low > 0 && range.high >= kFewDecades * range.low ? ChartAxis::decades
                                                                : ChartAxis::linear;
}

std::string label(double value, int digits) {
  TextStream text;
  text.precision(digits);
  if (std::abs(value) >= 1e6) {
    text << value / 1e6 << 'M';
  } else if (std::abs(value) >= 1e4) {
    text << value / 1e3 << 'k';
  } else {
    text << (std::abs(value) < 1e-12 ? 0 : value);
  }
  return text.str();
}

// A power of two as people write scales: in full as far as it is short, otherwise 2^k.
std::string power_label(double value, int digits) {
  const double power = std::log2(value);
  if (power != std::floor(power)) return label(value, digits);
  if (power >= 0 && power <= 24) return std::to_string(static_cast<int64_t>(value));
  return concat("2^", static_cast<int64_t>(power));
}

class Panel {
 public:
  Panel(const ChartPanel& panel, const Range& x, double top)
      : panel_(panel), axis_(fitted(panel)), x_(x), top_(top) {
    for (const ChartSeries& series : panel.series) {
      const size_t count = std::min(series.x.size(), series.y.size());
      for (size_t i = 0; i < count; ++i)
        if (visible(series, i)) values_.include(series.y[i]);
    }
    if (empty()) return;
    y_ = widened({scaled(values_.low), scaled(values_.high)});
  }

  bool empty() const { return values_.empty(); }

  void draw(TextStream& out) const {
    out << "<text x='" << kLeft << "' y='" << top_ + 20 << "' class='title'>"
        << xml_text(panel_.title) << "</text>\n";
    draw_ticks(out);
    double legend = kWidth - kRight;
    for (size_t i = panel_.series.size(); i-- > 0;) {
      const char* colour = kColours[i % kColours.size()];
      draw_line(out, panel_.series[i], colour);
      out << "<text x='" << legend << "' y='" << top_ + 20 << "' text-anchor='end' fill='" << colour
          << "'>" << xml_text(panel_.series[i].name) << "</text>\n";
      legend -= 9.0 * static_cast<double>(panel_.series[i].name.size()) + 18;
    }
  }

 private:
  bool visible(const ChartSeries& series, size_t i) const {
    return std::isfinite(series.x[i]) && std::isfinite(series.y[i]) &&
           (axis_ == ChartAxis::linear || series.y[i] > 0);
  }
  double scaled(double value) const {
    return axis_ == ChartAxis::linear ? value : std::log10(value);
  }
  double px(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  double py(double y) const {
    return top_ + kPanelHeight - kBottom -
           (y - y_.low) / (y_.high - y_.low) * (kPanelHeight - kTop - kBottom);
  }

  void draw_ticks(TextStream& out) const {
    const Ticks ticks = values_.flat()                  ? Ticks{{values_.low}}
                        : axis_ == ChartAxis::decades   ? logarithmic_ticks(values_)
                        : axis_ == ChartAxis::doublings ? doubling_ticks(values_)
                                                        : linear_ticks(values_, 5);
    for (const double value : ticks.values) {
      const double y = py(scaled(value));
      out << "<line x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='" << y << "' y2='" << y
          << "' class='grid'/><text x='" << kLeft - 8 << "' y='" << y + 4 << "' text-anchor='end'>"
          << (axis_ == ChartAxis::doublings ? power_label(value, ticks.digits)
                                            : label(value, ticks.digits))
          << "</text>\n";
    }
    const Ticks x_ticks = linear_ticks(x_, 8);
    for (const double x : x_ticks.values) {
      out << "<text x='" << px(x) << "' y='" << top_ + kPanelHeight - kBottom + 18
          << "' text-anchor='middle'>" << label(x, x_ticks.digits) << "</text>\n";
    }
  }

  void draw_line(TextStream& out, const ChartSeries& series, const char* colour) const {
    const size_t count = std::min(series.x.size(), series.y.size());
    const size_t stride = count / kMostPoints + 1;
    bool pen_down = false;
    out << "<path fill='none' stroke='" << colour << "' stroke-width='1.6' d='";
    for (size_t i = 0; i < count; i += (i + 1 == count ? 1 : std::min(stride, count - 1 - i))) {
      if (!visible(series, i)) {
        pen_down = false;
        continue;
      }
      out << (pen_down ? 'L' : 'M') << px(series.x[i]) << ' ' << py(scaled(series.y[i]));
      pen_down = true;
    }
    out << "'/>\n";
  }

  const ChartPanel& panel_;
  ChartAxis axis_;
  const Range& x_;
  double top_;
  Range values_;  // what is shown
  Range y_;       // the axis, in logarithms on a log scale
};

}  // namespace

std::string draw_chart(const std::vector<ChartPanel>& panels, const std::string& x_title) {
  Range x;
  for (const ChartPanel& panel : panels)
    for (const ChartSeries& series : panel.series)
      for (double value : series.x)
        if (std::isfinite(value)) x.include(value);
  x = widened(x);
  std::vector<Panel> drawn;
  for (const ChartPanel& panel : panels) {
    const Panel next(panel, x, kPanelHeight * static_cast<double>(drawn.size()));
    if (!next.empty()) drawn.push_back(next);
  }
  const double height = kPanelHeight * static_cast<double>(drawn.size()) + kFooter;
  TextStream out;
  out.precision(6);
  out << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 " << kWidth << ' ' << height
      << "' font-family='sans-serif' font-size='12' fill='#333'>\n"
      << "<style>.title{font-size:14px;font-weight:bold}.grid{stroke:#ddd}</style>\n"
      << "<rect width='100%' height='100%' fill='white'/>\n";
  for (const Panel& panel : drawn) panel.draw(out);
  out << "<text x='" << kWidth / 2 << "' y='" << height - 6 << "' text-anchor='middle'>"
      << xml_text(x_title) << "</text>\n</svg>\n";
  return out.str();
}

}  // namespace binade::train
