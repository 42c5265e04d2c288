#include <binade/dist/progress.h>

#include <binade/core/error.h>

namespace binade::dist {

void append(Message& message, const Progress& progress) {
  for (const int64_t number :
       {progress.step, progress.begun, progress.checkpoint, progress.exchanges,
        int64_t{progress.busy ? 1 : 0}, progress.finished})
    message.push_back(std::to_string(number));
}

Progress progress_at(const Message& message, size_t first) {
  check(message.size() >= first + kProgressWords, "a rank's progress has ", kProgressWords,
        " words");
  const auto number = [&](size_t at) {
    return static_cast<int64_t>(parse_number(message[first + at]).value_or(0));
  };
  return {number(0), number(1), number(2), number(3), number(4) != 0, number(5)};
}

std::string failure_text(const std::string& what, const std::string& reason,
                         const Progress& progress) {
  std::string text = what;
  if (progress.step > 0) text += concat(" in step ", progress.step);
  if (!reason.empty()) text += ": " + reason;
  if (progress.checkpoint > 0) {
    text += concat("; last checkpoint: step ", progress.checkpoint);
  } else if (progress.step > 0) {
    text += "; no checkpoint so far";
  }
  return text;
}

}  // namespace binade::dist
