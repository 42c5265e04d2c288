#include <binade/core/host_memory.h>

#include <catch2/catch.hpp>

#include "temporary_folder.h"

using namespace binade;
using Catch::Contains;

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// What is said to be available of so much: less a 64th of the total.
int64_t less_reserve(int64_t available, int64_t total) {
  return available * kMiB - total * kMiB / 64;
}

// A machine of 1000 MiB, 600 of them available, without swap.
void write_machine(const test::TemporaryFolder& root, const std::string& groups) {
  root.write("proc/meminfo",
             "MemTotal:        1024000 kB\nMemFree:           10240 kB\n"
             "MemAvailable:     614400 kB\nSwapFree:              0 kB\n");
  root.write("proc/self/cgroup", groups);
}

// A group of version 2 in the folder `at` of the hierarchy, with 8 + 2 MiB of file cache.
void write_group(const test::TemporaryFolder& root, const std::string& at, const std::string& limit,
                 int64_t used) {
  const std::string folder = "sys/fs/cgroup/" + at;
  root.write(folder + "memory.max", limit + "\n");
  root.write(folder + "memory.current", std::to_string(used) + "\n");
  root.write(folder + "memory.stat", "anon 1\ninactive_file 8388608\nactive_file 2097152\n");
}

}  // namespace

TEST_CASE("the memory of a machine without limits", "[memory]") {
  const test::TemporaryFolder root;
  write_machine(root, "0::/user.slice\n");
  write_group(root, "user.slice/", "max", 900 * kMiB);
  const HostMemory memory = host_memory(root.path()).value();
  CHECK(memory.total == 1000 * kMiB);
  CHECK(memory.available == less_reserve(600, 1000));
  CHECK(memory.describe() == "the machine has 0.98 GiB of memory, of which 0.57 GiB are available");

  root.write("proc/meminfo", "MemTotal: 1024000 kB\nMemAvailable: 614400 kB\nSwapFree: 1024 kB\n");
  CHECK(host_memory(root.path()).value().available == less_reserve(601, 1000));
}

TEST_CASE("the memory limit of a control group, less what it uses other than file cache",
          "[memory]") {
  const test::TemporaryFolder root;
  write_machine(root, "0::/slice/job\n");
  write_group(root, "slice/job/", std::to_string(300 * kMiB), 100 * kMiB);
  const HostMemory own = host_memory(root.path()).value();
  CHECK(own.total == 300 * kMiB);
  CHECK(own.available == less_reserve(300 - 100 + 8 + 2, 300));
  CHECK_THAT(own.describe(), Contains("control group") && Contains("0.29 GiB"));

  // The group above is larger, and nearly full.
  write_group(root, "slice/", std::to_string(500 * kMiB), 490 * kMiB);
  const HostMemory above = host_memory(root.path()).value();
  CHECK(above.total == 500 * kMiB);
  CHECK(above.available == less_reserve(20, 500));

  write_group(root, "slice/", std::to_string(500 * kMiB), 520 * kMiB);
  CHECK(host_memory(root.path()).value().available == 0);

  // A limit that leaves more than the machine has is none.
  write_group(root, "slice/", "max", 0);
  write_group(root, "slice/job/", std::to_string(900 * kMiB), 100 * kMiB);
  CHECK(host_memory(root.path()).value().total == 1000 * kMiB);
}

TEST_CASE("a container whose group's path is the host's", "[memory]") {
  const test::TemporaryFolder root;
  write_machine(root, "0::/docker/0123\n");
  write_group(root, "", std::to_string(200 * kMiB), 100 * kMiB);
  CHECK(host_memory(root.path()).value().available == less_reserve(110, 200));
}

TEST_CASE("the memory limit of a control group of version 1", "[memory]") {
  const test::TemporaryFolder root;
  write_machine(root, "5:cpu,cpuacct:/\n4:memory:/docker/0123\n1:name=systemd:/\n0::/\n");
  const std::string folder = "sys/fs/cgroup/memory/docker/0123/";
  root.write(folder + "memory.limit_in_bytes", std::to_string(300 * kMiB) + "\n");
  root.write(folder + "memory.usage_in_bytes", std::to_string(250 * kMiB) + "\n");
  root.write(folder + "memory.stat",
             "inactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 0\n");
  CHECK(host_memory(root.path()).value().available == less_reserve(60, 300));
  // What an unlimited group says.
  root.write(folder + "memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(host_memory(root.path()).value().available == less_reserve(600, 1000));
}

TEST_CASE("a system that does not say how much memory it has", "[memory]") {
  const test::TemporaryFolder root;
  CHECK_FALSE(host_memory(root.path()).has_value());
  root.write("proc/meminfo", "MemTotal: lots kB\n");
  CHECK_FALSE(host_memory(root.path()).has_value());
}

TEST_CASE("the reserve of a large machine is 256 MiB", "[memory]") {
  const test::TemporaryFolder root;
  root.write("proc/meminfo", "MemTotal: 1073741824 kB\nMemAvailable: 536870912 kB\n");
  CHECK(host_memory(root.path()).value().available == (int64_t{512} << 30) - 256 * kMiB);
}
