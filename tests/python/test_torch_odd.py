# SPDX-License-Identifier: Apache-2.0
"""What strangers do: empty tensors, views of every kind, transforms, tracers, copies of modules, forks."""

import copy
import os
import pickle
import signal

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F

import fattn.sdpa
import fattn.torch as door
import plain_torch
from fattn import flash_attn_2 as fa2
from fattn import flash_attn_3 as fa3
from torch_support import close, qkv, random


def plain(*tensors, **options):
    return plain_torch.attention(*tensors, **options)[0]


@pytest.mark.parametrize("sizes", [(0, 8, 8), (2, 0, 8), (2, 8, 0), (2, 0, 0)], ids=str)
def test_empty_tensors(rows, sizes):
    batch, sq, sk = sizes
    tensors = qkv(batch, sq, sk, 4, 2, 16, device=rows)
    out, lse = door.attention(*tensors, return_lse=True)
    assert out.shape == (batch, sq, 4, 16) and not out.any()
    assert lse.shape == (batch, 4, sq) and (lse == -float("inf")).all()
    for grad, tensor in zip(torch.autograd.grad(out.sum(), tensors), tensors):
        assert grad.shape == tensor.shape and not grad.any()


@pytest.mark.parametrize("text, shapes", [
    ("v of shape .* has no columns", ((2, 8, 4, 16), (2, 8, 2, 16), (2, 8, 2, 0))),
    ("heads_q = 0 must be in", ((2, 8, 0, 16), (2, 8, 2, 16), (2, 8, 2, 16))),
    ("head_dim must be the same", ((2, 0, 4, 16), (2, 8, 2, 8), (2, 8, 2, 16))),  # no query row, and wrong all the same
    ("batch must be the same", ((0, 8, 4, 16), (2, 8, 2, 16), (2, 8, 2, 16))),
])
def test_empty_and_wrong(rows, text, shapes):
    with pytest.raises(ValueError, match=text):
        door.attention(*random(*shapes, device=rows))


def test_packed_without_a_row(rows):
    cu = torch.zeros(3, dtype=torch.int32, device=rows)
    q, k, v = random((0, 4, 16), (0, 2, 16), (0, 2, 16), device=rows)
    out, lse = door.attention_varlen(q, k, v, cu, cu, 0, 0, return_lse=True)
    assert out.shape == (0, 4, 16) and lse.shape == (4, 0)
    for wrong in (cu[:1], cu[None], cu[0]):
        with pytest.raises(ValueError, match=r"cu_seqlens_q has shape .*; nearest: \(batch \+ 1,\)"):
            door.attention_varlen(q, k, v, wrong, wrong, 0, 0)


def test_views_that_share_memory(rows):
    q, k, v, one = random((2, 8, 4, 16), (2, 8, 2, 16), (2, 8, 2, 16), (1, 8, 1, 16), device=rows)
    keys = one.expand(2, 8, 2, 16)
    close(door.attention(q, keys, keys), plain(q, keys, keys))
    (actual,), (wanted,) = (torch.autograd.grad(f(q, keys, keys).sum(), one) for f in (door.attention, plain))
    close(actual, wanted)
    with pytest.raises(ValueError, match=r"q has stride 0 in its last dimension; nearest: 1, as q.contiguous\(\)"):
        door.attention(q[..., :1].expand(2, 8, 4, 16), k, v)
    # A view whose memory has the other sign.
    negative = torch._neg_view(q.detach())
    close(door.attention(negative, k, v), plain(-q, k, v))
    with pytest.raises(ValueError, match=r"bias is a negative view; nearest: bias.resolve_neg\(\)"):
        door.attention(q, k, v, bias=torch._neg_view(torch.ones(8, 8, device=rows)))


def test_transforms(rows):
    q, k, v = (t.detach() for t in qkv(3, 8, 8, 4, 2, 16, device=rows))
    loss = lambda q, k, v: door.attention(q, k, v, causal=True).square().sum()
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    wanted = torch.autograd.grad(loss(*leaves), leaves)
    assert all(torch.equal(a, b) for a, b in zip(torch.func.grad(loss, argnums=(0, 1, 2))(q, k, v), wanted))
    each = torch.vmap(lambda *t: door.attention(*(x[None] for x in t), causal=True)[0])(q, k, v)
    close(each, door.attention(q, k, v, causal=True))
    single = torch.vmap(torch.func.grad(lambda *t: loss(*(x[None] for x in t)), argnums=(0, 1, 2)))(q, k, v)
    for actual, expected in zip(single, wanted):
        close(actual, expected)
    bias, sinks = random((8, 8), (4,), device=rows, seed=2)
    with_scores = lambda bias, sinks: door.attention(q, k, v, bias=bias, sinks=sinks).square().sum()
    expected = torch.autograd.grad(with_scores(bias, sinks), (bias, sinks))
    for actual, value in zip(torch.func.grad(with_scores, argnums=(0, 1))(bias.detach(), sinks.detach()), expected):
        close(actual, value)


def test_forward_mode_and_second_derivatives_are_refused(rows):
    q, k, v = (t.detach() for t in qkv(1, 8, 8, 2, 2, 16, device=rows))
    call = lambda q: door.attention(q, k, v)
    for transform in (lambda: torch.func.jvp(call, (q,), (q,)), lambda: torch.func.jacfwd(call)(q)):
        with pytest.raises(NotImplementedError, match="forward-mode derivatives"):
            transform()
    with forward_ad.dual_level():
        assert torch.equal(call(q), call(q.clone()))
        with pytest.raises(NotImplementedError, match="forward-mode derivatives"):
            call(forward_ad.make_dual(q, torch.ones_like(q)))
    first = torch.func.grad(lambda q: call(q).square().sum())
    with pytest.raises(NotImplementedError, match="double backward"):
        torch.func.grad(lambda q: first(q).sum())(q)


@pytest.mark.filterwarnings("ignore")
def test_tracers_record_the_operator(rows):
    first, second = ([t.detach() for t in qkv(2, 8, 8, 4, 2, 16, device=rows, seed=seed)] for seed in (0, 1))

    class Module(torch.nn.Module):
        def forward(self, q, k, v):
            return door.attention(q, k, v, causal=True)

    wanted = Module()(*second)
    assert torch.equal(torch.jit.trace(Module(), tuple(first))(*second), wanted)
    length = torch.export.Dim("length", min=2, max=64)
    exported = torch.export.export(Module(), tuple(first), dynamic_shapes=({1: length},) * 3).module()
    longer = [t.detach() for t in qkv(2, 23, 23, 4, 2, 16, device=rows)]
    assert torch.equal(exported(*second), wanted) and torch.equal(exported(*longer), Module()(*longer))


def test_compiled_code_meets_new_shapes_and_options(rows):
    torch._dynamo.reset()
    compiled = torch.compile(lambda *t, causal: door.attention(*t[:3], causal=causal), backend="aot_eager", fullgraph=True)
    for batch, length, causal in ((2, 8, True), (2, 12, True), (3, 9, True), (3, 9, False), (1, 1, False)):
        tensors = [t.detach() for t in qkv(batch, length, length, 4, 2, 16, device=rows)]
        assert torch.equal(compiled(*tensors, causal=causal), door.attention(*tensors, causal=causal))


@pytest.mark.parametrize("needs", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)], ids=str)
def test_some_gradients(rows, needs):
    tensors = [t.detach().requires_grad_(bool(need)) for t, need in zip(qkv(2, 8, 8, 4, 2, 16, device=rows), needs)]
    every = [t.detach().clone().requires_grad_() for t in tensors]
    door.attention(*tensors, causal=True).sum().backward()
    plain(*every, causal=True).sum().backward()
    for tensor, other, need in zip(tensors, every, needs):
        assert (tensor.grad is not None) == bool(need)
        if need:
            close(tensor.grad, other.grad)


def test_saved_tensors_are_watched(rows):
    q, k, v = qkv(1, 8, 8, 2, 2, 16, device=rows)
    changed = q * 1
    out = door.attention(changed, k, v)
    changed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t, lambda t: t):
        door.attention(q, k, v).sum().backward()
    assert len(packed) == 5


def test_modules_are_copied_and_saved(rows):
    q, k, v = (t.detach() for t in qkv(1, 8, 8, 2, 2, 16, device=rows))
    for function in (door.attention, fa2.flash_attn_func, fa3.flash_attn_func, fattn.sdpa):
        module = torch.nn.Module()
        module.function = function
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(other.function(q, k, v), function(q, k, v))


def test_deterministic_and_threads(device):
    q, k, v = (t.detach() for t in qkv(2, 40, 40, 4, 2, 64, device=device, dtype=torch.bfloat16))
    wanted, threads = door.attention(q, k, v), torch.get_num_threads()
    try:
        torch.use_deterministic_algorithms(True)  # which also fills new tensors with NaN
        assert torch.equal(door.attention(q, k, v), wanted)
        for count in (1, 3, 64):
            torch.set_num_threads(count)
            assert torch.equal(door.attention(q, k, v), wanted)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("threads", [1, 2, 64])  # the workspace grows with them
def test_a_fork_after_use(threads):
    q, k, v = (t.detach() for t in qkv(2, 200, 200, 4, 4, 64))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wanted = door.attention(q, k, v).numpy().tobytes()
        for _ in range(2):
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # ends a child that waits for a thread it does not have
                os._exit(0 if door.attention(q, k, v).numpy().tobytes() == wanted else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name, text, options", [
    ("window", r"window\[0\] = 1180591620717411303424 does not fit 64 bits", {"window": (1 << 70, 0)}),
    ("window", r"window\[0\] = 3.0 must be an integer", {"window": (3.0, 0)}),
    ("window", "mask.window_left = -7 must be at least -1", {"window": (-7, 0)}),
    ("kernel", "kernel = None must be a text", {"kernel": None}),
    ("causal", "causal = None must be True or False", {"causal": None}),
    ("scale", "softmax_scale = inf must be finite", {"softmax_scale": float("inf")}),
    ("dropout", "dropout_p = 'x' must be a number", {"dropout_p": "x"}),
    ("bias", "bias has 5 dimensions", {"bias": torch.zeros(1, 1, 1, 8, 8)}),
    ("bias", "bias has dtype torch.int32; nearest: torch.float32", {"bias": torch.zeros(8, 8, dtype=torch.int32)}),
    ("alibi", r"alibi_slopes has shape \(1, 2, 4\); nearest: \(4,\) or \(2, 4\)", {"alibi_slopes": torch.zeros(1, 2, 4)}),
    ("sinks", r"sinks has shape \(2,\); nearest: \(4,\)", {"sinks": torch.zeros(2)}),
    ("documents", "document_q and document_k go together", {"document_q": torch.zeros(2, 8, dtype=torch.int32)}),
])
def test_bad_options(device, name, text, options):
    tensors = [t.detach() for t in qkv(2, 8, 8, 4, 2, 16, device=device)]
    options = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    with pytest.raises((TypeError, ValueError), match=text):
        door.attention(*tensors, **options)


def test_windows_of_any_width(rows):
    tensors = qkv(2, 8, 8, 4, 2, 16, device=rows)
    for wide in (8, 1 << 40, (1 << 63) - 1):
        close(door.attention(*tensors, window=(wide, wide)), plain(*tensors))
        close(door.attention(*tensors, window=torch.tensor([wide, 0])), plain(*tensors, causal=True))
        close(door.attention(*tensors, chunk=wide), plain(*tensors))


@pytest.mark.parametrize("module", [fa2, fa3])
def test_drop_ins_name_what_is_wrong(device, module):
    q, k, v, cache = (t.detach() for t in random((2, 8, 4, 16), (2, 8, 2, 16), (2, 8, 2, 16), (2, 20, 2, 16), device=device))
    short, half = torch.tensor([3, 4], device=device), k.half()
    calls = {
        "q is a list": lambda: module.flash_attn_func([1], k, v),
        "qkv is a list": lambda: module.flash_attn_qkvpacked_func([1]),
        "softcap = None must be a number": lambda: module.flash_attn_func(q, k, v, softcap=None),
        "must have 4 dimensions": lambda: module.flash_attn_func(torch.ones((), device=device), k, v),
        "cache_seqlens has dtype torch.int64": lambda: module.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=short),
        r"cache_seqlens has shape \(1,\)":
            lambda: module.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=short[:1].int()),
        r"cache_seqlens = 21 must be in \[0, 20\]": lambda: module.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=21),
        r"cache_seqlens = -1 must be in \[0, 20\]": lambda: module.flash_attn_with_kvcache(q, cache, cache, cache_seqlens=-1),
        # One sequence is not written for all of them.
        r"k has shape \(1, 8, 2, 16\)":
            lambda: module.flash_attn_with_kvcache(q, cache, cache, k[:1], v[:1], cache_seqlens=0),
        "v has dtype torch.float16": lambda: module.flash_attn_with_kvcache(q, cache, cache, k, half, cache_seqlens=0),
    }
    for text, call in calls.items():
        with pytest.raises((TypeError, ValueError), match=text):
            call()


def test_sdpa_takes_what_pytorch_takes(rows):
    q, k, v = (t.detach() for t in random((3, 2, 4, 8, 16), (3, 2, 4, 8, 16), (3, 2, 4, 8, 16), device=rows))
    (mask,) = random((3, 2, 4, 8, 8), device=rows, seed=1, grad=False)
    for part in (mask, mask[:, :1, :1], mask[:1, :, :1], mask[0, :, :1], mask[0, 0], mask[0, 0, 0], mask[0, :, :1] > 0):
        close(fattn.sdpa(q, k, v, part), F.scaled_dot_product_attention(q, k, v, part))
    wide = torch.stack([q, q], dim=-1).flatten(-2)[..., ::2]
    assert torch.equal(fattn.sdpa(wide, k, v), fattn.sdpa(q, k, v))
    for s in (slice(0), slice(1)):
        assert fattn.sdpa(q[s], k[s], v[s]).shape == q[s].shape
    assert fattn.sdpa(q[..., :0, :], k, v).shape == (3, 2, 4, 0, 16)
    with pytest.raises(TypeError, match="attn_mask is a list"):
        fattn.sdpa(q, k, v, [True])
