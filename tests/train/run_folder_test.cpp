// What a run leaves behind: lock, configuration, metrics, TensorBoard events, chart; progress line
// and signals.
#include <binade/train/run_folder.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include <binade/core/file.h>
#include <binade/train/progress.h>
#include <binade/train/signals.h>

#include "temporary_folder.h"
#include "train/small_disk.h"
#include "warnings.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using train::RunFolder;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

std::vector<Json> rows_of(const fs::path& file) {
  std::vector<Json> rows;
  std::istringstream lines(read_text_file(file));
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

// ---- a reader of TensorBoard's files, after their own descriptions: TFRecord framing with masked
// CRC-32C, and protobuf's wire format -----------------------------------------------------------

// CRC-32C by its definition: bit by bit, polynomial 0x1EDC6F41 reflected.
uint32_t slow_crc(const std::string& data) {
  uint32_t crc = 0xffffffff;
  for (const char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

uint32_t mask(uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8;
}

template <class T>
T read_as(const std::string& data, size_t at) {
  T value;
  REQUIRE(at + sizeof value <= data.size());
  std::memcpy(&value, data.data() + at, sizeof value);
  return value;
}

struct Field {
  int number;
  uint64_t value;     // of varints
  std::string bytes;  // of fixed sizes and of strings
};

std::vector<Field> fields_of(const std::string& message) {
  std::vector<Field> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      REQUIRE(at < message.size());
      const auto byte = static_cast<uint8_t>(message[at++]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t tag = varint();
    Field field{static_cast<int>(tag >> 3), 0, ""};
    size_t length = 0;
    switch (tag & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        length = 8;
        break;
      case 2:
        length = varint();
        break;
      case 5:
        length = 4;
        break;
      default:
        FAIL("wire type " << (tag & 7));
    }
    REQUIRE(at + length <= message.size());
    field.bytes = message.substr(at, length);
    at += length;
    fields.push_back(field);
  }
  return fields;
}

struct Scalar {
  std::string tag;
  int64_t step;
  float value;
};

std::vector<Scalar> read_events(const fs::path& folder) {
  std::vector<Scalar> scalars;
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    CHECK_THAT(entry.path().filename().string(), Catch::StartsWith("events.out.tfevents."));
    ++files;
    const std::string data = read_text_file(entry.path());
    size_t at = 0;
    bool first = true;
    while (at < data.size()) {
      const auto length = read_as<uint64_t>(data, at);
      CHECK(read_as<uint32_t>(data, at + 8) == mask(slow_crc(data.substr(at, 8))));
      const std::string payload = data.substr(at + 12, length);
      CHECK(read_as<uint32_t>(data, at + 12 + length) == mask(slow_crc(payload)));
      at += 16 + length;
      int64_t step = 0;
      for (const Field& field : fields_of(payload)) {
        if (field.number == 1) CHECK(read_as<double>(field.bytes, 0) > 1e9);  // wall time
        if (field.number == 2) step = static_cast<int64_t>(field.value);
        if (field.number == 3) CHECK((first && field.bytes == "brain.Event:2"));
        if (field.number != 5) continue;
        for (const Field& value : fields_of(field.bytes)) {
          Scalar scalar{"", step, NAN};
          for (const Field& part : fields_of(value.bytes)) {
            if (part.number == 1) scalar.tag = part.bytes;
            if (part.number == 2) scalar.value = read_as<float>(part.bytes, 0);
          }
          scalars.push_back(scalar);
        }
      }
      first = false;
    }
  }
  CHECK(files == 1);
  return scalars;
}

// ---- XML, as far as a chart goes: every tag is closed in order ----------------------------------

void check_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const size_t end = xml.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = xml.substr(at + 1, end - at - 1);
    REQUIRE(tag.find('<') == std::string::npos);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    CHECK(std::count(tag.begin(), tag.end(), '\'') % 2 == 0);
    if (tag[0] == '/') {
      REQUIRE(!open.empty());
      CHECK(tag.substr(1) == open.back());
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
  }
  CHECK(open.empty());
  for (size_t at = xml.find('&'); at != std::string::npos; at = xml.find('&', at + 1)) {
    const std::string entity = xml.substr(at, xml.find(';', at) - at + 1);
    CHECK((entity == "&amp;" || entity == "&lt;" || entity == "&gt;"));
  }
  CHECK(xml.find("nan") == std::string::npos);
  CHECK(xml.find("inf") == std::string::npos);
}

}  // namespace

TEST_CASE("a run folder belongs to one process and holds one run", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "runs" / "a";
  {
    RunFolder folder(path, false);
    CHECK_THROWS_WITH(RunFolder(path, false), Contains("in use") && Contains(path.string()));
    CHECK_THROWS_WITH(RunFolder(path, true), Contains("in use"));
    CHECK(!folder.has_run());
    folder.set_config(R"({"dim": 4})");
    CHECK(folder.has_run());
  }
  CHECK_THROWS_WITH(RunFolder(path, false), Contains("holds a run already"));
  CHECK(RunFolder(path, true).has_run());
  temporary.write("file", "");
  CHECK_THROWS_WITH(RunFolder(temporary.path() / "file", false), Contains("run folder"));
}

TEST_CASE("a run folder in which nothing was begun disappears", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path made = temporary.path() / "made", given = temporary.path() / "given";
  { RunFolder folder(made, false); }
  CHECK(!fs::exists(made));
  temporary.write("given/notes.txt", "mine");
  { RunFolder folder(given, false); }
  CHECK(fs::exists(given / "notes.txt"));
  {
    RunFolder folder(made, false);
    folder.set_config("{}");
  }
  CHECK(fs::exists(made / "config.json"));
}

TEST_CASE("a changed configuration is refused with the differences", "[train][run_folder]") {
  const TemporaryFolder temporary;
  RunFolder folder(temporary.path() / "a", false);
  const std::vector<std::string> may_change = {"steps"};
  folder.check_config(R"({"dim": 4})", {});  // there is nothing to compare with
  folder.set_config(R"({"dim": 4, "text": ["a", "b"], "steps": 10, "old": true})");
  folder.check_config(R"({"text": ["a", "b"], "dim": 4, "old": true, "steps": 20})", may_change);
  std::string text;
  try {
    folder.check_config(R"({"dim": 8, "text": ["a"], "steps": 10, "new": 1})", may_change);
  } catch (const Error& error) {
    text = error.what();
  }
  CHECK_THAT(text, Contains("dim (4 -> 8)") && Contains(R"(text (["a","b"] -> ["a"]))") &&
                       Contains("new (unset -> 1)") && Contains("old (true -> unset)") &&
                       !Contains("steps") && !Contains("\n"));
  folder.write_text("config.json", "{\"dim\": ");
  CHECK_THROWS_WITH(folder.check_config("{}", {}), Contains("config.json is not valid JSON"));
}

TEST_CASE("metrics are rows of JSON and TensorBoard events", "[train][run_folder]") {
  const TemporaryFolder temporary;
  {
    RunFolder folder(temporary.path() / "a", false);
    folder.set_config("{}");
    folder.add_metrics(1, {{"loss", 2.5}, {"skipped", false}, {"skipped_total", int64_t{3}}});
    folder.add_metrics(300, {{"loss", NAN}, {"offender", std::string("h.\"0\"")}});
    folder.append_line("more.jsonl", "{}");
    folder.append_line("more.jsonl", "[]");
  }
  const fs::path path = temporary.path() / "a";
  const std::vector<Json> rows = rows_of(path / "metrics.jsonl");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0] == Json::parse(R"({"step":1,"loss":2.5,"skipped":false,"skipped_total":3})"));
  CHECK(rows[1] == Json::parse(R"({"step":300,"loss":null,"offender":"h.\"0\""})"));
  CHECK(read_text_file(path / "more.jsonl") == "{}\n[]\n");

  const std::vector<Scalar> scalars = read_events(path / "tensorboard");
  REQUIRE(scalars.size() == 3);
  CHECK(scalars[0].tag == "loss");
  CHECK(scalars[0].step == 1);
  CHECK(scalars[0].value == 2.5f);
  CHECK(scalars[1].tag == "skipped_total");
  CHECK(scalars[1].value == 3);
  CHECK(scalars[2].step == 300);
  CHECK(std::isnan(scalars[2].value));
}

TEST_CASE("a resumed run drops the rows that it runs again", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path file = temporary.path() / "a" / "metrics.jsonl";
  {
    RunFolder folder(temporary.path() / "a", false);
    folder.set_config("{}");
    for (int64_t step = 1; step <= 5; ++step)
      folder.add_metrics(step, {{"loss", 0.5 * static_cast<double>(step)}});
  }
  temporary.write("a/metrics.jsonl", read_text_file(file) + "{\"step\":6,\"lo");  // it was killed
  RunFolder folder(temporary.path() / "a", true);
  folder.rewind_metrics(3);
  CHECK(rows_of(file).size() == 3);
  CHECK(rows_of(file).back().at("step") == 3);
  folder.add_metrics(4, {{"loss", 7.0}});
  CHECK(rows_of(file).size() == 4);
  CHECK(rows_of(file).back().at("loss") == 7.0);
  // The chart has the rows from before.
  folder.write_chart();
  check_well_formed(read_text_file(temporary.path() / "a" / "chart.svg"));
}

TEST_CASE("a full disk costs metrics rows, not the run", "[train][run_folder]") {
  const TemporaryFolder temporary;
  RunFolder folder(temporary.path() / "a", false);
  folder.set_config("{}");
  folder.add_metrics(1, {{"loss", 1.0}});
  {
    const ExpectWarning warning("cannot write the metrics");
    const SmallDisk disk(20);
    folder.add_metrics(2, {{"loss", 2.0}});
    folder.add_metrics(3, {{"loss", 3.0}});
  }
  folder.add_metrics(4, {{"loss", 4.0}});
  folder.add_metrics(5, {{"loss", 5.0}});
  const std::string text = read_text_file(temporary.path() / "a" / "metrics.jsonl");
  CHECK_THAT(text, Contains("{\"step\":1,") && Contains("\n{\"step\":5,"));
}

TEST_CASE("charts are well-formed SVG", "[train][chart]") {
  train::ChartSeries many{"a < b & c", {}, {}};
  for (int i = 0; i < 10000; ++i) {
    many.x.push_back(i);
    many.y.push_back(i % 100 == 0 ? NAN : std::sin(i * 0.01));
  }
  const std::string chart =
      train::draw_chart({{"wave", {many, {"flat", {0, 1}, {2, 2}}}, false},
                         {"log", {{"scale", {0, 1, 2, 3}, {65536, 0, -1, INFINITY}}}, true},
                         {"empty", {{"", {}, {}}}, false},
                         {"one point", {{"p", {5}, {0}}}, false}},
                        "step");
  check_well_formed(chart);
  CHECK_THAT(chart, Catch::StartsWith("<svg") && Contains("a &lt; b &amp; c") && Contains("step"));
  CHECK(chart.size() < 200000);  // long lines are thinned
  check_well_formed(train::draw_chart({}, "x"));
}

TEST_CASE("the progress line", "[train][progress]") {
  CHECK(train::format_progress({.step = 120,
                                .steps = 1000,
                                .loss = 2.31409,
                                .smoothed = 2.401,
                                .tokens_per_second = 41234,
                                .learning_rate = 3e-4,
                                .grad_norm = 1.2149,
                                .scale = 65536,
                                .skipped = 1,
                                .seconds_left = 92,
                                .peak_bytes = 2050827223}) ==
        "step 120/1000  loss 2.3141 (2.4010)  41.2k tok/s  lr 3.00e-04  norm 1.21  scale 65536  "
        "skipped 1  left 1:32  peak 1.91 GiB");
  CHECK(train::format_duration(0) == "0:00");
  CHECK(train::format_duration(59.6) == "1:00");
  CHECK(train::format_duration(7511) == "2:05:11");
  CHECK(train::format_duration(NAN) == "?");
  CHECK(train::format_duration(INFINITY) == "?");
}

TEST_CASE("signals ask for a stop, the second one ends the process", "[train][signals]") {
  struct sigaction before {};
  sigaction(SIGTERM, nullptr, &before);
  for (const int number : {SIGINT, SIGTERM}) {
    const train::StopSignals signals;
    CHECK(!train::StopSignals::requested());
    std::raise(number);
    CHECK(train::StopSignals::requested());
    CHECK(train::StopSignals::number() == number);
  }
  struct sigaction now {};
  sigaction(SIGTERM, nullptr, &now);
  CHECK(now.sa_handler == before.sa_handler);

  const pid_t child = fork();
  if (child == 0) {
    const train::StopSignals signals;
    std::raise(SIGTERM);
    std::raise(SIGTERM);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}
