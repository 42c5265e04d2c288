// Checkpoints: what is written is read back, damage is noticed, a full disk costs nothing.
#include <binade/train/checkpoint_source.h>

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>

#include "temporary_folder.h"
#include "train/small_disk.h"
#include "warnings.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using train::Checkpoint;
using train::CheckpointFolder;
namespace fs = std::filesystem;

namespace {

Checkpoint example(int64_t step = 12) {
  Checkpoint checkpoint;
  checkpoint.sections["model"]["h.0.weight"] =
      Array::from<float>({1, -2.5f, 3e-39f, 4, 5, 6}, {2, 3});
  checkpoint.sections["model"]["half"] = Array::from<float>({1, 65504, 6e-8f}, {3}).to(DType::f16);
  checkpoint.sections["model"]["bf16"] = Array::full({2, 2}, 3, DType::bf16);
  checkpoint.sections["optimizer"]["step"] = Array::full({}, static_cast<double>(step), DType::i64);
  checkpoint.sections["optimizer"]["nothing"] = Array::zeros({0, 4}, DType::f32);
  checkpoint.sections["scaler"]["tracker"] = Array::full({}, 7, DType::i32);
  checkpoint.values = {{"step", std::to_string(step)}, {"note", "\"quoted\"\nünïcode"}};
  return checkpoint;
}

bool equal(const Checkpoint& a, const Checkpoint& b) {
  if (a.values != b.values || a.sections.size() != b.sections.size()) return false;
  for (const auto& [section, arrays] : a.sections) {
    if (b.sections.count(section) == 0 || b.sections.at(section).size() != arrays.size())
      return false;
    for (const auto& [name, array] : arrays) {
      const auto found = b.sections.at(section).find(name);
      if (found == b.sections.at(section).end() || found->second.dtype() != array.dtype() ||
          !(found->second.shape() == array.shape()) ||
          found->second.to_vector<double>() != array.to_vector<double>())
        return false;
    }
  }
  return true;
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("a checkpoint is read back as it was written", "[train][checkpoint]") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  train::write_checkpoint(path, example());
  CHECK(equal(train::read_checkpoint(path), example()));
  CHECK(!equal(train::read_checkpoint(path), example(13)));
  CHECK(names_in(folder.path()) == std::vector<std::string>{"a.safetensors"});
}

TEST_CASE("a checkpoint is written tensor by tensor, to the same bytes", "[train][checkpoint]") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.safetensors", other = folder.path() / "b.safetensors";
  train::write_checkpoint(path, example());
  train::CheckpointSource source;
  source.values = example().values;
  const std::map<std::string, nn::StateDict> sections = example().sections;
  for (auto section = sections.rbegin(); section != sections.rend(); ++section)
    for (const auto& [name, array] : section->second) source.add(section->first, name, array);
  CHECK_THROWS_WITH(source.add(sections.begin()->first, sections.begin()->second),
                    Contains("two tensors named " + sections.begin()->first));
  train::write_checkpoint(other, source);
  CHECK(bytes_of(path) == bytes_of(other));
  source.finish();  // nothing is left
  CHECK_THROWS_WITH(source.add("late", "one", Array::zeros({1}, DType::f32)), Contains("late.one"));
}

TEST_CASE("every damaged byte of a checkpoint is noticed or harmless", "[train][checkpoint]") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  train::write_checkpoint(path, example());
  const std::string whole = bytes_of(path);
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  int noticed = 0, harmless = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {1, 0x20, 0x80}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      folder.write("a.safetensors", damaged);
      try {
        const Checkpoint read = train::read_checkpoint(path);
        INFO("byte " << i << " xor " << flip << " of " << whole.size());
        CHECK(equal(read, example()));  // white space of the header, say
        CHECK(i < 8 + header);
        ++harmless;
      } catch (const Error& error) {
        CHECK_THAT(error.what(), Contains(path.string()));
        ++noticed;
      }
    }
  }
  CHECK(noticed > 20 * harmless);
}

TEST_CASE("a truncated checkpoint is named", "[train][checkpoint]") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  train::write_checkpoint(path, example());
  const std::string whole = bytes_of(path);
  for (size_t size = 0; size < whole.size(); size += 7) {
    folder.write("a.safetensors", whole.substr(0, size));
    CHECK_THROWS_WITH(train::read_checkpoint(path), Contains(path.string()));
  }
  folder.write("a.safetensors", whole + "x");
  CHECK_THROWS_AS(train::read_checkpoint(path), Error);
  write_safetensors(path, {{"weight", Array::zeros({2}, DType::f32)}});
  CHECK_THROWS_WITH(train::read_checkpoint(path), Contains("not a checkpoint"));
  write_safetensors(path, {}, {{"binade_checkpoint", "99"}});
  CHECK_THROWS_WITH(train::read_checkpoint(path), Contains("format 99"));
  CHECK_THROWS_AS(train::read_checkpoint(folder.path() / "none"), Error);
}

TEST_CASE("the newest checkpoints are kept, and the best", "[train][checkpoint]") {
  const TemporaryFolder folder;
  CheckpointFolder checkpoints(folder.path(), 2);
  CHECK(!checkpoints.newest());
  for (const int64_t step : {5, 10, 15, 100}) checkpoints.save(step, example(step), step == 10);
  CHECK(names_in(folder.path()) == std::vector<std::string>{"best.safetensors",
                                                            "step-000000015.safetensors",
                                                            "step-000000100.safetensors"});
  CHECK(equal(checkpoints.newest()->checkpoint, example(100)));
  CHECK(equal(train::read_checkpoint(checkpoints.best_path()), example(10)));
  checkpoints.save(200, example(200), true);
  CHECK(equal(train::read_checkpoint(checkpoints.best_path()), example(200)));
  CHECK_THROWS_AS(CheckpointFolder(folder.path(), 0), Error);
}

TEST_CASE("a damaged checkpoint is warned about and the one before it is used",
          "[train][checkpoint]") {
  const TemporaryFolder folder;
  CheckpointFolder checkpoints(folder.path(), 3);
  for (const int64_t step : {1, 2, 3}) checkpoints.save(step, example(step), false);
  const fs::path third = folder.path() / "step-000000003.safetensors",
                 second = folder.path() / "step-000000002.safetensors";
  std::string damaged = bytes_of(third);
  damaged[damaged.size() - 2] = static_cast<char>(damaged[damaged.size() - 2] ^ 4);
  folder.write(third.filename().string(), damaged);
  {
    const ExpectWarning warning(third.string() + " is damaged: the checksum of");
    CHECK(equal(checkpoints.newest()->checkpoint, example(2)));
  }
  fs::resize_file(second, 100);
  {
    const ExpectWarning first(third.string()), then(second.string());
    CHECK(equal(checkpoints.newest()->checkpoint, example(1)));
  }
  // The run goes on from step 1: what lies past it must not push out what it writes.
  CheckpointFolder single(folder.path(), 1);
  single.save(2, example(2), false);
  CHECK(names_in(folder.path()) == std::vector<std::string>{"step-000000002.safetensors"});
  CHECK(equal(single.newest()->checkpoint, example(2)));
}

TEST_CASE("checkpoints are ordered by their number", "[train][checkpoint]") {
  const TemporaryFolder folder;
  CheckpointFolder checkpoints(folder.path(), 2);
  for (const int64_t step : {5, 999'999'999}) checkpoints.save(step, example(step), false);
  checkpoints.save(int64_t{10'000'000'000}, example(1), false);
  folder.write("step-best.safetensors", "not a number");
  folder.write("step-7.safetensors.copy", "not the ending");
  CHECK(names_in(folder.path()) ==
        std::vector<std::string>{"step-10000000000.safetensors", "step-7.safetensors.copy",
                                 "step-999999999.safetensors", "step-best.safetensors"});
  const auto found = train::list_checkpoints(folder.path());
  REQUIRE(found.size() == 2);
  CHECK(found[0].filename() == "step-999999999.safetensors");
  CHECK(checkpoints.newest()->path.filename() == "step-10000000000.safetensors");
  CHECK(train::list_checkpoints(folder / "none").empty());
  CHECK_THROWS_WITH(train::list_checkpoints(folder.write("file", "")), Contains("file"));
}

TEST_CASE("a file that is not understood is never written over", "[train][checkpoint]") {
  for (const std::string name : {"step-000000005.safetensors", "best.safetensors"}) {
    const TemporaryFolder folder;
    CheckpointFolder checkpoints(folder.path(), 1);
    write_safetensors(folder / name, {{"weight", Array::zeros({2}, DType::f32)}});
    CHECK_THROWS_WITH(checkpoints.save(5, example(1), true),
                      Contains(name) && Contains("it names no format") && Contains("move it"));
    CHECK(SafetensorsFile(folder / name).contains("weight"));
    fs::remove(folder / name);
    checkpoints.save(5, example(1), true);
    CHECK_NOTHROW(train::read_checkpoint(folder / "best.safetensors"));
  }
}

TEST_CASE("a checkpoint that is not understood is an error and is never deleted",
          "[train][checkpoint]") {
  // A header as a later version may write it, with a dtype that this one does not know.
  const std::string header = R"({"__metadata__":{"binade_checkpoint":"2"},)"
                             R"("model.w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}})";
  const auto size = static_cast<uint64_t>(header.size());
  std::string newer(8, '\0');
  std::memcpy(newer.data(), &size, 8);
  newer += header + "ab";

  for (const int kind : {0, 1, 2, 3}) {
    const TemporaryFolder folder;
    CheckpointFolder checkpoints(folder.path(), 1);
    checkpoints.save(1, example(1), false);
    const std::string name = "step-000000005.safetensors";
    const fs::path path = folder / name;
    std::string expected;
    if (kind == 0) folder.write(name, newer), expected = "format 2";
    if (kind == 1)
      write_safetensors(path, {{"weight", Array::zeros({2}, DType::f32)}}),
          expected = "not a checkpoint";
    if (kind == 2) fs::create_directory(path), expected = "it is a folder";
    if (kind == 3) fs::create_symlink("nowhere", path), expected = "No such file";
    INFO(expected);
    CHECK_THROWS_WITH(checkpoints.newest(), Contains(path.string()) && Contains(expected));
    try {
      train::read_checkpoint(path);
      FAIL("it was read");
    } catch (const train::DamagedCheckpoint&) {
      FAIL("it counts as damaged");
    } catch (const Error&) {
    }
    checkpoints.save(2, example(2), false);  // before it
    CHECK(fs::exists(fs::symlink_status(path)));
    checkpoints.save(9, example(9), false);  // after it, where it is one too many
    CHECK(fs::exists(fs::symlink_status(path)));
    CHECK(!fs::exists(folder / "step-000000001.safetensors"));
    CHECK(fs::exists(folder / "step-000000009.safetensors"));
  }
}

TEST_CASE("a checkpoint that cannot be opened is not passed over", "[train][checkpoint]") {
  const TemporaryFolder folder;
  CheckpointFolder checkpoints(folder.path(), 3);
  for (const int64_t step : {1, 2}) checkpoints.save(step, example(step), false);
  const fs::path newest = folder / "step-000000002.safetensors";
  {
    // The process has as many files open as it may.
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit none{0, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    std::string read, found;
    bool damaged = false;
    try {
      train::read_checkpoint(newest);
    } catch (const train::DamagedCheckpoint&) {
      damaged = true;
    } catch (const Error& error) {
      read = error.what();
    }
    try {
      checkpoints.newest();
    } catch (const Error& error) {
      found = error.what();
    }
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(!damaged);
    CHECK_THAT(read, Contains(newest.string()) && Contains("Too many open files"));
    CHECK_THAT(found, Contains(folder.path().string()) && Contains("Too many open files"));
  }
  if (geteuid() != 0) {
    fs::permissions(newest, fs::perms::none);
    CHECK_THROWS_WITH(checkpoints.newest(),
                      Contains(newest.string()) && Contains("Permission denied"));
  }
}

TEST_CASE("values and names that are not UTF-8 are refused with a sentence",
          "[train][checkpoint]") {
  const TemporaryFolder folder;
  Checkpoint value = example(), name = example();
  value.values["note"] = "\xff";
  name.sections["model"]["\xff"] = Array::zeros({1}, DType::f32);
  for (const Checkpoint& checkpoint : {value, name})
    CHECK_THROWS_WITH(train::write_checkpoint(folder / "a.safetensors", checkpoint),
                      Contains("a.safetensors") && Contains("UTF-8"));
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("what an interrupted write left is removed", "[train][checkpoint]") {
  const TemporaryFolder folder;
  CheckpointFolder(folder.path(), 1).save(1, example(1), false);
  folder.write("step-000000002.safetensors.writing-4711", "half");
  folder.write("best.safetensors.writing-link", "half");
  folder.write("notes.writing-1", "mine");
  const CheckpointFolder again(folder.path(), 1);
  CHECK(names_in(folder.path()) ==
        std::vector<std::string>{"notes.writing-1", "step-000000001.safetensors"});
  CHECK(equal(again.newest()->checkpoint, example(1)));
}

TEST_CASE("a full disk while checkpointing leaves what was there", "[train][checkpoint]") {
  const TemporaryFolder folder;
  CheckpointFolder checkpoints(folder.path(), 1);
  checkpoints.save(1, example(1), true);
  {
    const SmallDisk disk(200);
    CHECK_THROWS_WITH(checkpoints.save(2, example(2), true), Contains("cannot write"));
  }
  CHECK(names_in(folder.path()) ==
        std::vector<std::string>{"best.safetensors", "step-000000001.safetensors"});
  CHECK(equal(checkpoints.newest()->checkpoint, example(1)));
  CHECK(equal(train::read_checkpoint(checkpoints.best_path()), example(1)));
  checkpoints.save(2, example(2), true);
  CHECK(equal(checkpoints.newest()->checkpoint, example(2)));
}
