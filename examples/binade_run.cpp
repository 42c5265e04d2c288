// Runs a training program on several ranks, of this host or several.
//
//   binade-run -n 4 build/examples/train_gpt --text book.txt --accumulation 4
//   binade-run -n 2 --restarts 3 build/examples/train_gpt …    goes on from the last checkpoint
//   binade-run -n 8 --hosts node1,node2 build/examples/train_gpt …    through ssh
#include <algorithm>
#include <sstream>

#include <binade/dist/launcher.h>

#include "common.h"

using namespace binade;

namespace {

struct Options {
  int64_t ranks = 0, restarts = 0;
  std::string hosts, address;
  dist::Limits limits = dist::read_limits();
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

// "a,b" → a, b.
std::vector<std::string> names_in(const std::string& list) {
  std::vector<std::string> names;
  std::istringstream text(list);
  for (std::string name; std::getline(text, name, ',');) {
    check(!name.empty() && !name.starts_with('-'), "--hosts ", list, " is no list of hosts");
    names.push_back(name);
  }
  return names;
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command(
      "Runs a program on several ranks: binade-run -n 4 PROGRAM ARGUMENTS…");
  Options options;
  command.add("-n,--ranks", options.ranks, "Processes to start, on all hosts")
      .range(1, 1024)
      .required();
  command
      .add("--restarts", options.restarts,
           "Times a run that failed is started again; it goes on from its last checkpoint")
      .at_least(0);
  command.add("--hosts", options.hosts,
              "Their names, with commas: each runs its share, through ssh; default: this one");
  command.add("--address", options.address,
              "Under which other hosts reach this one; default: what the first is reached from");
  command.add("--join-seconds", options.limits.join_seconds, "For all ranks to be there")
      .range(1, 86400);
  command
      .add("--silent-seconds", options.limits.silent_seconds,
           "Without a word from a rank, until it counts as lost")
      .range(1, 86400);
  command
      .add("--stuck-seconds", options.limits.stuck_seconds,
           "That a rank may let others wait in a step, at least")
      .range(1, 86400);
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
        status = dist::run_ranks({.ranks = static_cast<int>(options.ranks),
                                  .command = program,
                                  .hosts = names_in(options.hosts),
                                  .address = options.address,
                                  .restarts = static_cast<int>(options.restarts),
                                  .limits = options.limits});
      },
      examples::Output::narration);
  return failed != 0 ? failed : status;
}
