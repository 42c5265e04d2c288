// How fast learning-to-rank files are read, against the speed at which the machine copies memory.
//
//   letor_bench FILE...          these files
//   letor_bench                  120,000 documents in the manner of MSLR, made for the purpose
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/random.h>
#include <binade/data/ranking_cache.h>

using namespace binade;

namespace {

// Documents of 136 features: counts, ratios and large numbers, about a thousand bytes a line.
std::string make_lines(int64_t rows) {
  std::string text;
  for (int64_t row = 0; row < rows; ++row) {
    fmt::format_to(std::back_inserter(text), "{} qid:{}", row % 5, row / 120);
    for (uint64_t f = 0; f < 136; ++f) {
      const uint32_t word = philox(1, 0, 0, static_cast<uint64_t>(row) * 136 + f).word[0];
      if (f % 3 == 0)
        fmt::format_to(std::back_inserter(text), " {}:{}", f + 1, word % 1000);
      else if (f % 3 == 1)
        fmt::format_to(std::back_inserter(text), " {}:{:.6f}", f + 1, uniform_of(word));
      else
        fmt::format_to(std::back_inserter(text), " {}:0", f + 1);
    }
    text += '\n';
  }
  return text;
}

// The best of some runs, in seconds.
double best_of(int runs, const std::function<void()>& work) {
  double best = 1e30;
  for (int run = 0; run < runs; ++run) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

void run(const std::vector<std::filesystem::path>& files) {
  double bytes = 0;
  for (const auto& file : files) bytes += static_cast<double>(std::filesystem::file_size(file));
  std::vector<char> from(static_cast<size_t>(bytes), 'x'), to(from.size());
  const double copy = best_of(5, [&] { std::memcpy(to.data(), from.data(), from.size()); });
  fmt::print("{:.1f} MB of text; memcpy {:.0f} MB/s\n", bytes / 1e6, bytes / 1e6 / copy);
  for (const int threads : {1, 2, 0}) {
    data::LetorOptions options;
    options.threads = threads;
    options.comments = true;
    int64_t values = 0, documents = 0;
    const double seconds = best_of(5, [&] {
      const data::RankingSet set = data::read_letor(files, options);
      documents = set.documents();
      values = set.features.numel();
    });
    fmt::print("read_letor, {} threads: {:.3f} s, {:.0f} MB/s, {:.1f} M values/s ({} documents)\n",
               threads == 0 ? "all" : std::to_string(threads), seconds, bytes / 1e6 / seconds,
               static_cast<double>(values) / 1e6 / seconds, documents);
  }
  const auto cache = std::filesystem::temp_directory_path() / "letor_bench.ranking";
  const auto open = [&] { data::read_letor_cached(files, {}, {.file = cache}); };
  const double written = best_of(1, open);
  fmt::print("read_letor_cached: written in {:.3f} s, opened in {:.4f} s\n", written,
             best_of(5, open));
  std::filesystem::remove(cache);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::vector<std::filesystem::path> files(argv + 1, argv + argc);
    const auto made = std::filesystem::temp_directory_path() / "letor_bench.txt";
    if (files.empty()) {
      write_text_file(made, make_lines(120'000));
      files.push_back(made);
    }
    run(files);
    std::filesystem::remove(made);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 2;
  }
}
