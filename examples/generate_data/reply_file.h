// The file that conversations go to as their replies are complete.
#pragma once

#include <condition_variable>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <binade/heads/decoding/dialogue.h>
#include <binade/train/append_file.h>

namespace binade::examples {

// JSON lines of the format openai_messages, each with the number of its prompt ("prompt"). Lines
// are appended whole, by a thread of its own; finish() brings them into the order of the prompts.
// What the file was written with lies beside it, in FILE.run.json.
class ReplyFile {
 public:
  // Begins a file, or goes on with one: half a line at its end, as a killed process leaves it, is
  // cut off. `run`: a JSON object. Throws Error for a file that is in use, was written by something
  // else or with another `run` but for its `may_change` keys, or has lines that cannot be read.
  ReplyFile(std::filesystem::path path, const std::string& run,
            const std::vector<std::string>& may_change, int64_t prompts);
  ~ReplyFile();
  ReplyFile(const ReplyFile&) = delete;
  ReplyFile& operator=(const ReplyFile&) = delete;

  bool has(int64_t prompt) const { return lines_[static_cast<size_t>(prompt)].size > 0; }
  int64_t count() const { return count_; }  // of those that were there at the beginning

  // Returns at once. Throws the Error of an earlier line that could not be written.
  void add(int64_t prompt, heads::decoding::Dialogue dialogue);
  // Waits for all lines.
  void flush();
  // flush(), and sorts the file.
  void finish();

 private:
  struct Line {
    int64_t begin = 0, size = 0;  // in the file, with its end
  };
  void read_lines();
  void write_queued();
  void stop();

  std::filesystem::path path_;
  int lock_ = -1;
  std::vector<Line> lines_;  // by prompt
  int64_t count_ = 0, size_ = 0;
  std::unique_ptr<train::AppendFile> file_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<int64_t, heads::decoding::Dialogue>> queue_;
  bool closing_ = false;
  std::exception_ptr failure_;
  std::thread writer_;
};

}  // namespace binade::examples
