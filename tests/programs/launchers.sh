#!/usr/bin/env bash
# What starts the ranks of a run: mpirun, srun's variables, and binade-run on several hosts.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
source "$(dirname "$0")/shared/ranks.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bin=$BINADE_BUILD/examples
for i in {1..200}; do echo "Line $i: the quick brown fox jumps over the lazy dog, $((i * i)) times."; done \
  >"$work/text.txt"
program=("$bin/train_gpt" --text "$work/text.txt" --tokenizer bytes --layers 2 --dim 32 --heads 2 --seq-len 24
  --batch-size 8 --sample-tokens 0 --device cpu --warmup 4 --schedule constant --validate-every 7
  --validation-batches 5 --quiet --steps 14 --accumulation 4 --checkpoint-every 7 --precision fp16
  --init-scale 16777216 --dropout 0.1)
expect "a run of binade-run's to compare with" 0 "" ranks 2 tcp
# equal NAME FOLDER COMMAND...: the command trains into the folder what binade-run has trained.
equal() {
  local problem
  problem=$(complaint 0 "" timeout 120 "${@:3}" "${program[@]}" --run-dir "$work/$2")
  [[ -n $problem ]] || problem=$(difference tcp "$2")
  report "$1" "$problem"
}

# ---- MPI -----------------------------------------------------------------------------------------
mpirun=(mpirun --allow-run-as-root --oversubscribe)
if ! command -v mpirun >/dev/null; then
  echo "skip MPI as a transport: there is no mpirun (Debian: openmpi-bin)"
else
  for n in 2 4; do
    equal "$n ranks over MPI are equal to ranks over TCP" "mpi-$n" "${mpirun[@]}" -n $n
  done
  equal "ranks of mpirun's over TCP" mpi-tcp env MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000)) \
    "${mpirun[@]}" -n 2 sh -c 'exec "$@" --transport tcp' sh
  expect "TCP without a place to meet" 2 "set MASTER_ADDR and MASTER_PORT" "${mpirun[@]}" -n 2 "${program[@]}" --transport tcp \
    --run-dir "$work/no-place"
  expect "MPI with a launcher that is not MPI's" 2 "MPI knows it as rank 0 of 1" \
    "$bin/binade-run" -n 2 "${program[@]}" --transport mpi --run-dir "$work/not-mpi"
  expect "what fails on one rank" 2 "rank 1 of 2 " "${mpirun[@]}" -n 2 sh -c \
    '[ $OMPI_COMM_WORLD_RANK = 0 ] || set -- "$@" --learning-rate 1; exec "$@"' sh "${program[@]}" --run-dir "$work/other"
fi
refused "MPI without a launcher" "which mpirun starts" "${program[@]}" --transport mpi --run-dir "$work/alone"

# ---- another version of the library --------------------------------------------------------------
cat >"$work/version.cpp" <<'END_OF_SOURCE'
#include <string>
#include <utility>
#include <vector>

namespace binade {
std::vector<std::pair<std::string, std::string>> version_facts() {
  return {{"binade", "0.1.0"}, {"commit", "another"}};
}
}  // namespace binade
END_OF_SOURCE
if ! "${CXX:-g++}" -std=c++20 -shared -fPIC -o "$work/version.so" "$work/version.cpp" >"$case_output" 2>&1; then
  echo "skip ranks with other versions of the library: there is no compiler"
else
  expect "ranks with other versions of the library" 2 "(commit another) on rank 1" "$bin/binade-run" -n 2 sh -c \
    '[ $BINADE_RANK = 0 ] || export LD_PRELOAD=$0; exec "$@"' "$work/version.so" "${program[@]}" --run-dir "$work/versions"
  grep -qE "^\[0\] error: .* the ranks have different versions of Binade: .* on rank 0, 0.1.0 \(commit another\) on rank 1" \
    "$case_output" && problem= || problem="it does not say which"
  report "… are told both" "$problem"
fi

# ---- SLURM ---------------------------------------------------------------------------------------
# srun N COMMAND...: tasks as srun starts them on one host.
srun() {
  local n=$1 task status=0
  shift
  for ((task = n - 1; task > 0; --task)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=$n "$@" &
  done
  SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=$n "$@" || status=$?
  wait || true
  return $status
}
slurm() {
  export SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_STEP_NODELIST=127.0.0.1,other
  srun 2 "$@"
}
problem=$(complaint 0 "" slurm "${program[@]}" --run-dir "$work/slurm")
[[ -n $problem ]] || problem=$(difference tcp slurm)
report "srun's tasks meet on the first host of their step" "$problem"

# ---- several hosts -------------------------------------------------------------------------------
mkdir "$work/path" "$work/it's \$HOME \"here\""
cat >"$work/path/ssh" <<'END_OF_SSH'
#!/bin/sh
# As ssh: the host, then what a shell there runs, with an environment of its own.
while [ "${1#-}" != "$1" ]; do [ "$1" = -o ] && shift; shift; done
echo "$1" >>"$SSH_LOG"
if [ "$1" = gone ]; then
  echo "ssh: connect to host gone port 22: No route to host" >&2
  exit 255
fi
command=$2
[ -z "${SSH_INSIDE:-}" ] || exec $SSH_INSIDE env -i PATH=/usr/bin:/bin sh -c "$command"
exec env -i PATH=/usr/bin:/bin sh -c "$command"
END_OF_SSH
chmod +x "$work/path/ssh"
export SSH_LOG=$work/ssh.log PATH=$work/path:$PATH
problem=$(cd "$work/it's \$HOME \"here\"" && complaint 0 "" timeout 60 "$bin/binade-run" -n 4 --hosts a,b --address 127.0.0.1 \
  "${program[@]}" --run-dir "it's a 'run' of \$4 \"\`ranks\`\"")
[[ -n $problem ]] || mv "$work/it's \$HOME \"here\""/it* "$work/hosts"
[[ -n $problem ]] || problem=$(difference tcp hosts)
[[ -n $problem || $(sort "$SSH_LOG" | paste -sd' ') == "a a b b" ]] || problem="ssh went to $(paste -sd' ' "$SSH_LOG")"
report "ranks on two hosts, through ssh, are equal to ranks on one; names are quoted" "$problem"
rm "$SSH_LOG"
equal "this host needs no ssh" mixed "$bin/binade-run" -n 2 --hosts localhost,b --address 127.0.0.1
[[ $(cat "$SSH_LOG") == b ]] && problem= || problem="ssh went to $(paste -sd' ' "$SSH_LOG")"
report "… and gets none" "$problem"
expect "a host that cannot be reached" 255 "rank 1 of 2 ended with status 255 (ssh to gone)" \
  timeout 20 "$bin/binade-run" -n 2 --hosts localhost,gone --address 127.0.0.1 "${program[@]}" --run-dir "$work/gone"
refused "ranks that do not go into the hosts" "3 ranks cannot be shared out among 2 hosts" \
  "$bin/binade-run" -n 3 --hosts a,b true
refused "hosts that are options" "is no list of hosts" "$bin/binade-run" -n 2 --hosts "a,-oProxyCommand=x" true

problem=$(complaint 0 "stopped by a signal" timeout --preserve-status -s TERM 5 "$bin/binade-run" -n 2 --hosts a,b \
  --address 127.0.0.1 "${program[@]/#14/1000000}" --run-dir "$work/stopped")
report "SIGTERM reaches ranks on other hosts" "$problem"

# ---- another network stack as another host -------------------------------------------------------
namespace=binade-$$ net=10.213.$(($$ % 250))
inside() { ip netns exec "$namespace" "$@"; }
make_host() {
  ip netns add "$namespace" && ip link add "bn$$" type veth peer name "bp$$" netns "$namespace" &&
    ip addr add "$net.1/24" dev "bn$$" && ip link set "bn$$" up &&
    inside ip addr add "$net.2/24" dev "bp$$" && inside ip link set "bp$$" up && inside ip link set lo up
}
drop_host() {
  ip link del "bn$$" 2>/dev/null || true
  ip netns del "$namespace" 2>/dev/null || true
}
trap 'drop_host; rm -rf "$work" "$case_output"' EXIT
if ! make_host >/dev/null 2>&1; then
  echo "skip hosts with a network between them: no network namespace can be made (ip, root)"
else
  export SSH_INSIDE="ip netns exec $namespace"
  equal "two hosts with a network between them are equal to one" network "$bin/binade-run" -n 2 --hosts "$net.1,$net.2"
  run=$work/cut
  timeout 60 "$bin/binade-run" -n 2 --hosts "$net.1,$net.2" --silent-seconds 2 "${program[@]/#14/1000000}" --run-dir "$run" \
    >"$case_output" 2>&1 &
  waited=$!
  for _ in {1..200}; do
    (($(wc -l 2>/dev/null <"$run/metrics.jsonl" || echo 0) < 12)) || break
    sleep 0.1
  done
  ip link set "bn$$" down
  begin=$SECONDS status=0
  wait $waited || status=$?
  problem=
  ((status != 0 && status != 124)) || problem="exit status $status"
  ((SECONDS - begin <= 20)) || problem="it took $((SECONDS - begin)) s"
  grep -qE "^\[0\] error: rank 1 of 2 .* has been silent for 2 s in step [0-9]+; last checkpoint: step" "$case_output" ||
    problem=${problem:-rank 0 does not name it}
  tail -n 1 "$case_output" | grep -q "^rank 1 of 2 .* has been silent for 2 s in step" ||
    problem=${problem:-the first failure is not the last line}
  report "a host that the network has lost is named" "$problem"
fi
