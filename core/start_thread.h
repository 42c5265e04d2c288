// INTERNAL. Threads of the library's own.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include <binade/core/error.h>

namespace binade {

// A std::thread or std::jthread that runs work(arguments…). Throws Error where the system gives the
// process no more of them.
template <class Thread = std::thread, class... Work>
Thread start_thread(Work&&... work) {
  try {
    return Thread(std::forward<Work>(work)...);
  } catch (const std::system_error& error) {
    fail("cannot start a thread: ", error.what(),
         "; the process is at a limit, of memory or of threads (ulimit -a)");
  }
}

}  // namespace binade
