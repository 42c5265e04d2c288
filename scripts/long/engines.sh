# What comparisons with serving engines share. Source it behind ../common.sh; it runs nothing.

# A Python with PyTorch and transformers: that of BINADE_TORCH_PYTHON, or one made in folder `$1`.
torch_python() {
  if [[ -n ${BINADE_TORCH_PYTHON:-} ]]; then
    echo "$BINADE_TORCH_PYTHON"
    return
  fi
  say "Installing PyTorch and transformers from pip" >&2
  python3 -m venv "$1/venv"
  "$1/venv/bin/pip" install --quiet --extra-index-url https://download.pytorch.org/whl/cpu \
    torch transformers safetensors >&2
  echo "$1/venv/bin/python"
}

# The source of vLLM `$2`, which has the model file `$3`, below folder `$1`. pip stops at the metadata of the
# source package, which needs a compiler; --no-clean keeps what it unpacked.
vllm_source() {
  mkdir -p "$1/sources"
  TMPDIR=$1/sources python3 -m pip download --quiet --no-deps --no-clean --no-build-isolation \
    --no-binary vllm --dest "$1/sources" "vllm==$2" >"$1/pip.log" 2>&1 || true
  local file
  file=$(find "$1/sources" -path "*/vllm/model_executor/models/$3" | head -n 1)
  [[ -n $file ]] || die "no source of vLLM: $(tail -n 1 "$1/pip.log")"
  echo "${file%/vllm/model_executor/*}"
}
