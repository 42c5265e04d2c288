#include <binade/heads/rank/loss_table.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include <binade/core/text.h>

namespace binade::heads::rank {

using kernels::RankLoss;
using kernels::RankLossParams;

namespace {

// ---- parameters ---------------------------------------------------------------------------------

constexpr double kHuge = 1e6;

LossParameter number(std::string_view name, double value, double least, double most,
                     std::string_view meaning) {
  return {name, value, least, most, false, "", meaning};
}
LossParameter whole(std::string_view name, double value, double least, double most,
                    std::string_view meaning) {
  return {name, value, least, most, true, "", meaning};
}
LossParameter choice(std::string_view name, double value, std::string_view choices,
                     std::string_view meaning) {
  const auto most = static_cast<double>(std::count(choices.begin(), choices.end(), '|'));
  return {name, value, 0, most, true, choices, meaning};
}
LossParameter reduction(double value) {
  return choice("reduction", value, "sum|mean", "within a list; mean: over the terms' weights");
}
LossParameter sigma() {
  return number("sigma", 1, 1e-3, 1e3, "slope a of the logistic function");
}
LossParameter truncation(double value) {
  return whole("truncation", value, 0, kHuge, "ranks that count; 0: all");
}
LossParameter temperature(double value) {
  return number("temperature", value, 1e-3, 1e3, "T; smaller is closer to the measure");
}

// Where a parameter's value goes.
struct Field {
  std::string_view name;
  double RankLossParams::*field;
};
constexpr Field kFields[] = {
    {"reduction", &RankLossParams::mean},        {"levels", &RankLossParams::levels},
    {"margin", &RankLossParams::margin},         {"sigma", &RankLossParams::sigma},
    {"truncation", &RankLossParams::truncation}, {"cut", &RankLossParams::truncation},
    {"norm", &RankLossParams::normalise},        {"mu", &RankLossParams::distance_part},
    {"targets", &RankLossParams::targets},       {"epsilon", &RankLossParams::epsilon},
    {"terms", &RankLossParams::terms},           {"positions", &RankLossParams::positions},
    {"ties", &RankLossParams::random_ties},      {"temperature", &RankLossParams::temperature},
    {"iterations", &RankLossParams::iterations},
};

// ---- the table ----------------------------------------------------------------------------------

// A row: what users are told, and what the kernel is (with settings that are not parameters).
struct Row {
  LossInfo info;
  RankLossParams kernel;
};

constexpr std::string_view kSquare = "O(n²)", kSort = "O(n log n)", kLinear = "O(n)",
                           kTruncated = "O(n·truncation), or O(n²)";

std::vector<Row> make_rows() {
  using enum LossFamily;
  using enum Usable;
  using enum Outputs;
  const double sum = 0, mean = 1;
  return {
      {{"mse",
        pointwise,
        any,
        score,
        "(s − y)²",
        "Cossock and Zhang 2006",
        kLinear,
        {reduction(mean)}},
       {.loss = RankLoss::mse}},
      {{"bce",
        pointwise,
        any,
        score,
        "−t ln σ(s) − (1 − t) ln σ(−s), t = min(y/levels, 1)",
        "Cooper et al. 1992",
        kLinear,
        {number("levels", 1, 1e-3, 1e3, "the label whose target is 1"), reduction(mean)}},
       {.loss = RankLoss::bce}},
      {{"ordinal",
        pointwise,
        any,
        thresholds,
        "Σ over k of bce(s_k, y > k)",
        "Niu et al. 2016",
        kLinear,
        {reduction(mean)}},
       {.loss = RankLoss::ordinal}},
      {{"prank",
        pointwise,
        any,
        thresholds,
        "Σ over k of max(0, margin − z·(s − b_k)), z = 1 if y > k, else −1",
        "Crammer and Singer 2001",
        kLinear,
        {number("margin", 0, 0, 1e3, "0: PRank's mistakes; 1: all thresholds of SVOR"),
         reduction(mean)}},
       {.loss = RankLoss::prank}},
      {{"mcrank",
        pointwise,
        any,
        classes,
        "−ln p_y, p = softmax over the grades",
        "Li, Burges and Wu 2007",
        kLinear,
        {reduction(mean)}},
       {.loss = RankLoss::mcrank}},

      {{"ranknet",
        pairwise,
        distinct,
        score,
        "ln(1 + e^(−a(si − sj))) over yi > yj",
        "Burges et al. 2005",
        kSquare,
        {sigma(), reduction(mean)}},
       {.loss = RankLoss::ranknet}},
      {{"hinge",
        pairwise,
        distinct,
        score,
        "max(0, margin − (si − sj)) over yi > yj",
        "Herbrich et al. 2000; Joachims 2002",
        "O(n·(labels + log n))",
        {number("margin", 1, 0, 1e3, "by which a pair should be apart"), reduction(mean)}},
       {.loss = RankLoss::hinge}},
      {{"soft01",
        pairwise,
        distinct,
        score,
        "σ(−a(si − sj)) over yi > yj",
        "smoothed count of wrong pairs",
        kSquare,
        {sigma(), reduction(mean)}},
       {.loss = RankLoss::soft01}},
      {{"pairwise-mse",
        pairwise,
        pair,
        score,
        "((si − sj) − (yi − yj))² over ordered pairs",
        "TF-Ranking (Pasumarthi et al. 2019)",
        kLinear,
        {reduction(mean)}},
       {.loss = RankLoss::pairwise_mse}},
      {{"lambdarank",
        pairwise,
        distinct,
        score,
        "ranknet × |ΔNDCG| of swapping i and j",
        "Burges 2010",
        kTruncated,
        {sigma(), truncation(0),
         choice("norm", 0, "off|lightgbm",
                "lightgbm: pair / (0.01 + |si − sj|), list × log2(1 + S)/S, S = 2·Σ|λ|"),
         reduction(sum)}},
       {.loss = RankLoss::lambdarank}},
      {{"ndcg-loss1",
        pairwise,
        distinct,
        score,
        "Gi/D(ri) · ln(1 + e^(−a(si − sj))) over all j ≠ i, / ideal DCG",
        "Wang et al. 2018",
        kSquare,
        {sigma(), reduction(sum)}},
       {.loss = RankLoss::ndcg_loss1}},
      {{"ndcg-loss2",
        pairwise,
        distinct,
        score,
        "ranknet × |Gi − Gj|·|1/D(d) − 1/D(d + 1)| / ideal DCG, d = |ri − rj|",
        "Wang et al. 2018",
        kTruncated,
        {sigma(), truncation(0), reduction(sum)}},
       {.loss = RankLoss::lambdarank, .rank_part = 0, .distance_part = 1}},
      {{"ndcg-loss2++",
        pairwise,
        distinct,
        score,
        "lambdarank + mu · ndcg-loss2",
        "Wang et al. 2018",
        kTruncated,
        {sigma(), number("mu", 10, 0, 1e3, "factor of ndcg-loss2"), truncation(0), reduction(sum)}},
       {.loss = RankLoss::lambdarank}},
      {{"lambda-map",
        pairwise,
        relevant,
        score,
        "ranknet × |ΔMAP| of swapping i and j",
        "Donmez, Svore and Burges 2009",
        kTruncated,
        {sigma(), truncation(0), reduction(sum)}},
       {.loss = RankLoss::lambda_map}},
      {{"lambda-mrr",
        pairwise,
        relevant,
        score,
        "ranknet × |ΔMRR| of swapping i and j",
        "Donmez, Svore and Burges 2009",
        kTruncated,
        {sigma(), truncation(0), reduction(sum)}},
       {.loss = RankLoss::lambda_mrr}},
      {{"lambda-precision",
        pairwise,
        relevant,
        score,
        "ranknet × |ΔP@cut| of swapping i and j",
        "Burges 2010",
        "O(n·cut)",
        {sigma(), whole("cut", 10, 1, kHuge, "k of P@k"), reduction(sum)}},
       {.loss = RankLoss::lambda_precision}},

      {{"listnet",
        listwise,
        distinct,
        score,
        "−Σ t ln p, p = softmax(s)",
        "Cao et al. 2007",
        kLinear,
        {choice("targets", 0, "softmax|share", "t: softmax(y), or y/Σy (the softmax loss)")}},
       {.loss = RankLoss::listnet}},
      {{"poly1",
        listwise,
        distinct,
        score,
        "−Σ t ln p + ε Σ t (1 − p), p = softmax(s)",
        "Leng et al. 2022",
        kLinear,
        {number("epsilon", 1, -1, 1e3, "ε"),
         choice("targets", 1, "softmax|share", "t: softmax(y), or y/Σy")}},
       {.loss = RankLoss::listnet}},
      {{"xe-ndcg",
        listwise,
        distinct,
        score,
        "−Σ t ln p, t ∝ 2^y − γ, γ drawn from [0, 1)",
        "Bruch 2021",
        kLinear,
        {whole("terms", 1, 1, 3, "of the gradient; 3: as LightGBM's rank_xendcg")}},
       {.loss = RankLoss::xe_ndcg}},
      {{"listmle",
        listwise,
        distinct,
        score,
        "Σ over positions of −ln(e^s / Σ of it and behind)",
        "Xia et al. 2008",
        kSort,
        {choice("ties", 0, "stable|random", "the order of equal labels"), truncation(0)}},
       {.loss = RankLoss::listmle}},
      {{"p-listmle",
        listwise,
        distinct,
        score,
        "listmle with a weight of each position i",
        "Lan et al. 2014",
        kSort,
        {choice("positions", 1, "equal|exponential|logarithmic",
                "(2^(n − i) − 1)/(2^(n − 1) − 1), or 1/D(i)"),
         choice("ties", 0, "stable|random", "the order of equal labels"), truncation(0)}},
       {.loss = RankLoss::listmle}},
      {{"unique-softmax",
        listwise,
        distinct,
        score,
        "−Σ G ln(e^s / (e^s + Σ over smaller labels))",
        "TF-Ranking (Zhu and Klabjan 2020)",
        kSort,
        {}},
       {.loss = RankLoss::unique_softmax}},
      {{"approx-ndcg",
        listwise,
        distinct,
        score,
        "1 − NDCG, ranks 1 + Σ σ((sj − si)/T)",
        "Qin, Liu and Li 2010",
        kSquare,
        {temperature(0.1)}},
       {.loss = RankLoss::approx_ndcg}},
      {{"approx-mrr",
        listwise,
        relevant,
        score,
        "1 − mean of 1/rank of the relevant, ranks 1 + Σ σ((sj − si)/T)",
        "TF-Ranking, after Qin, Liu and Li 2010",
        kSquare,
        {temperature(0.1)}},
       {.loss = RankLoss::approx_mrr}},
      {{"softrank",
        listwise,
        distinct,
        score,
        "1 − NDCG at expected ranks, scores with a normal error",
        "Taylor et al. 2008",
        kSquare,
        {number("sigma", 1, 1e-3, 1e3, "deviation of a score")}},
       {.loss = RankLoss::softrank}},
      {{"neural-ndcg",
        listwise,
        distinct,
        score,
        "1 − NDCG of NeuralSort, scaled by Sinkhorn",
        "Pobrotyn and Bialobrzeski 2021",
        "O(n²·iterations)",
        {temperature(1), whole("iterations", 50, 1, 1000, "of Sinkhorn; memory grows with them"),
         truncation(0)}},
       {.loss = RankLoss::neural_ndcg}},
  };
}

const std::vector<Row>& rows() {
  static const std::vector<Row> table = make_rows();
  return table;
}

// ---- text ---------------------------------------------------------------------------------------

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

std::string value_text(const LossParameter& parameter, double value) {
  if (parameter.choices.empty()) return exact_number(value);
  return split(parameter.choices, '|')[static_cast<size_t>(value)];
}

double parse_value(std::string_view loss, const LossParameter& parameter, const std::string& text) {
  if (!parameter.choices.empty()) {
    const std::vector<std::string> names = split(parameter.choices, '|');
    const auto at = std::find(names.begin(), names.end(), text);
    check(at != names.end(), "loss ", loss, ": ", parameter.name, " is one of ", parameter.choices,
          ", got \"", text, '"', did_you_mean(text, names));
    return static_cast<double>(at - names.begin());
  }
  const std::optional<double> value = parse_number(text);
  check(value && *value >= parameter.least && *value <= parameter.most &&
            (!parameter.whole || *value == std::floor(*value)),
        "loss ", loss, ": ", parameter.name, " is ", parameter.whole ? "a whole" : "a",
        " number from ", exact_number(parameter.least), " to ", exact_number(parameter.most),
        ", got \"", text, '"');
  return *value;
}

std::string padded(std::string_view text, size_t width) {
  // Of code points: the table has letters beyond ASCII.
  const auto length = static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
  return std::string(text) + std::string(length < width ? width - length : 1, ' ');
}

}  // namespace

std::string_view name_of(LossFamily family) {
  switch (family) {
    case LossFamily::pointwise:
      return "pointwise";
    case LossFamily::pairwise:
      return "pairwise";
    default:
      return "listwise";
  }
}

const std::vector<LossInfo>& loss_table() {
  static const std::vector<LossInfo> table = [] {
    std::vector<LossInfo> infos;
    for (const Row& row : rows()) infos.push_back(row.info);
    return infos;
  }();
  return table;
}

std::string describe_losses() {
  std::string text;
  for (const LossInfo& info : loss_table()) {
    text += concat(padded(info.name, 18), info.formula, "\n", padded("", 18), name_of(info.family),
                   ", ", info.cost, "; ", info.source, '\n');
    for (const LossParameter& parameter : info.parameters) {
      text +=
          concat(padded("", 18),
                 padded(concat(parameter.name, '=', value_text(parameter, parameter.value)), 20));
      if (!parameter.choices.empty()) text += concat(parameter.choices, ": ");
      text += concat(parameter.meaning, '\n');
    }
  }
  return text;
}

LossSpec::LossSpec(const LossInfo& info) : info_(&info) {
  for (const LossParameter& parameter : info.parameters) values_.push_back(parameter.value);
}

LossSpec LossSpec::parse(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string name(text.substr(0, colon));
  std::vector<std::string> names;
  for (const LossInfo& info : loss_table()) names.emplace_back(info.name);
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) {
    std::string all;
    for (const std::string& known : names) all += (all.empty() ? "" : ", ") + known;
    fail("there is no loss \"", name, '"', did_you_mean(name, names), "; losses are ", all);
  }
  LossSpec spec(loss_table()[static_cast<size_t>(at - names.begin())]);
  if (colon == std::string_view::npos) return spec;
  const std::vector<LossParameter>& parameters = spec.info().parameters;
  std::vector<std::string> known;
  for (const LossParameter& parameter : parameters) known.emplace_back(parameter.name);
  std::vector<bool> given(known.size());
  for (const std::string& part : split(text.substr(colon + 1), ',')) {
    const size_t equals = part.find('=');
    check(equals != std::string::npos, "loss ", name, ": \"", part,
          "\" is not parameter=value; write for example lambdarank:truncation=30,sigma=1");
    const std::string parameter = part.substr(0, equals);
    const auto found = std::find(known.begin(), known.end(), parameter);
    if (found == known.end()) {
      std::string all;
      for (const std::string& one : known) all += (all.empty() ? "it has " : ", ") + one;
      fail("loss ", name, " has no parameter \"", parameter, '"', did_you_mean(parameter, known),
           "; ", all.empty() ? "it has none" : all);
    }
    const auto index = static_cast<size_t>(found - known.begin());
    check(!given[index], "loss ", name, ": ", parameter, " is given twice");
    given[index] = true;
    spec.values_[index] = parse_value(name, parameters[index], part.substr(equals + 1));
  }
  return spec;
}

double LossSpec::value(std::string_view parameter) const {
  for (size_t i = 0; i < values_.size(); ++i)
    if (info_->parameters[i].name == parameter) return values_[i];
  fail("loss ", info_->name, " has no parameter ", parameter);
}

std::string LossSpec::text() const {
  std::string text(info_->name);
  char separator = ':';
  for (size_t i = 0; i < values_.size(); ++i) {
    const LossParameter& parameter = info_->parameters[i];
    if (values_[i] == parameter.value) continue;
    text += concat(separator, parameter.name, '=', value_text(parameter, values_[i]));
    separator = ',';
  }
  return text;
}

RankLossParams params_of(const LossSpec& spec) {
  const auto row = std::find_if(rows().begin(), rows().end(), [&](const Row& candidate) {
    return candidate.info.name == spec.info().name;
  });
  RankLossParams params = row->kernel;
  params.usable = static_cast<kernels::RankUsable>(spec.info().usable);
  for (const LossParameter& parameter : spec.info().parameters)
    for (const Field& field : kFields)
      if (field.name == parameter.name) params.*field.field = spec.value(parameter.name);
  return params;
}

}  // namespace binade::heads::rank
