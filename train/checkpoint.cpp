#include <binade/train/checkpoint.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/log.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/train/checkpoint_pieces.h>
#include <binade/train/checkpoint_source.h>

namespace binade::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kPrefix = "step-";
constexpr const char* kSuffix = ".safetensors";

uint32_t checksum(const std::string& text) {
  return crc32c(text.data(), text.size());
}

template <class... Parts>
[[noreturn]] void damaged(const fs::path& path, const Parts&... parts) {
  throw DamagedCheckpoint(concat(path.string(), " is damaged: ", parts...));
}

// Throws Error if the file says of itself that it is something else than a checkpoint of this
// format: a newer one may have what this build's reader takes for damage. Where not even the header
// can be read, it says nothing of itself.
void check_format(const fs::path& path) {
  const MappedFile mapped(path);
  const auto bytes = mapped.bytes();
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) return;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes > bytes.size() - sizeof header_bytes) return;
  const char* begin = reinterpret_cast<const char*>(bytes.data()) + sizeof header_bytes;
  const Json header = parse_json_or_null({begin, header_bytes});
  if (!header.is_object()) return;
  const auto metadata = header.find("__metadata__");
  const bool has_format = metadata != header.end() && metadata->is_object() &&
                          metadata->contains("binade_checkpoint") &&
                          metadata->at("binade_checkpoint").is_string();
  check(has_format, path.string(), " is not a checkpoint of Binade: it names no format");
  const auto format = metadata->at("binade_checkpoint").get<std::string>();
  check(format == std::to_string(kCheckpointFormat), path.string(), " has checkpoint format ",
        format, "; this build reads format ", kCheckpointFormat);
}

// The tensors and metadata of a file that check_format let pass.
SafetensorsFile open_checkpoint(const fs::path& path) {
  try {
    return SafetensorsFile(path);
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error& error) {
    throw DamagedCheckpoint(error.what());
  }
}

// Why the file may not be deleted, as a checkpoint of this format, whole or damaged, may be; empty
// for such a one.
std::string not_ours(const fs::path& path) {
  try {
    check_format(path);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

// Nothing that this version does not understand is written over.
void check_replaceable(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path, ignored))) return;
  const std::string problem = not_ours(path);
  check(problem.empty(), path.string(), " is in the way of a checkpoint: ", problem,
        "; move it elsewhere");
}

void copy_over(const fs::path& from, const fs::path& to) {
  const MappedFile source(from);
  AtomicFile copy(to);
  copy.write(source.bytes().data(), source.bytes().size());
  copy.commit();
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    entries.push_back(entry->path());
  check(!error || error == std::errc::no_such_file_or_directory, "cannot list the folder ",
        folder.string(), ": ", error.message());
  return entries;
}

}  // namespace

uint32_t checksum_of_form(const Array& array) {
  return checksum(concat(array.dtype(), ' ', array.shape()));
}

uint32_t checksum_of(const Array& array) {
  const uint32_t form = checksum_of_form(array);
  return array.numel() == 0 ? form : crc32c(array.data(), static_cast<size_t>(array.bytes()), form);
}

Checkpoint read_checkpoint(const fs::path& path, CheckpointPieces* pieces) {
  check_format(path);
  const SafetensorsFile file = open_checkpoint(path);
  const auto metadata = [&](const char* key) -> const std::string& {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) damaged(path, "it has no ", key);
    return found->second;
  };
  const std::string &values = metadata("values"), &sums = metadata("checksums");
  if (metadata("metadata_checksum") != std::to_string(checksum(values + sums)))
    damaged(path, "the checksum of its metadata differs");

  const auto parse = [&](const std::string& text, const char* key) {
    try {
      return parse_json(text, key);
    } catch (const Error& error) {
      damaged(path, error.what());
    }
  };
  const Json parsed_values = parse(values, "values"), checksums = parse(sums, "checksums");
  Checkpoint checkpoint;
  try {
    checkpoint.values = parsed_values.get<std::map<std::string, std::string>>();
    if (checksums.size() != file.names().size())
      damaged(path, "it has ", file.names().size(), " tensors and ", checksums.size(),
              " checksums");
    const auto in_pieces =
        pieces != nullptr ? pieces->checksums(file) : std::map<std::string, uint32_t>();
    for (const std::string& full : file.names()) {
      const Array array = file.get(full);
      const auto piecewise = in_pieces.find(full);
      const uint32_t sum = piecewise != in_pieces.end() ? piecewise->second : checksum_of(array);
      if (!checksums.contains(full) || checksums.at(full).get<uint32_t>() != sum)
        damaged(path, "the checksum of ", full, " differs");
      const size_t dot = full.find('.');
      if (dot == std::string::npos) damaged(path, "the tensor ", full, " is in no section");
      checkpoint.sections[full.substr(0, dot)][full.substr(dot + 1)] = array;
    }
  } catch (const Json::exception& error) {
    damaged(path, error.what());
  }
  return checkpoint;
}

std::optional<int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return {};
  const char* begin = name.data() + std::strlen(kPrefix);
  const char* end = name.data() + name.size() - std::strlen(kSuffix);
  int64_t step = 0;
  const auto [last, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || last != end || step < 0) return {};
  return step;
}

std::vector<fs::path> list_checkpoints(const fs::path& folder) {
  std::vector<std::pair<int64_t, fs::path>> found;
  for (const fs::path& path : entries_of(folder))
    if (const auto step = step_of(path)) found.emplace_back(*step, path);
  std::sort(found.begin(), found.end());
  std::vector<fs::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

CheckpointFolder::CheckpointFolder(fs::path folder, int keep)
    : folder_(std::move(folder)), keep_(keep) {
  check(keep > 0, "at least one checkpoint must be kept, got ", keep);
  create_folder(folder_);
  for (const fs::path& path : entries_of(folder_)) {
    // What a killed run left half-written.
    const std::string name = path.filename().string();
    const bool named_here = name.starts_with(kPrefix) || name.starts_with("best.");
    std::error_code ignored;
    if (named_here && name.find(".safetensors.writing-") != std::string::npos)
      fs::remove(path, ignored);
  }
}

void CheckpointFolder::save(int64_t step, const Checkpoint& checkpoint, bool best) {
  CheckpointSource source(checkpoint);
  save(step, source, best);
}

void CheckpointFolder::save(int64_t step, CheckpointSource& source, bool best) {
  std::string number = std::to_string(step);
  number.insert(0, 9 - std::min<size_t>(number.size(), 9), '0');
  const fs::path path = folder_ / (kPrefix + number + kSuffix);
  check_replaceable(path);
  if (best) check_replaceable(best_path());
  write_checkpoint(path, source);
  if (best) {
    // A hard link costs nothing and is replaced atomically; a copy where links are not to be had.
    const fs::path link = folder_ / "best.safetensors.writing-link";
    std::error_code error;
    fs::remove(link, error);
    fs::create_hard_link(path, link, error);
    if (!error) fs::rename(link, best_path(), error);
    if (error) copy_over(path, best_path());
  }
  const auto remove = [](const fs::path& old) {
    std::error_code ignored;
    if (not_ours(old).empty()) fs::remove(old, ignored);
  };
  std::vector<fs::path> all = list_checkpoints(folder_);
  for (; !all.empty() && *step_of(all.back()) > step; all.pop_back()) remove(all.back());
  const size_t surplus = all.size() - std::min(all.size(), static_cast<size_t>(keep_));
  for (size_t i = 0; i < surplus; ++i) remove(all[i]);
}

std::string CheckpointFolder::contents() const {
  std::string text;
  for (const fs::path& path : list_checkpoints(folder_)) {
    std::error_code ignored;
    text += concat(text.empty() ? "" : ", ", path.filename().string(), " of ",
                   fs::file_size(path, ignored), " bytes");
  }
  return text.empty() ? "none" : text;
}

std::optional<CheckpointFolder::Found> CheckpointFolder::newest(CheckpointPieces* pieces) const {
  const std::vector<fs::path> all = list_checkpoints(folder_);
  for (auto path = all.rbegin(); path != all.rend(); ++path) {
    try {
      return Found{*path, read_checkpoint(*path, pieces)};
    } catch (const DamagedCheckpoint& error) {
      log_warning(error.what(), "; trying the checkpoint before it");
    }
  }
  return {};
}

}  // namespace binade::train
