# SPDX-License-Identifier: Apache-2.0
"""The Python programs of examples/, and the Python blocks of README.md, as they stand."""

import pathlib
import re
import runpy

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_numpy_example(capsys):
    runpy.run_path(str(ROOT / "examples/numpy_attention.py"))
    printed = capsys.readouterr().out
    assert "refused: " in printed and "nearest" in printed


def test_torch_example(capsys):
    pytest.importorskip("torch")
    runpy.run_path(str(ROOT / "examples/torch_training.py"))
    assert "loss" in capsys.readouterr().out


def test_jax_example(capsys):
    pytest.importorskip("jax")
    runpy.run_path(str(ROOT / "examples/jax_training.py"))
    printed = capsys.readouterr().out
    assert "loss" in printed and "the same bits" in printed


def test_hugging_face_example(capsys):
    pytest.importorskip("transformers")
    runpy.run_path(str(ROOT / "examples/hf_model.py"))
    assert "greedy tokens equal: True" in capsys.readouterr().out


def test_readme():
    torch = pytest.importorskip("torch")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    rng = np.random.default_rng(0)
    q, k, v = (torch.from_numpy(rng.standard_normal((1, 20, heads, 16), dtype=np.float32)) for heads in (4, 2, 2))
    for block in blocks:
        names = {"q": q, "k": k, "v": v}
        exec(block, names)
        assert tuple(names["out"].shape) == tuple(q.shape)
