#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table of kernels in docs/kernels.md, made by asking every row of a build what it accepts.

    scripts/kernel_table.py build/cuda            rewrites it
    scripts/kernel_table.py build/cuda --check    exits 1 if it is not what the rows say (77: this build or this
                                                  machine lacks rows, so that they cannot be asked)"""

import ctypes
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import fattn_c
DTYPES = ["fp64", "fp32", "bf16", "fp16", "e4m3 descale=tensor"]
HEAD_DIMS = [8, 16, 32, 40, 64, 72, 80, 96, 128, 192, 256, 512, 576]
BOTH = {  # beside dense, full or causal, every row's own dtype and head dim
    "packed": "tq{tq} tk{tk}",
    "seqused": "seqused=qk",
    "GQA": "GQA",
    "head_dim_v": "DV",
    "causal": "causal",
    "causal_top_left": "causal_top_left",
    "window": "window=30,0",
    "chunk": "chunk=64",
    "documents": "documents",
    "prefix": "prefix",
    "block_sparse": "block_sparse=64,64",
    "softcap": "softcap=30",
    "ALiBi": "alibi",
    "bias": "bias=hqk",
    "sinks": "sinks",
    "dropout": "dropout=0.1",
    "deterministic": "deterministic",
    "batch_invariant": "batch_invariant",
}
ONLY = {"forward": {"lse": "lse", "max_logit": "max_logit"},
        "backward": {"dlse": "dlse", "dbias": "bias=hqk dbias", "dsink": "sinks dsink"}}


class Library:
    def __init__(self, build):
        self.c = ctypes.CDLL(str(build / "libfattn.so"))
        self.c.fattn_last_error.restype = ctypes.c_char_p

    def device(self, text):
        """A described device: a processor has every instruction that a row may want."""
        device = fattn_c.Device()
        self.c.fattn_device_from_text(text.encode(), ctypes.byref(device), ctypes.c_size_t(ctypes.sizeof(device)))
        device.index = -1
        device.avx2 = device.avx512 = device.avx512_bf16 = device.amx_bf16 = 1
        return device

    def accepts(self, text, device, kernel):
        plan, problem = ctypes.c_void_p(), (ctypes.c_char * fattn_c.OPAQUE_BYTES)()
        status = self.c.fattn_problem_from_text(text.encode(), problem, ctypes.c_size_t(fattn_c.OPAQUE_BYTES))
        status = status or self.c.fattn_plan_create(problem, ctypes.byref(device), kernel.encode(), ctypes.byref(plan))
        self.c.fattn_plan_destroy(plan)
        if status not in (0, 2):  # accepted, refused by the row
            sys.exit(f"{text}: {self.c.fattn_last_error().decode()}")
        return status == 0


def problem(kernel, dtype, head_dim, words=""):
    heads_kv, head_dim_v = 4, min(head_dim, 512)  # 512 is the largest that a Problem can say
    if words == "GQA":
        heads_kv, words = 2, ""
    if words == "DV":
        head_dim_v, words = head_dim // 2, ""
    if words.startswith("tq"):
        words = words.format(tq=500, tk=600)
    direction = "bwd" if kernel["pass"] == "backward" else "fwd"
    dv = f" dv{head_dim_v}" if head_dim_v != head_dim else ""
    lengths = "sq256 sk300"
    if kernel["name"].endswith("_long"):  # declines what sees few keys
        lengths = "sq8192 sk9000"
        words = words.replace("window=30,0", "window=3000,0").replace("chunk=64", "chunk=8000")
    return f"{direction} b2 hq4 hk{heads_kv} {lengths} d{head_dim}{dv} {dtype} {words}".strip()


def row(library, kernel):
    device = library.device("cpu" if kernel["device"] == "cpu" else "h100")
    ask = lambda *what: library.accepts(problem(kernel, *what), device, kernel["name"])
    cells = [(dtype, dim) for dtype in DTYPES for dim in HEAD_DIMS if ask(dtype, dim)]
    if not cells:
        return None
    dtypes = [dtype.split()[0] for dtype in DTYPES if any(cell[0] == dtype for cell in cells)]
    dims = [dim for dim in HEAD_DIMS if any(cell[1] == dim for cell in cells)]
    own = cells[len(cells) // 2]
    features = {**BOTH, **ONLY[kernel["pass"]]}
    yes = [name for name, words in features.items() if ask(*own, words)]
    no = [name for name in features if name not in yes]
    every = dims == [dim for dim in HEAD_DIMS if dim <= dims[-1]]
    name = f"`{kernel['name']}`" + (" (oracle)" if kernel["by_name_only"] else "")
    return [name, ", ".join(dtypes), f"any to {dims[-1]}" if every and len(dims) > 1 else ", ".join(map(str, dims)),
            ", ".join(yes), ", ".join(no) or "-"]


def table(build):
    for name in ("fattn", "libfattn.so"):
        if not (build / name).is_file():
            sys.exit(f"{build / name}: no such file; name a build with the tool")
    info = json.loads(subprocess.run([build / "fattn", "info", "--json"], check=True, capture_output=True).stdout)
    library = Library(build)
    lines = ["| kernel, in the order in which they are asked | dtypes | head_dim | accepts | refuses |", "|---|---|---|---|---|"]
    for kernel in info["kernels"]:
        cells = row(library, kernel) if kernel["compiled"] else None
        if cells is None:
            print(f"SKIPPED: {kernel['name']} cannot be asked here")
            sys.exit(77)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments):
    if not arguments or arguments[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    page = ROOT / "docs/kernels.md"
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(r"(<!-- kernels:begin -->\n).*?(<!-- kernels:end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit("docs/kernels.md has no kernels:begin and kernels:end")
    new = pattern.sub(lambda match: match.group(1) + table(pathlib.Path(arguments[0]).resolve()) + match.group(2), text)
    if len(arguments) > 1:
        if new != text:
            sys.exit(f"the table in docs/kernels.md is not what the rows say: scripts/kernel_table.py {arguments[0]}")
        return 0
    page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
