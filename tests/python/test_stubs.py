# SPDX-License-Identifier: Apache-2.0
"""The typed stubs: they say what the modules are, and mypy reads them as a user's checker would."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import fattn

PACKAGE = pathlib.Path(fattn.__file__).parent
NEEDS = {"torch": "torch", "flash_attn_2": "torch", "flash_attn_3": "torch", "sdpa": "torch", "jax": "jax",
         "hf": "transformers"}
SETTINGS = """[mypy]
strict = True
[mypy-fattn._numpy,fattn._options,fattn._dropin,fattn._core,fattn.torch._attention,fattn.torch._memory,fattn.torch._operators,fattn.torch._run,fattn.torch._sdpa]
ignore_errors = True
[mypy-torch.*,jax.*,transformers.*,numpy.*]
follow_imports = skip
ignore_missing_imports = True
"""
USE = """import fattn
import fattn.flash_attn_2
import fattn.sdpa
import fattn.torch
import numpy as np
from fattn.sdpa import scaled_dot_product_attention
from typing import Any

x: Any = np.zeros((1, 4, 2, 16), np.float32)
out, lse = fattn.attention(x, x, x, causal=True, window=(3, None), return_lse=True)
text: str = fattn.explain("fwd b1 hq1 hk1 sq8 sk8 d64 bf16", "h100")
fattn.attention(x, x, x, causal="yes")  # wrong
fattn.attention(x, x, x, window=3)  # wrong
fattn.attention(x, x)  # wrong
fattn.torch.attention(x, x, x, softmaxscale=0.1)  # wrong
fattn.flash_attn_2.flash_attn_func(x, x, x, 0.0, None, "causal")  # wrong
number: int = fattn.explain("")  # wrong
fattn.sdpa(x, x, x, is_causal=True)
fattn.sdpa.scaled_dot_product_attention(x, x, x)
scaled_dot_product_attention(x, x, x, scale=0.1)
fattn.sdpa(x, x, x, causal=True)  # wrong
"""


def run(folder, *arguments):
    settings = folder / "mypy.ini"
    settings.write_text(SETTINGS)
    environment = dict(os.environ, MYPY_CACHE_DIR=str(folder / "cache"))
    if "site-packages" not in PACKAGE.parts:
        environment.update(MYPYPATH=str(PACKAGE.parent), PYTHONPATH=str(PACKAGE.parent))
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    return done.returncode, done.stdout


def test_stubs_say_what_the_modules_are(tmp_path):
    absent = [door for door, package in NEEDS.items() if importlib.util.find_spec(package) is None]
    # fattn.sdpa is a function where its file would be a module; its signature is recorded in test_torch_dropins.py.
    (tmp_path / "allowed").write_text("\n".join([r"fattn\.(torch\.)?_.*", r"fattn\.sdpa.*", *(rf"fattn\.{door}.*" for door in absent)]))
    code, text = run(tmp_path, "mypy.stubtest", "fattn", "--concise", "--mypy-config-file", "mypy.ini", "--allowlist",
                     "allowed", "--ignore-unused-allowlist")
    assert code == 0, text


def test_a_type_checker_finds_wrong_calls(tmp_path):
    (tmp_path / "use.py").write_text(USE)
    _, text = run(tmp_path, "mypy", "--config-file", "mypy.ini", "use.py")
    found = {int(line.split(":")[1]) for line in text.splitlines() if line.startswith("use.py:") and " error: " in line}
    assert found == {i for i, line in enumerate(USE.splitlines(), 1) if line.endswith("# wrong")}, text
