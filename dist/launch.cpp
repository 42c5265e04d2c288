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
constexpr const Family *kOpenMpi = &kFamilies[2], *kSlurm = &kFamilies[3];
constexpr int kMostRanks = 4096;

int number_of(const char* name, const std::string& text, int least, int most) {
  const std::optional<double> value = parse_number(text);
  check(value && *value == std::floor(*value) && *value >= least && *value <= most,
        "the environment variable ", name, " is ", text, ", not a whole number from ", least,
        " to ", most);
  return static_cast<int>(*value);
}

// The first name of a list of SLURM's: "node[07-09,12],other" → "node07".
std::string first_host(const std::string& list) {
  const size_t bracket = list.find('[');
  if (bracket == std::string::npos || bracket > list.find(','))
    return list.substr(0, list.find(','));
  const size_t end = list.find_first_of("-,]", bracket);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

// Where the ranks of a step of a job of SLURM's meet, whose task 0 runs on its first host; false
// where the job does not say it.
bool meet_in_job(const Environment& environment, Launch& launch) {
  const auto hosts = environment("SLURM_STEP_NODELIST"), job = environment("SLURM_JOB_ID"),
             step = environment("SLURM_STEP_ID");
  if (!hosts || hosts->empty() || !job || !step) return false;
  // Steps of a job may run side by side.
  constexpr int kFirstPort = 20000, kPorts = 12000, kJobs = 1000;
  const int number = number_of("SLURM_JOB_ID", *job, 0, 1 << 30) % kJobs * 12 +
                     number_of("SLURM_STEP_ID", *step, 0, 1 << 30) % 12;
  launch.address = first_host(*hosts);
  check(!launch.address.empty(), "the environment variable SLURM_STEP_NODELIST is ", *hosts,
        ", not a list of hosts");
  launch.port = kFirstPort + number % kPorts;
  return true;
}

}  // namespace

Transport parse_transport(const std::string& text) {
  if (text == "auto") return Transport::automatic;
  if (text == "tcp") return Transport::tcp;
  check(text == "mpi", "there is no transport ", text, "; there are auto, tcp and mpi");
  return Transport::mpi;
}

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
    if (there.empty() && &family == kOpenMpi) {
      launch.by_mpirun = true;
      launch.on_one_host = environment("OMPI_COMM_WORLD_LOCAL_SIZE") == size;
      return launch;
    }
    if (there.empty() && &family == kSlurm && meet_in_job(environment, launch)) return launch;
    check(missing.empty(), "this is rank ", launch.rank, " of ", launch.size, " (", family.rank,
          "), but ", missing, " is missing: set ", family.address, " and ", family.port,
          " to a host and a free port of rank 0's");
    check(!address->empty(), "the environment variable ", family.address, " is empty");
    launch.address = *address;
    launch.port = number_of(family.port, *port, 1, 65535);
    launch.by_mpirun = &family == kOpenMpi;
    launch.served = &family == kFamilies && environment("BINADE_SERVED").has_value();
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

Limits read_limits() {
  Limits limits;
  const auto read = [](const char* name, double& seconds) {
    if (const auto text = of_this_process(name)) seconds = number_of(name, *text, 1, 86400);
  };
  read("BINADE_JOIN_SECONDS", limits.join_seconds);
  read("BINADE_SILENT_SECONDS", limits.silent_seconds);
  read("BINADE_STUCK_SECONDS", limits.stuck_seconds);
  return limits;
}

}  // namespace binade::dist
