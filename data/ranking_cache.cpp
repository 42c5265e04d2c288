#include <binade/data/ranking_cache.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <span>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/data/parallel.h>

namespace binade::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kFormat = "binade ranking set 1";
constexpr int64_t kBlock = int64_t{1} << 22;  // bytes that a checksum is of
constexpr int64_t kQuick = int64_t{1} << 28;  // bytes of features that are verified quickly
constexpr const char* kFeatures = "features";
constexpr const char* kDescription = "description";  // of its checksum

// ---- what a cache belongs to
Json signature_of_file(const fs::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  // The ends tell files apart that a copy gave one time and size.
  constexpr size_t kEnd = size_t{1} << 16;
  uint32_t ends = crc32c(bytes.data(), std::min(kEnd, bytes.size()));
  const size_t tail = std::min(kEnd, bytes.size());
  ends = crc32c(bytes.data() + bytes.size() - tail, tail, ends);
  return {{"name", valid_utf8(path.filename().string())},
          {"size", bytes.size()},
          {"time", fs::last_write_time(path).time_since_epoch().count()},
          {"ends", ends}};
}

Json options_json(const LetorOptions& o) {
  return {{"first_index", static_cast<int>(o.first_index)},
          {"features", o.features},
          {"group_by_qid", o.group_by_qid},
          {"comments", o.comments},
          {"missing", static_cast<int>(o.missing)},
          {"out_of_range", static_cast<int>(o.out_of_range)},
          {"largest_label", exact_number(o.largest_label)}};
}

std::string signature_of(const std::vector<fs::path>& files, const LetorOptions& options) {
  Json signature = {{"options", options_json(options)}, {"files", Json::array()}};
  for (const fs::path& file : files) {
    signature["files"].push_back(signature_of_file(file));
    for (const char* ending : {".query", ".group"}) {  // which may stand for query ids
      fs::path beside = file;
      beside += ending;
      if (fs::exists(beside)) signature["files"].push_back(signature_of_file(beside));
    }
  }
  for (const fs::path& file : options.group_files)
    signature["files"].push_back(signature_of_file(file));
  return signature.dump();
}

fs::path place_beside(const std::vector<fs::path>& files, const LetorOptions& options) {
  std::string key = options_json(options).dump();
  for (const fs::path& file : files) key += '\0' + fs::absolute(file).string();
  for (const fs::path& file : options.group_files) key += '\0' + fs::absolute(file).string();
  constexpr const char* kHex = "0123456789abcdef";
  const uint32_t hash = crc32c(key.data(), key.size());
  std::string ending = ".";
  for (int shift = 28; shift >= 0; shift -= 4) ending += kHex[hash >> shift & 15];
  fs::path path = files.front();
  path += ending + ".ranking";
  return path;
}

// ---- tensors and checksums
std::map<std::string, Array> tensors_of(const RankingSet& set) {
  std::map<std::string, Array> tensors = {{"offsets", set.offsets},
                                          {kFeatures, set.features},
                                          {"labels", set.labels},
                                          {"query_id_ends", set.query_ids.ends()},
                                          {"query_id_bytes", set.query_ids.bytes()}};
  if (set.file_rows.defined()) tensors["file_rows"] = set.file_rows;
  if (!set.comments.empty()) {
    tensors["comment_ends"] = set.comments.ends();
    tensors["comment_bytes"] = set.comments.bytes();
  }
  return tensors;
}

int64_t blocks_of(const Array& array) {
  return (array.bytes() + kBlock - 1) / kBlock;
}

uint32_t checksum(const Array& array, int64_t block) {
  const int64_t begin = block * kBlock;
  return crc32c(static_cast<const std::byte*>(array.data()) + begin,
                static_cast<size_t>(std::min(kBlock, array.bytes() - begin)));
}

std::vector<uint32_t> checksums(const Array& array, int threads) {
  std::vector<uint32_t> sums(static_cast<size_t>(blocks_of(array)));
  parallel_for(blocks_of(array), threads, [&](int64_t block, int) {
    sums[static_cast<size_t>(block)] = checksum(array, block);
  });
  return sums;
}

// Throws Error for the first of the checked blocks that differs.
void verify(const std::string& name, const Array& array, const JsonView& sums,
            RankingCache::Verify how, int threads) {
  const int64_t blocks = blocks_of(array);
  check(static_cast<int64_t>(sums.size()) == blocks, sums.where(), " has ", sums.size(),
        " checksums for ", blocks, " blocks");
  const bool all = how == RankingCache::Verify::everything || name != kFeatures;
  const int64_t checked = all ? blocks : std::min(blocks, kQuick / kBlock);
  std::atomic<bool> damaged = false;
  parallel_for(checked, threads, [&](int64_t i, int) {
    const int64_t block = i * blocks / checked;
    const auto expected = sums[static_cast<size_t>(block)].integer(0, UINT32_MAX);
    if (checksum(array, block) != expected) damaged = true;
  });
  check(!damaged, name, " differ from their checksum");
}

// What describes the tensors; checked like them.
uint32_t checksum(const std::string& signature, const std::string& first_index,
                  const std::string& notes) {
  const std::string all = concat(signature, '\0', first_index, '\0', notes);
  return crc32c(all.data(), all.size());
}

std::string member(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  check(found != metadata.end(), "it has no ", key);
  return found->second;
}

// The set of a cache; Error for one that is damaged, nothing for one of something else.
std::optional<RankingSet> open_cache(const fs::path& path, const std::string& signature,
                                     RankingCache::Verify how, int threads) {
  const SafetensorsFile file(path);
  const auto& metadata = file.metadata();
  check(member(metadata, "format") == kFormat, "it is not a ", kFormat);
  if (member(metadata, "signature") != signature) return std::nullopt;
  RankingSet set;
  set.offsets = file.get("offsets");
  set.features = file.get(kFeatures);
  set.labels = file.get("labels");
  set.query_ids = Texts(file.get("query_id_ends"), file.get("query_id_bytes"));
  if (file.contains("file_rows")) set.file_rows = file.get("file_rows");
  if (file.contains("comment_ends"))
    set.comments = Texts(file.get("comment_ends"), file.get("comment_bytes"));
  set.check_shapes("it");
  const Json first = parse_json(member(metadata, "first_index"), "first_index");
  set.first_index = static_cast<int>(JsonView(first, "first_index").integer(0, 1));
  const Json notes = parse_json(member(metadata, "notes"), "notes");
  const JsonView view(notes, "notes");
  view.expect_array();
  for (size_t i = 0; i < view.size(); ++i) set.notes.push_back(view[i].text());
  const Json sums = parse_json(member(metadata, "checksums"), "checksums");
  const JsonView sums_view(sums, "checksums");
  check(sums_view[kDescription].integer(0, UINT32_MAX) ==
            checksum(signature, metadata.at("first_index"), metadata.at("notes")),
        "its description differs from its checksum");
  const auto tensors = tensors_of(set);
  check(sums_view.size() == tensors.size() + 1, "it has ", tensors.size(), " tensors and ",
        sums_view.size() - 1, " checksums");
  for (const auto& [name, array] : tensors)
    verify(name, array, sums_view[name.c_str()], how, threads);
  return set;
}

void write_cache(const fs::path& path, const RankingSet& set, const std::string& signature,
                 int threads) {
  const auto tensors = tensors_of(set);
  Json sums = Json::object();
  for (const auto& [name, array] : tensors) sums[name] = checksums(array, threads);
  const std::string first_index = std::to_string(set.first_index);
  const std::string notes = Json(set.notes).dump();
  sums[kDescription] = checksum(signature, first_index, notes);
  write_safetensors(path, tensors,
                    {{"format", kFormat},
                     {"signature", signature},
                     {"first_index", first_index},
                     {"notes", notes},
                     {"checksums", sums.dump()}});
}

}  // namespace

RankingSet read_letor_cached(const std::vector<fs::path>& files, const LetorOptions& options,
                             const RankingCache& cache) {
  check(!files.empty(), "there is no file of ranked lists to read");
  const fs::path path = cache.file.empty() ? place_beside(files, options) : cache.file;
  const std::string signature = signature_of(files, options);  // before the files are read
  std::string why;
  if (fs::exists(path)) {
    try {
      if (auto set = open_cache(path, signature, cache.verify, options.threads)) {
        set->notes.push_back(concat("parsed before, from ", path.filename().string()));
        return *std::move(set);
      }
      why = ", as the one there was of other content or options";
    } catch (const Error& error) {
      why = concat(", as the one there was damaged: ", error.what());
    }
  }
  RankingSet set = read_letor(files, options);
  try {
    write_cache(path, set, signature, options.threads);
    set.notes.push_back(concat("kept for later in ", path.filename().string(), why));
  } catch (const Error& error) {
    if (!cache.file.empty()) throw;
    set.notes.push_back(concat("not kept for later: ", error.what()));
  }
  return set;
}

}  // namespace binade::data
