#include <binade/train/checkpoint.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include <binade/core/file.h>
#include <binade/core/log.h>
#include <binade/core/safetensors.h>

namespace binade::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kPrefix = "step-";
constexpr const char* kSuffix = ".safetensors";

uint32_t checksum(const std::string& text) {
  return crc32c(text.data(), text.size());
}

// Of dtype, shape and bytes; `array` lies in host memory without gaps.
uint32_t checksum(const Array& array) {
  const uint32_t form = checksum(concat(array.dtype(), ' ', array.shape()));
  return array.numel() == 0 ? form : crc32c(array.data(), static_cast<size_t>(array.bytes()), form);
}

const std::string& metadata_of(const SafetensorsFile& file, const fs::path& path, const char* key) {
  const auto found = file.metadata().find(key);
  check(found != file.metadata().end(), path.string(), " is not a checkpoint of Binade: it has no ",
        key);
  return found->second;
}

}  // namespace

void write_checkpoint(const fs::path& path, const Checkpoint& checkpoint) {
  std::map<std::string, Array> tensors;
  Json checksums = Json::object();
  for (const auto& [section, state] : checkpoint.sections) {
    for (const auto& [name, array] : state) {
      const std::string full = section + '.' + name;
      const Array host = array.to(Device::cpu()).contiguous();
      checksums[full] = checksum(host);
      tensors[full] = host;
    }
  }
  const std::string values = Json(checkpoint.values).dump();
  const std::string sums = checksums.dump();
  write_safetensors(path, tensors,
                    {{"binade_checkpoint", std::to_string(kCheckpointFormat)},
                     {"values", values},
                     {"checksums", sums},
                     {"metadata_checksum", std::to_string(checksum(values + sums))}});
}

Checkpoint read_checkpoint(const fs::path& path) {
  const SafetensorsFile file(path);
  const std::string version = metadata_of(file, path, "binade_checkpoint");
  check(version == std::to_string(kCheckpointFormat), path.string(), " has checkpoint format ",
        version, "; this build reads format ", kCheckpointFormat);
  const std::string& values = metadata_of(file, path, "values");
  const std::string& sums = metadata_of(file, path, "checksums");
  check(metadata_of(file, path, "metadata_checksum") == std::to_string(checksum(values + sums)),
        path.string(), " is damaged: the checksum of its metadata differs");

  Checkpoint checkpoint;
  try {
    checkpoint.values = Json::parse(values).get<std::map<std::string, std::string>>();
    const Json checksums = Json::parse(sums);
    check(checksums.size() == file.names().size(), path.string(), " is damaged: it has ",
          file.names().size(), " tensors and ", checksums.size(), " checksums");
    for (const std::string& full : file.names()) {
      const Array array = file.get(full);
      check(checksums.contains(full) && checksums.at(full).get<uint32_t>() == checksum(array),
            path.string(), " is damaged: the checksum of ", full, " differs");
      const size_t dot = full.find('.');
      check(dot != std::string::npos, path.string(), ": tensor ", full, " is in no section");
      checkpoint.sections[full.substr(0, dot)][full.substr(dot + 1)] = array;
    }
  } catch (const Json::exception& error) {
    fail(path.string(), " is damaged: ", error.what());
  }
  return checkpoint;
}

CheckpointFolder::CheckpointFolder(fs::path folder, int keep)
    : folder_(std::move(folder)), keep_(keep) {
  check(keep > 0, "at least one checkpoint must be kept, got ", keep);
  std::error_code error;
  fs::create_directories(folder_, error);
  check(!error, "cannot make the folder ", folder_.string(), ": ", error.message());
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().filename().string().find(".writing-") == std::string::npos) continue;
    fs::remove(entry.path(), error);  // what a killed run left half-written
  }
}

std::vector<fs::path> CheckpointFolder::steps() const {
  std::vector<fs::path> paths;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) == 0 && entry.path().extension() == kSuffix)
      paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());  // the numbers are padded
  return paths;
}

void CheckpointFolder::save(int64_t step, const Checkpoint& checkpoint, bool best) {
  std::string number = std::to_string(step);
  number.insert(0, 9 - std::min<size_t>(number.size(), 9), '0');
  const fs::path path = folder_ / (kPrefix + number + kSuffix);
  write_checkpoint(path, checkpoint);
  if (best) {
    // A hard link costs nothing and is replaced atomically; a copy where links are not to be had.
    const fs::path link = folder_ / "best.safetensors.writing-link";
    std::error_code error;
    fs::remove(link, error);
    fs::create_hard_link(path, link, error);
    if (!error) fs::rename(link, best_path(), error);
    if (error) write_checkpoint(best_path(), checkpoint);
  }
  std::vector<fs::path> all = steps();
  std::error_code ignored;
  for (; !all.empty() && all.back() > path; all.pop_back()) fs::remove(all.back(), ignored);
  const size_t surplus = all.size() - std::min(all.size(), static_cast<size_t>(keep_));
  for (size_t i = 0; i < surplus; ++i) fs::remove(all[i], ignored);
}

std::optional<CheckpointFolder::Found> CheckpointFolder::newest() const {
  std::vector<fs::path> all = steps();
  for (auto path = all.rbegin(); path != all.rend(); ++path) {
    try {
      return Found{*path, read_checkpoint(*path)};
    } catch (const Error& error) {
      log_warning(error.what(), "; trying the checkpoint before it");
    }
  }
  return {};
}

}  // namespace binade::train
