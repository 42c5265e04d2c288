#!/usr/bin/env bash
# Four demonstrations, on the GPU if there is one, else on the CPU. All install and build what is
# missing first.
#
#   scripts/demo.sh [OPTION...]   trains a small GPT on the C and C++ headers of this machine; options
#                                 are passed on to build/examples/train_gpt
#   scripts/demo.sh heads         trains a small Llama on them, lets it write, trains Medusa heads and
#                                 a recursive MTP module on what it wrote, decodes with both and
#                                 prints one table
#   scripts/demo.sh ranking       makes a retrieval set of them (which declaration is a comment
#                                 about?), trains two rankers and compares them with BM25
#   scripts/demo.sh bagel         trains a small model that reads and draws on Fashion-MNIST, draws, edits and
#                                 describes pictures with it
#
# What a run leaves lies in runs/demo (runs/demo-heads, runs/demo-ranking, runs/demo-bagel), that of a second one in
# runs/demo-2, and so on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ ${1:-} == --help ]] && usage && exit

build=$root/build
# Threads that spin while they wait take the cores from whatever else runs here.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# The first of runs/$1, runs/$1-2 … that is not there.
new_run() {
  local next run=$root/runs/$1
  for ((next = 2; ; ++next)); do
    [[ -e $run/config.json || -e $run/model || -e $run/set ]] || break
    run=$root/runs/$1-$next
  done
  echo "$run"
}

# Installs what is missing, and builds these programs.
prepare_programs() {
  local nvcc=
  if has_gpu; then
    "$root/scripts/setup.sh"
    nvcc=$(find_nvcc)
  else
    "$root/scripts/setup.sh" --cuda off
    # A folder that is built with CUDA already stays so; compiling the kernels anew helps nobody.
    grep -qs '^BINADE_CUDA:[A-Z]*=ON' "$build/CMakeCache.txt" && nvcc=$(find_nvcc)
  fi
  configure "$build" "$nvcc"
  build "$build" "$@"
}

demo_training() {
  local run
  run=$(new_run demo)
  prepare_programs train_gpt
  # Enough to see it learn, in about a minute on two cores.
  [[ " $* " == *" --steps"* ]] || set -- --steps 600 "$@"
  say "training; Ctrl-C writes a checkpoint and stops, train_gpt --run-dir $run --resume goes on"
  "$build/examples/train_gpt" --run-dir "$run" "$@"

  say "what the run left in $run:"
  ls -l "$run"
}

demo_heads() {
  (($# == 0)) || die "heads takes no options, got $*"
  local run programs=$build/examples
  run=$(new_run demo-heads)
  prepare_programs train_gpt generate_data finetune_medusa finetune_mtp speculate
  mkdir -p "$run"
  # BINADE_DEMO_STEPS: fewer steps for those who try the script itself.
  local steps=${BINADE_DEMO_STEPS:-250}

  say "a Llama of a few million parameters learns to write headers"
  "$programs/train_gpt" --family llama --layers 3 --dim 192 --heads 6 --kv-heads 2 --hidden 512 \
    --seq-len 256 --batch-size 8 --steps "$steps" --learning-rate 2e-3 --validate-every 0 \
    --checkpoint-every 0 --sample-tokens 0 --run-dir "$run/train" --save-hf "$run/model"
  say "it writes texts of its own, which are what the heads learn from"
  "$programs/generate_data" --model "$run/model" --no-template --from-nothing 192 --temperature 0.5 \
    --max-new-tokens 192 --output "$run/written.jsonl"
  say "Medusa heads"
  "$programs/finetune_medusa" --model "$run/model" --chats "$run/written.jsonl" --heads 4 --seq-len 224 \
    --batch-size 8 --steps "$steps" --validate-every 0 --checkpoint-every 0 --run-dir "$run/medusa-run" \
    --save "$run/medusa"
  say "a recursive MTP module"
  "$programs/finetune_mtp" --model "$run/model" --chats "$run/written.jsonl" --kind recursive --depth 3 \
    --seq-len 224 --batch-size 8 --steps "$steps" --validate-every 0 --checkpoint-every 0 \
    --run-dir "$run/mtp-run" --save "$run/mtp"
  say "decoding plainly and with drafts"
  local starts=('#ifndef ' '#define ' '/* ' 'struct ' 'static inline ' 'extern int ' '#include <'
    'typedef ' 'template <' 'namespace ' '// ' 'class ')
  printf '%s\n' "${starts[@]}" >"$run/starts.txt"
  decode() {  # name, options: its figures go to $run/<name>.txt
    local name=$1
    shift
    "$programs/speculate" --model "$run/model" --prompts "$run/starts.txt" --max-new-tokens 160 \
      --ignore-eos "$@" >"$run/$name.txt"
  }
  decode medusa-chain --medusa "$run/medusa" --tree chain
  decode medusa-tree --medusa "$run/medusa" --tree auto --nodes 16
  decode mtp-chain --mtp "$run/mtp" --tree chain
  decode lookup --proposer lookup

  say "tokens a pass (tau), tokens a second, texts equal to those of plain greedy decoding:"
  printf '%-14s %6s %10s %10s  %s\n' "" tau plain drafted equal
  local name
  for name in medusa-chain medusa-tree mtp-chain lookup; do
    awk -v name="$name" '
      $1 == "plain" { plain = $NF }
      $1 == "speculative" { drafted = $NF }
      $1 == "tau" { tau = $2 }
      / texts are those of plain greedy decoding/ { equal = $1 " of " $3 }
      END { printf "%-14s %6.2f %10.1f %10.1f  %s\n", name, tau, plain, drafted, equal }
    ' "$run/$name.txt"
  done
  say "all of it is in $run"
}

demo_ranking() {
  (($# == 0)) || die "ranking takes no options, got $*"
  local run programs=$build/examples loss
  run=$(new_run demo-ranking)
  prepare_programs retrieval_set train_ranker evaluate_ranking
  mkdir -p "$run"
  # BINADE_DEMO_STEPS: fewer steps for those who try the script itself.
  local steps=${BINADE_DEMO_STEPS:-1500}

  say "queries from the comments of this machine's headers, candidates from their declarations"
  "$programs/retrieval_set" --output "$run/set"
  for loss in lambdarank listnet; do
    say "a ranker learns by $loss"
    "$programs/train_ranker" --fold "$run/set" --loss "$loss" --steps "$steps" \
      --run-dir "$run/$loss-run" --save "$run/$loss" --test-scores "$run/$loss.txt"
  done
  # measure NAME, options: the figures of the test part go to $run/<name>-figures.txt
  measure() {
    local name=$1
    shift
    "$programs/evaluate_ranking" --data "$run/set/test.txt" --metrics ndcg@1 ndcg@10 map \
      --convention zero "$@" >"$run/$name-figures.txt"
  }
  measure bm25 --scores "$run/set/bm25.txt"
  # The feature that is the best ranker by itself: how well the file as a whole fits.
  measure bm25-of-file --feature 5 --baseline "$run/set/bm25.txt"
  for loss in lambdarank listnet; do
    measure "$loss" --scores "$run/$loss.txt" --baseline "$run/set/bm25.txt"
  done
  measure losses --scores "$run/lambdarank.txt" --baseline "$run/listnet.txt"

  say "the test part; NDCG@10 beside BM25's with the p of a paired randomisation test:"
  printf '%-14s %8s %8s %8s   %s\n' "" NDCG@1 NDCG@10 MAP "NDCG@10 beside BM25"
  local name
  for name in bm25 bm25-of-file lambdarank listnet; do
    awk -v name="$name" '
      / ties / { metric = $1; value[metric] = $2 }
      $2 == "baseline;" && metric == "NDCG@10" { beside = $4 " p = " $7 }
      END {
        printf "%-14s %8s %8s %8s   %s\n", name, value["NDCG@1"], value["NDCG@10"], value["MAP"], beside
      }
    ' "$run/$name-figures.txt"
  done
  awk '
    $1 == "NDCG@10" { metric = $1; sub(/.*  zero: /, ""); print "convention zero: " $0 }
    $2 == "baseline;" && metric == "NDCG@10" {
      print "lambdarank beside listnet: NDCG@10 " $4 " p = " $7
      metric = ""
    }
  ' "$run/losses-figures.txt"
  say "all of it is in $run: the lists in set/, the rankers in lambdarank/ and listnet/, their scores"
  say "of set/test.txt in lambdarank.txt and listnet.txt; docs/ranking.md says how to go on"
}

demo_bagel() {
  (($# == 0)) || die "bagel takes no options, got $*"
  local run programs=$build/examples
  run=$(new_run demo-bagel)
  prepare_programs train_bagel draw
  mkdir -p "$run"
  # BINADE_DEMO_STEPS: fewer steps for those who try the script itself.
  local steps=${BINADE_DEMO_STEPS:-400}

  say "a mixture of transformers learns to draw and to describe coloured items of Fashion-MNIST"
  "$programs/train_bagel" --preset tiny --batch-size 2 --steps "$steps" --warmup 50 --ema 0.99 --workers 1 \
    --validate-every 0 --validation-packs 2 --checkpoint-every 0 --drawings 8 --run-dir "$run/train" --save "$run/model"
  say "it draws"
  "$programs/draw" --model "$run/model" --text "a red trouser" "a blue bag" "a green tshirt" "a yellow boot" --samples 2 \
    --points 25 --output "$run/drawings.png"
  "$programs/draw" --model "$run/model" --text "a red trouser" --points 25 --output "$run/trouser.png"
  say "says what is in a drawing, and makes it blue"
  "$programs/draw" --model "$run/model" --image "$run/trouser.png" --ask describe
  "$programs/draw" --model "$run/model" --image "$run/trouser.png" --text "make it blue" --points 25 --output "$run/edited.png"
  say "all of it is in $run. This is $steps steps of a tiny model: it has colours, and classes now and then. The real run"
  say "is train_bagel without options on a GPU (6000 steps of 16 rows), and judge_bagel's table; docs/unified.md has both"
}

case ${1:-} in
  bagel) shift && demo_bagel "$@" ;;
  heads) shift && demo_heads "$@" ;;
  ranking) shift && demo_ranking "$@" ;;
  *) demo_training "$@" ;;
esac
