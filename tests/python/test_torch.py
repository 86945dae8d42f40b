# SPDX-License-Identifier: Apache-2.0
import threading

import numpy as np
import pytest
import torch

import fattn
import fattn.torch as door
import plain_torch
from torch_support import close, qkv, random

MASKS = {
    "full": {},
    "causal": {"causal": True},
    "top_left": {"causal_top_left": True},
    "window": {"window": (9, 3)},
    "chunk": {"causal": True, "chunk": 16},
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def gradients(loss, tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", [(2, 40, 40, 4, 2, 64), (1, 33, 70, 3, 1, 24), (2, 50, 17, 2, 2, 128)])
def test_forward_and_backward(rows, dtype, mask, shape):
    tensors = qkv(*shape, device=rows, dtype=dtype)
    out, lse = door.attention(*tensors, return_lse=True, **MASKS[mask])
    wanted, wanted_lse = plain_torch.attention(*tensors, **MASKS[mask])
    close(out, wanted)
    close(lse, wanted_lse, torch.float32 if dtype is torch.float32 else dtype)
    dout, dlse = random(out.shape, lse.shape, device=rows, seed=1, grad=False)
    finite = torch.isfinite(wanted_lse)
    loss = (out * dout.to(dtype)).sum() + lse[finite].mul(dlse[finite]).sum()
    reference = (wanted * dout.to(dtype)).sum() + wanted_lse[finite].mul(dlse[finite]).sum()
    for actual, expected in zip(gradients(loss, tensors), gradients(reference, tensors)):
        close(actual, expected)


def test_scores_bias_alibi_and_sinks(rows):
    tensors = qkv(2, 30, 45, 4, 2, 32, 48, device=rows)
    bias, sinks, slopes = random((1, 4, 30, 45), (4,), (2, 4), device=rows, seed=3)
    slopes = slopes.detach().abs()
    options = dict(softmax_scale=0.3, softcap=4.0, bias=bias, alibi_slopes=slopes, sinks=sinks, causal=True)
    leaves = [*tensors, bias, sinks]
    out = door.attention(*tensors, **options)
    wanted, _ = plain_torch.attention(*tensors, **options)
    close(out, wanted)
    (dout,) = random(out.shape, device=rows, seed=4, grad=False)
    for actual, expected in zip(gradients((out * dout).sum(), leaves), gradients((wanted * dout).sum(), leaves)):
        close(actual, expected)
    with pytest.raises(NotImplementedError, match="alibi_slopes"):
        door.attention(*tensors, alibi_slopes=slopes.clone().requires_grad_())


def test_packed_sequences(rows):
    lengths_q, lengths_k = [5, 0, 31, 12], [9, 4, 0, 40]
    cu_q, cu_k = (torch.tensor(np.cumsum([0, *n]), dtype=torch.int32, device=rows) for n in (lengths_q, lengths_k))
    q, k, v = random((50, 4, 32), (60, 2, 32), (60, 2, 32), device=rows)
    # max_seqlen may be a tensor of no dimension.
    out, lse = door.attention_varlen(q, k, v, cu_q, cu_k, torch.tensor(31, device=rows), 40, causal=True, return_lse=True)
    assert lse.shape == (4, 50)
    (dout,) = random(out.shape, device=rows, seed=1, grad=False)
    grads = gradients((out * dout).sum(), (q, k, v))
    for b in range(4):
        i, j = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        part = [t.detach()[s][None].clone().requires_grad_() for t, s in ((q, i), (k, j), (v, j))]
        wanted, wanted_lse = plain_torch.attention(*part, causal=True)
        close(out[i], wanted[0])
        close(lse[:, i], wanted_lse[0], torch.float32)
        for actual, expected, s in zip(grads, gradients((wanted[0] * dout[i]).sum(), part), (i, j, j)):
            close(actual[s], expected[0])
    assert not out[48:].any() and not grads[0][48:].any() and not grads[1][53:].any()


def test_packed_queries_over_dense_keys(rows):
    cu_q = torch.tensor([0, 3, 10], dtype=torch.int32, device=rows)
    used = torch.tensor([20, 7], dtype=torch.int32, device=rows)
    q, k, v = random((10, 4, 32), (2, 20, 2, 32), (2, 20, 2, 32), device=rows)
    out = door.attention_varlen(q, k, v, cu_q, None, 7, 0, seqused_k=used, causal=True)
    for b, rows_of in enumerate((slice(0, 3), slice(3, 10))):
        keys = slice(0, int(used[b]))
        close(out[rows_of], plain_torch.attention(q[None, rows_of], k[b : b + 1, keys], v[b : b + 1, keys], causal=True)[0][0])


def test_gradcheck_in_fp64(rows, oracle):
    q, k, v = qkv(1, 5, 7, 4, 2, 8, device=rows, dtype=torch.float64)
    sinks, bias = random((4,), (4, 5, 7), device=rows, dtype=torch.float64, seed=5)

    def function(q, k, v, bias):
        return door.attention(q, k, v, causal=True, softcap=5.0, bias=bias, kernel=oracle, return_lse=True)

    # lse is stored in fp32, hence its wider step and tolerance.
    assert torch.autograd.gradcheck(lambda *t: function(*t)[0], (q, k, v, bias), eps=1e-5, atol=1e-5, nondet_tol=0)
    assert torch.autograd.gradcheck(lambda *t: function(*t)[1].double(), (q, k, v, bias), eps=1e-2, atol=2e-3)


def test_lse_alone_has_gradients(rows):
    tensors = qkv(1, 20, 20, 2, 2, 32, device=rows)
    lse = door.attention(*tensors, causal=True, return_lse=True)[1]
    wanted = plain_torch.attention(*tensors, causal=True)[1]
    for actual, expected in zip(gradients(lse.mean(), tensors[:2]), gradients(wanted.mean(), tensors[:2])):
        close(actual, expected)
        assert actual.abs().max() > 0


def test_expanded_gradient(rows):
    tensors = qkv(2, 30, 30, 4, 2, 64, device=rows)
    out = door.attention(*tensors)
    wanted = plain_torch.attention(*tensors)[0]
    for loss, reference in ((out.sum(), wanted.sum()), (out.mean(dim=1)[0].sum(), wanted.mean(dim=1)[0].sum())):
        expected = torch.autograd.grad(reference, tensors, retain_graph=True)
        for actual, value in zip(torch.autograd.grad(loss, tensors, retain_graph=True), expected):
            close(actual, value)
    # A gradient whose last dimension is strided: its layout is autograd's choice.
    turned = torch.randn(2, 64, 4, 30, generator=torch.Generator().manual_seed(0)).to(rows).transpose(1, 3)
    expected = torch.autograd.grad(wanted, tensors, turned.double(), retain_graph=True)
    for actual, value in zip(torch.autograd.grad(out, tensors, turned), expected):
        close(actual, value)


def test_layouts_change_no_bits(rows):
    q, k, v = (t.detach() for t in qkv(2, 40, 40, 4, 4, 32, device=rows))
    wanted = door.attention(q, k, v, causal=True)
    packed = torch.stack([q, k, v], dim=2)
    heads_first = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    wide = torch.cat([q, k, v], dim=-1).split(32, dim=-1)
    for views in (packed.unbind(2), heads_first, wide):
        assert torch.equal(door.attention(*views, causal=True), wanted)


def test_no_grad_and_grad_agree(rows):
    tensors = qkv(2, 40, 40, 4, 2, 64, device=rows, dtype=torch.bfloat16)
    with torch.no_grad():
        short = door.attention(*tensors, causal=True)
    assert torch.equal(short, door.attention(*tensors, causal=True)) and not short.requires_grad
    with torch.inference_mode():
        assert torch.equal(short, door.attention(*tensors, causal=True))


def test_bits_repeat(rows):
    tensors = qkv(2, 100, 100, 4, 2, 64, device=rows, dtype=torch.bfloat16)
    first = gradients(door.attention(*tensors, causal=True, deterministic=True).sum(), tensors)
    for _ in range(3):
        again = gradients(door.attention(*tensors, causal=True, deterministic=True).sum(), tensors)
        assert all(torch.equal(a, b) for a, b in zip(first, again))


def test_opcheck(rows):
    def shared(causal, bias=None, sinks=None, cu=None, longest=0):
        return (cu, cu, None, None, bias, None, sinks, None, None, None, None, None, longest, longest, causal, False, -1,
                -1, 0, None, 0.0, 0.0, False, False, "")

    tensors = qkv(2, 20, 20, 4, 2, 32, device=rows)
    bias, sinks = random((4, 20, 20), (4,), device=rows, seed=1)
    torch.library.opcheck(torch.ops.fattn.forward.default, (*tensors, *shared(True)))
    torch.library.opcheck(torch.ops.fattn.forward.default, (*tensors, *shared(False, bias, sinks)))
    cu = torch.tensor([0, 7, 30], dtype=torch.int32, device=rows)
    packed = random((30, 4, 32), (30, 2, 32), (30, 2, 32), device=rows)
    torch.library.opcheck(torch.ops.fattn.forward.default, (*packed, *shared(True, cu=cu, longest=23)))
    q, k, v = (t.detach() for t in tensors)
    out, lse = torch.ops.fattn.forward.default(q, k, v, *shared(True, sinks=sinks.detach()))
    torch.library.opcheck(torch.ops.fattn.backward.default,
                          (out, None, q, k, v, out, lse, False, True, *shared(True, sinks=sinks.detach())))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_has_no_graph_break(rows, dynamic):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # aot_eager traces forward and backward with fake tensors and runs the graphs without a C++ compiler.
    compiled = torch.compile(lambda q, k, v: door.attention(q, k, v, causal=True, window=(16, 0)), fullgraph=True,
                             dynamic=dynamic, backend="aot_eager")
    for length in (24, 40, 56) if dynamic else (24,):
        tensors = qkv(2, length, length, 4, 2, 32, device=rows)
        out, wanted = compiled(*tensors), door.attention(*tensors, causal=True, window=(16, 0))
        assert torch.equal(out, wanted)
        for actual, expected in zip(gradients(out.sum(), tensors), gradients(wanted.sum(), tensors)):
            assert torch.equal(actual, expected)
    if dynamic:
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_compile_packed_and_with_lse(rows):
    torch._dynamo.reset()
    cu = torch.tensor([0, 7, 30], dtype=torch.int32, device=rows)

    def function(q, k, v):
        out, lse = door.attention_varlen(q, k, v, cu, cu, 23, 23, causal=True, return_lse=True)
        return out * 2, lse

    tensors = random((30, 4, 32), (30, 2, 32), (30, 2, 32), device=rows)
    for actual, expected in zip(torch.compile(function, fullgraph=True, backend="aot_eager")(*tensors), function(*tensors)):
        assert torch.equal(actual, expected)


def test_autocast(rows):
    tensors = qkv(1, 20, 20, 2, 2, 64, device=rows)
    with torch.autocast(rows, dtype=torch.bfloat16):
        out = door.attention(*tensors, causal=True)
    assert out.dtype is torch.bfloat16
    assert torch.equal(out, door.attention(*(t.bfloat16() for t in tensors), causal=True))
    assert all(g.dtype is torch.float32 for g in gradients(out.sum(), tensors))


def test_activation_checkpointing(rows):
    tensors = qkv(1, 20, 20, 2, 2, 32, device=rows)
    function = lambda *t: door.attention(*t, causal=True).sin()
    wanted = gradients(function(*tensors).sum(), tensors)
    out = torch.utils.checkpoint.checkpoint(function, *tensors, use_reentrant=False)
    assert all(torch.equal(a, b) for a, b in zip(gradients(out.sum(), tensors), wanted))


def test_double_backward_is_refused(rows):
    q, k, v = qkv(1, 8, 8, 2, 2, 16, device=rows)
    (grad,) = torch.autograd.grad(door.attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        grad.sum().backward()


def test_modes_see_the_operator(rows):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Listen(), torch.no_grad():
        door.attention(*qkv(1, 8, 8, 2, 2, 16, device=rows))
    assert any("fattn.forward" in name for name in seen)


def test_meta_tensors_have_shapes():
    out, lse = door.attention(*(torch.empty(2, 10, h, 64, device="meta") for h in (4, 2, 2)), return_lse=True)
    assert out.shape == (2, 10, 4, 64) and lse.shape == (2, 4, 10) and out.is_meta


def test_threads_share_nothing(rows):
    tensors = qkv(1, 200, 200, 4, 2, 64, device=rows)
    wanted = gradients(door.attention(*tensors, causal=True).sum(), tensors)
    wrong = []

    def work():
        for _ in range(5):
            got = gradients(door.attention(*tensors, causal=True).sum(), tensors)
            if not all(torch.equal(a, b) for a, b in zip(got, wanted)):
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_numpy_door_takes_tensors():
    q, k, v = (t.detach() for t in qkv(1, 20, 20, 2, 2, 32))
    assert np.array_equal(fattn.attention(q, k, v), door.attention(q, k, v).numpy())
    pytest.importorskip("ml_dtypes")
    out = fattn.attention(*(t.bfloat16() for t in (q, k, v)))
    assert np.array_equal(out.astype(np.float32), door.attention(*(t.bfloat16() for t in (q, k, v))).float().numpy())


class Exporter:
    """Speaks DLPack and nothing else."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_dlpack_round_trips(dtype):
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    q, k, v = (t.detach().transpose(1, 2).contiguous().transpose(1, 2) for t in qkv(2, 20, 30, 4, 2, 32, dtype=dtype))
    options = dict(causal=True, kernel="reference_forward_fp64" if dtype is torch.float64 else "")
    out, lse = fattn.attention(*map(Exporter, (q, k, v)), return_lse=True, **options)
    wanted, wanted_lse = door.attention(q, k, v, return_lse=True, **options)
    assert torch.equal(torch.from_dlpack(lse), wanted_lse)
    back = torch.from_dlpack(out.view(np.uint16)).view(dtype) if dtype is torch.bfloat16 else torch.from_dlpack(out)
    assert back.dtype is dtype and back.data_ptr() == out.ctypes.data and torch.equal(back, wanted)
    # The results are arrays like any other: they go in again, and the gradients come out.
    grads = fattn.attention_backward(Exporter(back), q, k, v, out, lse, causal=True,
                                     kernel="reference_backward_fp64" if dtype is torch.float64 else "")
    assert [grad.shape for grad in grads] == [tuple(t.shape) for t in (q, k, v)]


def good(device):
    return [t.detach() for t in qkv(2, 20, 20, 4, 2, 32, device=device)]


@pytest.mark.parametrize("kind, text, change, options", [
    (TypeError, "k has dtype", lambda q, k, v: (q, k.half(), v), {}),
    (TypeError, "q has dtype torch.complex64; nearest: torch.bfloat16", lambda q, k, v: (q.to(torch.complex64), k, v), {}),
    (TypeError, "q has dtype torch.int32", lambda q, k, v: (q.int(), k.int(), v.int()), {}),
    (ValueError, "head_dim must be the same", lambda q, k, v: (q, k[..., :16], v), {}),
    (ValueError, "seqlen must be the same", lambda q, k, v: (q, k, v[:, :10]), {}),
    (ValueError, "heads_kv = 3 must divide", lambda q, k, v: (q, k[:, :, :1].repeat(1, 1, 3, 1), v[:, :, :1].repeat(1, 1, 3, 1)), {}),
    (ValueError, r"\.contiguous\(\)", lambda q, k, v: (q.transpose(1, 3).contiguous().transpose(1, 3), k, v), {}),
    (ValueError, "softmax_scale = nan", lambda q, k, v: (q, k, v), {"softmax_scale": float("nan")}),
    (ValueError, "chunk = -3", lambda q, k, v: (q, k, v), {"chunk": -3}),
    (ValueError, r"q of shape \(20, 4, 32\) is packed, .* and cu_seqlens_q is None", lambda q, k, v: (q[0], k[0], v[0]), {}),
    (ValueError, r"k of shape \(20, 2, 32\) is packed, .* nearest: \(batch, seqlen", lambda q, k, v: (q, k[0], v[0]), {}),
    (TypeError, "seqused_k has dtype torch.int64", lambda q, k, v: (q, k, v), {"seqused_k": torch.tensor([3, 4])}),
    (ValueError, "is on meta", lambda q, k, v: (q, k.to("meta"), v), {}),
    (ValueError, "kernel", lambda q, k, v: (q, k, v), {"kernel": "no_such_row"}),
    (TypeError, "softmax_scale = 'a' must be a number", lambda q, k, v: (q, k, v), {"softmax_scale": "a"}),
    (TypeError, "causal = 'no' must be True or False", lambda q, k, v: (q, k, v), {"causal": "no"}),
    (TypeError, r"window = 128 must be a pair", lambda q, k, v: (q, k, v), {"window": 128}),
    (TypeError, "sinks is a list", lambda q, k, v: (q, k, v), {"sinks": [0.0] * 4}),
    (ValueError, r"softcap = -1 must be 0", lambda q, k, v: (q, k, v), {"softcap": -1.0}),
    (ValueError, r"dropout = 1 must be in \[0, 1\)", lambda q, k, v: (q, k, v), {"dropout_p": 1.0}),
    (ValueError, r"bias of shape \(3, 20\) does not broadcast", lambda q, k, v: (q, k, v), {"bias": torch.zeros(3, 20)}),
    (ValueError, "batch must be the same", lambda q, k, v: (q, k[:1], v[:1]), {}),
    (ValueError, r"k has layout torch.sparse_coo; nearest: k.to_dense\(\)", lambda q, k, v: (q, k.to_sparse(), v), {}),
    (ValueError, "head_dim = 2000 must be in", lambda q, k, v: (torch.zeros(1, 4, 1, 2000, device=q.device),) * 3, {}),
])
@pytest.mark.parametrize("grad", [False, True])
def test_bad_input(device, grad, kind, text, change, options):
    tensors = change(*good(device))
    if grad and tensors[0].is_floating_point():
        tensors = [t.requires_grad_() for t in tensors]
    options = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    with pytest.raises(kind, match=text):
        door.attention(*tensors, **options)


@pytest.mark.parametrize("wrong", [[[1.0]], None, np.zeros((1, 4, 2, 16), np.float32)], ids=["list", "None", "array"])
def test_what_is_no_tensor_is_refused(device, wrong):
    q, k, v = good(device)
    for name, tensors in (("q", (wrong, k, v)), ("v", (q, k, wrong))):
        with pytest.raises(TypeError, match=f"{name} is a {type(wrong).__name__}; nearest: a torch.Tensor"):
            door.attention(*tensors)


def test_lengths_in_a_wrong_place(device):
    q, k, v = (t[0] for t in good(device))
    cu = torch.tensor([0, 8, 20], dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="max_seqlen_q has 3 elements"):
        door.attention_varlen(q, k, v, 12, 12, cu, cu)
    with pytest.raises(TypeError, match="cu_seqlens_q is a list"):
        door.attention_varlen(q, k, v, [0, 8, 20], cu, 12, 12)
    with pytest.raises(TypeError, match="cu_seqlens_k has dtype torch.int64"):
        door.attention_varlen(q, k, v, cu, cu.long(), 12, 12)
    with pytest.raises(ValueError, match="q of shape .* is not packed and cu_seqlens_q is given; nearest: None"):
        door.attention_varlen(q[None], k, v, cu, cu, 12, 12)


def test_lengths_beyond_the_tensor_are_refused():
    q, k, v = random((30, 2, 16), (30, 2, 16), (30, 2, 16), grad=False)
    for wrong in ([0, 20, 31], [0, 20, 10], [1, 20, 30]):
        cu = torch.tensor(wrong, dtype=torch.int32)
        with pytest.raises(ValueError, match="cu_seqlens"):
            door.attention_varlen(q, k, v, cu, cu, 30, 30)


def test_dropout_is_replayed_by_its_seed(device):
    if device == "cuda":
        pytest.skip("no CUDA row has dropout yet")
    tensors = qkv(2, 64, 64, 4, 2, 32, device=device)
    eye = torch.eye(64).expand(2, 64, 64)[:, :, None].repeat(1, 1, 2, 1)
    call = lambda seed, v=tensors[2]: door.attention(*tensors[:2], v, causal=True, dropout_p=0.25,
                                                     generator=torch.Generator().manual_seed(seed))
    assert torch.equal(call(3), call(3)) and not torch.equal(call(3), call(4))
    # With the identity as values the output is the dropped weights themselves.
    weights = call(3, eye).detach()  # (batch, query, heads, key)
    visible = torch.ones(64, 64).tril()[None, :, None].expand_as(weights) > 0
    assert abs((weights[visible] == 0).double().mean().item() - 0.25) < 0.01
    plain = door.attention(*tensors[:2], eye, causal=True).detach()
    kept = weights != 0
    close(weights[kept], (plain / 0.75)[kept], torch.float32)
    # The gradient is that of the same dropped weights.
    expected = torch.einsum("bihj,bjhd->bihd", weights, tensors[2].repeat_interleave(2, dim=2))
    (actual,) = torch.autograd.grad(call(3).sum(), tensors[2])
    close(actual, torch.autograd.grad(expected.sum(), tensors[2])[0])


def test_tensors_are_read_by_attributes_where_there_is_no_exchange(rows):
    """As under versions of PyTorch without DLPack's C functions: the same bits, the same refusals."""
    from fattn import _core
    from fattn.torch import _run

    tensors = qkv(2, 30, 45, 4, 2, 32, device=rows)
    bias, sinks = random((1, 4, 30, 45), (4,), device=rows, seed=3)
    options = dict(causal=True, bias=bias, sinks=sinks, window=(20, 0))
    wanted = door.attention(*tensors, **options)
    expected = gradients(wanted.sum(), (*tensors, bias, sinks))
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    try:
        _core.attach(torch.Tensor, None, _run._ELEMENTS, _run.refuse_layout)
        out = door.attention(*tensors, **options)
        assert torch.equal(out, wanted)
        assert all(torch.equal(a, b) for a, b in zip(gradients(out.sum(), (*tensors, bias, sinks)), expected))
        with pytest.raises(TypeError, match="q has dtype torch.int32; nearest: torch.bfloat16"):
            door.attention(*(t.detach().int() for t in tensors))
        with pytest.raises(ValueError, match="k has 5 dimensions"):
            door.attention(tensors[0], tensors[1][None], tensors[2])
    finally:
        _core.attach(torch.Tensor, exchange, _run._ELEMENTS, _run.refuse_layout)
