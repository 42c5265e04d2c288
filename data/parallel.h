// INTERNAL. Independent pieces of work on a few threads.
#pragma once

#include <cstdint>
#include <functional>

namespace binade::data {

// `requested`, or as many threads as the machine runs at once if that is 0. At least 1.
int thread_count(int requested);

// Calls work(i, thread) for i in [0, count), each once, on up to thread_count(threads) threads that
// take the next i when they are free. The first exception stops the rest and is thrown here.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t, int)>& work);

}  // namespace binade::data
