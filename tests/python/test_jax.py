# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fattn.jax as door

pytestmark = pytest.mark.usefixtures("rows")


def random(*shapes, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def plain(q, k, v, *, causal=False, softmax_scale=None, softcap=0.0, bias=None, alibi_slopes=None, sinks=None,
          window=(-1, -1)):
    """docs/numerics.md in jax.numpy: every pair of the score matrix at once. Returns o and lse."""
    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    s = jnp.einsum("bihd,bjhd->bhij", q, k, precision="highest") * (q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale)
    if softcap:
        s = softcap * jnp.tanh(s / softcap)
    if bias is not None:
        s = s + bias
    sq, sk = s.shape[2:]
    diagonal, key = jnp.arange(sq)[:, None] + sk - sq, jnp.arange(sk)[None, :]
    if alibi_slopes is not None:
        s = s - alibi_slopes[:, None, None] * jnp.abs(diagonal - key)
    keep = jnp.ones((sq, sk), bool)
    if causal:
        keep &= key <= diagonal
    if window[0] >= 0:
        keep &= key >= diagonal - window[0]
    s = jnp.where(keep, s, -jnp.inf)
    logits = s if sinks is None else jnp.concatenate(
        [s, jnp.broadcast_to(sinks[None, :, None, None], (*s.shape[:3], 1))], axis=-1)
    lse = jax.nn.logsumexp(logits, axis=-1)
    return jnp.einsum("bhij,bjhd->bihd", jnp.exp(s - lse[..., None]), v, precision="highest"), lse


def close(actual, expected, tolerance=3e-5):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max(initial=0) <= tolerance * max(1, np.abs(expected).max(initial=0))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (9, -1)}, {"softcap": 3.0, "softmax_scale": 0.4}],
                         ids=str)
def test_gradients_are_those_of_the_plain_formula(options):
    q, k, v, weight = random((2, 20, 4, 32), (2, 30, 2, 32), (2, 30, 2, 48), (2, 20, 4, 48))
    (weight_lse,) = random((2, 4, 20), seed=1)

    def loss(function, q, k, v):
        out, lse = function(q, k, v)
        return (out * weight).sum() + (lse * weight_lse).sum()

    ours = functools.partial(door.attention, return_lse=True, **options)
    reference = functools.partial(plain, **options)
    for actual, expected in zip(ours(q, k, v), reference(q, k, v)):
        close(actual, expected)
    for wrap in (lambda f: f, jax.jit):
        grads = wrap(jax.grad(functools.partial(loss, ours), argnums=(0, 1, 2)))(q, k, v)
        for actual, expected in zip(grads, jax.grad(functools.partial(loss, reference), argnums=(0, 1, 2))(q, k, v)):
            close(actual, expected)


def test_bias_alibi_and_sinks():
    q, k, v = random((2, 20, 4, 32), (2, 30, 2, 32), (2, 30, 2, 32))
    bias, sinks, slopes = random((4, 20, 30), (4,), (4,), seed=1)
    slopes = jnp.abs(slopes)

    def loss(function, q, bias, sinks):
        return jnp.sin(function(q, k, v, bias=bias, sinks=sinks, alibi_slopes=slopes, causal=True)).sum()

    ours = jax.jit(jax.grad(functools.partial(loss, door.attention), argnums=(0, 1, 2)))(q, bias, sinks)
    wanted = jax.grad(functools.partial(loss, lambda *a, **o: plain(*a, **o)[0]), argnums=(0, 1, 2))(q, bias, sinks)
    for actual, expected in zip(ours, wanted):
        close(actual, expected)
    with pytest.raises(NotImplementedError, match="alibi_slopes"):
        jax.grad(lambda s: door.attention(q, k, v, alibi_slopes=s).sum())(slopes)


def test_vmap_over_batches_and_heads():
    q, k, v = random((3, 2, 20, 4, 32), (3, 2, 30, 2, 32), (3, 2, 30, 2, 32))
    function = functools.partial(door.attention, causal=True)
    wanted = jnp.stack([function(*each) for each in zip(q, k, v)])
    close(jax.vmap(function)(q, k, v), wanted, 1e-6)
    close(jax.jit(jax.vmap(function))(q, k, v), wanted, 1e-6)
    # One key and value for all.
    close(jax.vmap(function, in_axes=(0, None, None))(q, k[0], v[0]), jnp.stack([function(x, k[0], v[0]) for x in q]), 1e-6)
    # Heads: each as a problem of one head, here with sinks of its own.
    q, k, v, sinks = *random((2, 20, 4, 32), (2, 30, 4, 32), (2, 30, 4, 32)), random((4,), seed=1)[0]
    one = lambda q, k, v, sink: function(q[:, :, None], k[:, :, None], v[:, :, None], sinks=sink[None])[:, :, 0]
    close(jax.vmap(one, in_axes=(2, 2, 2, 0), out_axes=2)(q, k, v, sinks), function(q, k, v, sinks=sinks), 1e-6)
    # And the derivative of that.
    grads = jax.grad(lambda q: jax.vmap(one, in_axes=(2, 2, 2, 0), out_axes=2)(q, k, v, sinks).sum())(q)
    close(grads, jax.grad(lambda q: function(q, k, v, sinks=sinks).sum())(q), 1e-5)


def test_shard_map_over_batch_and_heads():
    shard_map = getattr(jax, "shard_map", None)
    if shard_map is None:
        from jax.experimental.shard_map import shard_map
    devices = jax.devices()
    if len(devices) < 4:
        pytest.skip("needs 4 devices: XLA_FLAGS=--xla_force_host_platform_device_count=4")
    mesh = jax.sharding.Mesh(np.array(devices[:4]).reshape(2, 2), ("batch", "heads"))
    spec = jax.sharding.PartitionSpec("batch", None, "heads", None)
    q, k, v = random((2, 20, 4, 32), (2, 30, 2, 32), (2, 30, 2, 32))
    function = functools.partial(door.attention, causal=True)
    sharded = jax.jit(shard_map(function, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec))
    close(sharded(q, k, v), function(q, k, v), 1e-6)
    grads = jax.grad(lambda q: jnp.sin(sharded(q, k, v)).sum())(q)
    close(grads, jax.grad(lambda q: jnp.sin(function(q, k, v)).sum())(q), 1e-5)


def test_packed_sequences():
    cu = jnp.array([0, 7, 7, 30], jnp.int32)
    q, k, v = random((30, 4, 32), (30, 2, 32), (30, 2, 32))

    def ours(q, k, v):
        return door.attention_varlen(q, k, v, cu, cu, 23, 23, causal=True)

    def reference(q, k, v):
        return jnp.concatenate([plain(*(x[None, a:b] for x in (q, k, v)), causal=True)[0][0] for a, b in ((0, 7), (7, 30))])

    close(jax.jit(ours)(q, k, v), reference(q, k, v))
    for actual, expected in zip(jax.grad(lambda *a: jnp.sin(ours(*a)).sum(), argnums=(0, 1, 2))(q, k, v),
                                jax.grad(lambda *a: jnp.sin(reference(*a)).sum(), argnums=(0, 1, 2))(q, k, v)):
        close(actual, expected)


def test_bfloat16_and_empty():
    q, k, v = random((2, 20, 4, 64), (2, 30, 2, 64), (2, 30, 2, 64), dtype=jnp.bfloat16)
    out = door.attention(q, k, v, causal=True)
    assert out.dtype == jnp.bfloat16
    close(out.astype(jnp.float32), plain(*(x.astype(jnp.float32) for x in (q, k, v)), causal=True)[0], 2e-2)
    assert door.attention(q[:0], k[:0], v[:0]).shape == (0, 20, 4, 64)


def test_rows_of_the_device_in_bfloat16(monkeypatch):
    """What plan() chooses, without naming a row: on a GPU its own kernels."""
    monkeypatch.delenv("FATTN_KERNEL", raising=False)
    q, k, v, weight = random((2, 256, 4, 128), (2, 256, 2, 128), (2, 256, 2, 128), (2, 256, 4, 128), dtype=jnp.bfloat16)
    wide = [x.astype(jnp.float32) for x in (q, k, v)]

    def loss(function, q, k, v):
        return (function(q, k, v) * weight.astype(jnp.float32)).sum()

    ours = jax.jit(lambda q, k, v: door.attention(q, k, v, causal=True))
    reference = lambda q, k, v: plain(q, k, v, causal=True)[0]
    close(ours(q, k, v).astype(jnp.float32), reference(*wide), 2e-2)
    grads = jax.jit(jax.grad(functools.partial(loss, ours), argnums=(0, 1, 2)))(q, k, v)
    for actual, expected in zip(grads, jax.grad(functools.partial(loss, reference), argnums=(0, 1, 2))(*wide)):
        close(actual.astype(jnp.float32), expected, 3e-2)


def test_second_derivative_is_refused():
    q, k, v = random((1, 8, 2, 16), (1, 8, 2, 16), (1, 8, 2, 16))
    loss = lambda q: jnp.sin(door.attention(q, k, v)).sum()
    with pytest.raises(Exception, match="[Dd]ifferentiat|JVP|jvp"):
        jax.grad(lambda q: jax.grad(loss)(q).sum())(q)


@pytest.mark.parametrize("kind, text, change, options", [
    (TypeError, "k has dtype bfloat16", lambda q, k, v: (q, k.astype(jnp.bfloat16), v), {}),
    (ValueError, "must be .batch, seqlen", lambda q, k, v: (q[0], k, v), {}),
    (TypeError, "softmax_scale", lambda q, k, v: (q, k, v), {"softmax_scale": "x"}),
    (TypeError, "sinks has dtype", lambda q, k, v: (q, k, v), {"sinks": jnp.zeros(4, jnp.bfloat16)}),
    (ValueError, "sinks has shape", lambda q, k, v: (q, k, v), {"sinks": jnp.zeros(3)}),
    (Exception, "head_dim must be the same", lambda q, k, v: (q, k[..., :16], v), {}),
    (Exception, "softmax_scale = nan", lambda q, k, v: (q, k, v), {"softmax_scale": float("nan")}),
    (Exception, "heads_kv = 3 must divide", lambda q, k, v: (q, *(jnp.zeros((2, 30, 3, 32)),) * 2), {}),
])
def test_bad_input(kind, text, change, options):
    arrays = change(*random((2, 20, 4, 32), (2, 30, 2, 32), (2, 30, 2, 32)))
    with pytest.raises(kind, match=text):
        jax.block_until_ready(door.attention(*arrays, **options))


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="shard_map that follows what varies came with jax 0.7")
@pytest.mark.parametrize("jit", [False, True])
def test_shard_map_adds_up_the_gradients_of_what_is_everywhere(jit):
    """Heads of q on two devices, k, v and bias on both: each finds a part of their gradients."""
    if len(jax.devices()) < 2:
        pytest.skip("one device")
    q, k, v, bias, weight = random((2, 8, 4, 16), (2, 8, 1, 16), (2, 8, 1, 16), (8, 8), (2, 8, 4, 16))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("heads",))
    spec, whole = jax.sharding.PartitionSpec(None, None, "heads"), jax.sharding.PartitionSpec()
    function = jax.shard_map(lambda q, k, v, bias: door.attention(q, k, v, causal=True, bias=bias), mesh=mesh,
                             in_specs=(spec, whole, whole, whole), out_specs=spec)
    function = jax.jit(function) if jit else function
    wanted = lambda *arrays: plain(*arrays[:3], causal=True, bias=arrays[3])[0]
    close(function(q, k, v, bias), wanted(q, k, v, bias))
    grads = [jax.grad(lambda *a: (f(*a) * weight).sum(), argnums=(0, 1, 2, 3))(q, k, v, bias) for f in (function, wanted)]
    for actual, expected in zip(*grads):
        close(actual, expected)


@pytest.mark.parametrize("wrap", ["checkpoint", "scan", "donate", "vmap"])
def test_transformations(wrap):
    q, k, v = random((2, 8, 4, 16), (2, 8, 2, 16), (2, 8, 2, 16))

    def loss(function, q, k, v):
        if wrap == "scan":
            body = lambda carry, x: (carry + x * function(carry, k, v), None)
            return jax.lax.scan(body, q, jnp.arange(3.0))[0].sum()
        if wrap == "vmap":  # keys that every query shares
            return jax.vmap(lambda q: function(q, k, v))(jnp.stack([q, q + 1])).sum()
        return function(q, k, v).sum()

    ours = functools.partial(loss, functools.partial(door.attention, causal=True))
    ours = jax.checkpoint(ours) if wrap == "checkpoint" else ours
    wanted = jax.grad(functools.partial(loss, lambda *a: plain(*a, causal=True)[0]), argnums=(0, 1, 2))(q, k, v)
    donated = (0, 1, 2) if wrap == "donate" else ()
    grads = jax.jit(jax.grad(ours, argnums=(0, 1, 2)), donate_argnums=donated)(*(x + 0 for x in (q, k, v)))
    for actual, expected in zip(grads, wanted):
        close(actual, expected)


@pytest.mark.parametrize("text, shapes", [
    ("has no heads or no columns", ((2, 8, 0, 16), (2, 8, 2, 16))),
    ("has no heads or no columns", ((2, 8, 4, 16), (2, 8, 0, 16))),
    ("head_dim must be the same", ((2, 0, 4, 16), (2, 8, 2, 8))),
    ("batch must be the same", ((2, 8, 4, 16), (1, 8, 2, 16))),
    ("heads_kv = 3 must divide heads_q = 4", ((2, 8, 4, 16), (2, 8, 3, 16))),
])
def test_shapes_are_refused_when_traced(text, shapes):
    q, k = random(*shapes)
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(door.attention, q, k, k)


def test_odd_arguments():
    q, k = random((2, 8, 4, 16), (2, 8, 2, 16))
    cu = jnp.array([0, 8, 16], jnp.int32)
    packed = [x.reshape(16, -1, 16) for x in (q, k, k)]
    assert door.attention(q[:, :0], k, k).shape == (2, 0, 4, 16)
    with pytest.raises(TypeError, match="q is a list"):
        door.attention([1.0], k, k)
    with pytest.raises(ValueError, match="bias has 5 dimensions"):
        door.attention(q, k, k, bias=jnp.zeros((1, 1, 1, 8, 8)))
    for wrong in (cu[:1], cu[None], cu[0]):
        with pytest.raises(ValueError, match="cu_seqlens_q has shape"):
            door.attention_varlen(*packed, wrong, wrong, 8, 8)
    with pytest.raises(TypeError, match="max_seqlen_q = 8.5 must be an integer"):
        door.attention_varlen(*packed, cu, cu, 8.5, 8)
    with pytest.raises(TypeError, match="must be an integer"):
        jax.jit(lambda longest: door.attention_varlen(*packed, cu, cu, longest, 8))(8)
