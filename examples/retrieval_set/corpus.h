// The documented declarations of the headers under a folder, and what can be searched of them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bm25.h"
#include "declarations.h"

namespace binade::examples {

struct Corpus {
  struct Entry {
    Declaration declaration;
    int64_t file = 0, folder = 0;
  };
  struct Place {
    std::string path;              // relative to where reading began
    std::vector<int64_t> entries;  // in it, by number
  };

  std::vector<Entry> entries;         // no two have the same name and signature
  std::vector<Place> files, folders;  // with entries; sorted by path

  // No text has a word of a comment.
  Bm25 names, signatures, all;  // of entries; `all`: signature and path together
  Bm25 paths, file_texts;       // of files: their path, all their signatures
  Bm25 folder_texts;            // of folders: all signatures in them
};

// Reads .h, .hh and .hpp files, in the order of their paths whatever the number of threads. What is
// unreadable, larger than 4 MiB or not text is passed over, as are folders that cannot be listed.
// Throws Error where `root` is no folder, or holds fewer than two documented declarations.
Corpus read_corpus(const std::filesystem::path& root, int threads);

}  // namespace binade::examples
