// Runs a training program on several ranks of this host.
//
//   binade-run -n 4 build/examples/train_gpt --text book.txt --accumulation 4
//   binade-run -n 2 --restarts 3 build/examples/train_gpt …    goes on from the last checkpoint
#include <algorithm>

#include <binade/dist/local_ranks.h>

#include "common.h"

using namespace binade;

namespace {

struct Options {
  int64_t ranks = 0, restarts = 0, join_seconds = 120;
};

// How many of the arguments are ours: all up to the program's name.
size_t own_arguments(const examples::CommandLine& command,
                     const std::vector<std::string>& arguments) {
  size_t at = 0;
  while (at < arguments.size() && arguments[at].starts_with('-')) {
    const std::string& argument = arguments[at++];
    if (argument == "--") break;
    const bool has_value =
        argument == "-n" || std::ranges::any_of(command.options(), [&](const auto& one) {
          return !one.flag && argument == "--" + one.name;
        });
    if (has_value && at < arguments.size()) ++at;
  }
  return at;
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command(
      "Runs a program on several ranks of this host: binade-run -n 4 PROGRAM ARGUMENTS…");
  Options options;
  command.add("-n,--ranks", options.ranks, "Processes to start").range(1, 1024).required();
  command
      .add("--restarts", options.restarts,
           "Times a run that failed is started again; it goes on from its last checkpoint")
      .at_least(0);
  command.add("--join-seconds", options.join_seconds, "For all ranks to be there").range(1, 86400);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const size_t own = own_arguments(command, arguments);
  std::vector<std::string> ours(arguments.begin(), arguments.begin() + static_cast<ptrdiff_t>(own));
  if (!ours.empty() && ours.back() == "--") ours.pop_back();
  int status = 0;
  const int failed = examples::run_program(
      command, argv[0], ours,
      [&] {
        const std::vector<std::string> program(arguments.begin() + static_cast<ptrdiff_t>(own),
                                               arguments.end());
        check(!program.empty(), "give the program to run, and its arguments, behind the options");
        status = dist::run_local_ranks({.ranks = static_cast<int>(options.ranks),
                                        .command = program,
                                        .restarts = static_cast<int>(options.restarts),
                                        .join_seconds = static_cast<int>(options.join_seconds)});
      },
      examples::Output::narration);
  return failed != 0 ? failed : status;
}
