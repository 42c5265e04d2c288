// Which rank of a run this process is, as its launcher says in environment variables:
//
//   binade-run  BINADE_RANK BINADE_RANKS BINADE_LOCAL_RANK BINADE_ADDRESS BINADE_PORT
//   torchrun    RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT
//   mpirun      OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_LOCAL_RANK
//   srun        SLURM_PROCID SLURM_NTASKS SLURM_LOCALID
//
// The first family of which a variable is set counts (mpirun inside a batch job of SLURM's has
// both). Open MPI and SLURM do not say where the ranks meet: MASTER_ADDR and MASTER_PORT have to.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace binade::dist {

struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0;  // among the ranks of this host: its GPU
  // Where rank 0 listens; without several ranks empty and 0.
  std::string address;
  int port = 0;
  // A listening socket that rank 0 has inherited from its launcher, or -1: nobody else can take
  // the port meanwhile.
  int listener = -1;
};

// The value of an environment variable, or nothing.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// Throws Error naming the variables when a family is there by half, or a value is no such number.
// Without any of them: one rank.
Launch read_launch(const Environment& environment);
Launch read_launch();  // of this process
// How long ranks wait for each other at the start: BINADE_JOIN_SECONDS, or 120.
double join_seconds();
// Whether the launcher has started the run again after a failure: BINADE_RESTART is there.
bool restarted();

}  // namespace binade::dist
