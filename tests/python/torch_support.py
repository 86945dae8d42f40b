# SPDX-License-Identifier: Apache-2.0
import torch

# Largest difference against the largest value.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def random(*shapes, device="cpu", dtype=torch.float32, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [t.to(dtype).to(device).requires_grad_(grad) for t in tensors]


def qkv(batch, sq, sk, hq, hk, d, dv=None, **options):
    return random((batch, sq, hq, d), (batch, sk, hk, d), (batch, sk, hk, dv or d), **options)


def close(actual, expected, dtype=None):
    assert actual.shape == expected.shape
    tolerance = TOLERANCE[dtype or actual.dtype]
    actual, expected = actual.detach().double(), expected.detach().double()
    finite = torch.isfinite(expected)
    assert torch.equal(finite, torch.isfinite(actual))
    assert torch.equal(actual[~finite], expected[~finite])
    if not finite.any():
        return
    difference = (actual - expected)[finite].abs().max().item()
    assert difference <= tolerance * max(1.0, expected[finite].abs().max().item())
