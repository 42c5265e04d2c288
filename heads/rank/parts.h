// INTERNAL. A set in parts of whole lists that are scored together, so that memory is bounded.
#pragma once

#include <vector>

#include <binade/autograd/tensor.h>
#include <binade/data/ranking_set.h>
#include <binade/heads/rank/losses.h>

namespace binade::heads::rank {

// The number of the list that each document is of: (capacity), -1 behind the last list.
std::vector<int32_t> list_numbers(std::span<const int64_t> offsets, int64_t capacity);

// Consecutive lists of a set as a batch of their own.
struct Part {
  int64_t begin, end;            // documents
  Tensor rows, list_of;          // (end − begin) i32: numbers in the set, and of the list
  std::vector<int64_t> offsets;  // from 0 on
};
// All documents, in order; no part is empty.
std::vector<Part> parts_of(const data::RankingSet& set, Device device);

// Appends what the documents of a part are ranked by.
void append_scores(std::vector<double>& scores, const Tensor& outputs, const LossSpec& loss);

}  // namespace binade::heads::rank
