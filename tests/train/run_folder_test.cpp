// What a run leaves behind: lock, configuration, metrics, TensorBoard events.
#include <binade/train/run_folder.h>

#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include <binade/core/file.h>

#include "temporary_folder.h"
#include "train/small_disk.h"
#include "train/well_formed.h"
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

// As TensorBoard reads a folder: the files in the order of their names; a SessionLog START drops
// what came before of its step and later ones (event_accumulator.py, _Purge).
std::vector<Scalar> read_events(const fs::path& folder, size_t files = 1) {
  std::vector<Scalar> scalars;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  CHECK(paths.size() == files);
  for (const fs::path& path : paths) {
    CHECK_THAT(path.filename().string(), Catch::StartsWith("events.out.tfevents."));
    const std::string data = read_text_file(path);
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
        if (field.number == 7)  // session_log
          for (const Field& part : fields_of(field.bytes))
            if (part.number == 1 && part.value == 1)  // status: START
              std::erase_if(scalars, [&](const Scalar& old) { return old.step >= step; });
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
  return scalars;
}

}  // namespace

TEST_CASE("a run folder belongs to one process and holds one run", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "runs" / "a";
  {
    RunFolder folder(path, false);
    CHECK_THROWS_WITH(RunFolder(path, false), Contains("in use") && Contains(path.string()));
    CHECK(!folder.has_run());
    folder.set_config(R"({"dim": 4})");
    CHECK(folder.has_run());
    CHECK(!folder.has_steps());
    CHECK_THROWS_WITH(RunFolder(path, true), Contains("in use"));
    folder.add_metrics(1, {{"loss", 2.0}});
    CHECK(folder.has_steps());
  }
  CHECK_THROWS_WITH(RunFolder(path, false), Contains("holds a run already"));
  CHECK(RunFolder(path, true).has_run());
  // Without its configuration it cannot be gone on with, and a new one would mix with it.
  temporary.write("runs/a/checkpoints/step-000000005.safetensors", "");
  fs::remove(path / "config.json");
  fs::remove(path / "metrics.jsonl");
  CHECK_THROWS_WITH(RunFolder(path, false), Contains("config.json is gone"));
  CHECK_THROWS_WITH(RunFolder(path, true), Contains("holds no run"));
  temporary.write("file", "");
  CHECK_THROWS_WITH(RunFolder(temporary.path() / "file", false), Contains("run folder"));
}

// Whatever ended it: a sentence, a signal or a kill.
TEST_CASE("a run that made no step leaves a folder in which the next one begins",
          "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  {
    RunFolder folder(path, false);
    folder.set_config(R"({"dim": 4})");
    folder.write_manifest({});
    folder.add_metrics(0, {{"validation_loss", 2.0}});  // of what the run begins with
    folder.add_underflow_report(R"({"step": 0})");
    folder.write_chart();
    temporary.write("a/checkpoints/step-000000000.safetensors", "");
    temporary.write("a/checkpoints/best.safetensors", "");
    temporary.write("a/notes.txt", "mine");
  }
  CHECK(RunFolder(path, true).has_run());  // or goes on, as it is
  RunFolder next(path, false);
  CHECK(!next.has_run());
  for (const char* gone :
       {"manifest.json", "metrics.jsonl", "underflow.jsonl", "tensorboard", "chart.svg",
        "checkpoints/step-000000000.safetensors", "checkpoints/best.safetensors"})
    CHECK(!fs::exists(path / gone));
  CHECK(fs::exists(path / "notes.txt"));
  next.check_config(R"({"dim": 5})", {});  // of another configuration
  next.set_config(R"({"dim": 5})");
  CHECK(next.has_run());
}

TEST_CASE("metrics alone keep a new run out of a folder", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  temporary.write("a/metrics.jsonl", "{\"step\": 3}\n");
  CHECK_THROWS_WITH(RunFolder(path, false), Contains("config.json is gone"));
  temporary.write("a/config.json", "{}");
  CHECK_THROWS_WITH(RunFolder(path, false), Contains("holds a run already"));
  temporary.write("a/metrics.jsonl", "{\"step\": 0}\n{\"step\": 1, \"lo");  // cut by a kill
  CHECK(!RunFolder(path, false).has_run());
}

TEST_CASE("a resume needs a run to resume", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path none = temporary.path() / "none";
  CHECK_THROWS_WITH(RunFolder(none, true), Contains("holds no run") && Contains(none.string()));
  CHECK(!fs::exists(none));
  temporary.write("notes/mine.txt", "");
  CHECK_THROWS_WITH(RunFolder(temporary.path() / "notes", true), Contains("holds no run"));
  CHECK(!fs::exists(temporary.path() / "notes" / "lock"));
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
  CHECK_THROWS_WITH(folder.check_config("{}", {}), Contains("config.json: not valid JSON"));
}

TEST_CASE("metrics are rows of JSON and TensorBoard events", "[train][run_folder]") {
  const TemporaryFolder temporary;
  {
    RunFolder folder(temporary.path() / "a", false);
    folder.set_config("{}");
    folder.add_metrics(1, {{"loss", 2.5}, {"skipped", false}, {"skipped_total", int64_t{3}}});
    folder.add_metrics(300, {{"loss", NAN}, {"offender", std::string("h.\"0\"")}});
    folder.add_underflow_report(R"({"step":1})");
    folder.add_underflow_report(R"({"step":2})");
  }
  const fs::path path = temporary.path() / "a";
  const std::vector<Json> rows = rows_of(path / "metrics.jsonl");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0] == Json::parse(R"({"step":1,"loss":2.5,"skipped":false,"skipped_total":3})"));
  CHECK(rows[1] == Json::parse(R"({"step":300,"loss":null,"offender":"h.\"0\""})"));
  CHECK(read_text_file(path / "underflow.jsonl") == "{\"step\":1}\n{\"step\":2}\n");

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
  folder.rewind(3);
  CHECK(rows_of(file).size() == 3);
  CHECK(rows_of(file).back().at("step") == 3);
  folder.add_metrics(4, {{"loss", 7.0}});
  CHECK(rows_of(file).size() == 4);
  CHECK(rows_of(file).back().at("loss") == 7.0);
  // A row that is no step's stays; one that is no object goes.
  temporary.write("a/metrics.jsonl",
                  "{\"note\":\"mine\"}\n[1]\n\n{\"step\":\"x\"}\n{\"step\":4}\n");
  folder.rewind(3);
  CHECK(read_text_file(file) == "{\"note\":\"mine\"}\n{\"step\":\"x\"}\n");
  // The chart has the rows from before.
  folder.write_chart();
  check_well_formed(read_text_file(temporary.path() / "a" / "chart.svg"));
}

TEST_CASE("a resume reads no rows from a pipe or a device", "[train][run_folder]") {
  const TemporaryFolder temporary;
  for (const char* name : {"metrics.jsonl", "underflow.jsonl"}) {
    INFO(name);
    const fs::path path = temporary.path() / (std::string("run-with-other-") + name);
    RunFolder folder(path, false);
    folder.set_config("{}");
    fs::create_symlink("/dev/zero", path / name);
    CHECK_THROWS_WITH(folder.rewind(3), Contains(name) && Contains("not a regular file"));
    fs::remove(path / name);
    REQUIRE(::mkfifo((path / name).c_str(), 0600) == 0);
    CHECK_THROWS_WITH(folder.rewind(3), Contains(name) && Contains("not a regular file"));
    CHECK_FALSE(fs::is_regular_file(path / name));
  }
}

TEST_CASE("every file that grows is taken back to the step of the resume", "[train][run_folder]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  const auto write = [](RunFolder& folder, int64_t first, int64_t last, double sign) {
    for (int64_t step = first; step <= last; ++step) {
      folder.add_metrics(step, {{"loss", sign * static_cast<double>(step)}});
      folder.add_underflow_report(R"({"step":)" + std::to_string(step) + R"(,"sign":)" +
                                  std::to_string(sign) + "}");
    }
  };
  {
    RunFolder folder(path, false);
    folder.set_config("{}");
    write(folder, 1, 9, 1);
  }
  {
    RunFolder folder(path, true);
    folder.rewind(5);
    write(folder, 6, 7, -1);
    folder.rewind(6);  // within the same second, and the same process
    write(folder, 7, 8, -1);
  }
  // Nothing stands twice, and what ran last is what stands.
  const auto expected = [](int64_t step) { return step <= 5 ? 1 : -1; };
  const std::vector<Json> rows = rows_of(path / "metrics.jsonl"),
                          reports = rows_of(path / "underflow.jsonl");
  const std::vector<Scalar> scalars = read_events(path / "tensorboard", 3);
  REQUIRE(rows.size() == 8);
  REQUIRE(reports.size() == 8);
  REQUIRE(scalars.size() == 8);
  for (int64_t step = 1; step <= 8; ++step) {
    const auto i = static_cast<size_t>(step - 1);
    CHECK(rows[i].at("step") == step);
    CHECK(rows[i].at("loss") == expected(step) * step);
    CHECK(reports[i].at("step") == step);
    CHECK(reports[i].at("sign") == expected(step));
    CHECK(scalars[i].step == step);
    CHECK(scalars[i].value == static_cast<float>(expected(step) * step));
  }
  // No other file has grown: whoever adds one has to think of this test.
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"config.json", "lock", "metrics.jsonl", "tensorboard",
                                          "underflow.jsonl"});
}

TEST_CASE("texts from outside leave metrics and events readable", "[train][run_folder]") {
  const TemporaryFolder temporary;
  {
    RunFolder folder(temporary.path() / "a", false);
    folder.set_config("{}");
    folder.add_metrics(1, {{"offender", std::string("caf\xe9\n\x01")}, {"lo\xffss", 2.0}});
  }
  const std::vector<Json> rows = rows_of(temporary.path() / "a" / "metrics.jsonl");
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].at("offender") == "caf\xef\xbf\xbd\n\x01");
  const std::vector<Scalar> scalars = read_events(temporary.path() / "a" / "tensorboard");
  REQUIRE(scalars.size() == 1);
  CHECK(scalars[0].tag == "lo\xef\xbf\xbdss");
}

TEST_CASE("a full disk costs metrics rows, not the run", "[train][run_folder]") {
  const TemporaryFolder temporary;
  RunFolder folder(temporary.path() / "a", false);
  folder.set_config("{}");
  folder.add_metrics(1, {{"loss", 1.0}});
  {
    const ExpectWarning metrics("metrics.jsonl: File too large"), events("tensorboard"),
        underflow("underflow.jsonl: File too large"), chart("chart.svg: File too large");
    const SmallDisk disk(20);
    folder.add_metrics(2, {{"loss", 2.0}});
    folder.add_metrics(3, {{"loss", 3.0}});
    folder.add_underflow_report(R"({"step":2,"more":"than 20 bytes"})");
    folder.write_chart();
  }
  folder.add_metrics(4, {{"loss", 4.0}});
  folder.add_metrics(5, {{"loss", 5.0}});
  // What was written is whole, though the disk was full in the middle of a row.
  std::vector<int64_t> steps;
  for (const Json& row : rows_of(temporary.path() / "a" / "metrics.jsonl"))
    steps.push_back(row.at("step"));
  CHECK(steps == std::vector<int64_t>{1, 4, 5});
  steps.clear();
  for (const Scalar& scalar : read_events(temporary.path() / "a" / "tensorboard"))
    steps.push_back(scalar.step);
  CHECK(steps == std::vector<int64_t>{1, 4, 5});
  CHECK(read_text_file(temporary.path() / "a" / "underflow.jsonl").empty());
}
