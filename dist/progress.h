// INTERNAL
// How far a rank is, as it tells with each beat of its heart, and what a failure is said to be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include <binade/dist/socket.h>

namespace binade::dist {

struct Progress {
  int64_t step = 0;        // that it is in, counted from 1; 0: none yet
  int64_t begun = 0;       // steps since its start, that one among them
  int64_t checkpoint = 0;  // after which step the newest was written; 0: there is none
  int64_t exchanges = 0;   // that it has begun
  bool busy = false;       // with what takes as long as it takes, while others wait
  int64_t finished = -1;   // step whose results it has seen last; -1: it does not tell

  // Who is behind, waits for nobody.
  std::pair<int64_t, int64_t> place() const { return {step, exchanges}; }
  // Whether its program has gone on, and its GPU has not.
  bool device_is_behind() const { return finished >= 0 && step >= finished + 2; }
  // As far as both.
  void reach(const Progress& other) {
    step = std::max(step, other.step);
    begun = std::max(begun, other.begun);
    checkpoint = std::max(checkpoint, other.checkpoint);
  }
  bool operator==(const Progress&) const = default;
};

inline constexpr size_t kProgressWords = 6;
void append(Message& message, const Progress& progress);
// Of the words from this one on; throws Error for others.
Progress progress_at(const Message& message, size_t first);

// "rank 2 of 4 (a, process 71) failed in step 12: the disk is full; last checkpoint: step 10", of
// what = "rank 2 … failed" and a reason, which may be empty.
std::string failure_text(const std::string& what, const std::string& reason,
                         const Progress& progress);

}  // namespace binade::dist
