// The names of metrics and conventions.
#include <binade/core/error.h>
#include <binade/heads/rank/metrics.h>

#include <algorithm>
#include <cmath>
#include <iomanip>

namespace binade::heads::rank {
namespace {

// A word and what it stands for. Words that stand for the same: the first one is the name.
template <class T>
struct Word {
  const char* word;
  T meaning;
};

template <class T, size_t N>
T meaning_of(const Word<T> (&words)[N], std::string_view word, const char* what) {
  std::vector<std::string> known;
  for (const Word<T>& candidate : words) {
    if (word == candidate.word) return candidate.meaning;
    known.emplace_back(candidate.word);
  }
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  fail('"', word, "\" is no ", what, did_you_mean(word, known), "; there are: ", list);
}

constexpr Word<Measure> kMeasures[] = {
    {"ndcg", Measure::ndcg},
    {"map", Measure::map},
    {"mrr", Measure::mrr},
    {"err", Measure::err},
    {"p", Measure::precision},
    {"arp", Measure::arp},
    {"precision", Measure::precision},
};

constexpr Word<Ties> kTies[] = {
    {"stable", Ties::stable}, {"expected", Ties::expected}, {"best", Ties::best},
    {"worst", Ties::worst},   {"random", Ties::random},     {"name", Ties::name},
};

constexpr Word<EmptyLists> kEmptyLists[] = {
    {"zero", EmptyLists::zero}, {"one", EmptyLists::one}, {"skip", EmptyLists::skip}};

// What programs do. LightGBM's gain table has 31 entries, XGBoost shifts a 32-bit 1 by the label,
// LETOR 4.0's script has a table of three.
struct Preset {
  const char* name;
  Gain gain;
  Discount discount;
  EmptyLists empty;
  Ties ties;
  bool short_lists_zero;
  std::optional<int> gain_table;
};
constexpr auto kExponential = Gain::exponential;
constexpr auto kLog2 = Discount::log2;
constexpr Preset kPresets[] = {
    {"lightgbm", kExponential, kLog2, EmptyLists::one, Ties::stable, false, 30},
    {"xgboost", kExponential, kLog2, EmptyLists::one, Ties::stable, false, 31},
    {"allrank", kExponential, kLog2, EmptyLists::one, Ties::stable, false, {}},
    {"tfr", kExponential, kLog2, EmptyLists::zero, Ties::random, false, {}},
    {"rax", kExponential, kLog2, EmptyLists::zero, Ties::stable, false, {}},
    {"dasalc", kExponential, kLog2, EmptyLists::skip, Ties::stable, false, {}},
    {"letor4", kExponential, Discount::letor, EmptyLists::zero, Ties::stable, true, 2},
    {"trec_eval", Gain::linear, kLog2, EmptyLists::zero, Ties::name, false, {}},
    {"one", kExponential, kLog2, EmptyLists::one, Ties::stable, false, {}},
    {"zero", kExponential, kLog2, EmptyLists::zero, Ties::stable, false, {}},
    {"skip", kExponential, kLog2, EmptyLists::skip, Ties::stable, false, {}},
};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

Metric Metric::parse(std::string_view text) {
  const std::string word = lower(text);
  const size_t at = word.find('@');
  Metric metric;
  metric.measure = meaning_of(kMeasures, word.substr(0, at), "metric");
  if (at == std::string::npos) return metric;
  check(metric.measure != Measure::arp, '"', text, "\": ARP is of the whole list and has no cut");
  const auto cut = parse_number(word.substr(at + 1));
  check(cut && *cut >= 1 && *cut <= INT32_MAX && *cut == std::floor(*cut), '"', text,
        "\": expected a whole number from 1 behind @, found \"", word.substr(at + 1), '"');
  metric.cut = static_cast<int64_t>(*cut);
  return metric;
}

std::string Metric::name() const {
  std::string name;
  for (const auto& [word, meaning] : kMeasures)
    if (name.empty() && meaning == measure) name = word;
  for (char& c : name) c = static_cast<char>(c - 'a' + 'A');
  return cut > 0 ? concat(name, '@', cut) : name;
}

Convention Convention::preset(std::string_view name) {
  Word<const Preset*> words[std::size(kPresets)];
  for (size_t i = 0; i < std::size(kPresets); ++i) words[i] = {kPresets[i].name, &kPresets[i]};
  const Preset& preset = *meaning_of(words, name, "convention");
  Convention convention;
  convention.name = preset.name;
  convention.gain = preset.gain;
  convention.discount = preset.discount;
  convention.empty = preset.empty;
  convention.ties = preset.ties;
  convention.short_lists_zero = preset.short_lists_zero;
  convention.gain_table = preset.gain_table;
  return convention;
}

bool Convention::has_gain(double label) const {
  return !gain_table || (label >= 0 && label <= *gain_table && label == std::floor(label));
}

std::vector<std::string> Convention::preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

std::string Convention::describe(const Metric& metric) const {
  TextStream out;
  switch (metric.measure) {
    case Measure::ndcg:
      out << "gain " << (gain == Gain::exponential ? "2^y-1" : "y") << ", discount "
          << (discount == Discount::log2 ? "1/log2(1+r), " : "1, 1, 1/log2(r), ");
      if (short_lists_zero && metric.cut > 0)
        out << "lists shorter than " << metric.cut << " count 0, ";
      break;
    case Measure::err:
      out << "stopping (2^y-1)/2^(largest label), ";
      break;
    case Measure::arp:
      out << "weight y, ";
      break;
    case Measure::map:
    case Measure::mrr:
    case Measure::precision:
      out << "relevant from label 1, ";
  }
  const EmptyLists policy = metric.measure == Measure::arp ? EmptyLists::skip : empty;
  out << "lists without relevant documents "
      << (policy == EmptyLists::skip   ? "left out"
          : policy == EmptyLists::zero ? "count 0"
                                       : "count 1")
      << ", ";
  switch (ties) {
    case Ties::stable:
      out << "ties by input order";
      break;
    case Ties::expected:
      out << "ties in the mean over all orders";
      break;
    case Ties::best:
      out << "ties at their best";
      break;
    case Ties::worst:
      out << "ties at their worst";
      break;
    case Ties::random:
      out << "ties in a random order of seed " << seed;
      break;
    case Ties::name:
      out << "ties by falling names";
  }
  return out.str();
}

Ties parse_ties(std::string_view text) {
  return meaning_of(kTies, text, "order of ties");
}

EmptyLists parse_empty_lists(std::string_view text) {
  return meaning_of(kEmptyLists, text, "value of empty lists");
}

std::string Evaluation::describe() const {
  TextStream out;
  out << metric.name() << ' ' << std::fixed << std::setprecision(4) << mean << " ("
      << convention.name << ": " << convention.describe(metric) << "; " << lists << " lists, "
      << empty << " without relevant documents)";
  return out.str();
}

}  // namespace binade::heads::rank
