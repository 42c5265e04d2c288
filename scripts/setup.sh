#!/usr/bin/env bash
# Installs what the build needs; a second run changes nothing.
#
#   scripts/setup.sh [--cuda auto|wheels|off]
#
# Debian packages come through apt-get, as root or with sudo. For the CUDA kernels:
#   auto    (default) take the system's toolkit; without one but with a GPU, do as `wheels`
#   wheels  make a CUDA 13.0 toolkit from pip wheels in the cache folder (1.7 GB on disk)
#   off     nothing: the build is for the CPU
# What the toolkit lacks of cuDNN and of the headers of cudnn-frontend and CUTLASS comes from pip
# wheels, too.
# The cache folder is $BINADE_CACHE, or ~/.cache/binade.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  g++ cmake ninja-build pkg-config ccache
  libdnnl-dev libeigen3-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev
  libsentencepiece-dev libpcre2-dev libutf8proc-dev zlib1g-dev libpng-dev libjpeg-dev
  catch2 dataset-fashion-mnist openmpi-bin
)
pip_packages=(python3 python3-pip ca-certificates)

# The toolkit: the versions that belong to CUDA 13.0 update 2, and the libraries tested with it.
toolkit_wheels=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88
  nvidia-nvtx==13.0.85 nvidia-cublas==13.1.0.3
  nvidia-cudnn-cu13==9.19.0.56 nvidia-nccl-cu13==2.28.9
)
cudnn_version=9.19.0.56
frontend_wheel=nvidia-cudnn-frontend==1.32.0
cutlass_wheel=nvidia-cutlass==4.2.0.0

# Runs a command that installs the packages `missing`.
as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "installing Debian packages needs root, and there is no sudo. As root, run" \
        "scripts/setup.sh or: apt-get install ${missing[*]}"
  fi
}

# Installs those of the named Debian packages that are not installed.
need_packages() {
  local package missing=()
  if ! have apt-get; then
    have cmake || die "this system has no apt-get. Install by its own means what these Debian" \
                      "packages hold, then run this again: $*"
    say "no apt-get here: the build takes what is installed, and CMake says what is missing"
    return
  fi
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    say "Debian packages: all installed"
    return
  fi
  say "installing Debian packages: ${missing[*]}"
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  as_root "${apt[@]}" update ||
    say "the package lists could not be brought up to date; trying with those at hand"
  as_root "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install the packages (its message is above). Is the network up, and is" \
        "this Debian 12 or newer? What is needed: ${missing[*]}"
}

# Unpacks wheels into a new folder `$1`.
unpack_wheels() {
  local folder=$1
  shift
  python3 -m pip --version >/dev/null 2>&1 || need_packages "${pip_packages[@]}"
  python3 -m pip --version >/dev/null 2>&1 || die "pip is needed to download $*: install it"
  say "downloading from PyPI: $*"
  python3 -m pip --quiet --disable-pip-version-check install --no-deps --no-compile --no-cache-dir \
          --only-binary=:all: --root-user-action=ignore --target "$folder" "$@" ||
    die "pip could not get these wheels (its message is above). Is the network up? They are needed" \
        "for CUDA only: cmake -S . -B build -DBINADE_CUDA=OFF builds for the CPU, and" \
        "CUDA_VISIBLE_DEVICES= scripts/demo.sh runs there"
}

# Wheels hold libfoo.so.1 alone; the linker looks for libfoo.so.
link_unversioned() {
  local library
  for library in "$1"/lib*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
  done
}

# Runs `$3...` in a scratch folder that becomes `$cache/$1` when all went well. Does nothing if that
# is there already, made for the same `$2`.
cached() {
  local name=$1 contents=$2
  shift 2
  if [[ -f $cache/$name/contents.txt && $(<"$cache/$name/contents.txt") == "$contents" ]]; then
    say "$name: in $cache/$name already"
    return
  fi
  mkdir -p "$cache"
  scratch=$(mktemp -d "$cache/$name.XXXXXX")
  "$@" "$scratch"
  echo "$contents" >"$scratch/result/contents.txt"
  rm -rf "${cache:?}/$name"
  mv "$scratch/result" "$cache/$name"
  rm -rf "$scratch"
  say "$name: made in $cache/$name"
}

# A toolkit as nvcc and CMake expect it: bin, include, lib, nvvm side by side.
make_toolkit() {
  local scratch=$1 part
  unpack_wheels "$scratch/wheels" "${toolkit_wheels[@]}"
  mkdir "$scratch/result"
  for part in cu13 cudnn nccl; do
    cp -a --link "$scratch/wheels/nvidia/$part/." "$scratch/result"
  done
  ln -s lib "$scratch/result/lib64"
  link_unversioned "$scratch/result/lib"
}

make_cudnn() {
  local major=$1 scratch=$2
  unpack_wheels "$scratch/wheels" "nvidia-cudnn-cu$major==$cudnn_version"
  mv "$scratch/wheels/nvidia/cudnn" "$scratch/result"
  link_unversioned "$scratch/result/lib"
}

make_frontend() {
  local scratch=$1
  unpack_wheels "$scratch/wheels" "$frontend_wheel"
  mkdir "$scratch/result"
  mv "$scratch/wheels/include" "$scratch/result"
}

make_cutlass() {
  local scratch=$1
  unpack_wheels "$scratch/wheels" "$cutlass_wheel"
  mkdir "$scratch/result"
  mv "$scratch/wheels/cutlass_library/source/include" "$scratch/result"
}

# Whether a header is where compilers look, in the system or beside nvcc `$2`.
has_header() {
  local folder
  for folder in "$(dirname "$2")/../include" /usr/include /usr/include/*-linux-gnu \
                /usr/local/include; do
    [[ -f $folder/$1 ]] && return
  done
  return 1
}

# What the build with nvcc `$1` needs besides the toolkit.
need_cuda_libraries() {
  local nvcc=$1 major
  if ! has_header cudnn.h "$nvcc"; then
    major=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
    cached cudnn "$major $cudnn_version" make_cudnn "$major"
  fi
  has_header cudnn_frontend.h "$nvcc" || cached cudnn-frontend "$frontend_wheel" make_frontend
  has_header cutlass/version.h "$nvcc" || cached cutlass "$cutlass_wheel" make_cutlass
}

scratch=  # removed however the script ends
trap 'rm -rf "$scratch"' EXIT

cuda=auto
while (($#)); do
  case $1 in
    --cuda) cuda=${2:-} && shift 2 || die "--cuda wants one of: auto, wheels, off" ;;
    --help) usage && exit ;;
    *) die "unknown option $1; see --help" ;;
  esac
done
[[ $cuda =~ ^(auto|wheels|off)$ ]] || die "--cuda wants one of: auto, wheels, off"

need_packages "${packages[@]}"

nvcc=$(find_nvcc)
case $cuda in
  auto) if [[ -z $nvcc ]] && has_gpu; then
          say "a GPU, but no CUDA toolkit of version 12.4 or newer: making one from pip wheels"
          cuda=wheels
        fi ;;
  off) nvcc= ;;
esac
if [[ $cuda == wheels ]]; then
  cached cuda "${toolkit_wheels[*]}" make_toolkit
  nvcc=$cache/cuda/bin/nvcc
fi
if [[ -n $nvcc ]]; then
  say "CUDA toolkit: $nvcc"
  need_cuda_libraries "$nvcc"
else
  say "CUDA: none, the build is for the CPU"
fi
say "ready to build"
