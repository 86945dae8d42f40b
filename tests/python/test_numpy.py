# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import numpy as np
import pytest

import fattn
import plain_numpy

MASKS = {
    "full": {},
    "causal": {"causal": True},
    "top_left": {"causal_top_left": True},
    "window": {"window": (9, 3)},
    "causal_window": {"causal": True, "window": (20, -1)},
    "chunk": {"causal": True, "chunk": 16},
}


def random(*shapes, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def close(actual, expected, tolerance=2e-5):
    """Largest difference against the largest value; infinities must agree."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    finite = np.isfinite(expected)
    assert np.array_equal(finite, np.isfinite(actual))
    assert np.array_equal(actual[~finite], expected[~finite])
    difference = np.abs(actual[finite] - expected[finite]).max(initial=0)
    assert difference <= tolerance * max(1, np.abs(expected[finite]).max(initial=0))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", [(2, 40, 40, 4, 2, 32), (1, 33, 70, 3, 1, 24), (2, 50, 17, 2, 2, 64)])
def test_forward_and_backward(mask, shape):
    batch, sq, sk, hq, hk, d = shape
    q, k, v, dout = random((batch, sq, hq, d), (batch, sk, hk, d), (batch, sk, hk, d), (batch, sq, hq, d))
    (dlse,) = random((batch, hq, sq), seed=1)
    out, lse = fattn.attention(q, k, v, return_lse=True, **MASKS[mask])
    grads = fattn.attention_backward(dout, q, k, v, out, lse, dlse=dlse, **MASKS[mask])
    for b in range(batch):
        expected = plain_numpy.attention(q[b], k[b], v[b], dout[b], dlse[b], **MASKS[mask])
        for actual, wanted in zip((out[b], lse[b], *(grad[b] for grad in grads)), expected):
            close(actual, wanted)


def test_every_score_option():
    q, k, v, dout = random((2, 30, 4, 32), (2, 45, 2, 32), (2, 45, 2, 48), (2, 30, 4, 48))
    bias, slopes, sinks = random((4, 30, 45), (4,), (4,), seed=2)
    slopes = np.abs(slopes)
    options = dict(softmax_scale=0.3, softcap=4.0, bias=bias, alibi_slopes=slopes, sinks=sinks, causal=True)
    out, lse, largest = fattn.attention(q, k, v, return_lse=True, return_max_logit=True, **options)
    dq, dk, dv, dbias, dsink = fattn.attention_backward(dout, q, k, v, out, lse, return_dbias=True, return_dsink=True,
                                                        **options)
    total_bias, total_sink, peak = 0, 0, np.full(4, -np.inf)
    for b in range(2):
        wanted = plain_numpy.attention(q[b], k[b], v[b], dout[b], scale=0.3, softcap=4.0, bias=bias, slopes=slopes,
                                       sinks=sinks, causal=True)
        for actual, expected in zip((out[b], lse[b], dq[b], dk[b], dv[b]), wanted):
            close(actual, expected)
        total_bias, total_sink = total_bias + wanted[5], total_sink + wanted[6]
        raw, _ = plain_numpy.scores(q[b].astype(np.float64), k[b].astype(np.float64), scale=0.3)
        raw = np.where(plain_numpy.visible(30, 45, causal=True), raw, -np.inf)
        peak = np.maximum(peak, raw.max(axis=(1, 2)))
    close(dbias, total_bias)
    close(dsink, total_sink)
    close(largest, peak)


def test_packed_sequences():
    lengths_q, lengths_k = [5, 0, 31, 12], [9, 4, 0, 40]
    cu_q, cu_k = (np.cumsum([0, *lengths]).astype(np.int32) for lengths in (lengths_q, lengths_k))
    # Rows past the last sequence: of outputs and gradients they are written 0.
    q, k, v, dout = random((50, 4, 32), (60, 2, 32), (60, 2, 32), (50, 4, 32))
    k[53:], v[53:] = np.nan, np.nan
    lengths = dict(cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, max_seqlen_q=np.int64(31), max_seqlen_k=40)
    out, lse = fattn.attention_varlen(q, k, v, **lengths, causal=True, return_lse=True)
    dq, dk, dv = fattn.attention_backward(dout, q, k, v, out, lse, **lengths, causal=True)
    for b in range(4):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        wanted = plain_numpy.attention(q[rows], k[keys], v[keys], dout[rows], causal=True)
        for actual, expected in zip((out[rows], lse[:, rows], dq[rows], dk[keys], dv[keys]), wanted):
            close(actual, expected)
    assert not out[48:].any() and not dq[48:].any() and not dk[53:].any() and not dv[53:].any()
    assert np.all(lse[:, 48:] == -np.inf)


def test_lengths_of_dense_sequences():
    q, k, v = random((2, 20, 2, 16), (2, 30, 2, 16), (2, 30, 2, 16))
    used = np.array([30, 11], np.int32)
    out = fattn.attention(q, k, v, seqused_k=used, causal=True)
    for b in range(2):
        close(out[b], plain_numpy.attention(q[b], k[b, : used[b]], v[b, : used[b]], causal=True)[0])


def test_strides_change_no_bits():
    q, k, v = random((2, 4, 40, 32), (2, 4, 40, 32), (2, 4, 40, 32))
    views = [np.swapaxes(x, 1, 2) for x in (q, k, v)]
    assert np.array_equal(fattn.attention(*views), fattn.attention(*map(np.ascontiguousarray, views)))
    odd = np.zeros(q.size + 1, np.float32)[1:].reshape(2, 40, 4, 32)  # begins at a multiple of 4 bytes only
    odd[:] = views[0]
    assert np.array_equal(fattn.attention(odd, *views[1:]), fattn.attention(*views))


def test_read_only_arrays():
    q, k, v = random((1, 8, 2, 16), (1, 8, 2, 16), (1, 8, 2, 16))
    wanted = fattn.attention(q, k, v)
    for x in (q, k, v):
        x.flags.writeable = False
    assert np.array_equal(fattn.attention(q, k, v), wanted)


def test_half_precision():
    arrays = random((1, 64, 4, 64), (1, 64, 2, 64), (1, 64, 2, 64))
    wanted = plain_numpy.attention(*(x[0].astype(np.float16) for x in arrays), causal=True)[0]
    out = fattn.attention(*(x.astype(np.float16) for x in arrays), causal=True)
    assert out.dtype == np.float16
    close(out[0], wanted, 2e-3)


def test_bfloat16_of_ml_dtypes():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    arrays = [x.astype(bfloat16) for x in random((1, 64, 4, 64), (1, 64, 2, 64), (1, 64, 2, 64))]
    out = fattn.attention(*arrays, causal=True)
    assert out.dtype == bfloat16
    close(out[0].astype(np.float32), plain_numpy.attention(*(x[0].astype(np.float32) for x in arrays), causal=True)[0], 2e-2)


def test_attention_map():
    q, k, v = random((1, 20, 2, 16), (1, 25, 2, 16), (1, 25, 2, 16))
    out, lse = fattn.attention(q, k, v, causal=True, return_lse=True)
    for given in (None, lse[0, 1]):
        weights = fattn.attention_map(q[0, :, 1], k[0, :, 1], causal=True, lse=given)
        close(weights.sum(axis=1), np.ones(20))
        close(weights @ v[0, :, 1].astype(np.float64), out[0, :, 1])


def test_explain_names_the_kernel_and_the_refusals():
    text = fattn.explain("fwd b1 hq8 hk2 sq1024 sk1024 d64 fp32 causal")
    assert "cpu_" in text and "sm90" in text
    names = [row[0] for row in fattn.kernels()]
    assert "reference_forward_fp64" in names and len(set(names)) == len(names)
    assert fattn.devices()[0][0] == "cpu"
    with pytest.raises(ValueError, match="nearest"):
        fattn.explain("fwd sq128 d64 casual")


def test_empty_arrays():
    for batch, sq in ((0, 5), (2, 0)):
        out, lse = fattn.attention(*random((batch, sq, 2, 16), (batch, 7, 2, 16), (batch, 7, 2, 16)), return_lse=True)
        assert out.shape == (batch, sq, 2, 16) and lse.shape == (batch, 2, sq)
    out, lse = fattn.attention(*random((2, 5, 2, 16), (2, 0, 2, 16), (2, 0, 2, 16)), return_lse=True)
    assert not out.any() and np.all(lse == -np.inf)


GOOD = random((2, 20, 4, 32), (2, 20, 2, 32), (2, 20, 2, 32))


@pytest.mark.parametrize("kind, text, arrays, options", [
    (TypeError, "k has dtype float16", (GOOD[0], GOOD[1].astype(np.float16), GOOD[2]), {}),
    (TypeError, "q has dtype int64", [x.astype(np.int64) for x in GOOD], {}),
    (TypeError, "q is a list", ([1.0], *GOOD[1:]), {}),
    (ValueError, "head_dim must be the same", (GOOD[0], GOOD[1][..., :16], GOOD[2]), {}),
    (ValueError, "seqlen must be the same", (GOOD[0], GOOD[1], GOOD[2][:, :10]), {}),
    (ValueError, "heads_kv = 3 must divide heads_q = 4", (GOOD[0], *(np.ones((2, 20, 3, 32), np.float32),) * 2), {}),
    (ValueError, "batch must be the same", (GOOD[0][:1], *GOOD[1:]), {}),
    (ValueError, "must be .batch, seqlen, heads, head_dim.", (GOOD[0][0], *GOOD[1:]), {}),
    (ValueError, "contiguous", (np.swapaxes(np.ascontiguousarray(np.swapaxes(GOOD[0], 1, 3)), 1, 3), *GOOD[1:]), {}),
    (ValueError, "softmax_scale = nan", GOOD, {"softmax_scale": float("nan")}),
    (TypeError, "softmax_scale = 'x' must be a number", GOOD, {"softmax_scale": "x"}),
    (ValueError, "window_left = -2", GOOD, {"window": (-2, 0)}),
    (TypeError, "window = 3 must be a pair", GOOD, {"window": 3}),
    (TypeError, "seqused_k has dtype int64", GOOD, {"seqused_k": np.array([3, 4])}),
    (ValueError, "seqused_k has shape", GOOD, {"seqused_k": np.array([3], np.int32)}),
    (ValueError, "seqused_k", GOOD, {"seqused_k": np.array([3, 99], np.int32)}),
    (ValueError, "bias of shape .* does not broadcast", GOOD, {"bias": np.zeros((3, 20, 20), np.float32)}),
    (NotImplementedError, "dtype = fp64", [x.astype(np.float64) for x in GOOD], {}),
    (ValueError, "nearest", GOOD, {"kernel": "cpu_avx3_forward"}),
    (ValueError, "threads = -3 must be in", GOOD, {"threads": -3}),
    (TypeError, "causal = .no. must be True or False", GOOD, {"causal": "no"}),
])
def test_bad_input(kind, text, arrays, options):
    with pytest.raises(kind, match=text):
        fattn.attention(*arrays, **options)


def test_import_is_quick_and_brings_no_framework():
    # The processor's time, which a busy machine does not stretch.
    code = ("import numpy, sys, time; begin = time.process_time(); import fattn; seconds = time.process_time() - begin; "
            "assert not {'torch', 'jax', 'transformers'} & set(sys.modules); print(seconds)")
    runs = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
            for _ in range(5)]
    assert min(runs) < 0.03, runs


def test_stubs_have_the_signatures():
    import ast
    import inspect
    import pathlib

    text = pathlib.Path(fattn.__file__).with_name("__init__.pyi").read_text()
    stubs = {node.name: node.args for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert set(stubs) == set(fattn.__all__)
    for name, arguments in stubs.items():
        written = [(a.arg, None) for a in arguments.args]
        defaults = [ast.literal_eval(d) for d in arguments.defaults]
        written[len(written) - len(defaults):] = [(a, d) for (a, _), d in zip(written[len(written) - len(defaults):], defaults)]
        written += [(a.arg, ast.literal_eval(d)) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults)]
        actual = [(p.name, None if p.default is p.empty else p.default)
                  for p in inspect.signature(getattr(fattn, name)).parameters.values()]
        assert written == actual, name


def test_documents_and_prefix():
    q, k, v = random((1, 30, 2, 16), (1, 30, 2, 16), (1, 30, 2, 16))
    documents = np.repeat(np.array([5, 2, 9], np.int32), [7, 11, 12])[None]
    out = fattn.attention(q, k, v, causal=True, document_q=documents, document_k=documents)
    for begin, end in ((0, 7), (7, 18), (18, 30)):
        close(out[0, begin:end], plain_numpy.attention(*(x[0, begin:end] for x in (q, k, v)), causal=True)[0])
    whole = fattn.attention(q, k, v, prefix=np.array([30], np.int32), causal=False)
    close(whole, fattn.attention(q, k, v))


@pytest.mark.parametrize("sizes", [(0, 8, 8), (2, 0, 8), (2, 8, 0)], ids=str)
def test_empty_arrays(sizes):
    batch, sq, sk = sizes
    q, k = np.zeros((batch, sq, 4, 16), np.float32), np.zeros((batch, sk, 2, 16), np.float32)
    out, lse, largest = fattn.attention(q, k, k, return_lse=True, return_max_logit=True)
    assert out.shape == q.shape and not out.any() and lse.shape == (batch, 4, sq) and np.all(lse == -np.inf)
    assert np.array_equal(largest, np.full(4, -np.inf))
    for grad, array in zip(fattn.attention_backward(out, q, k, k, out, lse), (q, k, k)):
        assert grad.shape == array.shape and not grad.any()


def test_views_are_read_or_refused():
    q = np.random.default_rng(0).standard_normal((2, 8, 4, 16)).astype(np.float32)
    wanted = fattn.attention(q, q, q)
    assert np.array_equal(fattn.attention(np.repeat(q, 2, axis=1)[:, ::2], q, q), wanted)
    same = np.broadcast_to(q[:1], q.shape)
    assert np.array_equal(fattn.attention(same, q, q), fattn.attention(same.copy(), q, q))
    crooked = np.frombuffer(b"x" + q.tobytes(), np.uint8)[1:].view(np.float32).reshape(q.shape)
    for text, array in {r"negative strides, \(512, -64, 16, 1\)": q[:, ::-1], "stride -1 in its last dimension": q[..., ::-1],
                        r"numpy.ascontiguousarray\(q\)": np.asfortranarray(q), "begins inside an element": crooked,
                        "has no columns": None}.items():
        arrays = (q, q, q[..., :0]) if array is None else (array, q, q)
        with pytest.raises(ValueError, match=text):
            fattn.attention(*arrays)
    with pytest.raises(TypeError, match="q is a masked array"):
        fattn.attention(np.ma.masked_array(q, mask=q > 0), q, q)


def test_numbers_are_not_cut_off():
    q, cu = np.zeros((16, 4, 16), np.float32), np.array([0, 8, 16], np.int32)
    for wrong in (8.5, None):
        with pytest.raises(TypeError, match=f"max_seqlen_q = {wrong} must be an integer"):
            fattn.attention_varlen(q, q, q, cu, cu, wrong, 8)
    with pytest.raises(TypeError, match="lse is None"):
        fattn.attention_backward(q[None], q[None], q[None], q[None], q[None], None)
    with pytest.raises(ValueError, match="threads = 1099511627776 must be in"):
        fattn.attention(q[None], q[None], q[None], threads=1 << 40)
    with pytest.raises(ValueError, match=r"lse has shape \(3,\); nearest: \(16,\)"):
        fattn.attention_map(q[:, 0], q[:, 0], lse=np.zeros(3))
