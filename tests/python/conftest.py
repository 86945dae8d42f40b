# SPDX-License-Identifier: Apache-2.0
"""The Python package, on the CPU or with --device cuda. What a machine lacks is skipped and counted.

The CUDA kernels of one GPU do not serve every option, so that tests of the doors name the reference rows there (the
fixture `rows`); test_torch_hopper.py and the tests in bfloat16 take what plan() chooses."""

import importlib.util
import os

import pytest

REFERENCE = "cuda_reference_forward,cuda_reference_backward"


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"], help="where tensors live")


def pytest_configure(config):
    # Before jax is imported: enough devices of the CPU for shard_map, and a GPU that PyTorch can share.
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu" if config.getoption("--device") == "cuda" else "cpu")


def pytest_ignore_collect(collection_path, config):
    needs = {"torch": "torch", "jax": "jax", "hf": "transformers", "stubs": "mypy"}
    for word, package in needs.items():
        if f"test_{word}" in collection_path.name and importlib.util.find_spec(package) is None:
            config.stash.setdefault(_left_out, []).append(f"{collection_path.name} (no {package})")
            return True
    return None


_left_out = pytest.StashKey()


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(_left_out, []):
        terminalreporter.write_line(f"NOT RUN: {line}")


@pytest.fixture
def device(request):
    """Where this test's tensors live."""
    name = request.config.getoption("--device")
    if name == "cuda":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no GPU that PyTorch can see")
        import fattn

        if not any(kind == "cuda" and compiled for _, kind, _, compiled, _ in fattn.kernels()):
            pytest.skip("this build of fattn has no CUDA kernels")
    return name


@pytest.fixture
def rows(device, monkeypatch):
    """A device whose rows serve every option of these tests."""
    if device == "cuda":
        monkeypatch.setenv("FATTN_KERNEL", REFERENCE)
    return device


@pytest.fixture
def oracle(device):
    """The names of the rows that compute in fp64."""
    return REFERENCE if device == "cuda" else "reference_forward_fp64,reference_backward_fp64"
