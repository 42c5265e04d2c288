#include "reply_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/start_thread.h>
#include <binade/train/run_folder.h>

namespace binade::examples {

namespace fs = std::filesystem;

namespace {

fs::path record_of(const fs::path& path) {
  return path.string() + ".run.json";
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

ReplyFile::ReplyFile(fs::path path, const std::string& run,
                     const std::vector<std::string>& may_change, int64_t prompts)
    : path_(std::move(path)), lines_(static_cast<size_t>(prompts)) {
  if (path_.has_parent_path()) create_folder(path_.parent_path());
  lock_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(lock_ >= 0, "cannot write ", path_.string(), ": ", std::strerror(errno));
  try {
    const int locked = ::flock(lock_, LOCK_EX | LOCK_NB);
    check(locked == 0, path_.string(), " is being written by another process");
    std::error_code error;
    check(fs::is_regular_file(path_, error), path_.string(), " is not a regular file");
    const fs::path record = record_of(path_);
    if (fs::file_size(path_) > 0) {
      check(fs::exists(record), path_.string(), " is there already and has no ",
            record.filename().string(),
            " beside it that says how it was written; choose another file");
      const std::string differences = train::configuration_differences(
          read_text_file(record), record.string(), run, may_change);
      check(differences.empty(), "cannot go on with ", path_.string(),
            ", which was written with other options: ", differences);
      read_lines();
    }
    write_text_file(record, run + "\n");
    file_ = std::make_unique<train::AppendFile>(path_);
  } catch (...) {
    ::close(lock_);
    throw;
  }
  writer_ = start_thread([this] { write_queued(); });
}

ReplyFile::~ReplyFile() {
  stop();
  ::close(lock_);  // which releases it
}

void ReplyFile::read_lines() {
  {
    const MappedFile mapped(path_);
    const std::string_view text = text_of(mapped);
    for (int64_t number = 1;; ++number) {
      const size_t end = text.find('\n', static_cast<size_t>(size_));
      if (end == std::string_view::npos) break;
      const std::string where = concat(path_.string(), ":", number);
      const std::string_view line = text.substr(static_cast<size_t>(size_), end - size_);
      const nlohmann::json json = parse_json(line, where);
      const int64_t prompt = JsonView(json, where + ": ")["prompt"].integer(
          0, static_cast<int64_t>(lines_.size()) - 1);
      check(!has(prompt), where, ": prompt ", prompt, " comes twice");
      const auto size = static_cast<int64_t>(line.size()) + 1;
      lines_[static_cast<size_t>(prompt)] = {size_, size};
      size_ += size;
      ++count_;
    }
  }
  const int cut = ::ftruncate(lock_, size_);
  check(cut == 0, "cannot cut ", path_.string(), ": ", std::strerror(errno));
}

void ReplyFile::add(int64_t prompt, heads::decoding::Dialogue dialogue) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    queue_.emplace_back(prompt, std::move(dialogue));
  }
  changed_.notify_all();
}

void ReplyFile::write_queued() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::vector<std::pair<int64_t, heads::decoding::Dialogue>> batch;
    batch.swap(queue_);
    lock.unlock();
    try {
      for (const auto& [prompt, dialogue] : batch) {
        const std::string line = data::conversation_line(dialogue.conversation(), {},
                                                         {{"prompt", std::to_string(prompt)}}) +
                                 "\n";
        file_->append(line);
        const auto size = static_cast<int64_t>(line.size());
        lines_[static_cast<size_t>(prompt)] = {size_, size};
        size_ += size;
      }
      lock.lock();
    } catch (...) {
      lock.lock();
      failure_ = std::current_exception();
      queue_.clear();
      return;
    }
  }
}

void ReplyFile::stop() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (writer_.joinable()) writer_.join();
}

void ReplyFile::flush() {
  stop();
  if (failure_) std::rethrow_exception(failure_);
}

void ReplyFile::finish() {
  flush();
  const MappedFile mapped(path_);
  const std::string_view text = text_of(mapped);
  int64_t at = 0;
  bool sorted = true;
  for (const Line& line : lines_) {
    if (line.size == 0) continue;
    sorted = sorted && line.begin == at;
    at = line.begin + line.size;
  }
  if (sorted) return;
  AtomicFile file(path_);
  for (const Line& line : lines_)
    file.write(text.substr(static_cast<size_t>(line.begin), static_cast<size_t>(line.size)));
  file.commit();
}

}  // namespace binade::examples
