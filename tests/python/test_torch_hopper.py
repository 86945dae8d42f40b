# SPDX-License-Identifier: Apache-2.0
"""What plan() chooses on a GPU, without naming a row: streams, graphs, devices."""

import pytest
import torch

import fattn
import fattn.torch as door
import plain_torch
from conftest import REFERENCE
from torch_support import close, qkv, random


@pytest.fixture
def gpu(device):
    if device != "cuda":
        pytest.skip("needs --device cuda")
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("needs a Hopper GPU")
    return device


def has_row(direction):
    return any(name.startswith("sm90") and kind == "cuda" and which == direction and compiled
               for name, kind, which, compiled, _ in fattn.kernels())


SHAPES = [(2, 256, 256, 4, 4, 128), (1, 300, 700, 8, 2, 128), (3, 129, 1, 2, 1, 128), (1, 1, 515, 4, 1, 128)]


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": (100, 0)}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(gpu, shape, options):
    tensors = qkv(*shape, device=gpu, dtype=torch.bfloat16, grad=False)
    out, lse = door.attention(*tensors, return_lse=True, **options)
    wanted, wanted_lse = plain_torch.attention(*tensors, **options)
    close(out, wanted)
    close(lse, wanted_lse, torch.bfloat16)
    assert torch.equal(out, door.attention(*tensors, **options))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(gpu, shape):
    tensors = qkv(*shape, device=gpu, dtype=torch.bfloat16)
    out = door.attention(*tensors, causal=True)
    if not has_row("backward"):
        with pytest.raises(NotImplementedError, match="no kernel row accepts"):
            out.sum().backward()
        pytest.skip("no backward row for Hopper in this build: refused, as it must be")
    wanted = plain_torch.attention(*tensors, causal=True)[0]
    dout = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(gpu)
    for actual, expected in zip(torch.autograd.grad(out, tensors, dout.bfloat16(), retain_graph=True),
                                torch.autograd.grad(wanted, tensors, dout.bfloat16().double(), retain_graph=True)):
        close(actual, expected)
    for actual, expected in zip(torch.autograd.grad(out.sum(), tensors), torch.autograd.grad(wanted.sum(), tensors)):
        close(actual, expected)


@pytest.mark.parametrize("kernel", ["", REFERENCE], ids=["chosen", "reference"])
def test_cuda_graph(gpu, kernel):
    tensors = qkv(2, 256, 256, 4, 2, 128, device=gpu, dtype=torch.bfloat16, grad=False)
    graph = torch.cuda.CUDAGraph()
    door.attention(*tensors, causal=True, kernel=kernel)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        out = door.attention(*tensors, causal=True, kernel=kernel)
    for seed in range(3):
        for tensor, fresh in zip(tensors, qkv(2, 256, 256, 4, 2, 128, device=gpu, dtype=torch.bfloat16, seed=seed, grad=False)):
            tensor.copy_(fresh)
        graph.replay()
        assert torch.equal(out, door.attention(*tensors, causal=True, kernel=kernel))


def test_cuda_graph_of_training(gpu):
    """Forward and backward in one graph, by the rows that have a backward pass."""
    kernel = "" if has_row("backward") else REFERENCE
    tensors = qkv(1, 128, 128, 2, 2, 128, device=gpu, dtype=torch.bfloat16)
    step = lambda: torch.autograd.grad(door.attention(*tensors, causal=True, kernel=kernel).float().square().sum(), tensors)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        wanted = step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        grads = step()
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        for actual, expected in zip(grads, wanted):
            close(actual, expected)


def test_side_stream(gpu):
    tensors = qkv(2, 512, 512, 4, 4, 128, device=gpu, dtype=torch.bfloat16, grad=False)
    wanted = door.attention(*tensors, causal=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # The sleep makes a launch on a wrong stream read zeros.
        late = [torch.zeros_like(t) for t in tensors]
        torch.cuda._sleep(20_000_000)
        for a, b in zip(late, tensors):
            a.copy_(b)
        out = door.attention(*late, causal=True)
    stream.synchronize()
    assert torch.equal(out, wanted)


def test_tensors_on_another_device(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    tensors = [t.to("cuda:1") for t in qkv(2, 256, 256, 4, 4, 128, device="cpu", dtype=torch.bfloat16, grad=False)]
    with torch.cuda.device(0):
        out = door.attention(*tensors, causal=True)
        assert torch.cuda.current_device() == 0 and out.device == torch.device("cuda:1")
    close(out, plain_torch.attention(*tensors, causal=True)[0])


def test_mixed_devices_are_refused(gpu):
    q, k, v = qkv(1, 128, 128, 2, 2, 128, device=gpu, dtype=torch.bfloat16, grad=False)
    with pytest.raises(ValueError, match="k is on cpu and q is on cuda"):
        door.attention(q, k.cpu(), v)
    with pytest.raises(ValueError, match="seqused_k is on cpu"):
        door.attention(q, k, v, seqused_k=torch.tensor([100], dtype=torch.int32))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_inductor(gpu, mode):
    """Compiled forward and backward, the second time in CUDA graphs that PyTorch makes."""
    pytest.importorskip("triton")
    torch._dynamo.reset()
    tensors = qkv(2, 256, 256, 4, 2, 128, device=gpu, dtype=torch.bfloat16)
    function = lambda q, k, v: door.attention(q * 2, k, v, causal=True).float() + 1
    compiled = torch.compile(function, fullgraph=True, mode=mode)
    wanted = function(*tensors)
    expected = torch.autograd.grad(wanted.square().sum(), tensors)
    for _ in range(3):
        out = compiled(*tensors)
        close(out, wanted, torch.bfloat16)
        for actual, gradient in zip(torch.autograd.grad(out.square().sum(), tensors), expected):
            close(actual, gradient)


@pytest.mark.parametrize("options", [{"softcap": 20.0}, {"alibi_slopes": "heads"}, {"window": (64, 0)}], ids=str)
def test_backward_of_options(gpu, options):
    tensors = qkv(2, 200, 300, 8, 2, 64, device=gpu, dtype=torch.bfloat16)
    if "alibi_slopes" in options:
        options = {"alibi_slopes": torch.arange(1, 9, device=gpu) / 16.0}
    out, wanted = (f(*tensors, causal=True, **options) for f in (door.attention, plain_torch.attention))
    close(out, wanted[0])
    dout = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(gpu).bfloat16()
    for actual, expected in zip(torch.autograd.grad(out, tensors, dout), torch.autograd.grad(wanted[0], tensors, dout.double())):
        close(actual, expected)


def test_packed_backward(gpu):
    cu = torch.tensor([0, 70, 70, 300, 513], dtype=torch.int32, device=gpu)
    q, k, v = random((513, 8, 128), (513, 2, 128), (513, 2, 128), device=gpu, dtype=torch.bfloat16)
    out = door.attention_varlen(q, k, v, cu, cu, 230, 230, causal=True)
    (dout,) = random(out.shape, device=gpu, dtype=torch.bfloat16, seed=1, grad=False)
    grads = torch.autograd.grad(out, (q, k, v), dout)
    for begin, end in ((0, 70), (70, 300), (300, 513)):
        part = [t.detach()[None, begin:end].clone().requires_grad_() for t in (q, k, v)]
        wanted = plain_torch.attention(*part, causal=True)[0]
        close(out[None, begin:end], wanted)
        for actual, expected in zip(grads, torch.autograd.grad(wanted, part, dout[None, begin:end].double())):
            close(actual[None, begin:end], expected)


@pytest.mark.parametrize("d", [64, 96, 128, 160, 192, 256])
def test_the_same_bits_again(gpu, d):
    """Items of differing length, which blocks take in another order each time."""
    q, k, v = random((60, 257, 4, d), (60, 257, 4, d), (60, 257, 4, d), device=gpu, dtype=torch.bfloat16, grad=False)
    wanted = door.attention(q, k, v, causal=True)
    differ = sum((door.attention(q, k, v, causal=True) != wanted).any() for _ in range(300))
    assert differ.item() == 0
