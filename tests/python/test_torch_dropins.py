# SPDX-License-Identifier: Apache-2.0
import importlib
import inspect
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import fattn
import plain_torch
from conftest import REFERENCE
from fattn import flash_attn_2 as fa2
from fattn import flash_attn_3 as fa3
from torch_support import close, qkv, random

# As the originals publish them: names, order, defaults.
WINDOW = "window_size=(-1, -1)"
FA2_END = f"{WINDOW}, softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False"
FA3_DESCALE = "q_descale=None, k_descale=None, v_descale=None"
FA3_END = (f"softmax_scale=None, causal=False, qv=None, {FA3_DESCALE}, {WINDOW}, attention_chunk=0, softcap=0.0, "
           "num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False")
LENGTHS = "cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k"
SIGNATURES = {
    fa2.flash_attn_func: f"q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, {FA2_END}",
    fa2.flash_attn_varlen_func:
        f"q, k, v, {LENGTHS}, dropout_p=0.0, softmax_scale=None, causal=False, {FA2_END}, block_table=None",
    fa2.flash_attn_qkvpacked_func: f"qkv, dropout_p=0.0, softmax_scale=None, causal=False, {FA2_END}",
    fa2.flash_attn_kvpacked_func: f"q, kv, dropout_p=0.0, softmax_scale=None, causal=False, {FA2_END}",
    fa2.flash_attn_varlen_qkvpacked_func:
        f"qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False, {FA2_END}",
    fa2.flash_attn_varlen_kvpacked_func:
        f"q, kv, {LENGTHS}, dropout_p=0.0, softmax_scale=None, causal=False, {FA2_END}",
    fa2.flash_attn_with_kvcache:
        "q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
        "cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, causal=False, "
        f"{WINDOW}, softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0, return_softmax_lse=False",
    fa3.flash_attn_func: f"q, k, v, {FA3_END}",
    fa3.flash_attn_varlen_func: f"q, k, v, {LENGTHS}, seqused_q=None, seqused_k=None, {FA3_END}",
    fa3.flash_attn_qkvpacked_func:
        f"qkv, softmax_scale=None, causal=False, {FA3_DESCALE}, {WINDOW}, attention_chunk=0, softcap=0.0, "
        "deterministic=False, num_heads_q=None, sm_margin=0, return_attn_probs=False",
    fa3.flash_attn_with_kvcache:
        "q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
        "cache_batch_idx=None, cache_leftpad=None, page_table=None, cu_seqlens_q=None, cu_seqlens_k_new=None, "
        f"max_seqlen_q=None, rotary_seqlens=None, {FA3_DESCALE}, softmax_scale=None, causal=False, {WINDOW}, "
        "attention_chunk=0, softcap=0.0, rotary_interleaved=True, scheduler_metadata=None, num_splits=0, pack_gqa=None, "
        "sm_margin=0, return_softmax_lse=False",
    fa3.flash_attn_combine: "out_partial, lse_partial, out=None, out_dtype=None",
    fa3.get_scheduler_metadata:
        "batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, cache_seqlens, "
        "qkv_dtype=torch.bfloat16, headdim_v=None, cu_seqlens_q=None, cu_seqlens_k_new=None, cache_leftpad=None, "
        f"page_size=None, max_seqlen_k_new=0, causal=False, {WINDOW}, attention_chunk=0, has_softcap=False, "
        "num_splits=0, pack_gqa=None, sm_margin=0",
    fattn.sdpa.scaled_dot_product_attention:
        "query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_signature(function):
    assert str(inspect.signature(function)) == f"({SIGNATURES[function]})"


def test_every_public_name_is_recorded():
    for module in (fa2, fa3):
        assert {getattr(module, name) for name in module.__all__} == {f for f in SIGNATURES if f.__module__ == module.__name__}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_flash_attn_2(rows, dtype, causal, local):
    q, k, v = qkv(2, 50, 70, 4, 2, 64, device=rows, dtype=dtype)
    (slopes,) = random((2, 4), device=rows, seed=1, grad=False)
    slopes, window = slopes.abs(), (13, 5) if local else (-1, -1)
    # By position, as the original is called.
    out, lse, probabilities = fa2.flash_attn_func(q, k, v, 0.0, 0.2, causal, window, 8.0, slopes, True, True)
    wanted, wanted_lse = plain_torch.attention(q, k, v, softmax_scale=0.2, causal=causal, window=window, softcap=8.0,
                                               alibi_slopes=slopes)
    close(out, wanted)
    close(lse, wanted_lse, dtype)
    assert probabilities.numel() == 0 and lse.shape == (2, 4, 50) and lse.dtype is torch.float32
    for actual, expected in zip(torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(wanted.sum(), (q, k, v))):
        close(actual, expected)


def test_lse_of_rows_without_keys(rows):
    q, k, v = qkv(1, 8, 3, 2, 2, 32, device=rows, dtype=torch.float16)
    _, lse2, _ = fa2.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    _, lse3 = fa3.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    assert torch.all(lse2[:, :, :5] == float("inf")) and torch.all(lse3[:, :, :5] == -float("inf"))
    assert torch.equal(lse2[:, :, 5:], lse3[:, :, 5:])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("chunk", [0, 24])
def test_flash_attn_3(rows, causal, local, chunk):
    q, k, v = qkv(2, 50, 70, 4, 2, 64, 128, device=rows, dtype=torch.bfloat16)
    window = (13, 5) if local else (-1, -1)
    out, lse = fa3.flash_attn_func(q, k, v, 0.2, causal, None, None, None, None, window, chunk, 8.0, 3, True, False, 0, True)
    wanted, wanted_lse = plain_torch.attention(q, k, v, softmax_scale=0.2, causal=causal, window=window, softcap=8.0,
                                               chunk=chunk)
    close(out, wanted)
    close(lse, wanted_lse, torch.bfloat16)
    for actual, expected in zip(torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(wanted.sum(), (q, k, v))):
        close(actual, expected)


def test_packed_forms_agree(rows):
    cu = torch.tensor([0, 11, 40], dtype=torch.int32, device=rows)
    q, k, v = random((40, 4, 32), (40, 4, 32), (40, 4, 32), device=rows, dtype=torch.float16)
    for module in (fa2, fa3):
        out = module.flash_attn_varlen_func(q, k, v, cu, cu, 29, 29, causal=True)
        for begin, end in ((0, 11), (11, 40)):
            close(out[begin:end], plain_torch.attention(*(t[None, begin:end] for t in (q, k, v)), causal=True)[0][0])
    stacked, keys = torch.stack([q, k, v], dim=1), torch.stack([k, v], dim=1)
    assert torch.equal(out, fa2.flash_attn_varlen_qkvpacked_func(stacked, cu, 29, causal=True))
    assert torch.equal(out, fa2.flash_attn_varlen_kvpacked_func(q, keys, cu, cu, 29, 29, causal=True))
    dense = fa2.flash_attn_func(*(t[None] for t in (q, k, v)), causal=True)
    assert torch.equal(dense, fa2.flash_attn_qkvpacked_func(stacked[None], causal=True))
    assert torch.equal(dense, fa2.flash_attn_kvpacked_func(q[None], keys[None], causal=True))
    assert torch.equal(dense, fa3.flash_attn_qkvpacked_func(stacked[None], causal=True))
    grouped = torch.cat([q, k[:, :2], v[:, :2]], dim=1)[None]
    wanted = fa3.flash_attn_func(*(t[None] for t in (q, k[:, :2], v[:, :2])), causal=True)
    assert torch.equal(wanted, fa3.flash_attn_qkvpacked_func(grouped, causal=True, num_heads_q=4))


COMPILED = {
    "flash_attn_2": lambda q, k, v: fa2.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)[:2],
    "kvpacked": lambda q, k, v: fa2.flash_attn_kvpacked_func(q, torch.stack([k, v], dim=2), causal=True),
    "flash_attn_3": lambda q, k, v: fa3.flash_attn_func(q, k, v, window_size=(5, 0), return_attn_probs=True),
    "sdpa": lambda q, k, v: fattn.sdpa(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, enable_gqa=True),
    "sdpa_mask": lambda q, k, v: fattn.sdpa(*(t.transpose(1, 2) for t in (q, k, v)), enable_gqa=True,
                                            attn_mask=torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()),
}


@pytest.mark.parametrize("function", COMPILED.values(), ids=COMPILED)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_a_graph_break(rows, function, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (20, 33):
        tensors = qkv(2, length, length, 4, 2, 32, device=rows)
        results, wanted = ((r if isinstance(r, tuple) else (r,)) for r in (compiled(*tensors), function(*tensors)))
        for actual, expected in zip(results, wanted, strict=True):
            assert torch.equal(actual, expected)
        grads = [torch.autograd.grad(r[0].square().sum(), tensors) for r in (results, wanted)]
        assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_sdpa_by_every_name(rows):
    """fattn.sdpa is the function and where its name is found; there without an import, as the other doors are."""
    from fattn.sdpa import scaled_dot_product_attention

    from fattn import sdpa

    code = "import fattn; f = fattn.sdpa; assert callable(f) and f is f.scaled_dot_product_attention"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert scaled_dot_product_attention is sdpa is fattn.sdpa is importlib.import_module("fattn.sdpa")
    assert scaled_dot_product_attention is fattn.torch.scaled_dot_product_attention


def test_strided_last_dimension_is_laid_out_anew(rows):
    q, k, v = (t.detach() for t in qkv(1, 20, 20, 2, 2, 32, device=rows, dtype=torch.float16))
    turned = q.transpose(1, 3).contiguous().transpose(1, 3)
    assert turned.stride(-1) != 1
    for module in (fa2, fa3):
        assert torch.equal(module.flash_attn_func(turned, k, v), module.flash_attn_func(q, k, v))


def test_what_is_not_done_is_named(rows):
    q, k, v = (t.detach() for t in qkv(1, 8, 8, 2, 2, 32, device=rows, dtype=torch.float16))
    cu = torch.tensor([0, 4, 8], dtype=torch.int32, device=rows)
    calls = {
        "qv": lambda: fa3.flash_attn_func(q, k, v, qv=q),
        "k_descale": lambda: fa3.flash_attn_func(q, k, v, k_descale=torch.ones(1, 2)),
        "block_table": lambda: fa2.flash_attn_varlen_func(q[0], k[0], v[0], cu, cu, 4, 4, block_table=cu),
        "flash_attn_with_kvcache: block_table": lambda: fa2.flash_attn_with_kvcache(q, k, v, block_table=cu),
        "cache_batch_idx": lambda: fa2.flash_attn_with_kvcache(q, k, v, cache_batch_idx=cu),
        "cache_leftpad": lambda: fa3.flash_attn_with_kvcache(q, k, v, cache_leftpad=cu),
        "page_table": lambda: fa3.flash_attn_with_kvcache(q, k, v, page_table=cu),
    }
    for name, call in calls.items():
        with pytest.raises(NotImplementedError, match=name):
            call()


@pytest.mark.parametrize("packed", [False, True])
def test_dropped_probabilities(device, packed):
    """S_dmask has the probabilities by each row's largest, negative where dropped: with it the output is plain."""
    if device == "cuda":
        pytest.skip("no CUDA row has dropout yet")
    q, k, v = random((90, 4, 32), (150, 2, 32), (150, 2, 32), device=device)
    cu_q, cu_k = (torch.tensor(cu, dtype=torch.int32, device=device) for cu in ([0, 20, 20, 90], [0, 60, 75, 150]))
    slopes = torch.rand(4, device=device)
    options = dict(dropout_p=0.2, causal=True, window_size=torch.tensor([40, 3]), alibi_slopes=slopes, return_attn_probs=True)
    torch.manual_seed(5)
    if packed:
        out, lse, scores = fa2.flash_attn_varlen_func(q, k, v, cu_q, cu_k, 70, torch.tensor(75), **options)
        parts = [(slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1]), b) for b in range(3)]
        assert scores.shape == (3, 4, 70, 75)
    else:
        out, lse, scores = fa2.flash_attn_func(q[None], k[None], v[None], **options)
        out, lse, parts = out[0], lse[0], [(slice(0, 90), slice(0, 150), 0)]
        assert scores.shape == (1, 4, 90, 150)
    dropped = visible = 0
    for rows_of, keys_of, b in parts:
        one = [t.detach()[s][None] for t, s in ((q, rows_of), (k, keys_of), (v, keys_of))]
        eye = torch.eye(one[1].shape[1], device=device)[None, :, None].expand(1, -1, 2, -1)
        weights = plain_torch.attention(*one[:2], eye, causal=True, window=(40, 3), alibi_slopes=slopes)[0][0].transpose(0, 1)
        signed = scores[b, :, : weights.shape[1], : weights.shape[2]]
        close(signed.abs(), (weights / weights.amax(-1, keepdim=True).clamp_min(1e-30)).float())
        dropped += (signed[weights > 1e-6] < 0).sum().item()
        visible += (weights > 1e-6).sum().item()
        kept = weights * (signed >= 0) / 0.8
        wanted = torch.einsum("hij,jhd->ihd", kept, one[2][0].repeat_interleave(2, dim=1).double())
        close(out[rows_of], wanted)
    assert abs(dropped / visible - 0.2) < 0.02


def test_combine(device):
    """Partial results over disjoint keys, some without any."""
    q, k, v = qkv(2, 20, 90, 4, 2, 32, device=device)
    pieces = [fattn.torch.attention(q, k[:, s], v[:, s], return_lse=True, kernel=REFERENCE if device == "cuda" else "")
              for s in (slice(0, 30), slice(30, 31), slice(31, 90))]
    outs = torch.stack([out for out, _ in pieces] + [torch.ones_like(pieces[0][0])])
    lses = torch.stack([lse.transpose(1, 2) for _, lse in pieces] + [torch.full((2, 20, 4), -float("inf"), device=device)])
    lses[:, 1, 3] = -float("inf")  # a row that no part has keys for
    out, lse = fa3.flash_attn_combine(outs, lses)
    wanted, wanted_lse = (t.detach() for t in plain_torch.attention(q, k, v))
    wanted[1, 3], wanted_lse[1, :, 3] = 0.0, -float("inf")
    close(out, wanted.float())
    close(lse, wanted_lse.transpose(1, 2).float())
    room = torch.empty_like(out, dtype=torch.bfloat16)
    assert fa3.flash_attn_combine(outs, lses, room)[0] is room and torch.equal(room, out.bfloat16())
    assert fa3.flash_attn_combine(outs, lses, out_dtype=torch.float16)[0].dtype is torch.float16
    with pytest.raises(ValueError, match="lse_partial has shape"):
        fa3.flash_attn_combine(outs, lses[:2])


@pytest.mark.parametrize("module", [fa2, fa3])
def test_head_dims_that_are_no_multiple_of_8(rows, module):
    q, k, v = qkv(2, 40, 50, 4, 2, 59, device=rows, dtype=torch.float16)
    out = module.flash_attn_func(q, k, v, causal=True)
    wanted = plain_torch.attention(q, k, v, causal=True)[0]
    close(out, wanted)
    for actual, expected in zip(torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(wanted.sum(), (q, k, v))):
        close(actual, expected)


def turned(x, begin, together, interleaved):
    """Rotary embedding of one sequence (seqlen, heads, head_dim), 16 columns, as complex numbers."""
    angles = torch.outer(torch.arange(64, device=x.device).double(), 0.5 ** torch.arange(8, device=x.device).double())
    at = angles[begin + torch.arange(len(x), device=x.device) * (0 if together else 1)][:, None]
    first = x[..., :16].double()
    a, b = (first[..., ::2], first[..., 1::2]) if interleaved else first.chunk(2, dim=-1)
    done = torch.complex(a, b) * torch.polar(torch.ones_like(at), at)
    parts = torch.stack([done.real, done.imag], dim=-1).flatten(-2) if interleaved else torch.cat([done.real, done.imag], -1)
    return torch.cat([parts, x[..., 16:].double()], dim=-1), torch.cos(angles), torch.sin(angles)


@pytest.mark.parametrize("module", [fa2, fa3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("interleaved", [None, False, True])
def test_cache(rows, module, causal, interleaved):
    """New keys go behind those that count, in place; queries see them all."""
    q, k, v, k_cache, v_cache = random((2, 3, 4, 32), (2, 3, 2, 32), (2, 3, 2, 32), (2, 40, 2, 32), (2, 40, 2, 32),
                                       device=rows, grad=False)
    before, used = (k_cache.clone(), v_cache.clone()), torch.tensor([20, 37], dtype=torch.int32, device=rows)
    options = {}
    if interleaved is not None:
        _, cos, sin = turned(q[0], 0, False, False)
        options = dict(rotary_cos=cos.float(), rotary_sin=sin.float(), rotary_interleaved=interleaved)
    out, lse, *parts = module.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=used, causal=causal,
                                                      return_softmax_lse=True, **options)
    assert [part.numel() for part in parts] == ([] if module is fa2 else [0, 0])  # what FlashAttention 3's splits leave
    for b, length in enumerate((20, 37)):
        queries, keys = q[b], k[b]
        if interleaved is not None:
            queries = turned(q[b], length, not causal, interleaved)[0]
            keys = turned(k[b], length, False, interleaved)[0]
        close(k_cache[b, length : length + 3], keys.float())
        assert torch.equal(v_cache[b, length : length + 3], v[b])
        for cache, old in zip((k_cache, v_cache), before):
            assert torch.equal(cache[b, :length], old[b, :length]) and torch.equal(cache[b, length + 3 :], old[b, length + 3 :])
        wanted, wanted_lse = plain_torch.attention(queries[None], torch.cat([before[0][b, :length], keys.float()])[None],
                                                   torch.cat([before[1][b, :length], v[b]])[None], causal=causal)
        close(out[b : b + 1], wanted.float())
        close(lse[b : b + 1], wanted_lse.float())
    # Without new keys; a length for all of them, or none.
    close(module.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=11, causal=causal),
          plain_torch.attention(q, k_cache[:, :11], v_cache[:, :11], causal=causal)[0].float())
    close(module.flash_attn_with_kvcache(q, k_cache, v_cache, softcap=5.0),
          plain_torch.attention(q, k_cache, v_cache, softcap=5.0)[0].float())


def test_cache_under_packed_queries(rows):
    q, k_cache, v_cache = random((7, 4, 32), (2, 40, 2, 32), (2, 40, 2, 32), device=rows, grad=False)
    cu, used = (torch.tensor(each, dtype=torch.int32, device=rows) for each in ([0, 5, 7], [9, 30]))
    # New keys may be packed as well.
    k, v = random((3, 2, 32), (3, 2, 32), device=rows, seed=1, grad=False)
    new, metadata = torch.tensor([0, 1, 3], dtype=torch.int32, device=rows), fa3.get_scheduler_metadata(2, 5, 40, 4, 2, 32, used)
    fa3.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=used - new.diff(), cu_seqlens_q=cu,
                                cu_seqlens_k_new=new, max_seqlen_q=5, scheduler_metadata=metadata)
    assert torch.equal(k_cache[0, 8], k[0]) and torch.equal(k_cache[1, 28:30], k[1:]) and torch.equal(v_cache[1, 28:30], v[1:])
    out = fa3.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=used, cu_seqlens_q=cu, max_seqlen_q=5, causal=True)
    for b, (begin, end, length) in enumerate(((0, 5, 9), (5, 7, 30))):
        close(out[begin:end], plain_torch.attention(q[None, begin:end], k_cache[b : b + 1, :length],
                                                    v_cache[b : b + 1, :length], causal=True)[0][0].float())


@pytest.mark.parametrize("module", [fa2, fa3])
def test_cache_of_a_head_dim_between_multiples_of_8(device, module):
    """By the rows of the device, whose GPUs get columns of zeros in a copy, as the originals make it."""
    q, k, v, k_cache, v_cache = random((2, 3, 4, 59), (2, 3, 2, 59), (2, 3, 2, 59), (2, 40, 2, 59), (2, 40, 2, 59),
                                       device=device, dtype=torch.float16, grad=False)
    used = torch.tensor([20, 37], dtype=torch.int32, device=device)
    out = module.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=used, causal=True)
    assert out.shape == q.shape
    for b, length in enumerate((23, 40)):
        assert torch.equal(k_cache[b, length - 3 : length], k[b])
        wanted = plain_torch.attention(q[b : b + 1], k_cache[b : b + 1, :length], v_cache[b : b + 1, :length], causal=True)[0]
        close(out[b : b + 1], wanted, torch.float16)


def test_cache_without_room():
    q, k, cache = random((2, 3, 4, 32), (2, 3, 2, 32), (2, 40, 2, 32), grad=False)
    with pytest.raises(ValueError, match="cache_seqlens and the new keys make 41, more than k_cache has, 40"):
        fa2.flash_attn_with_kvcache(q, cache, cache, k, k, cache_seqlens=38)
    with pytest.raises(ValueError, match="need cache_seqlens"):
        fa2.flash_attn_with_kvcache(q, cache, cache, k, k)
    with pytest.raises(ValueError, match="rotary_cos without k"):
        fa2.flash_attn_with_kvcache(q, cache, cache, rotary_cos=k, rotary_sin=k)


@pytest.mark.parametrize("options", [
    {},
    {"is_causal": True},
    {"is_causal": True, "scale": 0.3},
    {"attn_mask": "bool"},
    {"attn_mask": "float"},
    {"attn_mask": "row"},
], ids=str)
def test_sdpa(rows, options):
    q, k, v = random((2, 4, 20, 32), (2, 2, 30, 32), (2, 2, 30, 32), device=rows)
    mask = None
    if options.get("attn_mask") == "bool":
        mask = random((2, 1, 20, 30), device=rows, seed=1, grad=False)[0] > 0
        mask[1, 0, 3] = False  # a row without a key: zeros, as PyTorch has it
    elif options.get("attn_mask") == "float":
        (mask,) = random((1, 4, 20, 30), device=rows, seed=1)
    elif options.get("attn_mask") == "row":  # padding: expanded over heads and queries
        mask = (torch.arange(30, device=rows) < torch.tensor([[30], [17]], device=rows))[:, None, None].expand(2, 4, 20, 30)
    options = {**options, "attn_mask": mask, "enable_gqa": True}
    leaves = [q, k, v] + ([mask] if mask is not None and mask.requires_grad else [])
    out, wanted = fattn.sdpa(q, k, v, **options), F.scaled_dot_product_attention(q, k, v, **options)
    close(out, wanted)
    for actual, expected in zip(torch.autograd.grad(out.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves)):
        close(actual, expected)


def test_sdpa_ranks_and_refusals(rows):
    for shape in ((3, 2, 4, 20, 32), (4, 20, 32), (20, 32)):
        q, k, v = random(shape, shape, shape, device=rows, grad=False)
        close(fattn.sdpa(q, k, v, is_causal=True), F.scaled_dot_product_attention(q, k, v, is_causal=True))
    q, k, v = random((2, 4, 20, 32), (2, 2, 30, 32), (2, 2, 30, 32), device=rows, grad=False)
    with pytest.raises(ValueError, match="enable_gqa"):
        fattn.sdpa(q, k, v)
    with pytest.raises(ValueError, match="is_causal"):
        fattn.sdpa(q, k, v, torch.ones(20, 30, dtype=torch.bool, device=rows), is_causal=True, enable_gqa=True)
