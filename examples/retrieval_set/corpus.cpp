#include "corpus.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/data/parallel.h>

#include "words.h"

namespace binade::examples {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kLargestFile = 4 << 20;  // bytes

bool is_header(const fs::directory_entry& entry) {
  std::error_code error;
  const std::string ending = entry.path().extension().string();
  return (ending == ".h" || ending == ".hh" || ending == ".hpp") && entry.is_regular_file(error) &&
         entry.file_size(error) <= static_cast<uintmax_t>(kLargestFile);
}

// Links to folders are not followed, so there are no loops.
std::vector<fs::path> headers_under(const fs::path& root) {
  std::error_code error;
  check(fs::is_directory(root, error), root.string(), " is no folder of headers");
  std::vector<fs::path> headers, folders = {root};
  while (!folders.empty()) {
    const fs::path folder = std::move(folders.back());
    folders.pop_back();
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code unreadable;
      if (entry->is_directory(unreadable) && !entry->is_symlink(unreadable))
        folders.push_back(entry->path());
      else if (is_header(*entry))
        headers.push_back(entry->path());
    }
  }
  std::sort(headers.begin(), headers.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return headers;
}

// The declarations of a file, or none where it is no text that can be read.
std::vector<Declaration> declarations_of(const fs::path& file) {
  std::string text;
  try {
    text = read_text_file(file, kLargestFile);
  } catch (const Error&) {
    return {};
  }
  if (text.find('\0') != std::string::npos) return {};
  return find_declarations(text);
}

// The place of this path, which is made if it is not the last one so far.
int64_t place_of(std::vector<Corpus::Place>& places, std::map<std::string, int64_t>& numbers,
                 const std::string& path) {
  const auto [at, is_new] = numbers.try_emplace(path, static_cast<int64_t>(places.size()));
  if (is_new) places.push_back({.path = path, .entries = {}});
  return at->second;
}

// The words of the signatures of all these entries.
std::vector<std::string> words_in(const Corpus& corpus, const std::vector<int64_t>& entries) {
  std::vector<std::string> words;
  for (const int64_t entry : entries)
    for (std::string& word : words_of(corpus.entries[entry].declaration.signature))
      words.push_back(std::move(word));
  return words;
}

}  // namespace

Corpus read_corpus(const fs::path& root, int threads) {
  const std::vector<fs::path> headers = headers_under(root);
  std::vector<std::vector<Declaration>> found(headers.size());
  data::parallel_for(static_cast<int64_t>(headers.size()), threads,
                     [&](int64_t i, int) { found[i] = declarations_of(headers[i]); });

  Corpus corpus;
  std::set<std::pair<std::string, std::string>> seen;  // name and signature
  std::map<std::string, int64_t> file_numbers, folder_numbers;
  for (size_t i = 0; i < headers.size(); ++i) {
    const fs::path path = headers[i].lexically_relative(root);
    for (Declaration& declaration : found[i]) {
      if (!seen.insert({declaration.name, declaration.signature}).second) continue;
      const auto number = static_cast<int64_t>(corpus.entries.size());
      const int64_t file = place_of(corpus.files, file_numbers, path.string());
      const int64_t folder = place_of(corpus.folders, folder_numbers, path.parent_path().string());
      corpus.files[file].entries.push_back(number);
      corpus.folders[folder].entries.push_back(number);
      corpus.entries.push_back({std::move(declaration), file, folder});
    }
  }
  check(corpus.entries.size() > 1, "there are no headers with documented declarations under ",
        root.string());

  for (const Corpus::Entry& entry : corpus.entries) {
    std::vector<std::string> words = words_of(entry.declaration.signature);
    corpus.names.add(words_of(entry.declaration.name));
    corpus.signatures.add(words);
    for (std::string& word : words_of(corpus.files[entry.file].path))
      words.push_back(std::move(word));
    corpus.all.add(words);
  }
  for (const Corpus::Place& file : corpus.files) {
    corpus.paths.add(words_of(file.path));
    corpus.file_texts.add(words_in(corpus, file.entries));
  }
  for (const Corpus::Place& folder : corpus.folders)
    corpus.folder_texts.add(words_in(corpus, folder.entries));
  return corpus;
}

}  // namespace binade::examples
