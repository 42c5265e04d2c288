// Text in files and folders, and its tokens.
#pragma once

#include <binade/data/tokenizer.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace binade::data {

struct TextFileOptions {
  // Endings of the names of files to take from folders, with the dot (".txt", ".d.ts"); none stands
  // for all files. A file that is named itself is taken whatever its ending.
  std::vector<std::string> extensions;
  // Bytes to take from folders, which may be of any size: file by file in sorted order, those that
  // still fit. Files that are named themselves do not count.
  std::optional<int64_t> limit;
};

// The files under the given files and folders, sorted by path (bytewise). Links are followed; a
// file or folder that several names lead to counts once, so loops end. Error, with the path and the
// reason, for what is missing or cannot be listed (a broken link whose ending matches included),
// when there is no file at all, and when the limit leaves none of them.
std::vector<std::filesystem::path> list_text_files(
    const std::vector<std::filesystem::path>& files_and_folders,
    const TextFileOptions& options = {});

// The bytes of a file, valid UTF-8 or not. Error when it is unreadable, not a regular file, or has
// 2^31 bytes or more.
std::string read_text(const std::filesystem::path& file);

struct EncodeProgress {
  int64_t files = 0, files_in_all = 0;
  int64_t bytes = 0, tokens = 0;  // so far
};

struct EncodeFilesOptions {
  bool begin_with_bos = false;        // BOS before every file; Error if the vocabulary has none
  bool end_with_eos = true;           // end-of-text after every file, if the vocabulary has one
  bool parse_special_tokens = false;  // see EncodeOptions; files are not trusted
  int threads = 0;                    // 0: as many as the machine runs at once
  std::function<void(const EncodeProgress&)> progress;  // called after every file, by one thread
};

// Encodes every file as one document. The documents' tokens go to `sink` in the order of `files`,
// whatever the number of threads; a few documents are held in memory at a time.
void encode_files(const Tokenizer& tokenizer, const std::vector<std::filesystem::path>& files,
                  const EncodeFilesOptions& options,
                  const std::function<void(std::span<const int32_t>)>& sink);

// The same, all tokens in one piece.
std::vector<int32_t> encode_files(const Tokenizer& tokenizer,
                                  const std::vector<std::filesystem::path>& files,
                                  const EncodeFilesOptions& options = {});

}  // namespace binade::data
