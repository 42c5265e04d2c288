#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/data/parallel.h>
#include <binade/data/text_files.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>

namespace binade::data {
namespace {

namespace fs = std::filesystem;

class Lister {
 public:
  explicit Lister(const TextFileOptions& options) : options_(options) {}

  void add(const fs::path& path, bool named_by_user) {
    struct stat info {};
    const bool wanted = named_by_user || matches(path);
    if (::stat(path.c_str(), &info) != 0) {
      // Something without a fitting name that leads nowhere does not concern us.
      check(!wanted, "cannot read ", path.string(), ": ", std::strerror(errno));
      return;
    }
    const bool folder = S_ISDIR(info.st_mode);
    if (!folder && !wanted) return;
    check(folder || S_ISREG(info.st_mode) || !named_by_user, "cannot read ", path.string(),
          ": it is neither a file nor a folder");
    if (!folder && !S_ISREG(info.st_mode)) return;  // a socket or device inside a folder
    if (!seen_.insert({info.st_dev, info.st_ino}).second) return;
    if (folder) {
      add_folder(path);
    } else {
      files_.push_back({path, static_cast<int64_t>(info.st_size), named_by_user});
    }
  }

  // The files within the limit, sorted.
  std::vector<fs::path> take() {
    std::sort(files_.begin(), files_.end(),
              [](const File& a, const File& b) { return a.path.native() < b.path.native(); });
    std::vector<fs::path> taken;
    int64_t left = options_.limit.value_or(std::numeric_limits<int64_t>::max());
    for (const File& file : files_) {
      if (!file.named_by_user && file.size > left) continue;
      if (!file.named_by_user) left -= file.size;
      taken.push_back(file.path);
    }
    if (taken.empty() && !files_.empty()) {
      const auto smallest =
          std::min_element(files_.begin(), files_.end(),
                           [](const File& a, const File& b) { return a.size < b.size; });
      fail("every text file is beyond the limit of ", *options_.limit, " bytes: the smallest, ",
           smallest->path.string(), ", has ", smallest->size,
           "; raise the limit, or name the file itself");
    }
    return taken;
  }

 private:
  struct File {
    fs::path path;
    int64_t size;  // bytes
    bool named_by_user;
  };

  bool matches(const fs::path& path) const {
    const std::string name = path.filename().string();
    const auto ends = [&](const std::string& ending) {
      return name.size() > ending.size() && name.ends_with(ending);
    };
    return options_.extensions.empty() ||
           std::any_of(options_.extensions.begin(), options_.extensions.end(), ends);
  }

  // In sorted order, so that which of several names counts does not depend on the file system.
  void add_folder(const fs::path& folder) {
    std::vector<fs::path> entries;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      entries.push_back(entry->path());
    }
    check(!error, "cannot list folder ", folder.string(), ": ", error.message());
    std::sort(entries.begin(), entries.end());
    for (const fs::path& entry : entries) add(entry, false);
  }

  const TextFileOptions& options_;
  std::set<std::pair<dev_t, ino_t>> seen_;
  std::vector<File> files_;
};

}  // namespace

std::vector<fs::path> list_text_files(const std::vector<fs::path>& files_and_folders,
                                      const TextFileOptions& options) {
  Lister lister(options);
  for (const fs::path& path : files_and_folders) lister.add(path, true);
  std::vector<fs::path> files = lister.take();
  if (files.empty()) {
    std::string where, endings;
    for (const fs::path& path : files_and_folders) where += concat(' ', path.string());
    for (const std::string& extension : options.extensions) endings += concat(' ', extension);
    fail("no text files under", where.empty() ? " nothing" : where,
         endings.empty() ? "" : "; looked for files that end in", endings);
  }
  return files;
}

std::string read_text(const fs::path& file) {
  return read_text_file(file, std::numeric_limits<int32_t>::max());
}

void encode_files(const Tokenizer& tokenizer, const std::vector<fs::path>& files,
                  const EncodeFilesOptions& options,
                  const std::function<void(std::span<const int32_t>)>& sink) {
  check(!options.begin_with_bos || tokenizer.bos_id(),
        "documents should begin with BOS, but the vocabulary has none");
  const EncodeOptions encoding = {.parse_special_tokens = options.parse_special_tokens};
  const auto count = static_cast<int64_t>(files.size());
  EncodeProgress progress{.files_in_all = count};
  // Blocks bound the memory and keep the order; many small files share one.
  constexpr int64_t kBlock = 64;
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t size = std::min(kBlock, count - first);
    std::vector<std::vector<int32_t>> documents(size);
    std::vector<int64_t> bytes(size);
    parallel_for(size, options.threads, [&](int64_t i, int) {
      const std::string text = read_text(files[first + i]);
      std::vector<int32_t>& ids = documents[i];
      ids = tokenizer.encode(text, encoding);
      if (options.begin_with_bos) ids.insert(ids.begin(), *tokenizer.bos_id());
      if (options.end_with_eos && tokenizer.eos_id()) ids.push_back(*tokenizer.eos_id());
      bytes[i] = static_cast<int64_t>(text.size());
    });
    for (int64_t i = 0; i < size; ++i) {
      sink(documents[i]);
      ++progress.files;
      progress.bytes += bytes[i];
      progress.tokens += static_cast<int64_t>(documents[i].size());
      if (options.progress) options.progress(progress);
    }
  }
}

std::vector<int32_t> encode_files(const Tokenizer& tokenizer, const std::vector<fs::path>& files,
                                  const EncodeFilesOptions& options) {
  std::vector<int32_t> tokens;
  encode_files(tokenizer, files, options, [&](std::span<const int32_t> document) {
    tokens.insert(tokens.end(), document.begin(), document.end());
  });
  return tokens;
}

}  // namespace binade::data
