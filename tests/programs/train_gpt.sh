#!/usr/bin/env bash
# What train_gpt says to bad input, and what it leaves behind: nothing half-written. Resuming.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

work=$(mktemp -d)
trap 'rm -rf "$work" "$case_output"' EXIT
run=$work/run
for _ in {1..400}; do echo "The quick brown fox jumps over the lazy dog, again and again."; done \
  >"$work/text.txt"
cat >"$work/small.json" <<END
{"text": "$work/text.txt", "tokenizer": "bytes", "run-dir": "$run", "layers": 1, "dim": 16,
 "heads": 2, "seq-len": 16, "batch-size": 4, "steps": 4, "sample-tokens": 0,
 "checkpoint-every": 2, "device": "cpu"}
END
config=$work/small.json
train() { "$BINADE_BUILD/examples/train_gpt" --config "$config" "$@"; }

# rejected NAME TEXT ARGUMENTS...: refused in one line that has this text, and no run folder is left.
rejected() {
  local problem
  problem=$(complaint 2 "$2" train "${@:3}")
  [[ -n $problem || $(wc -l <"$case_output") == 1 ]] || problem="more than one line"
  [[ -n $problem || ! -e $run ]] || problem="it left a run folder"
  report "$1" "$problem"
  rm -rf "$run"
}

rejected "an unknown option is named with the nearest" "did you mean --learning-rate" \
  --learning-rat 1
rejected "an option out of range" "--clip" --clip -1
rejected "an option that is no number" "--steps" --steps many
rejected "a choice that does not exist" "--optimizer" --optimizer adam
rejected "an unknown preset" "fp16-static:S" --precision fp8
rejected "a scale that is no power of two" "init_scale must be a power of two" \
  --precision fp16 --init-scale 1000
rejected "a scale below its floor" "is outside" --precision fp16 --init-scale 2 --min-scale 4
rejected "an unknown device" "tpu" --device tpu
rejected "a GPU beyond those there are" "--device cuda:99 cannot be used" --device cuda:99
problem=$(complaint 0 "" train --device cuda:1)
if grep -qF "cuda:1 cannot be used" "$case_output"; then
  echo "skip a run on the second GPU: there is none"
else
  report "a run on the second GPU" "$problem"
  expect "a run on the second GPU goes on there" 0 "" train --device cuda:1 --resume --steps 8
fi
rm -rf "$run"
rejected "heads that do not divide the width" "heads" --dim 15
rejected "micro-batches that do not divide the batch" "micro-batches" --accumulation 3
rejected "a missing text" "$work/none.txt" --text "$work/none.txt"
mkdir "$work/empty"
rejected "a folder without text" "$work/empty" --text "$work/empty"
mkdir "$work/large"
head -c 1100000 /dev/zero | tr '\0' 'x' >"$work/large/all.txt"
rejected "a folder whose files are all beyond --text-limit" "raise the limit" \
  --text "$work/large" --text-limit 1
rejected "a number that is none" "--learning-rate nan" --learning-rate nan
rejected "a path with a line end is told in one line" 'no\nsuch' --text "$work/no
such"
rejected "a path that is not UTF-8" 'caf\xE9 is not UTF-8' --save-hf $'caf\xe9'
: >"$work/nothing.txt"
rejected "an empty text" "token" --text "$work/nothing.txt"
rejected "a run folder where none can be made" "/proc/none" --run-dir /proc/none
echo short >"$work/short.txt"
rejected "a text too short for a window" "token" --text "$work/short.txt"
if ((EUID != 0)); then
  cp "$work/text.txt" "$work/locked.txt"
  chmod 000 "$work/locked.txt"
  rejected "an unreadable text" "$work/locked.txt" --text "$work/locked.txt"
else
  echo "skip an unreadable text: root reads every file"
fi

config=$work/config.json
echo '{"dim": 16, "layers" 1}' >"$config"
rejected "a JSON error, with its position" "line 1, column 22"
echo '{"learning-rat": 1}' >"$config"
rejected "an unknown name in the configuration" "did you mean --learning-rate"
echo '{"steps": "4"}' >"$config"
rejected "a value of another type in the configuration" "expected a whole number"
echo '{"steps": 4, "steps": 5}' >"$config"
rejected "a name that stands twice in the configuration" 'names "steps" twice'
echo '[1]' >"$config"
rejected "a configuration that is no object" "not a JSON object"
config=$work/none.json
rejected "a missing configuration" "$work/none.json"
config=$work/small.json

cat >"$work/model.json" <<'END'
{"model_type": "gpt2", "vocab_size": 100, "n_embd": 16, "n_layer": 1, "n_head": 2,
 "n_positions": 16}
END
rejected "a vocabulary that does not match the model" "100" --from-scratch "$work/model.json"
sed -i 's/"n_positions": 16/"n_positions": 8/; s/100/512/' "$work/model.json"
rejected "windows beyond the model's positions" "--seq-len 16" --from-scratch "$work/model.json"
sed -i 's/"n_head"/"n_heads"/' "$work/model.json"
rejected "a model without a size" "n_head" --from-scratch "$work/model.json"

rejected "a missing model" "$work/none" --init "$work/none"
expect "a model is saved" 0 "saved" train --steps 1 --save-hf "$work/hf"
rm -rf "$run"
weights=$work/hf/model.safetensors
cp "$weights" "$work/whole.safetensors"
truncate --size=-100 "$weights"
rejected "truncated weights" "truncated" --init "$work/hf"
head -c 4 "$work/whole.safetensors" >"$weights"
rejected "weights that are too short to be any" "too few" --init "$work/hf"
cp "$work/whole.safetensors" "$weights"
size=$(stat --format=%s "$weights")
printf '\x00\x00\xc0\x7f' | dd of="$weights" bs=1 seek=$((size - 4)) conv=notrunc status=none
rejected "a NaN in the weights" "has a NaN" --init "$work/hf"
cp "$work/whole.safetensors" "$weights"
expect "the whole weights are taken" 0 "done at step 4" train --init "$work/hf"
rm -rf "$run"

# 16 TiB of weights, which Linux would promise and kill the program for when they are written.
rejected "a model beyond the machine's memory" "error: out of memory: " --dim 2048 --hidden 2000000000
problem=$(complaint 2 "GiB are available; lower the batch size" train --dim 2048 --hidden 2000000000)
report "… in a sentence that says what there is" "$problem"
rm -rf "$run"

# ---- conversations ------------------------------------------------------------------------------
chats=$work/chats.jsonl
for i in 1 2 3 4 5 6; do
  echo '{"messages": [{"role": "user", "content": "abc'$i'"}, {"role": "assistant", "content": "defg"}]}'
done >"$chats"
talk() { # trains on conversations; options of the model come first
  "$BINADE_BUILD/examples/train_gpt" --run-dir "$run" --device cpu --quiet --chats "$chats" \
    --seq-len 16 --batch-size 2 --steps 3 --sample-tokens 0 --validation-fraction 0.3 "$@"
}
rm -rf "$run"
refused "conversations without a tokenizer" "give --init or --tokenizer" talk
refused "conversations for a model without a chat template" "chat template" talk --init "$work/hf"
cp -r "$work/hf" "$work/chatty"
python3 - "$work/chatty/tokenizer_config.json" <<'END'
import json, sys
config = json.load(open(sys.argv[1]))
config["chat_template"] = ("{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
                           "{% if add_generation_prompt %}a:{% endif %}")
json.dump(config, open(sys.argv[1], "w"))
END
expect "a model learns conversations" 0 "4 conversations in" talk --init "$work/chatty" \
  --save-hf "$work/taught"
grep -q chat_template "$work/taught/tokenizer_config.json" && problem= ||
  problem="the saved folder has none"
report "… and keeps its chat template" "$problem"
rm -rf "$run"
expect "a model learns from a teacher" 0 "done at step 3" talk --init "$work/chatty" \
  --teacher "$work/taught"
expect "… and goes on" 0 "done at step 5" "$BINADE_BUILD/examples/train_gpt" --run-dir "$run" \
  --steps 5 --resume
rm -rf "$run"
refused "a teacher without conversations" "are for --chats" train --teacher "$work/taught"
refused "conversations beside a text" "leave them out" talk --init "$work/chatty" --text "$chats"
refused "conversations with multi-token prediction" "finetune_mtp" talk --init "$work/chatty" \
  --mtp sequential:1
refused "a teacher that is not there" "$work/nobody" talk --init "$work/chatty" \
  --teacher "$work/nobody"
rm -rf "$run"

# ---- run folders --------------------------------------------------------------------------------
touch "$work/file"
refused "a run folder that is a file" "run folder" train --run-dir "$work/file"
expect "a run" 0 "done at step 4" train
refused "a run folder that holds a run" "--resume" train
refused "a resume of a folder that is not there" "holds no run" \
  "$BINADE_BUILD/examples/train_gpt" --run-dir "$work/nowhere" --resume
[[ ! -e $work/nowhere ]] && problem= || problem="the folder was made"
report "… leaves none" "$problem"
before=$(md5sum "$run"/{config,manifest}.json "$run"/metrics.jsonl)
refused "a resume with a changed configuration prints the difference" "dim (16 -> 32)" \
  train --resume --dim 32
refused "a resume with fewer steps than were done" "raise --steps" train --resume --steps 3
exec 9>"$run/lock"
flock 9
refused "a run folder in use" "in use by another process" train --resume
exec 9>&-
[[ $before == "$(md5sum "$run"/{config,manifest}.json "$run"/metrics.jsonl)" ]] && changed= ||
  changed="a refusal changed the run folder"
report "refusals leave a run as it was" "$changed"
expect "a resume goes on with more steps" 0 "done at step 6" train --resume --steps 6
problem=
[[ $(wc -l <"$run/metrics.jsonl") == 8 ]] || problem="not 6 steps and 2 validations in the metrics"
[[ -s $run/checkpoints/step-000000006.safetensors ]] || problem="no checkpoint of step 6"
report "a resumed run has every step once" "$problem"
expect "--resume alone takes the options of the run" 0 "done at step 6 already" \
  "$BINADE_BUILD/examples/train_gpt" --run-dir "$run" --resume
grep -qE "loss [1-9][0-9.]*, best validation loss [1-9]" "$case_output" && problem= ||
  problem="not its last values"
report "… and a finished run says so, with its last values" "$problem"
expect "--resume=true is the same" 0 "done at step 6 already" \
  "$BINADE_BUILD/examples/train_gpt" "--run-dir=$run" --resume=true

newest=$run/checkpoints/step-000000006.safetensors
cp "$newest" "$work/kept"
sed -i 's/"binade_checkpoint":"1"/"binade_checkpoint":"2"/' "$newest"
refused "a checkpoint of a newer format is an error" "format 2" train --resume --steps 8
rm "$newest" && mkdir "$newest"
refused "a checkpoint that cannot be read is one" "it is a folder" train --resume --steps 8
rmdir "$newest" && cp "$work/kept" "$newest"

newest=$run/checkpoints/step-000000006.safetensors
truncate --size=-50 "$newest"
expect "a damaged checkpoint is named and the one before it used" 0 "resumed at step 4" \
  train --resume --steps 6
expect "the damaged one was replaced" 0 "resumed at step 6" train --resume --steps 6
rm -rf "$run"

# Names that look like numbers and words of JSON.
mkdir "$work/names"
cp "$work/text.txt" "$work/names/1.10"
in_names() (cd "$work/names" && "$BINADE_BUILD/examples/train_gpt" "$@")
expect "texts and folders with names like numbers" 0 "saved 1.20" in_names --config "$config" \
  --text 1.10 --save-hf 1.20 --run-dir 007 --sample-prompt null
rm -rf "$work/names/1.20"
expect "… keep them through --resume" 0 "saved 1.20" in_names --run-dir 007 --resume --steps 5
[[ -e $work/names/1.20/config.json && ! -e $work/names/1.2 ]] && problem= ||
  problem="another folder was written: $(ls "$work/names")"
report "… in files, too" "$problem"

for program in train_gpt generate evaluate tokenize plot_runs train_fashion_mnist; do
  expect "the help of $program says how to call it" 0 "Usage: $program [OPTIONS]" \
    "$BINADE_BUILD/examples/$program" --help
done

# ---- averaged weights ---------------------------------------------------------------------------
validation_loss() { sed -n 's/^.*"validation_loss":\([^,}]*\).*/\1/p' "$run/metrics.jsonl" | tail -n 1; }
expect "a run with averages is saved" 0 "saved" \
  train --ema 0.5 --learning-rate 0.01 --warmup 0 --save-hf "$work/averages"
averages=$(validation_loss)
trained=$("$BINADE_BUILD/examples/evaluate" --model "$run" --text "$work/text.txt" | grep loss)
saved=$("$BINADE_BUILD/examples/evaluate" --model "$work/averages" --text "$work/text.txt" | grep loss)
[[ -n $trained && $trained == "$saved" ]] && problem= || problem="$trained of the run, $saved saved"
report "… and its checkpoint is read with them" "$problem"
rm -rf "$run"
expect "… they are what was validated" 0 "done at step 1" \
  train --init "$work/averages" --steps 1 --learning-rate 0
[[ -n $averages && $(validation_loss) == "$averages" ]] && problem= ||
  problem="validated at $averages, saved with $(validation_loss)"
report "… bit for bit" "$problem"
rm -rf "$run"
expect "… and not the weights that were trained" 0 "done at step 4" \
  train --learning-rate 0.01 --warmup 0
[[ $(validation_loss) != "$averages" ]] && problem= || problem="the same validation loss"
report "… which differ" "$problem"
rm -rf "$run"

# ---- looking closer -----------------------------------------------------------------------------
expect "an overflow is diagnosed" 0 "was skipped: the backward pass of" \
  train --precision fp16 --init-scale 16777216 --diagnose-overflow --underflow-report 2
problem=
[[ $(wc -l <"$run/underflow.jsonl") == 2 ]] || problem="not two underflow reports"
grep -q '"overflow":"the backward pass of' "$run/metrics.jsonl" || problem="not in the metrics"
report "… and logged, with the underflow reports" "$problem"
