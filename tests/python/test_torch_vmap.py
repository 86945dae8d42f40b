# SPDX-License-Identifier: Apache-2.0
"""torch.vmap: one call of the library, the results of one after the other."""

import pytest
import torch

import fattn.sdpa
import fattn.torch as door
from fattn.torch import _run
from torch_support import close, random

SIZE = 3


class Calls(dict):
    """How often the library ran, forward and backward, and where q, k and v of the last forward run were."""

    def __init__(self, core):
        super().__init__(forward=0, backward=0)
        self.core, self.addresses = core, None

    def __getattr__(self, name):
        return getattr(self.core, name)

    def run_forward(self, call, stream, room, q, k, v, *rest):
        self["forward"] += 1
        self.addresses = [t.data_ptr() for t in (q, k, v)]
        return self.core.run_forward(call, stream, room, q, k, v, *rest)

    def run_backward(self, *arguments):
        self["backward"] += 1
        return self.core.run_backward(*arguments)


@pytest.fixture
def calls(monkeypatch):
    calls = Calls(_run._core)
    monkeypatch.setattr(_run, "_core", calls)
    return calls


def plain_map(function, dims, *tensors):
    results = [function(*(t if at is None else t.select(at, i) for t, at in zip(tensors, dims))) for i in range(SIZE)]
    return [torch.stack(parts) for parts in zip(*results)]


def check(calls, function, dims, *tensors, forward=1, backward=1):
    """vmap, gradients inside of it and gradients of it, each in as many calls as said."""
    every = tuple(range(len(tensors)))
    inputs = tuple(at for at in every if tensors[at].dtype.is_floating_point)

    def loss(results):
        return sum(part.masked_fill(part.isinf(), 0.0).square().sum() for part in results)

    def counted(call):
        calls.update(forward=0, backward=0)
        result = call()
        return result, dict(calls)

    wanted = plain_map(function, dims, *tensors)
    actual, seen = counted(lambda: torch.vmap(function, dims)(*tensors))
    assert seen == {"forward": forward, "backward": 0}
    for a, b in zip(actual, wanted):
        close(a, b)
    one = torch.func.grad(lambda *t: loss(function(*t)), argnums=inputs)
    wanted = plain_map(one, dims, *tensors)
    actual, seen = counted(lambda: torch.vmap(one, dims)(*tensors))
    assert seen == {"forward": forward, "backward": backward}
    for a, b in zip(actual, wanted):
        close(a, b)
    grads = []
    for run in (plain_map, lambda function, dims, *t: torch.vmap(function, dims)(*t)):
        leaves = [t.clone().requires_grad_(at in inputs) for at, t in enumerate(tensors)]
        results, seen = counted(lambda: run(function, dims, *leaves))
        some, seen_back = counted(lambda: torch.autograd.grad(loss(results), [leaves[at] for at in inputs]))
        grads.append(some)
    assert seen == {"forward": forward, "backward": 0} and seen_back == {"forward": 0, "backward": 1}
    for wanted, actual in zip(*grads):
        close(actual, wanted)


def tensors_of(*lead, device, q=(2, 6, 4, 16), k=(2, 9, 2, 16), seed=0):
    """q, k and v with the mapped dimension where `lead` says, or without it."""
    shapes = [shape if at is None else (*shape[:at], SIZE, *shape[at:]) for shape, at in zip((q, k, k), lead)]
    return random(*shapes, device=device, grad=False, seed=seed)


def causal(*tensors, **options):
    return door.attention(*tensors, causal=True, return_lse=True, **options)


@pytest.mark.parametrize("dims", [(0, 0, 0), (2, 2, 2), (1, 1, 1), (3, 0, 2), (0, None, None), (3, None, None), (None, 0, 0),
                                  (0, 1, None)], ids=str)
def test_plain(rows, calls, dims):
    check(calls, causal, dims, *tensors_of(*dims, device=rows))


def test_batches_and_heads_of_one_tensor(rows, calls):
    """What vmap is for: a function of one sequence, or of one head, and no copy of what it maps over."""
    q, k, v = random((SIZE, 6, 4, 16), (SIZE, 9, 2, 16), (SIZE, 9, 2, 16), device=rows, grad=False)
    check(calls, lambda *t: [x[0] for x in causal(*(x[None] for x in t))], (0, 0, 0), q, k, v)
    q, k, v = random((2, 6, SIZE, 16), (2, 9, SIZE, 16), (2, 9, SIZE, 16), device=rows, grad=False)
    one_head = lambda *t: causal(*(x[:, :, None] for x in t))
    check(calls, one_head, (2, 2, 2), q, k, v)
    torch.vmap(one_head, 2)(q, k, v)
    assert calls.addresses == [t.data_ptr() for t in (q, k, v)]


@pytest.mark.parametrize("keys", [0, None], ids=["each its keys", "shared keys"])
@pytest.mark.parametrize("mapped", [0, None], ids=["each its own", "one for all"])
@pytest.mark.parametrize("name, shape", [
    ("alibi_slopes", (4,)), ("alibi_slopes", (2, 4)), ("sinks", (4,)), ("seqused_k", (2,)), ("bias", (6, 9)),
    ("bias", (4, 1, 9)), ("bias", (2, 4, 6, 9)), ("bias", (1, 4, 6, 1)),
], ids=lambda value: str(value))
def test_options(rows, calls, name, shape, mapped, keys):
    dims = (0, keys, keys)
    value = random(((SIZE,) if mapped == 0 else ()) + shape, device=rows, grad=False, seed=4)[0]
    if name == "seqused_k":
        value = (value.abs() * 4).int()
    if name == "alibi_slopes":
        value = value.abs()
    tensors = tensors_of(*dims, device=rows)
    if name in ("bias", "sinks"):
        # The gradient of a bias for each element is one run for each.
        check(calls, lambda q, k, v, extra: causal(q, k, v, **{name: extra}), (*dims, mapped), *tensors, value,
              backward=SIZE if name == "bias" else 1)
    elif mapped is None:
        check(calls, lambda q, k, v: causal(q, k, v, **{name: value}), dims, *tensors)
    else:
        # An index is what is mapped, so that nothing asks for the gradient of the values.
        own = lambda at: {name: value.index_select(0, at[None])[0]}
        check(calls, lambda q, k, v, at: causal(q, k, v, **own(at)), (*dims, 0), *tensors, torch.arange(SIZE, device=rows))


@pytest.mark.parametrize("shared", [False, True], ids=["each its keys", "shared keys"])
def test_packed(rows, calls, shared):
    cu_q, cu_k = (torch.tensor(ends, dtype=torch.int32, device=rows) for ends in ([0, 2, 6], [0, 5, 9]))
    dims = (1, None, None) if shared else (1, 0, 0)
    tensors = tensors_of(*dims, device=rows, q=(6, 4, 16), k=(9, 2, 16))

    def packed(q, k, v):
        return door.attention_varlen(q, k, v, cu_q, cu_k, 4, 5, causal=True, return_lse=True)

    check(calls, packed, dims, *tensors)


def test_one_after_the_other(rows, calls):
    """What no single problem can say."""
    cu_k = torch.tensor([[0, 5, 9], [0, 1, 9], [0, 8, 9]], dtype=torch.int32, device=rows)
    cu_q = torch.tensor([0, 2, 6], dtype=torch.int32, device=rows)
    tensors = tensors_of(0, 0, 0, device=rows, q=(6, 4, 16), k=(9, 2, 16))

    def packed(q, k, v, cu_k):
        return (door.attention_varlen(q, k, v, cu_q, cu_k, 4, 9),)

    actual = torch.vmap(packed)(*tensors, cu_k)[0]
    assert calls["forward"] == SIZE
    close(actual, plain_map(packed, (0, 0, 0, 0), *tensors, cu_k)[0])


def test_nested_jacobian_and_sdpa(rows, calls):
    q, k, v = random((2, SIZE, 6, 16), (2, SIZE, 9, 16), (2, SIZE, 9, 16), device=rows, grad=False)
    alone = lambda q, k, v: door.attention(q[None, :, None], k[None, :, None], v[None, :, None], causal=True)[0, :, 0]
    nested = torch.vmap(torch.vmap(alone))(q, k, v)
    assert calls["forward"] == 1
    close(nested, door.attention(*(t.transpose(1, 2) for t in (q, k, v)), causal=True).transpose(1, 2))
    calls.update(forward=0, backward=0)
    jacobian = torch.func.jacrev(lambda q: alone(q, k[0, 0], v[0, 0]))(q[0, 0])
    assert calls == {"forward": 1, "backward": 1} and jacobian.shape == (6, 16, 6, 16)
    cotangent = torch.zeros(6, 16, device=rows)
    cotangent[3, 5] = 1
    leaf = q[0, 0].clone().requires_grad_()
    close(jacobian[3, 5], torch.autograd.grad(alone(leaf, k[0, 0], v[0, 0]), leaf, cotangent)[0])
    calls.update(forward=0)
    mapped = torch.vmap(lambda *t: fattn.sdpa(*t, is_causal=True))(q, k, v)
    assert calls["forward"] == 1
    close(mapped, fattn.sdpa(q, k, v, is_causal=True))


def test_the_operator_itself_and_compiled(rows, calls):
    q, k, v = tensors_of(0, 0, 0, device=rows)
    wanted = plain_map(causal, (0, 0, 0), q, k, v)[0]
    scalars = (*(None,) * 12, 0, 0, True, False, -1, -1, 0, None, 0.0, 0.0, False, False, "")
    calls.update(forward=0)
    out, _ = torch.vmap(lambda *t: torch.ops.fattn.forward.default(*t, *scalars))(q, k, v)
    assert calls["forward"] == 1
    close(out, wanted)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *t: torch.vmap(causal)(*t)[0], backend="aot_eager", fullgraph=True)
    calls.update(forward=0)
    close(compiled(q, k, v), wanted)
    assert calls["forward"] == 1
