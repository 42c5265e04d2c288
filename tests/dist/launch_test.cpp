#include <binade/dist/launch.h>

#include <catch2/catch.hpp>
#include <map>
#include <string>

#include <binade/core/error.h>

namespace binade::dist {
namespace {

using Variables = std::map<std::string, std::string>;

Launch launch_of(const Variables& variables) {
  return read_launch([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string error_of(const Variables& variables) {
  try {
    launch_of(variables);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

const Variables kBinade = {{"BINADE_RANK", "1"},
                           {"BINADE_RANKS", "4"},
                           {"BINADE_LOCAL_RANK", "1"},
                           {"BINADE_ADDRESS", "127.0.0.1"},
                           {"BINADE_PORT", "4711"}};
const Variables kTorchrun = {{"RANK", "2"},
                             {"WORLD_SIZE", "3"},
                             {"LOCAL_RANK", "0"},
                             {"MASTER_ADDR", "node7"},
                             {"MASTER_PORT", "29500"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "3"},
                            {"OMPI_COMM_WORLD_SIZE", "8"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}};
const Variables kSlurm = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_LOCALID", "0"}};
const Variables kMeeting = {{"MASTER_ADDR", "node1"}, {"MASTER_PORT", "1234"}};

Variables joined(Variables a, const Variables& b) {
  a.insert(b.begin(), b.end());
  return a;
}

void check_launch(const Variables& variables, int rank, int size, int local_rank,
                  const std::string& address, int port) {
  const Launch launch = launch_of(variables);
  CHECK(launch.rank == rank);
  CHECK(launch.size == size);
  CHECK(launch.local_rank == local_rank);
  CHECK(launch.address == address);
  CHECK(launch.port == port);
}

TEST_CASE("dist: ranks are read from the variables of each launcher", "[dist]") {
  check_launch({}, 0, 1, 0, "", 0);
  check_launch(kBinade, 1, 4, 1, "127.0.0.1", 4711);
  check_launch(kTorchrun, 2, 3, 0, "node7", 29500);
  check_launch(joined(kOpenMpi, kMeeting), 3, 8, 1, "node1", 1234);
  check_launch(joined(kSlurm, kMeeting), 0, 2, 0, "node1", 1234);
  // One rank needs no meeting place.
  check_launch({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}, {"SLURM_LOCALID", "0"}}, 0, 1, 0, "",
               0);
}

TEST_CASE("dist: srun's tasks meet on the first host of their step", "[dist]") {
  for (const auto& [list, first] :
       std::map<std::string, std::string>{{"node1", "node1"},
                                          {"node1,node2", "node1"},
                                          {"node[07-09,12],other", "node07"},
                                          {"node[3,5]", "node3"},
                                          {"a,node[3,5]", "a"}}) {
    const Variables step = {
        {"SLURM_STEP_NODELIST", list}, {"SLURM_JOB_ID", "4711"}, {"SLURM_STEP_ID", "2"}};
    const Launch launch = launch_of(joined(kSlurm, step));
    CHECK(launch.address == first);
    CHECK(launch.port >= 20000);
    CHECK(launch.port < 32000);
    // Another step, and another job, meet at another port.
    for (const char* other : {"SLURM_JOB_ID", "SLURM_STEP_ID"}) {
      Variables further = step;
      further[other] = "3";
      CHECK(launch_of(joined(kSlurm, further)).port != launch.port);
    }
    check_launch(joined(joined(kSlurm, step), kMeeting), 0, 2, 0, "node1", 1234);
  }
}

TEST_CASE("dist: a list of no hosts is an error", "[dist]") {
  for (const char* list : {"[", "[]", ",node1", "[,3]"}) {
    const Variables step = {
        {"SLURM_STEP_NODELIST", list}, {"SLURM_JOB_ID", "4711"}, {"SLURM_STEP_ID", "2"}};
    CHECK(
        error_of(joined(kSlurm, step)) ==
        concat("the environment variable SLURM_STEP_NODELIST is ", list, ", not a list of hosts"));
  }
}

TEST_CASE("dist: ranks of mpirun's may be without a place to meet", "[dist]") {
  Variables here = joined(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "8"}});
  CHECK(launch_of(here).by_mpirun);
  CHECK(launch_of(here).on_one_host);
  CHECK(launch_of(here).address.empty());
  here["OMPI_COMM_WORLD_LOCAL_SIZE"] = "4";
  CHECK(!launch_of(here).on_one_host);
  CHECK(!launch_of(kBinade).by_mpirun);
}

TEST_CASE("dist: the first launcher in order counts", "[dist]") {
  const Variables all = joined(joined(joined(kSlurm, kOpenMpi), kMeeting), kBinade);
  CHECK(launch_of(all).size == 4);
  CHECK(launch_of(joined(joined(kSlurm, kOpenMpi), kMeeting)).size == 8);
  CHECK(launch_of(joined(joined(kTorchrun, kOpenMpi), kSlurm)).size == 3);
}

TEST_CASE("dist: half a set of variables is an error that names them", "[dist]") {
  for (const Variables& whole :
       {kBinade, kTorchrun, joined(kOpenMpi, kMeeting), joined(kSlurm, kMeeting)})
    for (const auto& [name, value] : whole) {
      Variables half = whole;
      half.erase(name);
      CAPTURE(name);
      CHECK(error_of(half).find(name) != std::string::npos);
    }
}

TEST_CASE("dist: a variable that is no such number is an error", "[dist]") {
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"})
    for (const char* value : {"", "x", "-1", "1.5", "99999999", "nan"}) {
      Variables wrong = kTorchrun;
      wrong[name] = value;
      CAPTURE(name, value);
      CHECK(error_of(wrong).find(name) != std::string::npos);
    }
  Variables beyond = kTorchrun;
  beyond["RANK"] = "3";
  CHECK(error_of(beyond).find("RANK is 3") != std::string::npos);
}

TEST_CASE("dist: the store is the launcher's where binade-run says so", "[dist]") {
  CHECK(!launch_of(kBinade).served);
  CHECK(launch_of(joined(kBinade, {{"BINADE_SERVED", "1"}})).served);
  CHECK(!launch_of(joined(kTorchrun, {{"BINADE_SERVED", "1"}})).served);
}

}  // namespace
}  // namespace binade::dist
