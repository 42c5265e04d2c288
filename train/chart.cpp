#include <binade/train/chart.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

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
  void settle() {  // an empty or flat range gets some height
    if (!(low <= high)) low = 0, high = 1;
    if (low == high) {
      const double margin = std::max(std::abs(low) * 0.1, 1e-6);
      low -= margin;
      high += margin;
    }
  }
};

// A step of 1, 2 or 5 times a power of ten that gives about `count` ticks.
double tick_step(const Range& range, int count) {
  const double raw = (range.high - range.low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

std::string label(double value) {
  TextStream text;
  text.precision(4);
  if (std::abs(value) >= 1e6) {
    text << value / 1e6 << 'M';
  } else if (std::abs(value) >= 1e4) {
    text << value / 1e3 << 'k';
  } else {
    text << (std::abs(value) < 1e-12 ? 0 : value);
  }
  return text.str();
}

std::string escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out.push_back(c);
  }
  return out;
}

class Panel {
 public:
  Panel(const ChartPanel& panel, const Range& x, double top) : panel_(panel), x_(x), top_(top) {
    for (const ChartSeries& series : panel.series)
      for (double value : series.y)
        if (visible(value)) y_.include(scaled(value));
    y_.settle();
  }

  void draw(TextStream& out) const {
    out << "<text x='" << kLeft << "' y='" << top_ + 20 << "' class='title'>"
        << escape(panel_.title) << "</text>\n";
    draw_ticks(out);
    double legend = kWidth - kRight;
    for (size_t i = panel_.series.size(); i-- > 0;) {
      const char* colour = kColours[i % kColours.size()];
      draw_line(out, panel_.series[i], colour);
      out << "<text x='" << legend << "' y='" << top_ + 20 << "' text-anchor='end' fill='" << colour
          << "'>" << escape(panel_.series[i].name) << "</text>\n";
      legend -= 9.0 * static_cast<double>(panel_.series[i].name.size()) + 18;
    }
  }

 private:
  bool visible(double value) const {
    return std::isfinite(value) && (!panel_.log_scale || value > 0);
  }
  double scaled(double value) const { return panel_.log_scale ? std::log10(value) : value; }
  double px(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  double py(double y) const {
    return top_ + kPanelHeight - kBottom -
           (y - y_.low) / (y_.high - y_.low) * (kPanelHeight - kTop - kBottom);
  }

  void draw_ticks(TextStream& out) const {
    const double step = tick_step(y_, 5);
    for (double y = std::ceil(y_.low / step) * step; y <= y_.high + step * 1e-9; y += step) {
      out << "<line x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='" << py(y) << "' y2='"
          << py(y) << "' class='grid'/><text x='" << kLeft - 8 << "' y='" << py(y) + 4
          << "' text-anchor='end'>" << label(panel_.log_scale ? std::pow(10, y) : y) << "</text>\n";
    }
    const double x_step = tick_step(x_, 8);
    for (double x = std::ceil(x_.low / x_step) * x_step; x <= x_.high + x_step * 1e-9;
         x += x_step) {
      out << "<text x='" << px(x) << "' y='" << top_ + kPanelHeight - kBottom + 18
          << "' text-anchor='middle'>" << label(x) << "</text>\n";
    }
  }

  void draw_line(TextStream& out, const ChartSeries& series, const char* colour) const {
    const size_t count = std::min(series.x.size(), series.y.size());
    const size_t stride = count / kMostPoints + 1;
    bool pen_down = false;
    out << "<path fill='none' stroke='" << colour << "' stroke-width='1.6' d='";
    for (size_t i = 0; i < count; i += (i + 1 == count ? 1 : std::min(stride, count - 1 - i))) {
      if (!visible(series.y[i])) {
        pen_down = false;
        continue;
      }
      out << (pen_down ? 'L' : 'M') << px(series.x[i]) << ' ' << py(scaled(series.y[i]));
      pen_down = true;
    }
    out << "'/>\n";
  }

  const ChartPanel& panel_;
  const Range& x_;
  double top_;
  Range y_;
};

}  // namespace

std::string draw_chart(const std::vector<ChartPanel>& panels, const std::string& x_title) {
  Range x;
  for (const ChartPanel& panel : panels)
    for (const ChartSeries& series : panel.series)
      for (double value : series.x)
        if (std::isfinite(value)) x.include(value);
  x.settle();
  const double height = kPanelHeight * static_cast<double>(panels.size()) + kFooter;
  TextStream out;
  out.precision(6);
  out << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 " << kWidth << ' ' << height
      << "' font-family='sans-serif' font-size='12' fill='#333'>\n"
      << "<style>.title{font-size:14px;font-weight:bold}.grid{stroke:#ddd}</style>\n"
      << "<rect width='100%' height='100%' fill='white'/>\n";
  for (size_t i = 0; i < panels.size(); ++i)
    Panel(panels[i], x, kPanelHeight * static_cast<double>(i)).draw(out);
  out << "<text x='" << kWidth / 2 << "' y='" << height - 6 << "' text-anchor='middle'>"
      << escape(x_title) << "</text>\n</svg>\n";
  return out.str();
}

}  // namespace binade::train
