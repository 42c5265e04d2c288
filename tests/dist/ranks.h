// Ranks as threads of this process: they meet and talk as processes do.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <binade/core/error.h>
#include <binade/dist/socket.h>
#include <binade/dist/world.h>

namespace binade::test {

// What each rank threw; empty where it threw nothing. A rank that throws reports it, as programs
// do.
inline std::vector<std::string> run_ranks(int size, const std::function<void(dist::World&)>& body,
                                          const dist::Limits& limits = {.join_seconds = 20}) {
  const int port = dist::port_of(dist::listen_on(0, /*loopback=*/true));
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      std::string& error = errors[static_cast<size_t>(rank)];
      try {
        dist::World world({rank, size, rank, "127.0.0.1", port}, limits);
        try {
          body(world);
          world.leave();
        } catch (const Error& thrown) {
          error = thrown.what();
          world.report_failure(error);
        }
      } catch (const Error& thrown) {
        error = thrown.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace binade::test
