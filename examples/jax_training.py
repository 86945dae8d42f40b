#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attention in JAX: jit, gradients, vmap, and heads sharded over the devices that are there; CPU, or CUDA where it is."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import fattn.jax

DIM, HEADS, HEADS_KV = 128, 4, 2
on_cpu = jax.default_backend() == "cpu"
keys = jax.random.split(jax.random.key(0), 4)
weights = {name: jax.random.normal(key, (DIM, width), jnp.float32 if on_cpu else jnp.bfloat16) * DIM**-0.5
           for name, key, width in zip("qkv", keys, (DIM, DIM // 2, DIM // 2))}
x = jax.random.normal(keys[3], (2, 64, DIM)).astype(weights["q"].dtype)


def layer(weights, x):
    """(batch, seqlen, dim) to itself, causal."""
    q, k, v = ((x @ weights[name]).reshape(*x.shape[:-1], -1, DIM // HEADS) for name in "qkv")
    return fattn.jax.attention(q, k, v, causal=True).reshape(x.shape)


@jax.jit
def step(weights):
    def loss(weights):
        error = layer(weights, x) - jnp.roll(x, 1, axis=1)  # what stood one position before
        return jnp.mean(jnp.square(error).astype(jnp.float32))

    value, grads = jax.value_and_grad(loss)(weights)
    return value, jax.tree.map(lambda w, g: w - 6 * g, weights, grads)


losses = []
for _ in range(20):
    value, weights = step(weights)
    losses.append(float(value))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
assert losses[-1] < 0.9 * losses[0]

# One problem for each element of a map, or for each device of a mesh: the same numbers.
q, k, v = (jax.random.normal(key, (2, 64, heads, 32)).astype(x.dtype) for key, heads in zip(keys, (HEADS, HEADS_KV, HEADS_KV)))
whole = fattn.jax.attention(q, k, v, causal=True)
mapped = jax.vmap(lambda q, k, v: fattn.jax.attention(q[None], k[None], v[None], causal=True)[0])(q, k, v)
devices = np.array(jax.devices()[: 2 if jax.device_count() > 1 else 1])
heads = PartitionSpec(None, None, "heads")
sharded = jax.shard_map(lambda q, k, v: fattn.jax.attention(q, k, v, causal=True), mesh=Mesh(devices, "heads"),
                        in_specs=(heads,) * 3, out_specs=heads)(q, k, v)
assert jnp.array_equal(mapped, whole) and jnp.array_equal(sharded, whole)
print(f"vmap, and shard_map over {len(devices)} devices: the same bits")
