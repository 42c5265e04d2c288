#include <binade/data/letor.h>

#include <binade/core/file.h>
#include <binade/data/ranking_reader.h>

namespace binade::data {

LetorOptions LetorOptions::like(const RankingSet& set) const {
  LetorOptions options = *this;
  options.first_index = set.first_index == 0 ? FirstIndex::zero : FirstIndex::one;
  options.features = set.feature_count();
  return options;
}

RankingSet read_letor(const std::vector<std::filesystem::path>& files,
                      const LetorOptions& options) {
  std::vector<MappedFile> mapped;
  std::vector<letor::Source> sources;
  for (const auto& file : files) {
    const auto bytes = mapped.emplace_back(file).bytes();
    sources.push_back({file.string(), {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
  }
  return letor::read_sources(std::move(sources), options);
}

RankingSet parse_letor(std::string_view text, const std::string& name,
                       const LetorOptions& options) {
  return letor::read_sources({{name, text}}, options);
}

}  // namespace binade::data
