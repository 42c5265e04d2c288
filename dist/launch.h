// Which rank of a run this process is, as its launcher says in environment variables:
//
//   binade-run  BINADE_RANK BINADE_RANKS BINADE_LOCAL_RANK BINADE_ADDRESS BINADE_PORT
//   torchrun    RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT
//   mpirun      OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_LOCAL_RANK
//   srun        SLURM_PROCID SLURM_NTASKS SLURM_LOCALID
//
// The first family of which a variable is set counts (mpirun inside a batch job of SLURM's has
// both). Where MASTER_ADDR and MASTER_PORT do not say where ranks meet, those of mpirun tell each
// other through MPI, and those of srun meet on the first host of SLURM_STEP_NODELIST, at a port
// made of the numbers of job and step.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace binade::dist {

// What carries bytes between ranks that have their memory on the CPU.
enum class Transport {
  automatic,  // MPI under mpirun, TCP otherwise
  tcp,
  mpi,
};
Transport parse_transport(const std::string& text);  // "auto", "tcp", "mpi"; throws Error

struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0;  // among the ranks of this host: its GPU
  // Where rank 0 listens. Empty and 0 without several ranks, and where MPI will tell.
  std::string address;
  int port = 0;
  // Whether the launcher serves the store (store.h) at that address, as binade-run does
  // (BINADE_SERVED); otherwise rank 0 does.
  bool served = false;
  bool by_mpirun = false, on_one_host = false;  // the second is known of mpirun's
  Transport transport = Transport::automatic;
};

// The value of an environment variable, or nothing.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// Throws Error naming the variables when a family is there by half, or a value is no such number.
// Without any of them: one rank.
Launch read_launch(const Environment& environment);
Launch read_launch();  // of this process

// How long ranks wait for each other.
struct Limits {
  double join_seconds = 120;   // for all ranks to come; BINADE_JOIN_SECONDS
  double silent_seconds = 20;  // without a word, after which a rank is lost; BINADE_SILENT_SECONDS
  // That a rank lets others wait in a step, which may also last 20 usual steps and, before three
  // are done, five times as long; BINADE_STUCK_SECONDS.
  double stuck_seconds = 120;
};
Limits read_limits();  // from the environment of this process; throws Error for no such numbers

// Whether the launcher has started the run again after a failure: BINADE_RESTART is there.
bool restarted();

}  // namespace binade::dist
