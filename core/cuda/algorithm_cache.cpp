#include <binade/core/cuda/algorithm_cache.h>

#include <cublasLt.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include <binade/core/cuda/libraries.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/file.h>
#include <binade/core/log.h>
#include <binade/core/text.h>

namespace binade::cuda {

namespace {

struct CacheFile {
  bool loaded = false;
  std::string kept;  // what the file holds
};

struct Cache {
  std::mutex mutex;
  std::map<std::filesystem::path, CacheFile> files;
};

Cache& cache() {
  static Cache instance;
  return instance;
}

// Empty where there is no folder to keep things in.
std::filesystem::path cache_file(Device device) {
  const DeviceScope scope(device);
  std::string gpu = device_properties().name;
  for (char& c : gpu)
    if (!is_letter(c) && !is_digit(c)) c = '-';
  const std::string name = concat("matmul-", gpu, '-', cublasLtGetVersion(), ".json");
  if (const char* folder = std::getenv("BINADE_CACHE")) return std::filesystem::path(folder) / name;
  if (const char* home = std::getenv("HOME"))
    return std::filesystem::path(home) / ".cache" / "binade" / name;
  return {};
}

}  // namespace

void load_algorithm_cache(Device device) {
  if (deterministic()) return;
  const std::filesystem::path path = cache_file(device);
  Cache& state = cache();
  const std::lock_guard lock(state.mutex);
  CacheFile& file = state.files[path];
  if (std::exchange(file.loaded, true) || path.empty() || !std::filesystem::exists(path)) return;
  try {
    const std::string table = read_text_file(path);
    if (import_matmul_algorithms(table, device)) file.kept = table;
  } catch (const Error& error) {
    log_info("matmul algorithms are timed anew: ", error.what());
  }
}

void save_algorithm_cache(Device device) {
  const std::filesystem::path path = cache_file(device);
  if (deterministic() || path.empty()) return;
  Cache& state = cache();
  const std::lock_guard lock(state.mutex);
  CacheFile& file = state.files[path];
  std::string table = export_matmul_algorithms(device);
  if (table == file.kept) return;
  try {
    create_folder(path.parent_path());
    write_text_file(path, table);
    file.kept = std::move(table);
  } catch (const Error& error) {
    log_info("matmul algorithms could not be kept for the next start: ", error.what());
  }
}

}  // namespace binade::cuda
