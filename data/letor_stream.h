// Learning-to-rank files of any size, a few whole lists at a time.
#pragma once

#include <binade/data/letor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

namespace binade::data {

struct LetorStreamOptions {
  // `features` must be given. group_by_qid and group_files are refused: the first needs all lines
  // at once, and lists are found by their query ids. Where first_index is detect, the first block
  // decides; a feature 0 in a later one is an error then. largest_bytes is the limit of one list.
  LetorOptions lines;
  // A block ends with the first list at which its text or its features (f32) have so many bytes.
  int64_t block_bytes = int64_t{1} << 22;
  // Of so many lists the query ids are kept, to notice lines of one query that are apart.
  int64_t remembered = int64_t{1} << 18;
};

// Reads files one after another, as read_letor() does, and hands out consecutive lists. A list is
// never cut, not even where one file ends and the next begins. Memory is that of a block, or of the
// longest list if it is larger, and of the remembered query ids. Files may be pipes.
//
// Errors are those of read_letor() (file, line, column), in the order of the lines. A query in two
// places is refused if no more than `remembered` other lists stand between them: all ids of all
// files do not fit into constant memory. Beyond that the lines are two lists.
class LetorStream {
 public:
  LetorStream(const std::vector<std::filesystem::path>& files, const LetorStreamOptions& options);
  ~LetorStream();

  // The next lists, or nothing after the last one.
  std::optional<RankingSet> next();

  // Of what was handed out so far.
  int64_t queries() const;
  int64_t documents() const;
  // The last feature that any line names, as a number of them all: 5 if it is the fifth. 0: none.
  int64_t features_seen() const;

 private:
  class Reader;
  std::unique_ptr<Reader> reader_;
};

}  // namespace binade::data
