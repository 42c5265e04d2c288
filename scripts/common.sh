# What the scripts in this folder share. Source it; it runs nothing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BINADE_CACHE:-$HOME/.cache/binade}  # downloads of scripts/setup.sh; CMake looks here, too

say() { printf '== %s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

# Prints the script's own header comment, which is its manual.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

have() { command -v "$1" >/dev/null 2>&1; }

# A GPU that programs can use: its driver answers, or both its device file and the library are there.
# An empty CUDA_VISIBLE_DEVICES hides it, as it does from CUDA.
has_gpu() {
  if [[ -z ${CUDA_VISIBLE_DEVICES-all} ]]; then
    return 1
  elif have nvidia-smi; then
    nvidia-smi -L 2>/dev/null | grep -q '^GPU'
  else
    [[ -e /dev/nvidia0 ]] && ldconfig -p | grep -q 'libcuda\.so\.1'
  fi
}

# The GPU's compute capability in CMake's form, for example 90.
gpu_architecture() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
  [[ $capability =~ ^[0-9]+\.[0-9]$ ]] && echo "${capability/./}" || echo 90
}

# Whether an nvcc is there and of version 12.4 or newer.
usable_nvcc() {
  local release
  [[ -n $1 && -x $1 ]] || return 1
  release=$("$1" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
  [[ -n $release ]] && printf '12.4\n%s\n' "$release" | sort --check=quiet --version-sort
}

# The nvcc to build with, or nothing. The system's goes before the one made from wheels.
find_nvcc() {
  local candidate
  for candidate in "${CUDACXX:-}" "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" "$(command -v nvcc || true)" \
                   /usr/local/cuda/bin/nvcc "$cache/cuda/bin/nvcc"; do
    if usable_nvcc "$candidate"; then
      echo "$candidate"
      return
    fi
  done
}

# Configures the build folder `$1`, with the CUDA kernels if nvcc `$2` is not empty: for the GPU of
# this machine or, where there is none, for CMake's default architecture. The rest is for CMake.
configure() {
  local folder=$1 nvcc=$2 options=(-G Ninja -DBINADE_CUDA=OFF)
  if [[ -n $nvcc ]]; then
    export CUDACXX=$nvcc
    options=(-G Ninja -DBINADE_CUDA=ON)
    if has_gpu; then options+=(-DBINADE_CUDA_ARCHITECTURES="$(gpu_architecture)"); fi
  fi
  if have ccache; then
    options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
  fi
  say "configuring $folder (CUDA kernels: ${nvcc:-none})"
  cmake -S "$root" -B "$folder" "${options[@]}" "${@:3}" ||
    die "CMake could not configure the build (its message is above)"
}

# Builds the targets `$2...`, all if none, in folder `$1`.
build() {
  local folder=$1
  shift
  say "building ${*:-everything}"
  cmake --build "$folder" ${1:+--target "$@"} || die "the build failed (its message is above)"
}
