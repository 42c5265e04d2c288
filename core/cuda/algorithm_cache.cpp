#include <binade/core/cuda/algorithm_cache.h>

#include <cublasLt.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <utility>

#include <binade/core/cuda/libraries.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/file.h>
#include <binade/core/log.h>

namespace binade::cuda {

namespace {

struct Cache {
  std::mutex mutex;
  bool loaded = false;
  std::string kept;  // what the file holds
};

Cache& cache() {
  static Cache instance;
  return instance;
}

// Empty where there is no folder to keep things in.
std::filesystem::path cache_file() {
  const DeviceProperties& device = device_properties();
  const std::string name = concat("products-sm", device.major, device.minor, "-",
                                  device.multiprocessors, "-", cublasLtGetVersion(), ".json");
  if (const char* folder = std::getenv("BINADE_CACHE")) return std::filesystem::path(folder) / name;
  if (const char* home = std::getenv("HOME"))
    return std::filesystem::path(home) / ".cache" / "binade" / name;
  return {};
}

}  // namespace

void load_algorithm_cache() {
  Cache& state = cache();
  const std::lock_guard lock(state.mutex);
  if (deterministic() || std::exchange(state.loaded, true)) return;
  const std::filesystem::path file = cache_file();
  if (file.empty() || !std::filesystem::exists(file)) return;
  try {
    const std::string table = read_text_file(file);
    if (import_matmul_algorithms(table)) state.kept = table;
  } catch (const Error& error) {
    log_info("product algorithms are timed anew: ", error.what());
  }
}

void save_algorithm_cache() {
  Cache& state = cache();
  const std::lock_guard lock(state.mutex);
  const std::filesystem::path file = cache_file();
  if (deterministic() || file.empty()) return;
  std::string table = export_matmul_algorithms();
  if (table == state.kept) return;
  try {
    create_folder(file.parent_path());
    write_text_file(file, table);
    state.kept = std::move(table);
  } catch (const Error& error) {
    log_info("product algorithms could not be kept for the next start: ", error.what());
  }
}

}  // namespace binade::cuda
