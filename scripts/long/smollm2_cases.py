"""SmolLM2, converted by scripts/gguf_to_hf.py, beside transformers. Run by smollm2.sh.

  smollm2_cases.py weights GGUF FOLDER DTYPE       the weights are those that transformers reads
  smollm2_cases.py reference GGUF FOLDER DTYPE OUT texts, logits and greedy tokens of transformers
                                                   reading the GGUF file, for tests/infer/smollm2_test.cpp
  smollm2_cases.py tokens GGUF FOLDER PROGRAM SHARED
                                                   token ids of the program tokenize
  smollm2_cases.py text FOLDER PROGRAM REFERENCE   text that the program generate writes
"""
import json
import pathlib
import subprocess
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from compare_tokenizers import compare, make_strings

QUESTIONS = ["What is the capital of France?", "Write a short poem about the sea.",
             "A baker has 24 rolls and sells 3/4 of them. How many are left?",
             "Explain in two sentences why the sky is blue.",
             "Write a Python function that reverses a list."]
TEXTS = ["The", "Once upon a time, in 1984, there were 12 monkeys.", "def f(x):\n    return x ** 2\n",
         "Tom Sawyer said: “It’s 10:30 — let's go!” 🙂\n\n\tAnd so they went.",
         "In the beginning God created the heaven and the earth. " * 12]
NEW_TOKENS = 64


def from_gguf(path, dtype):
    """The model that transformers makes of a GGUF file: weights rounded to a dtype, sums in FP32."""
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                 dtype=getattr(torch, dtype))
    return torch.nn.Module.float(model).eval()  # transformers' own float() refuses GGUF models


def from_folder(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def chat(tokenizer, question):
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                         add_generation_prompt=True)


def check_weights(gguf, folder, dtype):
    theirs = from_gguf(gguf, dtype).state_dict()
    ours = load_file(folder / "model.safetensors")
    if "lm_head.weight" not in ours:
        ours["lm_head.weight"] = ours["model.embed_tokens.weight"]
    if ours.keys() != theirs.keys():
        sys.exit(f"{folder}: the names differ: {sorted(ours.keys() ^ theirs.keys())}")
    stored = {values.dtype for values in ours.values()}
    if stored != {getattr(torch, dtype)}:
        sys.exit(f"{folder}: weights of {stored}, expected {dtype}")
    wrong = [name for name in ours if not torch.equal(ours[name].float(), theirs[name])]
    print(f"weights in {dtype}: {len(ours)} tensors, {len(wrong)} differ {' '.join(wrong[:3])}")
    # The configuration counts, too: the same model through the folder's own config.json.
    ids = torch.arange(3, 35)[None] % theirs["lm_head.weight"].shape[0]
    with torch.no_grad():
        same = torch.equal(from_folder(folder)(ids).logits, from_gguf(gguf, dtype)(ids).logits)
    print(f"logits through transformers, folder and GGUF file: {'equal' if same else 'DIFFER'}")
    return not wrong and same


def write_reference(gguf, folder, dtype, out):
    model, tokenizer, saved = from_gguf(gguf, dtype), AutoTokenizer.from_pretrained(folder), {}
    texts = [*TEXTS, *(chat(tokenizer, question) for question in QUESTIONS[:2])]
    for i, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            saved[f"ids{i}"], saved[f"logits{i}"] = ids.to(torch.int32), model(ids).logits
    # The weights of the folder are the file's bit for bit (`weights`), and many times faster to run.
    model = from_folder(folder)
    for i, question in enumerate(QUESTIONS if dtype == "float16" else []):
        prompt = tokenizer(chat(tokenizer, question), add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            done = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                  max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0,
                                  output_logits=True, return_dict_in_generate=True)
        best = torch.cat(done.logits).topk(2)
        saved[f"prompt{i}"] = prompt[0].to(torch.int32)
        saved[f"greedy{i}"] = done.sequences[0, prompt.shape[1]:].to(torch.int32)
        saved[f"second{i}"] = best.indices[:, 1].to(torch.int32)
        saved[f"margin{i}"] = best.values[:, 0] - best.values[:, 1]
        assert torch.equal(saved[f"greedy{i}"], best.indices[:, 0].to(torch.int32))
    save_file({name: values.contiguous().clone() for name, values in saved.items()}, out)
    return True


def token_texts(tokenizer, shared):
    questions = [json.loads(line) for line in open(shared / "data/prompts/gsm8k/test.jsonl", encoding="utf-8")]
    texts = [text for question in questions for text in (question["question"], question["answer"])]
    texts += [chat(tokenizer, question["question"]) for question in questions[:200]]
    for name in ("wikitext2-test.txt", "tinyshakespeare.txt"):
        text = (shared / "data/text" / name).read_text(encoding="utf-8")
        texts += text.splitlines(keepends=True)[:3000]
        texts += [text[i:i + 5000] for i in range(0, 200_000, 5000)]
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts += [f"{before}{token}{behind}" for token in special for before in ("", "a ", "7")
              for behind in ("", " b", "\n", "8", token)]
    texts += ["".join(special), "<|im_start|", "<|im_start|>>", "<<|im_end|>", "<|IM_START|>", ""]
    texts += ["0123456789", "3.14159", "1,000,000", " 12 ", "x1y22z333", "½¾ ٣٤٥ Ⅷ 五 𝟘𝟙 ²³", "2024-11-28T10:30"]
    return texts + make_strings(3000)


def check_tokens(gguf, folder, program, shared):
    theirs = AutoTokenizer.from_pretrained(folder)
    texts = token_texts(theirs, shared)
    ids = theirs(texts, add_special_tokens=False).input_ids
    decoded = theirs.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    good = compare("SmolLM2", program, folder, texts, ids, decoded)
    # transformers 5.24 does not split digits when it reads the tokenizer from the GGUF file: texts
    # without numbers show that vocabulary, merges and special tokens are the same.
    direct = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    plain = [k for k, text in enumerate(texts) if not any(c.isnumeric() for c in text)]
    wrong = [k for k in plain if direct(texts[k], add_special_tokens=False).input_ids != ids[k]]
    print(f"texts without numbers, tokenizer from the GGUF file: {len(plain)} strings, {len(wrong)} differ")
    for k in wrong[:3]:
        print("   text", ascii(texts[k]), "\n   folder", ids[k],
              "\n   file", direct(texts[k], add_special_tokens=False).input_ids)
    together = [theirs.decode([i]) for i in {i for row in ids for i in row}]
    together = [token for token in together if sum(c.isdigit() for c in token) > 1 or
                (len(token) > 1 and any(c.isdigit() for c in token))]
    print(f"tokens in which a digit is not alone: {len(together)} {together[:3]}")
    return good and not wrong and not together


def check_text(folder, program, reference):
    tokenizer, saved, good = AutoTokenizer.from_pretrained(folder), load_file(reference), True
    for i, question in enumerate(QUESTIONS):
        tokens = saved[f"greedy{i}"].tolist()
        tokens = tokens[:tokens.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in tokens else tokens
        expected = tokenizer.decode(saved[f"prompt{i}"].tolist() + tokens, skip_special_tokens=True) + "\n"
        result = subprocess.run([program, "--model", folder, "--device", "cpu", "--prompt", chat(tokenizer, question),
                                 "--max-new-tokens", str(NEW_TOKENS)], capture_output=True, check=True)
        text = result.stdout.decode()
        same = text == expected
        # Another token here is a near-tie or a fault; the test of the tokens tells which.
        print(f"--- {question}\n{text.split('assistant' + chr(10), 1)[-1].strip()}\n"
              f"--- {'as transformers writes it' if same else 'transformers: ' + expected}")
        good = good and same
    return good


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(2)
    command, *rest = sys.argv[1:]
    paths = [word if word in ("float16", "float32") else pathlib.Path(word).resolve() for word in rest]
    commands = {"weights": check_weights, "reference": write_reference, "tokens": check_tokens, "text": check_text}
    sys.exit(0 if commands[command](*paths) else 1)


if __name__ == "__main__":
    main()
