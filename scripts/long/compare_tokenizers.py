"""Compares token ids and decoded text with the pip packages `tokenizers` and `sentencepiece` on
random Unicode strings. Run by tokenizers.sh.

Usage: compare_tokenizers.py --program build/examples/tokenize --shared ../shared --work DIR [--count N]
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
WORDS = r"\p{Han}+|\w+|[^\w\s]+|\W"


# ---- strings ------------------------------------------------------------------------------------

def code_point(rng, first, last):
    while True:
        c = rng.randint(first, last)
        if not 0xD800 <= c <= 0xDFFF:
            return chr(c)


def make_string(rng):
    spaces = " \t\n\r\v\f\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
    words = ["Hello", "the", "don't", "I'LL", "we'Ve", "it'\u017f", "\u212aelvin", "THEY'RE", "x'd", "\u0130stanbul",
             "na\u00efve", "cafe\u0301", "\ufb01ne", "\ufb05", "\u00df", "\u01c5", "\u03a3\u03c3\u03c2", "<|endoftext|>", "<s>", "</s>",
             "<unk>", "<0x41>", "\u2581", "\u2581\u2581a", "<mask>", " <mask> ", "word", "Word", "\u0120the", "\u00ad"]
    pieces = [
        lambda: rng.choice(words),
        lambda: rng.choice([" ", "  ", "\n", "\n\n", " \n ", "\r\n"]),
        lambda: "".join(rng.choice(spaces) for _ in range(rng.randint(1, 5))),
        lambda: "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCXYZ") for _ in range(rng.randint(1, 9))),
        lambda: "".join(rng.choice("0123456789\u0660\u0966\u00b2\u00bd\u2167\u3007\u4e94\U0001d7d8\u09f4") for _ in range(rng.randint(1, 7))),
        lambda: "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2019\u00a1\u20ac\u00a7\u203f") for _ in range(rng.randint(1, 4))),
        lambda: code_point(rng, 0, 0x1F) + code_point(rng, 0x7F, 0x9F),
        lambda: "".join(code_point(rng, 0x80, 0x24F) for _ in range(rng.randint(1, 4))),
        lambda: "".join(code_point(rng, 0x250, 0x1FFF) for _ in range(rng.randint(1, 5))),
        lambda: "".join(code_point(rng, 0x2000, 0x33FF) for _ in range(rng.randint(1, 5))),
        lambda: "".join(code_point(rng, 0x3400, 0xFFFF) for _ in range(rng.randint(1, 5))),
        lambda: "".join(code_point(rng, 0x10000, 0x1FFFF) for _ in range(rng.randint(1, 4))),
        lambda: "".join(code_point(rng, 0x20000, 0x10FFFF) for _ in range(rng.randint(1, 3))),
        lambda: rng.choice("aeoAEO\u0915\u1100") + "".join(code_point(rng, *rng.choice(
            [(0x300, 0x36F), (0x591, 0x5BD), (0x1AB0, 0x1ACE), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0x11930, 0x11943)]))
            for _ in range(rng.randint(1, 4))),
        lambda: code_point(rng, 0x1100, 0x1112) + code_point(rng, 0x1161, 0x1175) + code_point(rng, 0x11A7, 0x11C2),
        lambda: "".join(rng.choice(["\U0001F469", "\u200d", "\U0001F3FD", "\ufe0f", "\U0001F1E9", "\u2764", "\U0001F9D1"]) for _ in range(rng.randint(1, 6))),
        lambda: code_point(rng, 0x20, 0x2FFF) * rng.randint(2, 40),
    ]
    return "".join(rng.choice(pieces)() for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 12])))


def make_strings(count):
    rng = random.Random(20240229)
    # Some characters by themselves, every character of the first two planes with a letter before it,
    # then random strings.
    lone = [chr(c) for c in list(range(0x250)) + [0x1E9E, 0x2028, 0xFFFD, 0xFFFF, 0x10FFFF]]
    blocks = ["".join("a" + chr(c) for c in range(first, first + 256))
              for first in range(0, 0x20000, 256) if not 0xD800 <= first <= 0xDFFF]
    return [make_string(rng) for _ in range(count)] + lone + blocks


# ---- tokenizers ---------------------------------------------------------------------------------

def trained(pre_tokenizer, decoder, texts, normalizer=None, special=("<|endoftext|>",), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    if normalizer:
        tokenizer.normalizer = normalizer
    initial = pre_tokenizers.ByteLevel.alphabet() if isinstance(decoder, decoders.ByteLevel) else []
    if model.get("byte_fallback"):
        special = list(special) + [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=3000, special_tokens=list(special), initial_alphabet=initial, show_progress=False))
    if model.get("byte_fallback"):  # the bytes are tokens of the model, not tokens to look for in text
        spec = json.loads(tokenizer.to_str())
        spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(spec))
    return tokenizer


def byte_level(*steps, **options):
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, **options)])


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def make_tokenizers(shared, work, texts):
    """Folders with a tokenizer.json, by name."""
    bytes_, out = decoders.ByteLevel(), {}
    # For pre-tokenizers that hardly cut: the trainer takes very long over long pieces.
    scraps = [text[i:i + 24] for text in texts for i in range(0, min(len(text), 200_000), 24)]
    gpt2 = Tokenizer(models.BPE.from_file(str(shared / "models/tokenizers/gpt2/encoder.json"),
                                          str(shared / "models/tokenizers/gpt2/vocab.bpe")))
    gpt2.pre_tokenizer, gpt2.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), bytes_
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    gpt2.add_special_tokens(["<|endoftext|>"])
    out["gpt2"] = gpt2
    out["llama3"] = trained(byte_level(split(LLAMA3)), bytes_, texts, ignore_merges=True)
    out["qwen2"] = trained(byte_level(split(QWEN2)), bytes_, texts, normalizers.NFC())
    out["o200k"] = trained(byte_level(split(O200K)), bytes_, texts)
    out["words"] = trained(byte_level(split(WORDS)), bytes_, texts)
    out["smollm"] = trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False)]), bytes_, texts)
    out["prefix-space"] = trained(pre_tokenizers.ByteLevel(add_prefix_space=True), bytes_, texts)
    for form in ("NFD", "NFKC", "NFKD"):
        out[form.lower()] = trained(byte_level(pre_tokenizers.Digits()), bytes_, scraps, normalizers.Sequence(
            [getattr(normalizers, form)(), normalizers.Lowercase()] + ([normalizers.StripAccents()] if form == "NFD" else [])))
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            out[f"{behavior}{'-inverted' if invert else ''}"] = trained(
                byte_level(split(r"\s|[^\w\s]", behavior, invert)), bytes_, scraps,
                normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(r"\s{2,}"), " ")]))
    added = trained(byte_level(split(QWEN2)), bytes_, texts, normalizers.Lowercase())
    added.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, special=True, normalized=False),
                      AddedToken("Word", single_word=True, normalized=True), AddedToken("the", rstrip=True, normalized=False),
                      AddedToken("<0x41>", normalized=True)])
    out["added-tokens"] = added
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            out[f"metaspace-{scheme}{'' if cut else '-whole'}"] = trained(
                pre_tokenizers.Metaspace(prepend_scheme=scheme, split=cut), decoders.Metaspace(prepend_scheme=scheme),
                texts if cut else scraps, special=("<unk>", "<s>", "</s>"),
                unk_token="<unk>", fuse_unk=scheme == "always")
    # Llama-2's make: no pre-tokenizer, bytes for what is unknown.
    llama = trained(pre_tokenizers.Metaspace(), None, texts, special=("<unk>", "<s>", "</s>"),
                    unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    spec = json.loads(llama.to_str())
    theirs = json.loads((shared / "models/stories260k/tokenizer.json").read_text())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        spec[part] = theirs[part]
    for name, id_ in (("<unk>", 0), ("<s>", 1), ("</s>", 2)):
        assert spec["model"]["vocab"][name] == id_
    out["llama2-like"] = Tokenizer.from_str(json.dumps(spec))
    out["stories260k"] = Tokenizer.from_file(str(shared / "models/stories260k/tokenizer.json"))
    folders = {}
    for name, tokenizer in out.items():
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        folders[name] = folder
    return folders


# ---- comparison ---------------------------------------------------------------------------------

def run(program, arguments, lines):
    result = subprocess.run([program, *map(str, arguments)], input="".join(line + "\n" for line in lines).encode(),
                            capture_output=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{program} {' '.join(map(str, arguments))}: {result.stderr.decode()}")
    return result.stdout.decode().split("\n")[:-1]


def compare(name, program, tokenizer, strings, expected_ids, expected_texts):
    lines = run(program, ["--tokenizer", tokenizer, "--json-lines"], map(json.dumps, strings))
    ids = [[int(i) for i in line.split()] for line in lines]
    texts = [json.loads(line) for line in run(program, ["--tokenizer", tokenizer, "--decode"],
                                              [" ".join(map(str, i)) for i in expected_ids])]
    assert len(ids) == len(texts) == len(strings)
    wrong = [k for k in range(len(strings)) if ids[k] != expected_ids[k]]
    wrong_text = [k for k in range(len(strings)) if texts[k] != expected_texts[k]]
    print(f"{name:32} {len(strings)} strings, {sum(map(len, ids))} ids: {len(wrong)} differ, "
          f"{len(wrong_text)} decode differently", flush=True)
    for k in wrong[:3]:
        print("   text", ascii(strings[k]), "\n   ours", ids[k], "\n   theirs", expected_ids[k])
    for k in wrong_text[:3]:
        print("   ids", expected_ids[k], "\n   ours", ascii(texts[k]), "\n   theirs", ascii(expected_texts[k]))
    return not wrong and not wrong_text


def compare_with_tokenizers(name, program, folder, strings):
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [e.ids for e in theirs.encode_batch(strings, add_special_tokens=False)]
    return compare(name, program, folder, strings, ids, theirs.decode_batch(ids))


def compare_with_sentencepiece(name, program, model, strings):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ids = theirs.encode(strings)
    return compare(name, program, model, strings, ids, [theirs.decode(i) for i in ids])


def compare_training(program, shared, work, texts_folder):
    """A vocabulary that we train and one that `tokenizers` trains of the same texts are the same."""
    folder = work / "ours"
    run(program, ["--train", texts_folder, "--extensions", ".txt", "--vocabulary", 4000, "--save", folder], [])
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [p.read_bytes().decode() for p in sorted(texts_folder.glob("*.txt"))]
    theirs.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=4000, min_frequency=2, special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    ours = json.loads((folder / "tokenizer.json").read_text())["model"]
    same = ours["vocab"] == theirs.get_vocab() and ours["merges"] == json.loads(theirs.to_str())["model"]["merges"]
    print(f"{'trained vocabularies':32} {len(ours['vocab'])} tokens: {'equal' if same else 'DIFFER'}")
    return folder, same


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--shared", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=10000)
    options = parser.parse_args()
    shared, program = options.shared, options.program
    strings = make_strings(options.count)
    texts_folder = shared / "data/text"
    texts = [p.read_text(encoding="utf-8") for p in sorted(texts_folder.glob("*.txt"))]
    # Random strings among the training texts give vocabularies with merges outside of English.
    folders = make_tokenizers(shared, options.work,
                              [text[:300_000] for text in texts] + strings[:4000] + strings[-514:])
    folders["ours"], good = compare_training(program, shared, options.work, texts_folder)
    folders["bytes"] = options.work / "bytes"
    run(program, ["--tokenizer", "bytes", "--save", folders["bytes"]], [])
    for name, folder in folders.items():
        good &= compare_with_tokenizers(name, program, folder, strings)
    models_ = shared / "models"
    theirs = Tokenizer.from_file(str(folders["gpt2"] / "tokenizer.json"))
    ids = [e.ids for e in theirs.encode_batch(strings)]
    good &= compare("gpt2 from its two files", program, models_ / "tokenizers/gpt2", strings, ids, theirs.decode_batch(ids))
    for name in ("stories260k", "tokenizers/llama2"):
        good &= compare_with_sentencepiece(f"sentencepiece {name}", program, models_ / name / "tokenizer.model", strings)
    print("all equal" if good else "DIFFERENCES")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
