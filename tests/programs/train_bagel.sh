#!/usr/bin/env bash
# train_bagel, draw and judge_bagel: every architecture on a few made-up items, resuming, pictures, and
# what they say to bad input.
set -euo pipefail
source "$(dirname "$0")/cases.sh"
source "$(dirname "$0")/shared/ranks.sh"
work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
programs=$BINADE_BUILD/examples source=$(cd "$(dirname "$0")/../.." && pwd)

# make_items SPLIT COUNT: images that are stripes, 28 x 28 bytes, and labels 0 to 9.
make_items() {
  python3 - "$work/data/$1" "$2" <<'PYTHON'
import struct, sys
name, count = sys.argv[1], int(sys.argv[2])
with open(name + "-images-idx3-ubyte.gz", "wb") as file:
    file.write(struct.pack(">IIII", 0x803, count, 28, 28))
    for i in range(count):
        file.write(bytes(255 * ((x // (1 + i % 10)) % 2) for y in range(28) for x in range(28)))
with open(name + "-labels-idx1-ubyte.gz", "wb") as file:
    file.write(struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)))
PYTHON
}
mkdir "$work/data"
make_items train 60
make_items t10k 60
data=$work/data rows=2
small=(--device cpu --preset tiny --dim 32 --layers 2 --hidden 48 --warmup 2 --workers 1 --validation-packs 1
  --drawings 2)
train() { "$programs/train_bagel" --data "$data" --batch-size "$rows" "${small[@]}" "$@"; }

for architecture in dense moe mot; do
  expect "training a model of architecture $architecture" 0 "$architecture, " \
    train --architecture "$architecture" --steps 4 --run-dir "$work/$architecture" --save "$work/$architecture-model"
done
[[ -s $work/mot/drawings/step-4.png ]] && problem= || problem="there is none"
report "… leaves drawings of each validation" "$problem"
grep -q '"mse":' "$work/mot/metrics.jsonl" && grep -q '"ce":' "$work/mot/metrics.jsonl" &&
  grep -q '"validation_mse":' "$work/mot/metrics.jsonl" && problem= || problem="they are missing"
report "… and MSE and CE in the metrics" "$problem"
expect "half the steps" 0 "done at step 2" train --steps 2 --run-dir "$work/halves"
expect "… and the others" 0 "done at step 4" train --steps 4 --run-dir "$work/halves" --resume --save "$work/halves-model"
cmp -s "$work/halves-model/ema.safetensors" "$work/mot-model/ema.safetensors" && problem= || problem="they differ"
report "… give the same model" "$problem"
expect "FP16 with dynamic scaling" 0 "fp16 on cpu" train --precision fp16 --steps 3 --run-dir "$work/fp16"
rows=8 expect "8 rows in 4 micro-batches" 0 "done at step 2" \
  train --accumulation 4 --steps 2 --run-dir "$work/accumulated"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
program=("$programs/train_bagel" --data "$data" --batch-size 8 --accumulation 4 "${small[@]}" --steps 5
  --checkpoint-every 3 --validate-every 2)
same "1, 2 and 4 ranks are equal" --save "$work/ranks-RANKS"
problem=
for n in 2 4; do
  diff -r "$work/ranks-1" "$work/ranks-$n" >"$case_output" 2>&1 || problem="of $n ranks they differ"
done
report "… and so are the saved models" "$problem"
same "… in fp16 that overflows at first, of dense" --architecture dense --precision fp16 --init-scale 16777216
some_skipped
refused "an architecture that there is not" "dense" train --architecture moa --run-dir "$work/none"
data=$work refused "a folder without the items" "train-images-idx3-ubyte.gz" train --run-dir "$work/none"
refused "rows that cannot be shared out" "a batch of 2 rows cannot be split into 3" \
  train --accumulation 3 --run-dir "$work/none"

draw() { "$programs/draw" --model "$work/mot-model" --device cpu --points 3 "$@"; }
expect "drawing from texts" 0 "4 pictures in $work/sheet.png" \
  draw --text "a red coat" "a blue bag" --samples 2 --output "$work/sheet.png"
expect "drawing one" 0 "1 pictures" draw --text "a red coat" --output "$work/one.png"
expect "editing it" 0 "2 pictures" draw --image "$work/one.png" --text "make it blue" --output "$work/edited.png"
expect "asking about it" 0 "$work/one.png: " draw --image "$work/one.png" --ask "describe"
refused "a word that the model does not know" "the model knows no word 'purple'; it knows: a and" draw --text "a purple coat"
refused "neither text nor question" "give --text" draw
refused "a question about nothing" "--ask needs an --image" draw --ask describe
echo text >"$work/text.png"
refused "an image that is none" "text.png is neither a PNG nor a JPEG picture" draw --image "$work/text.png" --ask describe
refused "a sheet, which is no multiple of the patch" "cannot be cut into patches of 4 x 4" \
  draw --image "$work/sheet.png" --ask describe
refused "a renorm that there is not" "unknown renorm 'local'" draw --text "a red coat" --renorm local
refused "a folder that is no model" "llm_config.json" "$programs/draw" --model "$work" --text "a red coat"

# ---- pictures of one's own ----------------------------------------------------------------------
cp "$work/one.png" "$work/own.png"
cat >"$work/own.jsonl" <<'LINES'
{"parts": [{"text": "sea", "drop": 0.1}, {"image": "own.png", "role": "noise"}]}
{"parts": [{"image": "own.png", "role": "vit"}, {"text": "what"}, {"text": "sea", "loss": true}]}
LINES
data=$work/own.jsonl
expect "training on pictures of one's own" 0 "2 samples of $work/own.jsonl" \
  train --steps 3 --run-dir "$work/own" --save "$work/own-model"
expect "… and drawing" 0 "1 pictures" "$programs/draw" --model "$work/own-model" --device cpu --points 3 --text "sea" \
  --width 64 --output "$work/sea.png"
expect "… and asking" 0 "$work/own.png: " "$programs/draw" --model "$work/own-model" --device cpu --image "$work/own.png" \
  --ask what --longest 5

# Texts as tokens: a folder with BAGEL's marks.
python3 - "$work/tokens" <<PYTHON
import json, os, sys
os.mkdir(sys.argv[1])
files = json.load(open("$source/tests/data/qwen2_tokenizer.json"))["files"]
for name, text in files.items():
    open(os.path.join(sys.argv[1], name), "w").write(text)
PYTHON
expect "training with a tokenizer" 0 "done at step 2" \
  train --tokenizer "$work/tokens" --steps 2 --run-dir "$work/tokens-run" --save "$work/tokens-model"
[[ -s $work/tokens-model/tokenizer.json ]] && problem= || problem="tokenizer.json is missing"
report "… leaves it with the model" "$problem"
tokens_draw() { "$programs/draw" --model "$work/tokens-model" --device cpu --points 3 "$@"; }
expect "… and drawing" 0 "1 pictures" tokens_draw --text "the sea at dusk" --output "$work/sea.png"
expect "… and asking" 0 "$work/own.png: " tokens_draw --image "$work/own.png" --ask "what is it" --longest 5
refused "a tokenizer that is not there" "no tokenizer at $work/absent" train --tokenizer "$work/absent" --run-dir "$work/none"
data=$work/data refused "a tokenizer for the small world" "--tokenizer is for the texts of a JSONL file" \
  train --tokenizer "$work/tokens" --run-dir "$work/none"
echo '{"parts": [{"image": "none.png", "role": "vit"}]}' >>"$work/own.jsonl"
refused "a line whose picture is not there" "own.jsonl, line 3: " train --run-dir "$work/none"

judge() { "$programs/judge_bagel" --model "$work/mot-model" --data "$work/data" --device cpu "$@"; }
expect "judging" 0 "caption_exact" judge --drawings 10 --judge-steps 2 --validation-packs 1 --judge "$work/judge" \
  --sheet "$work/drawings.png"
for row in val_mse val_ce judge_class frechet_floor draw_class_at_4 draw_unseen_at_2 draw_frechet_at_1 draw_pairs \
  edit_psnr_mirror copy_psnr_recolour caption_class; do
  grep -q "^$row " "$case_output" || echo "$row is missing"
done >"$work/missing"
[[ ! -s $work/missing ]] && problem= || problem=$(head -n 1 "$work/missing")
report "… has all rows of the table" "$problem"
