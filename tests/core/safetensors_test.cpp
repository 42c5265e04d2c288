#include <binade/core/safetensors.h>

#include <cstdint>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <binade/core/error.h>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/unprivileged.h"
#include "parsed_json.h"
#include "temporary_folder.h"

using namespace binade;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

using Tensors = std::map<std::string, Array>;

std::string length_of(uint64_t bytes) {
  std::string text(8, '\0');
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(bytes >> (8 * i));
  return text;
}

// A folder with one file, made of these bytes.
class FileOf {
 public:
  explicit FileOf(const std::string& bytes) { std::ofstream(path(), std::ios::binary) << bytes; }
  FileOf(const std::string& header, size_t data_bytes)
      : FileOf(length_of(header.size()) + header + std::string(data_bytes, '\1')) {}
  fs::path path() const { return folder_ / "model.safetensors"; }

 private:
  test::TemporaryFolder folder_;
};

// What opening such a file says; every message names the file.
std::string refusal(const FileOf& file) {
  try {
    const SafetensorsFile opened(file.path());
  } catch (const Error& error) {
    CHECK_THAT(error.what(), Contains(file.path().string()));
    return error.what();
  }
  return "accepted";
}

std::string refusal(const std::string& header, size_t data_bytes) {
  return refusal(FileOf(header, data_bytes));
}

std::string entry(const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "\"F32\"") {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

// A file whose only tensor is `w`, with two F32 of data.
std::string refusal_of_entry(const std::string& entry) {
  return refusal("{\"w\":" + entry + "}", 8);
}

// The format as its description has it, read with nothing of ours.
struct Raw {
  nlohmann::json header;
  std::string data;
};
Raw read_raw(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes.at(i));
  REQUIRE(bytes.size() >= 8 + length);
  REQUIRE(bytes[8] == '{');
  return {test::parsed(bytes.substr(8, length)), bytes.substr(8 + length)};
}

}  // namespace

TEST_CASE("safetensors: every dtype comes back as it was written", "[safetensors]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "all.safetensors";
  Tensors tensors;
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32,
                            DType::u8, DType::boolean}) {
    const std::string name(name_of(dtype));
    const Array small = Array::arange(6, DType::i32).to(dtype);
    tensors[name] = small.view({2, 3});
    tensors[name + ".odd"] = small.slice(0, 0, 5);
    tensors[name + ".scalar"] = small.select(0, 1);
    tensors[name + ".empty"] = Array::zeros({2, 0, 3}, dtype);
    tensors[name + ".turned"] = small.view({2, 3}).transpose(0, 1);
  }
  write_safetensors(path, tensors, {{"format", "pt"}, {"note", "ä \"quoted\"\n"}});

  const SafetensorsFile file(path);
  CHECK(file.metadata() ==
        std::map<std::string, std::string>{{"format", "pt"}, {"note", "ä \"quoted\"\n"}});
  CHECK(file.names().size() == tensors.size());
  for (const auto& [name, array] : tensors) {
    CAPTURE(name);
    REQUIRE(file.contains(name));
    const Array read = file.get(name);
    CHECK(read.dtype() == array.dtype());
    CHECK(read.shape() == array.shape());
    CHECK(read.is_contiguous());
    CHECK(read.to_vector<double>() == array.to_vector<double>());
  }
}

TEST_CASE("safetensors: a written file is what the format's description says", "[safetensors]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "model.safetensors";
  const Tensors tensors = {
      {"a", Array::from(std::vector<uint8_t>{1, 2, 3}, {3})},
      {"b", Array::from(std::vector<float>{1.5f, -2}, {1, 2})},
      {"c", Array::from(std::vector<int64_t>{-1}, {})},
      {"d", Array::full({3}, 1, DType::bf16)},
  };
  write_safetensors(path, tensors, {{"key", "value"}});
  const Raw raw = read_raw(path);
  CHECK((fs::file_size(path) - raw.data.size()) % 8 == 0);
  CHECK(raw.header["__metadata__"] == nlohmann::json{{"key", "value"}});
  CHECK(raw.header.size() == 5);

  const std::map<std::string, std::string> dtypes = {
      {"a", "U8"}, {"b", "F32"}, {"c", "I64"}, {"d", "BF16"}};
  size_t covered = 0;
  for (const auto& [name, array] : tensors) {
    CAPTURE(name);
    const nlohmann::json& entry = raw.header.at(name);
    CHECK(entry.size() == 3);
    CHECK(entry["dtype"] == dtypes.at(name));
    CHECK(entry["shape"].get<std::vector<int64_t>>() ==
          std::vector<int64_t>(array.shape().begin(), array.shape().end()));
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    REQUIRE(end - begin == static_cast<size_t>(array.bytes()));
    REQUIRE(end <= raw.data.size());
    CHECK(begin % static_cast<size_t>(size_of(array.dtype())) == 0);
    CHECK(std::memcmp(raw.data.data() + begin, array.data(), end - begin) == 0);
    covered += end - begin;
  }
  CHECK(covered == raw.data.size());
}

TEST_CASE("safetensors: a file of no tensors", "[safetensors]") {
  const test::TemporaryFolder folder;
  write_safetensors(folder / "none", {});
  CHECK(SafetensorsFile(folder / "none").names().empty());
  CHECK(SafetensorsFile(FileOf("{}", 0).path()).names().empty());
}

TEST_CASE("safetensors: a header whose length does not align the data", "[safetensors]") {
  const std::vector<double> values = {1.25, -3};
  for (size_t pad = 0; pad < 8; ++pad) {
    const std::string header =
        "{\"w\":" + entry("[2]", "[0,16]", "\"F64\"") + "}" + std::string(pad, ' ');
    std::string bytes = length_of(header.size()) + header;
    bytes.append(reinterpret_cast<const char*>(values.data()), 16);
    const FileOf file(bytes);
    const Array array = SafetensorsFile(file.path()).get("w");
    CHECK(reinterpret_cast<uintptr_t>(array.data()) % 8 == 0);
    CHECK(array.to_vector<double>() == values);
  }
}

TEST_CASE("safetensors: arrays outlive the file object and the file", "[safetensors]") {
  const test::TemporaryFolder folder;
  write_safetensors(folder / "model", {{"w", Array::arange(5, DType::f32)}});
  Array array;
  {
    const SafetensorsFile file(folder / "model");
    array = file.get("w");
  }
  fs::remove(folder / "model");
  CHECK(array.to_vector<float>() == std::vector<float>{0, 1, 2, 3, 4});
}

TEST_CASE("safetensors: tensors are listed by offset, in whatever order the header has them",
          "[safetensors]") {
  const FileOf file("{\"b\":" + entry("[1]", "[4,8]") + ",\"z\":" + entry("[0]", "[8,8]") +
                        ",\"a\":" + entry("[1]", "[8,12]") + ",\"c\":" + entry("[1]", "[0,4]") +
                        "}",
                    12);
  CHECK(SafetensorsFile(file.path()).names() == std::vector<std::string>{"c", "b", "z", "a"});
}

TEST_CASE("safetensors: a header of many tensors", "[safetensors]") {
  const test::TemporaryFolder folder;
  Tensors tensors;
  const Array one = Array::zeros({1}, DType::u8);
  for (int i = 0; i < 20'000; ++i) tensors["layers." + std::to_string(i) + ".weight"] = one;
  write_safetensors(folder / "many", tensors);
  [[maybe_unused]] const clock_t start = std::clock();
  CHECK(SafetensorsFile(folder / "many").names().size() == 20'000);
#ifndef __SANITIZE_ADDRESS__
  CHECK(std::clock() - start < 3 * CLOCKS_PER_SEC);  // quadratic reading takes longer
#endif
}

TEST_CASE("safetensors: a name that is not there", "[safetensors][bad-input]") {
  const FileOf file("{\"lm_head.weight\":" + entry("[2]", "[0,8]") + "}", 8);
  const SafetensorsFile opened(file.path());
  CHECK_FALSE(opened.contains("lm_head.weights"));
  CHECK_THROWS_WITH(opened.get("lm_head.weights"),
                    Contains(file.path().string()) && Contains("did you mean lm_head.weight?"));
}

TEST_CASE("safetensors: a missing file", "[safetensors][bad-input]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(SafetensorsFile(folder / "gone"), Contains("gone") && Contains("No such file"));
}

TEST_CASE("safetensors: a folder", "[safetensors][bad-input]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(SafetensorsFile(folder.path()), Contains("it is a folder"));
}

TEST_CASE("safetensors: an unreadable file", "[safetensors][bad-input]") {
  const FileOf file("{}", 0);
  fs::permissions(file.path(), fs::perms::none);
  const test::Unprivileged user;
  CHECK_THAT(refusal(file), Contains("Permission denied"));
}

TEST_CASE("safetensors: an empty file", "[safetensors][bad-input]") {
  CHECK_THAT(refusal(FileOf("")), Contains("0 bytes"));
}

TEST_CASE("safetensors: fewer bytes than the header's length takes", "[safetensors][bad-input]") {
  CHECK_THAT(refusal(FileOf("1234567")), Contains("7 bytes"));
}

TEST_CASE("safetensors: a truncated header", "[safetensors][bad-input]") {
  const std::string header = "{\"w\":" + entry("[2]", "[0,8]") + "}";
  for (size_t kept = 0; kept < header.size(); ++kept)
    CHECK_THAT(refusal(FileOf(length_of(header.size()) + header.substr(0, kept))),
               Contains("truncated"));
}

TEST_CASE("safetensors: truncated data", "[safetensors][bad-input]") {
  const std::string header = "{\"w\":" + entry("[2]", "[0,8]") + "}";
  for (size_t kept = 0; kept < 8; ++kept) CHECK_THAT(refusal(header, kept), Contains("truncated"));
  CHECK(refusal(header, 8) == "accepted");
}

TEST_CASE("safetensors: a header longer than the file", "[safetensors][bad-input]") {
  CHECK_THAT(refusal(FileOf(length_of(3) + "{}")), Contains("passes the end"));
}

TEST_CASE("safetensors: a header longer than 100 MB", "[safetensors][bad-input]") {
  CHECK_THAT(refusal(FileOf(length_of(100'000'001) + "{}")), Contains("100000001"));
  CHECK_THAT(refusal(FileOf(length_of(~uint64_t{0}) + "{}")), Contains("18446744073709551615"));
  CHECK_THAT(refusal(FileOf(length_of(~uint64_t{0} - 7) + "{}")), Contains("more than"));
}

TEST_CASE("safetensors: a JSON error is told with its position", "[safetensors][bad-input]") {
  CHECK_THAT(refusal("{\"w\" 1}", 0), Contains("line 1, column 6"));
  CHECK_THAT(refusal("", 0), Contains("line 1, column 1"));
  CHECK_THAT(refusal("{\"\xff\": 1}", 0), Contains("line 1, column 3"));
  CHECK_THAT(refusal("{} {}", 0), Contains("line 1, column 4"));
}

TEST_CASE("safetensors: a header that is not an object", "[safetensors][bad-input]") {
  for (const char* header : {"[]", "1", "null", "\"w\""})
    CHECK_THAT(refusal(header, 0), Contains("not a JSON object"));
}

TEST_CASE("safetensors: a header that nests too deep", "[safetensors][bad-input]") {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  CHECK_THAT(refusal_of_entry(entry("[" + deep + "]", "[0,8]")), Contains("levels deep"));
  CHECK_THAT(refusal(std::string(1'000'000, '['), 0), Contains("levels deep"));
}

TEST_CASE("safetensors: a name that stands twice", "[safetensors][bad-input]") {
  const std::string w = entry("[1]", "[0,4]"), v = entry("[1]", "[4,8]");
  CHECK_THAT(refusal("{\"w\":" + w + ",\"w\":" + v + "}", 8), Contains("\"w\" twice"));
  CHECK_THAT(refusal("{\"w\":" + w + ",\"\\u0077\":" + v + "}", 8), Contains("\"w\" twice"));
  CHECK_THAT(refusal_of_entry(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"),
             Contains("\"dtype\" twice"));
  CHECK_THAT(refusal(R"({"__metadata__":{"a":"1","a":"2"}})", 0), Contains("\"a\" twice"));
}

TEST_CASE("safetensors: an entry that lacks a member or is no object", "[safetensors][bad-input]") {
  CHECK_THAT(refusal_of_entry("[]"), Contains("tensor w") && Contains("dtype"));
  CHECK_THAT(refusal_of_entry("1"), Contains("tensor w"));
  CHECK_THAT(refusal_of_entry(R"({"dtype":"F32","shape":[2]})"), Contains("no data_offsets"));
  CHECK_THAT(refusal_of_entry(R"({"dtype":"F32","data_offsets":[0,8]})"), Contains("no shape"));
  CHECK_THAT(refusal_of_entry(R"({"shape":[2],"data_offsets":[0,8]})"), Contains("no dtype"));
}

TEST_CASE("safetensors: an unknown dtype", "[safetensors][bad-input]") {
  CHECK_THAT(refusal_of_entry(entry("[8]", "[0,8]", "\"F8_E4M3\"")),
             Contains("tensor w") && Contains("F8_E4M3") && Contains("BF16"));
  CHECK_THAT(refusal_of_entry(entry("[2]", "[0,8]", "\"f32\"")), Contains("f32"));
  CHECK_THAT(refusal_of_entry(entry("[2]", "[0,8]", "32")), Contains("dtype must be a string"));
}

TEST_CASE("safetensors: a size that is negative or not a whole number",
          "[safetensors][bad-input]") {
  for (const char* shape : {"[-2]", "[2.0]", "[\"2\"]", "[null]", "[[2]]", "[1e1]", "[-1,-2]"}) {
    CAPTURE(shape);
    CHECK_THAT(refusal_of_entry(entry(shape, "[0,8]")), Contains("sizes must be whole numbers"));
  }
}

TEST_CASE("safetensors: a size beyond 64 bits", "[safetensors][bad-input]") {
  CHECK_THAT(refusal_of_entry(entry("[18446744073709551616]", "[0,8]")), Contains("whole numbers"));
  CHECK_THAT(refusal_of_entry(entry("[18446744073709551615]", "[0,8]")), Contains("overflows"));
  CHECK_THAT(refusal_of_entry(entry("[1e999]", "[0,8]")), Contains("number overflow"));
}

TEST_CASE("safetensors: a shape that overflows", "[safetensors][bad-input]") {
  // 2^62 elements of 4 bytes, which is 0 in 64 bits, as is 2^32 · 2^32.
  CHECK_THAT(refusal_of_entry(entry("[4611686018427387904]", "[0,0]")), Contains("overflows"));
  CHECK_THAT(refusal_of_entry(entry("[4294967296,4294967296]", "[0,0]")), Contains("overflows"));
  CHECK_THAT(refusal_of_entry(entry("[4294967296,1073741824]", "[0,0]")), Contains("overflows"));
  // Sizes whose strides overflow, hidden behind a 0.
  CHECK_THAT(refusal("{\"w\":" + entry("[0,4611686018427387904,4]", "[0,0]") + "}", 0),
             Contains("overflows"));
}

TEST_CASE("safetensors: a shape that is no list or too long a list", "[safetensors][bad-input]") {
  CHECK_THAT(refusal_of_entry(entry("2", "[0,8]")), Contains("shape must be a list"));
  CHECK_THAT(refusal_of_entry(entry("{\"a\":2}", "[0,8]")), Contains("shape must be a list"));
  CHECK_THAT(refusal_of_entry(entry("[1,1,1,1,1,1,1,1,2]", "[0,8]")), Contains("at most 8"));
}

TEST_CASE("safetensors: a size that does not match the offsets", "[safetensors][bad-input]") {
  CHECK_THAT(refusal_of_entry(entry("[1]", "[0,8]")), Contains("needs 4 bytes"));
  CHECK_THAT(refusal_of_entry(entry("[3]", "[0,8]")), Contains("needs 12 bytes"));
  CHECK_THAT(refusal_of_entry(entry("[]", "[0,8]")), Contains("needs 4 bytes"));
  CHECK_THAT(refusal_of_entry(entry("[0]", "[0,8]")), Contains("needs 0 bytes"));
}

TEST_CASE("safetensors: offsets that overlap", "[safetensors][bad-input]") {
  const std::string w = entry("[2]", "[0,8]");
  CHECK_THAT(refusal("{\"w\":" + w + ",\"v\":" + entry("[2]", "[4,12]") + "}", 12),
             Contains("overlaps"));
  CHECK_THAT(refusal("{\"w\":" + w + ",\"v\":" + w + "}", 8), Contains("overlaps"));
  CHECK_THAT(refusal("{\"w\":" + w + ",\"v\":" + entry("[1]", "[0,4]") + "}", 8),
             Contains("overlaps"));
}

TEST_CASE("safetensors: data that belong to no tensor", "[safetensors][bad-input]") {
  CHECK_THAT(refusal("{\"w\":" + entry("[2]", "[4,12]") + "}", 12), Contains("bytes 0 to 4"));
  CHECK_THAT(refusal("{\"w\":" + entry("[2]", "[0,8]") + "}", 12), Contains("bytes 8 to 12"));
  CHECK_THAT(
      refusal("{\"w\":" + entry("[1]", "[0,4]") + ",\"v\":" + entry("[1]", "[8,12]") + "}", 12),
      Contains("bytes 4 to 8"));
  CHECK_THAT(refusal("{}", 1), Contains("bytes 0 to 1"));
}

TEST_CASE("safetensors: offsets past the end", "[safetensors][bad-input]") {
  CHECK_THAT(refusal_of_entry(entry("[3]", "[0,12]")), Contains("pass the end"));
  CHECK_THAT(refusal_of_entry(entry("[2]", "[18446744073709551608,18446744073709551615]")),
             Contains("pass the end"));
}

TEST_CASE("safetensors: offsets in the wrong order", "[safetensors][bad-input]") {
  CHECK(refusal_of_entry(entry("[2]", "[8,0]")) != "accepted");
  CHECK(refusal_of_entry(entry("[0]", "[8,0]")) != "accepted");
}

TEST_CASE("safetensors: offsets that are not two whole numbers", "[safetensors][bad-input]") {
  for (const char* offsets : {"[0]", "[0,4,8]", "8", "{\"a\":0,\"b\":8}"})
    CHECK_THAT(refusal_of_entry(entry("[2]", offsets)), Contains("must be two numbers"));
  for (const char* offsets : {"[-1,7]", "[0,8.0]", "[\"0\",8]", "[0,null]"})
    CHECK_THAT(refusal_of_entry(entry("[2]", offsets)), Contains("whole numbers from 0"));
}

TEST_CASE("safetensors: metadata that are not strings", "[safetensors][bad-input]") {
  CHECK_THAT(refusal(R"({"__metadata__":{"epoch":3}})", 0),
             Contains("epoch") && Contains("not a string"));
  CHECK_THAT(refusal(R"({"__metadata__":"x"})", 0), Contains("not an object"));
}

TEST_CASE("safetensors: a BOOL that is neither 0 nor 1", "[safetensors][bad-input]") {
  const std::string header = "{\"m\":" + entry("[2]", "[0,2]", "\"BOOL\"") + "}";
  CHECK(refusal(header, 2) == "accepted");
  CHECK_THAT(refusal(FileOf(length_of(header.size()) + header + "\1\7")),
             Contains("tensor m") && Contains("7"));
}

TEST_CASE("safetensors: what cannot be written leaves nothing behind", "[safetensors][bad-input]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "model";
  const Array one = Array::zeros({1}, DType::f32);
  CHECK_THROWS_WITH(write_safetensors(path, {{"w", Array()}}), Contains("w is undefined"));
  CHECK_THROWS_WITH(write_safetensors(path, {{"__metadata__", one}}), Contains("__metadata__"));
  CHECK_THROWS_WITH(write_safetensors(path, {{"\xff", one}}), Contains("UTF-8"));
  CHECK_THROWS_WITH(write_safetensors(path, {{"w", one}}, {{"k", "\xc3"}}), Contains("UTF-8"));
  CHECK_THROWS_AS(write_safetensors(folder / "none" / "model", {{"w", one}}), Error);
  CHECK(fs::is_empty(folder.path()));
}

// What safetensors 0.8, the reference implementation, says of the same files.
TEST_CASE("headers at their edges are read as the reference implementation reads them",
          "[core][safetensors]") {
  const test::TemporaryFolder folder;
  const std::string tensor = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const auto read = [&](const std::string& header) {
    const uint64_t size = header.size();
    std::string bytes(reinterpret_cast<const char*>(&size), 8);
    return SafetensorsFile(folder.write("x.safetensors", bytes + header + std::string(4, '\0')));
  };
  const std::string body = "\"a\":" + tensor + "}";
  for (const std::string& good :
       {R"({"__metadata__":null,)" + body, R"({"__metadata__":{},)" + body, "{" + body + "   ",
        " {" + body, "{\"a\":{\"x\":1," + tensor.substr(1) + "}"}) {
    INFO(good);
    const SafetensorsFile file = read(good);
    CHECK(file.names() == std::vector<std::string>{"a"});
    CHECK(file.metadata().empty());
  }
  for (const std::string& bad :
       {R"({"__metadata__":{"x":null},)" + body, R"({"__metadata__":{"x":1},)" + body,
        R"({"__metadata__":[],)" + body, "{" + body + std::string(1, '\0'),
        "{" + body + std::string(1, '\0') + "junk", std::string(R"({"a":null})"),
        "{\"caf\xE9\":" + tensor + "}", "{" + body + "{}", std::string()}) {
    INFO(bad);
    CHECK_THROWS_AS(read(bad), Error);
  }
}

TEST_CASE("safetensors: a file is written tensor by tensor, its metadata last", "[safetensors]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  const std::map<std::string, TensorForm> forms = {{"a", {DType::f16, {2}}},
                                                   {"b", {DType::f64, {3}}},
                                                   {"none", {DType::f32, {0}}},
                                                   {"c", {DType::f32, {}}}};
  // Wide ones first, then by name.
  CHECK(SafetensorsWriter::order(forms) == std::vector<std::string>{"b", "c", "none", "a"});
  const Array b = Array::from(std::vector<double>{1, 2, 3}, {3});
  {
    SafetensorsWriter writer(path, forms, {{"sum", "1234567890"}});
    CHECK_THROWS_WITH(writer.commit({{"sum", "1"}}), Contains("tensor b was not written"));
    writer.write(b);
    CHECK_THROWS_WITH(writer.write(b), Contains("tensor c is not the one that was announced"));
  }
  CHECK_FALSE(fs::exists(path));
  CHECK(fs::is_empty(folder.path()));
  for (const char* sum : {"7", "1234567890"}) {
    SafetensorsWriter writer(path, forms, {{"sum", "1234567890"}});
    writer.write(b);
    writer.write(Array::full({}, 4, DType::f32));
    writer.write(Array::empty({0}, DType::f32));
    writer.write(Array::full({2}, 5, DType::f16));
    CHECK_THROWS_WITH(writer.write(b), Contains("all tensors are written"));
    CHECK_THROWS_WITH(writer.commit({{"sum", std::string(40, 'x')}}), Contains("longer"));
    writer.commit({{"sum", sum}});
    const SafetensorsFile file(path);
    CHECK(file.metadata().at("sum") == sum);
    CHECK(file.get("b").to_vector<double>() == std::vector<double>{1, 2, 3});
    CHECK(file.get("c").item() == 4);
    CHECK(file.get("a").to_vector<float>() == std::vector<float>{5, 5});
  }
}

TEST_CASE("errors about files whose names are not UTF-8 can be read", "[core][safetensors]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(SafetensorsFile(folder / "caf\xE9.safetensors"), Catch::Contains("caf\\xE9"));
  CHECK_THROWS_WITH(SafetensorsFile(folder.write("\xFF.safetensors", "short")),
                    Catch::Contains("\\xFF.safetensors has 5 bytes"));
}
