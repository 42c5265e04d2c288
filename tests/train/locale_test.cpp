// Numbers are written and read with a point and without grouping whatever locale the host program
// has chosen, for C (setlocale) and for C++ streams (std::locale::global).
#include <catch2/catch.hpp>
#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <locale>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <binade/amp/underflow_report.h>
#include <binade/core/file.h>
#include <binade/core/host_memory.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/core/value_range.h>
#include <binade/data/regex.h>
#include <binade/infer/sampling.h>
#include <binade/nn/hf.h>
#include <binade/nn/lora.h>
#include <binade/train/chart.h>
#include <binade/train/trainer.h>
#include <nlohmann/json.hpp>

#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "skip.h"
#include "temporary_folder.h"
#include "train/small_run.h"

using namespace binade;
using namespace binade::test;
namespace fs = std::filesystem;

namespace {

// 1.234.567,5
class CommaNumbers : public std::numpunct<char> {
 protected:
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

// While it lives, C++ streams write decimal commas and group digits.
class CommaStreams {
 public:
  CommaStreams()
      : before_(std::locale::global(std::locale(std::locale::classic(), new CommaNumbers))) {}
  ~CommaStreams() { std::locale::global(before_); }

 private:
  std::locale before_;
};

// While it lives, C's functions do the same, if the system can make the German locale.
class CommaC {
 public:
  CommaC() : before_(std::setlocale(LC_ALL, nullptr)) {
    const std::string made = (folder_ / "de_DE.ISO-8859-1").string();
    const std::string command = "localedef -i de_DE -f ISO-8859-1 '" + made + "' > /dev/null 2>&1";
    if (std::system(command.c_str()) == -1) return;
    ::setenv("LOCPATH", folder_.path().c_str(), 1);
    active_ = std::setlocale(LC_ALL, "de_DE.ISO-8859-1") != nullptr &&
              std::string(std::localeconv()->decimal_point) == ",";
  }
  ~CommaC() {
    std::setlocale(LC_ALL, before_.c_str());
    ::unsetenv("LOCPATH");
  }
  bool active() const { return active_; }

 private:
  TemporaryFolder folder_;
  std::string before_;
  bool active_ = false;
};

// Everything that a run leaves and that does not depend on the time of day.
std::string short_run(const fs::path& path, int64_t steps) {
  SmallRun small({.preset = "fp16"});
  const bool again = fs::exists(path);
  train::RunFolder folder(path, /*resume=*/again);
  folder.set_config(R"({"learning-rate": 0.02})");
  train::Task task;
  task.model = small.model.get();
  task.data = [](int64_t step) { return small_batch(step, 8, 2); };
  task.loss = heads::language_model::loss(*small.model);
  task.validate = [] { return 1234.5; };
  train::TrainerOptions options;
  options.steps = steps;
  options.schedule = {.learning_rate = 0.02, .warmup = 3, .total = 8};
  options.step = small.step_options;
  options.quiet = true;
  train::Trainer trainer(task, *small.optimizer, *small.scaler, small.preset, folder, options);
  if (again) trainer.resume();
  trainer.run();

  std::string all;
  for (const fs::directory_entry& entry : fs::directory_iterator(path / "checkpoints")) {
    const train::Checkpoint checkpoint = train::read_checkpoint(entry.path());
    for (const auto& [key, value] : checkpoint.values) all += key + "=" + value + "\n";
  }
  std::istringstream lines(read_text_file(path / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json row = test::parsed(line);
    for (const char* key : {"step", "loss", "learning_rate", "grad_norm", "validation_loss"})
      if (row.contains(key)) all += std::string(key) + "=" + row.at(key).dump() + "\n";
  }
  return all;
}

struct Case {
  const char* name;
  std::function<std::string()> text;
};

// Texts with numbers from every room of the library.
std::vector<Case> cases() {
  const Array array = Array::from(std::vector<float>{0.5f, -1234.5f, 1e6f, 1e-5f}, {2, 2});
  return {
      {"an error",
       [] {
         return concat(Shape{12345, 2}, ' ', 1234567, ' ', 0.5, ' ', 1e9);
       }},
      {"a shape on a stream of the program",
       [] {
         std::ostringstream text;
         text << Shape{12345, 678} << Device::cuda(1234);
         return text.str();
       }},
      {"a printed array",
       [=] {
         std::ostringstream text;
         text << array << Array::arange(2000, DType::i64) << array.to(DType::bf16);
         return text.str();
       }},
      {"a range", [=] { return describe_range(array); }},
      {"numbers", [] { return exact_number(0.1) + gib(int64_t{1} << 40); }},
      {"parsed numbers", [] { return parse_number("1.5") == 1.5 ? "1.5" : "wrong"; }},
      {"a preset",
       [] { return exact_number(amp::Preset::parse("fp16-static:0.5").constant_scale); }},
      {"an underflow report",
       [] {
         amp::UnderflowReport report{1024.5, 2048, {}};
         amp::UnderflowRow row;
         row.parameter = "w";
         row.elements = 12345;
         row.underflowed = 1234;
         report.rows.push_back(row);
         return report.summary() + report.to_json(12345);
       }},
      {"a chart",
       [] {
         return train::draw_chart({{"loss",
                                    {{"train", {0, 1000, 12345}, {0.5, 2000.25, 1234567.5}}},
                                    train::ChartAxis::decades}},
                                  "step");
       }},
      {"a model's configuration",
       [] {
         const std::string text = small_config(nn::Family::llama).to_json(DType::f32);
         return nn::CausalLmConfig::parse(text, "text").to_json(DType::f32);
       }},
      {"a mismatch of states",
       [] {
         nn::StateDict many;
         for (int i = 0; i < 1200; ++i)
           many.emplace(std::to_string(i), Array::zeros({1}, DType::f32));
         return nn::compare_state(many, {}).describe();
       }},
      {"files of LoRA",
       [] {
         const TemporaryFolder folder;
         const auto model = small_model(small_config(nn::Family::llama));
         const nn::Lora lora(*model, {.rank = 2, .alpha = 1.5, .target_modules = {"q_proj"}});
         lora.save(folder.path());
         const auto other = small_model(small_config(nn::Family::llama));
         return exact_number(nn::Lora::load(*other, folder.path()).options().alpha) +
                read_text_file(folder / "adapter_config.json");
       }},
      {"a tensor file",
       [=] {
         const TemporaryFolder folder;
         write_safetensors(folder / "a.safetensors", {{"big", Array::zeros({12345}, DType::u8)}});
         return read_text_file(folder / "a.safetensors");
       }},
      {"a regular expression",
       [] {
         // \xE9 is a letter to the <cctype> of this locale, and no letter of ASCII.
         const data::Regex regex("\\d+\\\xC3\xA9?");
         data::RegexScan scan(regex, "1\xC3\xA9");
         size_t begin = 0, end = 0;
         return scan.next(begin, end) ? std::to_string(end) : "none";
       }},
      {"the memory of the machine",
       [] {
         const TemporaryFolder folder;
         folder.write("proc/meminfo",
                      "MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\nSwapFree: 0 kB\n");
         return host_memory(folder.path())->describe();
       }},
      {"an error of sampling",
       [] {
         try {
           infer::SamplingOptions{.temperature = -1234.5}.validate();
         } catch (const Error& error) {
           return std::string(error.what());
         }
         return std::string("nothing");
       }},
  };
}

// The texts of all cases, and what a run that is interrupted and resumed leaves.
std::vector<std::pair<std::string, std::string>> all_texts() {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const Case& one : cases()) texts.emplace_back(one.name, one.text());
  const TemporaryFolder folder;
  short_run(folder / "run", 4);
  texts.emplace_back("a run", short_run(folder / "run", 8));
  return texts;
}

void check_same_texts(const std::vector<std::pair<std::string, std::string>>& expected) {
  const auto texts = all_texts();
  REQUIRE(texts.size() == expected.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    INFO(texts[i].first);
    CHECK(texts[i].second == expected[i].second);
  }
}

}  // namespace

TEST_CASE("the locale of C++ streams changes no text that Binade writes or reads",
          "[train][locale]") {
  const auto expected = all_texts();
  const CommaStreams comma;
  std::ostringstream grouped;
  grouped << 1234567.5;
  REQUIRE(grouped.str() == "1,23457e+06");
  check_same_texts(expected);
}

TEST_CASE("the locale of C changes no text that Binade writes or reads", "[train][locale]") {
  const auto expected = all_texts();
  const CommaC comma;
  if (!comma.active()) skip("the system cannot make the locale de_DE (localedef)");
  REQUIRE(std::strtod("1,5", nullptr) == 1.5);
  check_same_texts(expected);
}

TEST_CASE("a run under one locale is resumed under another", "[train][locale]") {
  const TemporaryFolder folder;
  short_run(folder / "plain", 4);
  const std::string expected = short_run(folder / "plain", 8);
  {
    const CommaStreams comma;
    short_run(folder / "comma", 4);
  }
  CHECK(short_run(folder / "comma", 8) == expected);
}
