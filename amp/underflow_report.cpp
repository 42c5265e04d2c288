#include <binade/amp/underflow_report.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <utility>

#include <binade/core/text.h>

namespace binade::amp {

namespace {

std::string percent(double share) {
  TextStream text;
  text << std::setprecision(2) << 100 * share << " %";
  return std::move(text).str();
}

// The gradients of all parameters in module order, as stored.
std::vector<std::vector<float>> gradients_after(optim::Optimizer& optimizer,
                                                const std::vector<UnderflowRow>& rows,
                                                const std::function<void()>& backward) {
  optimizer.zero_grad();
  backward();
  optimizer.fill_missing_grads();
  std::map<std::string, std::vector<float>> by_name;
  for (const optim::FlatGroup& group : optimizer.groups())
    for (const optim::FlatGroup::Member& member : group.members())
      by_name[member.parameter.name] = group.part(group.grad(), member).to_vector<float>();
  optimizer.zero_grad();
  std::vector<std::vector<float>> ordered;
  for (const UnderflowRow& row : rows) ordered.push_back(std::move(by_name.at(row.parameter)));
  return ordered;
}

std::vector<UnderflowRow> rows_of(const optim::Optimizer& optimizer) {
  std::vector<const optim::FlatGroup::Member*> members;
  for (const optim::FlatGroup& group : optimizer.groups())
    for (const optim::FlatGroup::Member& member : group.members()) members.push_back(&member);
  std::sort(members.begin(), members.end(),
            [](const auto* a, const auto* b) { return a->parameter.order < b->parameter.order; });
  std::vector<UnderflowRow> rows;
  for (const auto* member : members) {
    UnderflowRow row;
    row.parameter = member->parameter.name;
    row.elements = member->numel;
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

UnderflowReport underflow_report(optim::Optimizer& optimizer, double scale,
                                 const std::function<void(double scale)>& backward, double factor) {
  check(factor > 1, "an underflow report needs a larger scale to compare with, got a factor of ",
        factor);
  UnderflowReport report{scale, scale * factor, rows_of(optimizer)};
  const auto stored = gradients_after(optimizer, report.rows, [&] { backward(scale); });
  const auto larger =
      gradients_after(optimizer, report.rows, [&] { backward(report.larger_scale); });
  for (size_t r = 0; r < report.rows.size(); ++r) {
    UnderflowRow& row = report.rows[r];
    for (size_t i = 0; i < stored[r].size(); ++i) {
      double value = stored[r][i];
      if (value == 0) {
        ++row.zeros;
        value = larger[r][i] / factor;
        if (value == 0 || !std::isfinite(value)) continue;
        ++row.underflowed;
      }
      if (std::isfinite(value)) ++row.exponents[std::ilogb(value)];
    }
  }
  return report;
}

double UnderflowReport::share() const {
  double underflowed = 0, elements = 0;
  for (const UnderflowRow& row : rows) {
    underflowed += static_cast<double>(row.underflowed);
    elements += static_cast<double>(row.elements);
  }
  return elements > 0 ? underflowed / elements : 0;
}

std::string UnderflowReport::summary() const {
  const auto most = std::max_element(
      rows.begin(), rows.end(),
      [](const UnderflowRow& a, const UnderflowRow& b) { return a.share() < b.share(); });
  std::string text = concat(percent(share()), " of the gradients underflow at scale ", scale);
  if (most != rows.end() && most->underflowed > 0)
    text += concat("; most in ", most->parameter, " (", percent(most->share()), ")");
  return text;
}

std::string UnderflowReport::to_json(int64_t step) const {
  nlohmann::ordered_json json{
      {"step", step}, {"scale", scale}, {"larger_scale", larger_scale}, {"share", share()}};
  for (const UnderflowRow& row : rows) {
    nlohmann::ordered_json exponents = nlohmann::ordered_json::object();
    for (const auto& [exponent, count] : row.exponents) exponents[std::to_string(exponent)] = count;
    json["parameters"].push_back({{"name", row.parameter},
                                  {"elements", row.elements},
                                  {"zeros", row.zeros},
                                  {"underflowed", row.underflowed},
                                  {"exponents", exponents}});
  }
  return json.dump();
}

}  // namespace binade::amp
