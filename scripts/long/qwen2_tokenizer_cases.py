#!/usr/bin/env python3
"""Writes tests/data/qwen2_tokenizer.json: a small vocabulary in Qwen2's files (vocab.json, merges.txt,
tokenizer_config.json) with BAGEL's marks, and the ids that transformers' Qwen2Tokenizer reads texts as.

  pip install transformers; scripts/long/qwen2_tokenizer_cases.py
"""
import json
import pathlib
import tempfile

import tokenizers
import transformers

ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
TRAINING = ["a lighthouse at dusk, 2024 and 1999; the sea isn't calm", "THEY'LL SAY: DON'T! It's 12345 metres",
            "caf\u00e9 na\u00efve \u6d77\u706f\u5854 \u6d77\u706f", "x = [1, 2];\n\n  if (x) {\n    y();\n  }\n"] * 3
TEXTS = ["", "a lighthouse at dusk", "the lighthouse isn't at sea", "IT'S the SEA, DON'T say they'll", "in 1999 and 12345",
         "cafe\u0301", "caf\u00e9", "\u6d77\u706f\u5854 \U0001f600!", "  two  spaces \n\n and\tlines\r\n", "x();\n  y = 2;\n",
         "<|im_start|>user\nwhat<|im_end|> <|vision_start|><|vision_end|>", "1\u00b2\u0663 \u00bd"]


def files(folder):
    """Qwen2's own kinds of merges, among them those of digits, which its split never lets happen."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(TRAINING, tokenizers.trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=alphabet, show_progress=False))
    trained.model.save(str(folder))
    size = trained.get_vocab_size()
    decoder = {str(size + i): dict(content=token, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
               for i, token in enumerate(ADDED)}
    config = dict(added_tokens_decoder=decoder, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                  unk_token=None, errors="replace", tokenizer_class="Qwen2Tokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files(folder)
        tokenizer = transformers.Qwen2Tokenizer.from_pretrained(name)
        cases = [dict(text=text, ids=tokenizer.encode(text)) for text in TEXTS]
        texts = {file: (folder / file).read_text() for file in ("vocab.json", "merges.txt", "tokenizer_config.json")}
    target = pathlib.Path(__file__).parents[2] / "tests/data/qwen2_tokenizer.json"
    target.write_text(json.dumps(dict(transformers=transformers.__version__, files=texts, cases=cases), indent=1) + "\n")


if __name__ == "__main__":
    main()
