#include <binade/dist/launch.h>

#include <cmath>
#include <cstdlib>

#include <binade/core/error.h>

namespace binade::dist {

namespace {

struct Family {
  const char *rank, *size, *local_rank, *address, *port;
};

constexpr Family kFamilies[] = {
    {"BINADE_RANK", "BINADE_RANKS", "BINADE_LOCAL_RANK", "BINADE_ADDRESS", "BINADE_PORT"},
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "MASTER_ADDR",
     "MASTER_PORT"},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT"},
};
constexpr int kMostRanks = 4096;

int number_of(const char* name, const std::string& text, int least, int most) {
  const std::optional<double> value = parse_number(text);
  check(value && *value == std::floor(*value) && *value >= least && *value <= most,
        "the environment variable ", name, " is ", text, ", not a whole number from ", least,
        " to ", most);
  return static_cast<int>(*value);
}

}  // namespace

Launch read_launch(const Environment& environment) {
  for (const Family& family : kFamilies) {
    std::string there, missing;
    const auto read = [&](const char* name) {
      std::optional<std::string> value = environment(name);
      std::string& names = value ? there : missing;
      names += (names.empty() ? "" : ", ") + std::string(name);
      return value;
    };
    const auto rank = read(family.rank), size = read(family.size),
               local_rank = read(family.local_rank);
    if (there.empty()) continue;
    check(missing.empty(), "of the variables that a launcher sets, ", there, " is there and ",
          missing, " is missing; start the ranks with one launcher, or unset them");
    Launch launch;
    launch.size = number_of(family.size, *size, 1, kMostRanks);
    launch.rank = number_of(family.rank, *rank, 0, launch.size - 1);
    launch.local_rank = number_of(family.local_rank, *local_rank, 0, launch.size - 1);
    if (launch.size == 1) return launch;
    there.clear();
    const auto address = read(family.address), port = read(family.port);
    check(missing.empty(), "this is rank ", launch.rank, " of ", launch.size, " (", family.rank,
          "), but ", missing, " is missing: set ", family.address, " and ", family.port,
          " to a host and a free port of rank 0's");
    check(!address->empty(), "the environment variable ", family.address, " is empty");
    launch.address = *address;
    launch.port = number_of(family.port, *port, 1, 65535);
    if (const auto listener = environment("BINADE_LISTENER"); listener && launch.rank == 0)
      launch.listener = number_of("BINADE_LISTENER", *listener, 0, 1 << 20);
    return launch;
  }
  return {};
}

namespace {

std::optional<std::string> of_this_process(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

}  // namespace

Launch read_launch() {
  return read_launch(of_this_process);
}

bool restarted() {
  return of_this_process("BINADE_RESTART").has_value();
}

double join_seconds() {
  constexpr const char* kName = "BINADE_JOIN_SECONDS";
  const auto text = of_this_process(kName);
  return text ? number_of(kName, *text, 1, 86400) : 120;
}

}  // namespace binade::dist
